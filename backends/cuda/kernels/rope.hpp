// Rotary positions. Float types are F32, BF16 and F16, each operand its own.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sluice::cuda {

// How positions turn pairs of elements. Positions beyond the table are computed in float64.
struct rope_view {
    const float* table = nullptr; // [positions, 2, dimension / 2]: cosines, then sines; scaled
    int64_t positions = 0;
    const double* frequencies = nullptr; // [dimension / 2], on the device
    double magnitude = 1;
    int32_t dimension = 0; // 0: nothing is turned
    bool interleaved = false;
    bool inverse = false;
};
// Writes the table of `rope`.
void launch_rope_table(const rope_view& rope, float* table, cudaStream_t stream);

struct rope_call {
    const void* x = nullptr; // [rows, heads, width]
    uint32_t x_type = 0;
    const int32_t* position = nullptr; // [rows]
    rope_view rope;
    void* y = nullptr; // [rows, heads, width]; may be x where the types agree
    uint32_t y_type = 0;
    int64_t rows = 0;
    int64_t heads = 0;
    int64_t width = 0;
};
void launch_rope(const rope_call& call, cudaStream_t stream);

} // namespace sluice::cuda
