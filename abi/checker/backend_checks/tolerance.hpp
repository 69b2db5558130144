// How far a backend may be from the reference.
#pragma once

#include "host_tensor.hpp"

#include <string>

namespace sluice::checker {

// |found - expected| <= absolute * size + relative * |expected|, where size is the root mean square
// of the place's row (along the last axis) or of the whole tensor, whichever is larger, and at
// least size_min.
struct tolerance {
    float absolute;
    float relative;
    float size_min = 0;
};

// Of an operation (SLUICE_OP_*) in a program whose activations have the type, for an output of
// another type or the same. activation_bits: what the backend claims it with (sluice_claim).
tolerance tolerance_of(uint32_t kind, sluice_element_type activations, sluice_element_type output,
                       uint32_t activation_bits = 0);

// Throws check_failure naming the place where two tensors differ most, if by too much. Whole
// numbers and truth values must be equal; what is not finite must be the same.
void compare(const std::string& label, const host_tensor& expected, const host_tensor& found,
             const tolerance& allowed);

} // namespace sluice::checker
