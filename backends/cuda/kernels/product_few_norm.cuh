// The rms_norm in front of a product for few rows, done again by each block while its weights are
// on the way.
#pragma once

#include "product_few.hpp"
#include "product_few_unit.cuh"
#include "vectors.cuh"

namespace sluice::cuda {

// Eight neighbouring elements as they lie in memory; of half types `high` is nothing.
struct eight_elements {
    uint4 low;
    uint4 high;
};
__device__ __forceinline__ eight_elements load_eight(const void* data, uint32_t type, int64_t at) {
    const bool is_wide = type == SLUICE_F32;
    const char* from = static_cast<const char*>(data) + at * (is_wide ? 4 : 2);
    eight_elements to;
    to.low = load_now(from);
    to.high = to.low;
    if (is_wide) to.high = load_now(from + 16);
    return to;
}
__device__ __forceinline__ void widen_eight(float (&to)[8], const eight_elements& from,
                                            uint32_t type) {
    const uint32_t words[8] = {from.low.x,  from.low.y,  from.low.z,  from.low.w,
                               from.high.x, from.high.y, from.high.z, from.high.w};
    if (type == SLUICE_F32) {
#pragma unroll
        for (int i = 0; i < 8; ++i) to[i] = __uint_as_float(words[i]);
    } else if (type == SLUICE_BF16) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            to[2 * i] = __uint_as_float(words[i] << 16);
            to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
            to[2 * i] = pair.x;
            to[2 * i + 1] = pair.y;
        }
    }
}

// Eight columns of residual + addend, rounded to the type of the sum where that is written. Both
// are asked for before either is there.
__device__ __forceinline__ void load_normed_input(float (&u)[8], const few_norm& norm, int64_t at) {
    const eight_elements residual = load_eight(norm.residual, norm.residual_type, at);
    eight_elements addend{};
    if (norm.addend != nullptr) addend = load_eight(norm.addend, norm.addend_type, at);
    widen_eight(u, residual, norm.residual_type);
    if (norm.addend != nullptr) {
        float more[8];
        widen_eight(more, addend, norm.addend_type);
#pragma unroll
        for (int i = 0; i < 8; ++i) u[i] += more[i];
    }
    if (norm.sum == nullptr || norm.sum_type == SLUICE_F32) return;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        u[i] = norm.sum_type == SLUICE_BF16 ? to_float(from_float<__nv_bfloat16>(u[i]))
                                            : to_float(from_float<__half>(u[i]));
}

// Eight columns of the normed rows from those of their input, in the type of x.
template <typename Half>
__device__ __forceinline__ uint4 normed_eight(const few_norm& norm, const float (&u)[8],
                                              float share, const eight_elements& norm_weight) {
    float weight[8];
    widen_eight(weight, norm_weight, SLUICE_F32);
    uint4 packed;
    auto* halves = reinterpret_cast<Half*>(&packed);
#pragma unroll
    for (int i = 0; i < 8; ++i)
        halves[i] = from_float<Half>(u[i] * share * (weight[i] + norm.weight_offset));
    return packed;
}

// Writes the results that others want.
__device__ __forceinline__ void write_normed(const few_norm& norm, const float (&u)[8],
                                             const uint4& packed, int64_t at) {
    if (norm.normed != nullptr)
        *reinterpret_cast<uint4*>(static_cast<uint16_t*>(norm.normed) + at) = packed;
    if (norm.sum != nullptr) store_floats(norm.sum, norm.sum_type, at, u);
}

// Puts a warp's units of the normed rows into its area. `squares`: [warps, 8], shared by the block,
// all of whose threads come here. One block writes the results that others want.
template <typename Half>
__device__ __forceinline__ void norm_rows(const few_norm& norm, char* area, int pitch,
                                          float* squares, int64_t columns, int unit_begin,
                                          int unit_end, int rows, bool writes) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int vectors = (unit_end - unit_begin) * 8;
    const int64_t first = static_cast<int64_t>(unit_begin) * 64;
    const auto weight_at = [&](int v) {
        return load_eight(norm.weight, SLUICE_F32, first + v * 8);
    };
    eight_elements own_weight{}; // of vector `lane`, on its way with the rows
    if (lane < vectors) own_weight = weight_at(lane);
    float own[8]; // of vector `lane` of the last row
    for (int n = 0; n < rows; ++n) {
        float square = 0.0f;
        for (int v = lane; v < vectors; v += 32) {
            float u[8];
            load_normed_input(u, norm, n * columns + first + v * 8);
#pragma unroll
            for (int i = 0; i < 8; ++i) square += u[i] * u[i];
            if (v != lane) continue;
#pragma unroll
            for (int i = 0; i < 8; ++i) own[i] = u[i];
        }
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            square += __shfl_xor_sync(0xffffffffu, square, step);
        if (lane == 0) squares[warp * 8 + n] = square;
    }
    __syncthreads();
    for (int n = 0; n < rows; ++n) {
        float square = lane < warps ? squares[lane * 8 + n] : 0.0f;
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            square += __shfl_xor_sync(0xffffffffu, square, step);
        const float share = 1.0f / sqrtf(square / static_cast<float>(columns) + norm.epsilon);
        for (int v = lane; v < vectors; v += 32) {
            const int64_t column = first + v * 8, at = n * columns + column;
            float u[8];
            if (v == lane && n == rows - 1) {
#pragma unroll
                for (int i = 0; i < 8; ++i) u[i] = own[i];
            } else {
                load_normed_input(u, norm, at);
            }
            const uint4 packed =
                normed_eight<Half>(norm, u, share, v == lane ? own_weight : weight_at(v));
            *reinterpret_cast<uint4*>(area + n * pitch + v * 16) = packed;
            if (writes) write_normed(norm, u, packed, at);
        }
    }
    __syncwarp();
}

} // namespace sluice::cuda
