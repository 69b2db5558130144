// What is known of each kind of operation: its name, operand counts and attribute struct.
#pragma once

#include "program/program.hpp"

#include <span>

namespace sluice {

struct operation_description {
    uint32_t kind;
    std::string_view name; // "rms_norm"
    bool composite;
    uint32_t input_count_min;
    uint32_t input_count_max;
    uint32_t output_count_min;
    uint32_t output_count_max;
    std::span<const std::string_view> inputs; // their names, for messages
    operation_attributes attributes;          // defaults, of the kind's type
    bool attributes_needed;                   // NULL attributes would not be a meaningful default
};

// nullptr for a number that is no operation.
const operation_description* find_operation(uint32_t kind);
std::string operation_name(uint32_t kind); // "operation 99" for an unknown one
bool is_composite(uint32_t kind);
// Whether a router's host function answers the operation: no backend can run or expand it.
inline bool is_host_function(const program_operation& operation) {
    return (operation.flags & SLUICE_OPERATION_HOST_FUNCTION) != 0;
}

} // namespace sluice
