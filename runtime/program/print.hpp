// The text form of a program: one line an operation, in single-assignment form.
//   %layers.0.q = linear(%layers.0.input_norm, @model.layers.0.self_attn.q_proj.weight) : f32[T,
//   128]
// Inputs are $position, weights @name, states !layers.0.cache; attributes follow in braces where
// they are not the default, and a placement other than 0 as "at 1" in the end.
#pragma once

#include "program/program.hpp"

#include <string>

namespace sluice {

struct print_options {
    bool declarations = true; // inputs, weights and states before the operations
    // Layers that repeat (names "layers.N.*" with the same operations but for N) are printed once
    // and named as a range.
    bool fold_layers = false;
    // Text put after an operation's line, such as the kernel chosen; may be empty.
    std::function<std::string(uint32_t operation)> remark;
};

std::string print_program(const program& printed, const print_options& options = {});
std::string print_operation(const program& printed, uint32_t operation);
std::string print_value_type(const program_value& value); // "f32[T, 128]"

} // namespace sluice
