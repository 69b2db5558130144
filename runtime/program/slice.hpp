// Cutting programs: any values in, any values out.
#pragma once

#include "program/program.hpp"

#include <span>
#include <string>

namespace sluice {

// The smaller program that computes the values named in `outputs`. Values named in `cuts` become
// inputs of kind CUSTOM under their names, and what led to them goes. Operations that nothing
// wanted depends on are dropped, except that writes to a cache stay when a kept operation reads a
// state that follows them. Values are renumbered; names stay. Fails for unknown names with the
// nearest ones.
program slice_program(const program& source, std::span<const std::string> outputs,
                      std::span<const std::string> cuts = {});

// The program with further outputs.
program tap_program(const program& source, std::span<const std::string> values);

} // namespace sluice
