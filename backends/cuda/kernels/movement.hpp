// Kernels that move elements of 1, 2 or 4 bytes, and change their types.
#pragma once

#include "shape.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

// y[m] = x[rows[m]]; a row outside of x gives zeros.
struct gather_rows_call {
    sized_view x;                  // [R, ...]
    const int32_t* rows = nullptr; // [count]
    int64_t count = 0;
    int64_t row_elements_bound = 0; // of a row at the bucket's sizes
    void* y = nullptr;              // [count, ...]
    const int32_t* present = nullptr;
};
void launch_gather_rows(const gather_rows_call& call, cudaStream_t stream);

// y[..., m] = x[..., index[..., m]]; leading axes broadcast; an index outside gives zero.
struct gather_call {
    sized_view x;
    sized_view index;
    sized_view y;
    int64_t count_bound = 0; // elements of y at the bucket's sizes
    const int32_t* present = nullptr;
};
void launch_gather(const gather_call& call, cudaStream_t stream);

// y = base with x[m] added to row rows[m], in rising m; rows outside are skipped. y may be base.
struct scatter_add_call {
    sized_view base;               // f32 [R, ...]
    const int32_t* rows = nullptr; // [M]
    sized_axis row_count;          // M
    sized_view x;                  // [M, ...]
    float* y = nullptr;            // [R, ...]
    int64_t rows_bound = 0;        // R and elements of a row at the bucket's sizes
    int64_t row_elements_bound = 0;
    const int32_t* present = nullptr;
};
void launch_scatter_add(const scatter_add_call& call, cudaStream_t stream);

// Elements to other places: transpose, slice and concat. Walks over y, or over x where `over_x`.
struct rearrange_call {
    sized_view x;
    sized_view y;
    bool over_x = false;
    // Axis i of the walked tensor is axis order[i] of the other, begins there at `begin` where i is
    // `axis`, and at 0 elsewhere.
    int32_t order[SLUICE_RANK_MAX] = {0, 1, 2, 3, 4, 5};
    int32_t axis = 0;
    sized_axis begin = {0, 0, 0};
    int64_t count_bound = 0; // elements of the walked tensor at the bucket's sizes
    const int32_t* present = nullptr;
};
void launch_rearrange(const rearrange_call& call, cudaStream_t stream);

// y = x in the type of y, element by element in memory.
void launch_cast(const void* x, uint32_t x_type, void* y, uint32_t y_type, int64_t count,
                 cudaStream_t stream);

// x = the real values of W, [matrices, rows, columns].
void launch_dequantize(const weight_view& weight, void* x, uint32_t x_type, cudaStream_t stream);

} // namespace sluice::cuda
