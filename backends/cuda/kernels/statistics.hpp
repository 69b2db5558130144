// Sums over rows of activations, for calibration.
#pragma once

#include "shape.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

// Outputs may be the memory of the operands that they continue.
struct accumulate_call {
    const void* x = nullptr; // [rows, width]
    uint32_t x_type = 0;
    sized_axis rows;
    const int32_t* present = nullptr;
    int64_t width = 0;
    const int32_t* index = nullptr; // [rows, choices]: rows count that name `expert`; NULL: all
    int64_t choices = 0;
    uint32_t expert = 0;
    const float* total = nullptr;       // [width, width], or [width]
    const float* rows_before = nullptr; // [1]
    float* total_after = nullptr;
    float* rows_after = nullptr;
};
// total + x^T x
void launch_accumulate_gram(const accumulate_call& call, cudaStream_t stream);
// max(total, |x|)
void launch_accumulate_abs_max(const accumulate_call& call, cudaStream_t stream);

} // namespace sluice::cuda
