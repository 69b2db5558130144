// The lists of checks, by what they look at.
#pragma once

#include "context.hpp"
#include "report.hpp"

#include <vector>

namespace sluice::checker {

// Of every plugin, whatever its kind.
std::vector<check> library_checks();

std::vector<check> router_checks();
std::vector<check> quantizer_checks();
std::vector<check> result_cache_checks();
std::vector<check> block_store_checks();
std::vector<check> backend_checks();

// Those of one kind; empty for a kind that has none of its own.
std::vector<check> checks_of_kind(std::string_view kind);

} // namespace sluice::checker
