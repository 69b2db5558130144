// Results straight from the formulas of abi/operations.h, for the operations where these are short:
// the reference is checked by them as well.
#pragma once

#include "runner.hpp"

#include <optional>

namespace sluice::checker {

// The outputs of a case that is one operation, or nothing for an operation that is not covered.
// Rows of padding are not among them.
std::optional<step_outputs> direct_outputs(const operation_case& given, const batch_step& step);

} // namespace sluice::checker
