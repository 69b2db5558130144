// Element by element; operands broadcast as in NumPy.
#pragma once

#include "shape.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

struct unary_call {
    const void* x = nullptr; // [count]
    void* y = nullptr;       // [count], of the type of x
    uint32_t type = 0;
    int64_t count = 0;
    uint32_t function = 0; // SLUICE_UNARY_*
    float a = 0;
    float b = 0;
};
void launch_unary(const unary_call& call, cudaStream_t stream);

struct binary_call {
    sized_view x;
    sized_view y;
    sized_view z;
    bool is_flat = false;    // the three have one shape
    int64_t count_bound = 0; // elements of z at the bucket's sizes
    uint32_t function = 0;   // SLUICE_BINARY_*
    const int32_t* present = nullptr;
};
void launch_binary(const binary_call& call, cudaStream_t stream);

struct select_call {
    sized_view condition;
    sized_view x;
    sized_view y;
    sized_view z;
    int64_t count_bound = 0; // elements of z at the bucket's sizes
    const int32_t* present = nullptr;
};
void launch_select(const select_call& call, cudaStream_t stream);

void launch_fill(void* y, uint32_t type, int64_t count, float value, cudaStream_t stream);

// y[..., n] = n
void launch_iota(int32_t* y, int64_t count_bound, sized_axis width, const int32_t* present,
                 cudaStream_t stream);

} // namespace sluice::cuda
