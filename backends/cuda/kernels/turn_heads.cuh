// Heads of a half type that are turned as a whole, element d with d + width / 2. A lane has eight
// neighbouring elements of each half, width / 16 lanes a head.
#pragma once

#include "attention_input.hpp"
#include "rope.cuh"
#include "vectors.cuh"

namespace sluice::cuda {

// A lane's eight elements of both halves of a head, as they lie in memory.
struct head_halves {
    uint4 low;
    uint4 high;
};

namespace turning {

__device__ __forceinline__ void widen_eight(const uint4& from, uint32_t type, float (&to)[8]) {
    const uint32_t words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = vectors::widen(words[i], type == SLUICE_BF16);
        to[2 * i] = pair.x;
        to[2 * i + 1] = pair.y;
    }
}

__device__ __forceinline__ void scale_by_weight(const head_norm& norm, float factor, int d,
                                                float (&values)[8]) {
    float weight[8];
    load_floats(norm.weight, norm.weight_type, d, weight);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] *= factor * (weight[i] + norm.weight_offset);
}

} // namespace turning

// u and v: elements `pair` to `pair` + 7 of the halves, normed and turned. By whole warps.
__device__ __forceinline__ void turn_head(const head_norm& norm, uint32_t type,
                                          const head_halves& from, int width, int pair,
                                          const float (&cosine)[8], const float (&sine)[8],
                                          float (&u)[8], float (&v)[8]) {
    turning::widen_eight(from.low, type, u);
    turning::widen_eight(from.high, type, v);
    if (norm.weight != nullptr) {
        float squares = squares_of(u) + squares_of(v);
        for (int distance = width / 32; distance > 0; distance /= 2)
            squares += __shfl_xor_sync(0xffffffffu, squares, distance);
        const float factor = 1.0f / sqrtf(squares / static_cast<float>(width) + norm.epsilon);
        turning::scale_by_weight(norm, factor, pair, u);
        turning::scale_by_weight(norm, factor, width / 2 + pair, v);
    }
    turn(u, v, cosine, sine);
}

} // namespace sluice::cuda
