// The rules that operations and values of a program keep: types, shapes, attributes.
#pragma once

#include "program/operation_table.hpp"
#include "program/program.hpp"

namespace sluice {

// Sizes no program has any business exceeding; they keep hostile ones from costing memory.
struct program_limits {
    static constexpr size_t values = size_t(1) << 22;
    static constexpr size_t operations = size_t(1) << 20;
    static constexpr size_t states = 4096;
    static constexpr size_t operands = 4096;
    static constexpr size_t name_bytes = 1024;
    static constexpr int64_t dimension = int64_t(1) << 40;
    static constexpr uint32_t groups = 64;
};

bool is_float(sluice_element_type type); // what operations.h calls f: f32, f16, bf16

// Fail with SLUICE_INVALID, or SLUICE_UNSUPPORTED for enumerators this runtime does not know.
void check_value(const program_contents& contents, value_number number);
void check_state(const program_contents& contents, uint32_t number);
void check_operation(const program_contents& contents, const program_operation& operation,
                     const std::string& label);

// `operation 12 "layers.3.attention" (attention)`: how messages name an operation.
std::string operation_label(size_t number, const program_operation& operation);

// SLUICE_ROLE_* that operand `index` of such an operation gives a weight; 0: takes no weight.
uint32_t weight_role_of_operand(uint32_t kind, size_t index);

} // namespace sluice
