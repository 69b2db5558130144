// Along the last axis, and plain products of tensors. Rows lie one after another at the width that
// they have in the planned step.
#pragma once

#include "shape.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

struct axis_call {
    const void* x = nullptr; // [rows, width]
    uint32_t x_type = 0;
    void* y = nullptr;
    uint32_t y_type = 0;
    int64_t rows = 0;
    sized_axis width;
    int64_t width_bound = 0; // at the bucket's sizes
    const int32_t* present = nullptr;
};

// y = exp(x - max) / sum; a row that is all minus infinity gives zeros. y may be x where the types
// agree.
void launch_softmax(const axis_call& call, cudaStream_t stream);

// [rows]; `function` is a SLUICE_REDUCE_*
void launch_reduce(const axis_call& call, uint32_t function, cudaStream_t stream);

// y and index [rows, wanted]: the largest in falling order, ties to the lower index; NaN counts as
// minus infinity. Where a row is shorter, minus infinity with index -1 follows. NULL: not wanted.
void launch_topk(const axis_call& call, int32_t* index, int64_t wanted, cudaStream_t stream);

// Of f32 or i32.
void launch_cumsum(const axis_call& call, cudaStream_t stream);

// z = x y for matrices of float types; leading axes broadcast.
struct matmul_call {
    sized_view x;            // [..., M, K]
    sized_view y;            // [..., K, N]
    sized_view z;            // [..., M, N]
    int64_t count_bound = 0; // elements of z at the bucket's sizes
    const int32_t* present = nullptr;
};
void launch_matmul(const matmul_call& call, cudaStream_t stream);

} // namespace sluice::cuda
