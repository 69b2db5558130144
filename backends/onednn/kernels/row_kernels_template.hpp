// The row kernels, written as plain loops that the compiler turns into vectors of the flags of the
// file that includes this. All in an unnamed namespace: see tile_template.hpp for why.
#pragma once

#include "row_kernels.hpp"

#include <cmath>
#include <cstring>
#include <limits>

namespace sluice::kernels {
namespace {

constexpr int lanes = 16;

inline float float_of(uint16_t bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value = 0;
    __builtin_memcpy(&value, &wide, sizeof value);
    return value;
}

inline uint16_t bfloat16_of(float value) {
    uint32_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return static_cast<uint16_t>(is_nan ? (bits >> 16 | 0x40u) : rounded);
}

// exp by powers of two and a polynomial of degree 6 on [-ln2/2, ln2/2]; relative error under 2e-7
// (Cephes, expf). Clipped to [-87.3, 88]: no infinity and no subnormal comes out. Adding and taking
// away 1.5 * 2^23 rounds to the nearest whole number without a branch.
inline float exp_of(float x) {
    constexpr float rounder = 12582912.0f;
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.0f ? 88.0f : x;
    const float whole = (x * 1.44269504088896341f + rounder) - rounder;
    const float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int bits = (static_cast<int>(whole) + 127) << 23;
    float power = 0;
    __builtin_memcpy(&power, &bits, sizeof power);
    return p * power;
}

inline float sum_of_lanes(const float (&sums)[lanes]) {
    float folded[lanes];
    for (int i = 0; i < lanes; ++i) folded[i] = sums[i];
    for (int width = lanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) folded[i] += folded[i + width];
    return folded[0];
}

inline float dot(const float* a, const float* b, int64_t count) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
    for (int lane = 0; i < count; ++i, ++lane) sums[lane] += a[i] * b[i];
    return sum_of_lanes(sums);
}

void rms_norm(const float* u, const float* w, float offset, float epsilon, int64_t count,
              float* y) {
    const float mean = dot(u, u, count) / static_cast<float>(count);
    const float factor = 1.0f / std::sqrt(mean + epsilon);
    for (int64_t i = 0; i < count; ++i) y[i] = u[i] * factor * (w[i] + offset);
}

void silu_multiply(const float* gate, const float* up, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1.0f + exp_of(-gate[i])) * up[i];
}

float exp_in_place(float* row, float maximum, int64_t count) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) {
            row[i + lane] = exp_of(row[i + lane] - maximum);
            sums[lane] += row[i + lane];
        }
    for (int lane = 0; i < count; ++i, ++lane) {
        row[i] = exp_of(row[i] - maximum);
        sums[lane] += row[i];
    }
    return sum_of_lanes(sums);
}

float maximum(const float* row, int64_t count) {
    float best[lanes];
    for (float& b : best) b = -std::numeric_limits<float>::infinity();
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes)
        for (int lane = 0; lane < lanes; ++lane)
            best[lane] = row[i + lane] > best[lane] ? row[i + lane] : best[lane];
    for (int lane = 0; i < count; ++i, ++lane)
        best[lane] = row[i] > best[lane] ? row[i] : best[lane];
    float result = best[0];
    for (const float b : best) result = b > result ? b : result;
    return result;
}

void add_scaled(float factor, const float* x, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) y[i] += factor * x[i];
}

void scale(float factor, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) y[i] *= factor;
}

void add(const float* x, const float* y, int64_t count, float* z) {
    for (int64_t i = 0; i < count; ++i) z[i] = x[i] + y[i];
}

void widen(const uint16_t* x, int64_t count, float* y) {
    for (int64_t i = 0; i < count; ++i) y[i] = float_of(x[i]);
}

void narrow(const float* x, int64_t count, uint16_t* y) {
    for (int64_t i = 0; i < count; ++i) y[i] = bfloat16_of(x[i]);
}

void rope_halves(const float* x, const float* cosine, const float* sine, int64_t half, float* y) {
    for (int64_t i = 0; i < half; ++i) {
        const float u = x[i];
        const float v = x[i + half];
        y[i] = u * cosine[i] - v * sine[i];
        y[i + half] = v * cosine[i] + u * sine[i];
    }
}

void rope_interleaved(const float* x, const float* cosine, const float* sine, int64_t half,
                      float* y) {
    for (int64_t i = 0; i < half; ++i) {
        const float u = x[2 * i];
        const float v = x[2 * i + 1];
        y[2 * i] = u * cosine[i] - v * sine[i];
        y[2 * i + 1] = v * cosine[i] + u * sine[i];
    }
}

typedef float gram_lanes __attribute__((vector_size(64), aligned(4)));

void add_gram(const float* x, int64_t stride, int64_t row_count, int64_t i, int64_t j,
              int64_t columns, float* sum, int64_t sum_stride) {
    if (columns < gram_columns) {
        for (int64_t a = 0; a < gram_rows; ++a)
            for (int64_t b = 0; b < columns; ++b) {
                float total = sum[a * sum_stride + b];
                for (int64_t r = 0; r < row_count; ++r)
                    total += x[r * stride + i + a] * x[r * stride + j + b];
                sum[a * sum_stride + b] = total;
            }
        return;
    }
    gram_lanes total[gram_rows][2];
    for (int64_t a = 0; a < gram_rows; ++a)
        for (int64_t half = 0; half < 2; ++half)
            __builtin_memcpy(&total[a][half], sum + a * sum_stride + half * lanes,
                             sizeof(gram_lanes));
    for (int64_t r = 0; r < row_count; ++r) {
        const float* row = x + r * stride;
        gram_lanes right[2];
        __builtin_memcpy(&right[0], row + j, sizeof(gram_lanes));
        __builtin_memcpy(&right[1], row + j + lanes, sizeof(gram_lanes));
#pragma GCC unroll 4
        for (int64_t a = 0; a < gram_rows; ++a) {
            total[a][0] += row[i + a] * right[0];
            total[a][1] += row[i + a] * right[1];
        }
    }
    for (int64_t a = 0; a < gram_rows; ++a)
        for (int64_t half = 0; half < 2; ++half)
            __builtin_memcpy(sum + a * sum_stride + half * lanes, &total[a][half],
                             sizeof(gram_lanes));
}

constexpr row_kernels all_row_kernels = {
    rms_norm, silu_multiply, exp_in_place, maximum,     add_scaled,       scale,
    add,      widen,         narrow,       rope_halves, rope_interleaved, add_gram};

} // namespace
} // namespace sluice::kernels
