// Kernels over single rows of float32: norms, activations, softmax, sums, conversions.
// Compiled once for each instruction set from row_kernels_template.hpp; sums are kept in sixteen
// lanes and added in a fixed order.
#pragma once

#include "cpu_features.hpp"

#include <cstdint>

namespace sluice::kernels {

struct row_kernels {
    // y = u / sqrt(mean(u^2) + epsilon) * (w + offset); u, w, y [count], y may be u.
    void (*rms_norm)(const float* u, const float* w, float offset, float epsilon, int64_t count,
                     float* y);
    // y = silu(gate) * up; all [count].
    void (*silu_multiply)(const float* gate, const float* up, int64_t count, float* y);
    // row = exp(row - maximum); returns the sum. [count]
    float (*exp_in_place)(float* row, float maximum, int64_t count);
    float (*maximum)(const float* row, int64_t count);
    // y += factor * x; [count].
    void (*add_scaled)(float factor, const float* x, int64_t count, float* y);
    void (*scale)(float factor, int64_t count, float* y);
    // z = x + y; [count].
    void (*add)(const float* x, const float* y, int64_t count, float* z);
    void (*widen)(const uint16_t* x, int64_t count, float* y);
    void (*narrow)(const float* x, int64_t count, uint16_t* y);
    // Turns pairs (abi/operations.h, rope); cosine, sine [half]. halves: x[i] with x[i + half];
    // interleaved: x[2i] with x[2i + 1]. x, y [2 * half].
    void (*rope_halves)(const float* x, const float* cosine, const float* sine, int64_t half,
                        float* y);
    void (*rope_interleaved)(const float* x, const float* cosine, const float* sine, int64_t half,
                             float* y);
    // sum[a, b] += sum over r of x[r, i + a] * x[r, j + b], for gram_rows rows and `columns` (at
    // most gram_columns) columns of the sum; x [row_count, stride], sum's rows sum_stride apart.
    void (*add_gram)(const float* x, int64_t stride, int64_t row_count, int64_t i, int64_t j,
                     int64_t columns, float* sum, int64_t sum_stride);
};

inline constexpr int64_t gram_rows = 4;
inline constexpr int64_t gram_columns = 32;

// The kernels of the highest set that is not above `set` and that this build has.
const row_kernels& row_kernels_of(instruction_set set);

} // namespace sluice::kernels
