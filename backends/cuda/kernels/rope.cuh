// Rotary positions: pairs of elements and how they are turned.
#pragma once

#include "rope.hpp"
#include "vectors.cuh"

namespace sluice::cuda {

// Cosine and sine, scaled. Apart, so that the rare long way does not take registers from the usual
// one.
inline __device__ __noinline__ float2 compute_turn(double angle, double magnitude) {
    double sine, cosine;
    sincos(angle, &sine, &cosine);
    return make_float2(static_cast<float>(cosine * magnitude),
                       static_cast<float>(sine * magnitude));
}

// Cosines and sines of `Count` pairs from `pair` on. A negative position turns the other way.
template <int Count>
__device__ __forceinline__ void load_turn(const rope_view& rope, int64_t position, int64_t pair,
                                          float (&cosine)[Count], float (&sine)[Count]) {
    const int64_t half = rope.dimension / 2;
    const bool back = (position < 0) != rope.inverse;
    const int64_t distance = position < 0 ? -position : position;
    if (distance < rope.positions) {
        const float* row = rope.table + distance * 2 * half;
        load_floats(row, SLUICE_F32, pair, cosine);
        load_floats(row, SLUICE_F32, half + pair, sine);
    } else {
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            const float2 found = compute_turn(
                static_cast<double>(distance) * rope.frequencies[pair + i], rope.magnitude);
            cosine[i] = found.x;
            sine[i] = found.y;
        }
    }
#pragma unroll
    for (int i = 0; i < Count; ++i) sine[i] = back ? -sine[i] : sine[i];
}

template <int Vector>
__device__ __forceinline__ void turn(float (&u)[Vector], float (&v)[Vector],
                                     const float (&cosine)[Vector], const float (&sine)[Vector]) {
#pragma unroll
    for (int i = 0; i < Vector; ++i) {
        const float turned = u[i] * cosine[i] - v[i] * sine[i];
        v[i] = v[i] * cosine[i] + u[i] * sine[i];
        u[i] = turned;
    }
}

} // namespace sluice::cuda
