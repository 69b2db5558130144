// The rms_norm in front of a product for few rows, done again by each block while its weights are
// on the way.
#pragma once

#include "product_few.hpp"
#include "product_few_unit.cuh"

namespace sluice::cuda {

__device__ __forceinline__ void load_eight(float (&to)[8], const void* data, uint32_t type,
                                           int64_t at) {
    if (type == SLUICE_F32) {
        const auto* from = reinterpret_cast<const float4*>(static_cast<const float*>(data) + at);
        const float4 low = from[0], high = from[1];
        to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
        to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
        return;
    }
    const uint4 bits = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(data) + at);
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (type == SLUICE_BF16) {
            to[2 * i] = __uint_as_float(words[i] << 16);
            to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
        } else {
            const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
            to[2 * i] = pair.x;
            to[2 * i + 1] = pair.y;
        }
    }
}

// Eight columns of residual + addend, rounded to the type of the sum where that is written.
__device__ __forceinline__ void load_normed_input(float (&u)[8], const few_norm& norm, int64_t at) {
    load_eight(u, norm.residual, norm.residual_type, at);
    if (norm.addend != nullptr) {
        float more[8];
        load_eight(more, norm.addend, norm.addend_type, at);
#pragma unroll
        for (int i = 0; i < 8; ++i) u[i] += more[i];
    }
    if (norm.sum == nullptr || norm.sum_type == SLUICE_F32) return;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        u[i] = norm.sum_type == SLUICE_BF16 ? to_float(from_float<__nv_bfloat16>(u[i]))
                                            : to_float(from_float<__half>(u[i]));
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
    for (int n = 0; n < rows; ++n) {
        float square = 0.0f;
        for (int v = lane; v < vectors; v += 32) {
            float u[8];
            load_normed_input(u, norm, n * columns + first + v * 8);
#pragma unroll
            for (int i = 0; i < 8; ++i) square += u[i] * u[i];
        }
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            square += __shfl_xor_sync(0xffffffffu, square, step);
        if (lane == 0) squares[warp * 8 + n] = square;
    }
    __syncthreads();
    for (int n = 0; n < rows; ++n) {
        float square = 0.0f;
#pragma unroll 4
        for (int w = 0; w < warps; ++w) square += squares[w * 8 + n];
        const float share = 1.0f / sqrtf(square / static_cast<float>(columns) + norm.epsilon);
        for (int v = lane; v < vectors; v += 32) {
            const int64_t column = first + v * 8, at = n * columns + column;
            float u[8], weight[8];
            load_normed_input(u, norm, at);
            load_eight(weight, norm.weight, SLUICE_F32, column);
            uint4 packed;
            auto* halves = reinterpret_cast<Half*>(&packed);
#pragma unroll
            for (int i = 0; i < 8; ++i)
                halves[i] = from_float<Half>(u[i] * share * (weight[i] + norm.weight_offset));
            *reinterpret_cast<uint4*>(area + n * pitch + v * 16) = packed;
            if (!writes) continue;
            if (norm.normed != nullptr)
                *reinterpret_cast<uint4*>(static_cast<uint16_t*>(norm.normed) + at) = packed;
            if (norm.sum != nullptr)
#pragma unroll
                for (int i = 0; i < 8; ++i) store_from_float(norm.sum, norm.sum_type, at + i, u[i]);
        }
    }
    __syncwarp();
}

} // namespace sluice::cuda
