// What has to be copied from backend to backend in each step.
#pragma once

#include "program/partition.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

// One copy of a value to the backend of other segments than the one that writes it.
struct value_crossing {
    value_number value = value_none; // in the whole program
    uint32_t from = 0;               // placement numbers
    uint32_t to = 0;
    uint32_t writer = 0;       // segment
    uint32_t first_reader = 0; // first segment of placement `to` that reads it
};

// In the order in which they are made. Fails with SLUICE_UNSUPPORTED for a value whose size changes
// along another axis than the first: backends may pad such a one differently.
std::vector<value_crossing> crossings_of(const program& whole, const program_partition& partition);

// Bytes of the value for each unit of its leading extent, or as a whole where it has none.
uint64_t bytes_per_unit(const program_value& value);
// "token", "sequence", "logit row", "block column", or "step".
std::string unit_name(const program_value& value);
// Bytes of the rows that are valid under the extents.
uint64_t valid_bytes(const program_value& value, const extent_sizes& extents);

} // namespace sluice
