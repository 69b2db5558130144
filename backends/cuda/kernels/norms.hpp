// Norms of rows. Float types are F32, BF16 and F16, each operand its own.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sluice::cuda {

// u = x + addend; y = u / sqrt(mean(u^2) + epsilon) * (weight + weight_offset) over each run of
// `group` elements.
struct rms_norm_call {
    const void* x = nullptr; // [rows, width], or [source_rows, width]
    uint32_t x_type = 0;
    const void* addend = nullptr; // likewise; NULL: none
    uint32_t addend_type = 0;
    // Row r reads row source_row[r] of x and addend; one outside of 0 .. source_rows - 1 reads as
    // zeros. NULL: row r.
    const int32_t* source_row = nullptr;
    int64_t source_rows = 0;
    void* sum = nullptr; // [rows, width]: u; or NULL
    // u is rounded to this type, also where `sum` is NULL; 0: not rounded. May be the memory of x
    // or of addend, where source_row is NULL.
    uint32_t sum_type = 0;
    const void* weight = nullptr; // [group]
    uint32_t weight_type = 0;
    void* y = nullptr; // [rows, width]
    uint32_t y_type = 0;
    int64_t rows = 0;
    int64_t width = 0;
    int64_t group = 0; // divides the width
    float epsilon = 0;
    float weight_offset = 0;
};
void launch_rms_norm(const rms_norm_call& call, cudaStream_t stream);

struct layer_norm_call {
    const void* x = nullptr; // [rows, width]
    uint32_t x_type = 0;
    const void* weight = nullptr; // [width]
    uint32_t weight_type = 0;
    const void* bias = nullptr; // [width], or NULL
    uint32_t bias_type = 0;
    void* y = nullptr; // [rows, width]
    uint32_t y_type = 0;
    int64_t rows = 0;
    int64_t width = 0;
    float epsilon = 0;
};
void launch_layer_norm(const layer_norm_call& call, cudaStream_t stream);

} // namespace sluice::cuda
