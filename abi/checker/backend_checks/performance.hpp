// How fast a backend runs the operations that matter.
#pragma once

#include "context.hpp"

namespace sluice::checker {

// Times a backend's operations over typical shapes; a table for people, or JSON.
std::string performance_report(context& with, bool json);

} // namespace sluice::checker
