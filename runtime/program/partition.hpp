// Cuts a program where operations of different placements meet.
#pragma once

#include "program/program.hpp"

#include <cstdint>
#include <vector>

namespace sluice {

// What one placement runs in one go.
struct program_segment {
    uint32_t placement = 0;
    // Its own program: values that come from another segment are inputs of kind CUSTOM, values that
    // another one reads are outputs; names stay. It lists all states of its placement, in their
    // order in the whole program, or none where it uses none: one cache serves all its segments.
    program part;
    std::vector<uint32_t> operations; // number in the whole program, by number in the part
    std::vector<value_number> values; // likewise
    // The part's number of a value of the whole program, or value_none.
    value_number find(value_number whole) const;
};

// A value that other segments read than the one that writes it.
struct passed_value {
    value_number value = value_none; // in the whole program
    uint32_t writer = 0;             // segment
    std::vector<uint32_t> readers;   // segments, rising
};

struct program_partition {
    std::vector<program_segment> segments; // in an order in which they can run
    std::vector<passed_value> passed;      // by rising value number
};

// Operations keep their order, except that those which do not depend on another placement's move
// before it, so that segments are few. A program of one placement is one segment and shared, not
// copied. Fails with SLUICE_INVALID for a state that operations of several placements use.
program_partition partition_program(const program& whole);

} // namespace sluice
