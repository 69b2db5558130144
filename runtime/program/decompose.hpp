// Expands composites into primitives.
#pragma once

#include "program/builder.hpp"
#include "program/program.hpp"

namespace sluice {

// Whether the operation of that number stays as it is. Asked of every composite but the routes of
// host functions, which always stay.
using operation_predicate = std::function<bool(uint32_t operation)>;

// The program with every composite that is not kept replaced by primitives at its placement. Values
// keep their numbers; the expansions' own values follow after them. Fails with SLUICE_UNSUPPORTED
// for a composite that primitives cannot say (a route that reroutes over capacity).
program decompose(const program& source, const operation_predicate& keep);

// All composites.
program decompose(const program& source);

// Whether one operation can be expanded; if not, why.
std::optional<std::string> why_not_decomposable(const program_operation& operation);

} // namespace sluice
