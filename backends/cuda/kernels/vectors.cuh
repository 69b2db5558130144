// Several neighbouring elements of a float type at once, as float32.
#pragma once

#include "elements.cuh"

namespace sluice::cuda {

namespace vectors {

__device__ __forceinline__ float2 widen(uint32_t word, bool is_bfloat16) {
    return is_bfloat16 ? __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(word))
                       : __half22float2(reinterpret_cast<const __half2&>(word));
}

__device__ __forceinline__ uint32_t narrow(float first, float second, bool is_bfloat16) {
    uint32_t word;
    if (is_bfloat16)
        reinterpret_cast<__nv_bfloat162&>(word) = __floats2bfloat162_rn(first, second);
    else
        reinterpret_cast<__half2&>(word) = __floats2half2_rn(first, second);
    return word;
}

} // namespace vectors

// Elements `index` to index + Count - 1 of a tensor of type F32, BF16 or F16 (with Count 1 of any
// type). With Count 4 or 8 their address is a multiple of the smaller of 16 bytes and their size.
template <int Count>
__device__ __forceinline__ void load_floats(const void* data, uint32_t type, int64_t index,
                                            float (&values)[Count]) {
    static_assert(Count == 1 || Count == 4 || Count == 8);
    if constexpr (Count == 1) {
        values[0] = load_as_float(data, type, index);
    } else if (type == SLUICE_F32) {
        const auto* from = reinterpret_cast<const float4*>(static_cast<const float*>(data) + index);
#pragma unroll
        for (int i = 0; i < Count / 4; ++i) {
            const float4 part = from[i];
            values[4 * i] = part.x;
            values[4 * i + 1] = part.y;
            values[4 * i + 2] = part.z;
            values[4 * i + 3] = part.w;
        }
    } else {
        uint32_t words[Count / 2];
        const auto* from = static_cast<const uint16_t*>(data) + index;
        if constexpr (Count == 8) {
            const uint4 part = *reinterpret_cast<const uint4*>(from);
            words[0] = part.x;
            words[1] = part.y;
            words[2] = part.z;
            words[3] = part.w;
        } else {
            const uint2 part = *reinterpret_cast<const uint2*>(from);
            words[0] = part.x;
            words[1] = part.y;
        }
#pragma unroll
        for (int i = 0; i < Count / 2; ++i) {
            const float2 pair = vectors::widen(words[i], type == SLUICE_BF16);
            values[2 * i] = pair.x;
            values[2 * i + 1] = pair.y;
        }
    }
}

// Neighbouring elements as they lie in memory, for those that are read once; see load_floats.
template <int Count, uint32_t type>
struct packed_floats {
    static constexpr int bytes = Count * (type == SLUICE_F32 ? 4 : 2);
    using word_type = std::conditional_t<bytes % 4 == 0, uint32_t, uint16_t>;
    static constexpr int words = bytes / static_cast<int>(sizeof(word_type));

    word_type word[words];

    __device__ __forceinline__ void load(const void* data, int64_t index) {
        const char* from = static_cast<const char*>(data) + index * (bytes / Count);
        if constexpr (bytes % 16 == 0) {
#pragma unroll
            for (int i = 0; i < words / 4; ++i) {
                const uint4 part = __ldcs(reinterpret_cast<const uint4*>(from) + i);
                word[4 * i] = part.x;
                word[4 * i + 1] = part.y;
                word[4 * i + 2] = part.z;
                word[4 * i + 3] = part.w;
            }
        } else {
            static_assert(words == 1);
            word[0] = *reinterpret_cast<const word_type*>(from);
        }
    }

    __device__ __forceinline__ float at(int i) const {
        if constexpr (type == SLUICE_F32) {
            return __uint_as_float(word[i]);
        } else {
            const uint32_t bits = sizeof(word_type) == 4 ? word[i / 2] >> i % 2 * 16 : word[i];
            if constexpr (type == SLUICE_BF16) return __uint_as_float(bits << 16);
            return __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
        }
    }
};

template <int Count>
__device__ __forceinline__ void store_floats(void* data, uint32_t type, int64_t index,
                                             const float (&values)[Count]) {
    static_assert(Count == 1 || Count == 4 || Count == 8);
    if constexpr (Count == 1) {
        store_from_float(data, type, index, values[0]);
    } else if (type == SLUICE_F32) {
        auto* to = reinterpret_cast<float4*>(static_cast<float*>(data) + index);
#pragma unroll
        for (int i = 0; i < Count / 4; ++i)
            to[i] =
                make_float4(values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]);
    } else {
        uint32_t words[Count / 2];
#pragma unroll
        for (int i = 0; i < Count / 2; ++i)
            words[i] = vectors::narrow(values[2 * i], values[2 * i + 1], type == SLUICE_BF16);
        auto* to = static_cast<uint16_t*>(data) + index;
        if constexpr (Count == 8)
            *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
        else
            *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
    }
}

// Vector neighbouring pairs (u, v) = (x[2i], x[2i + 1]).
template <int Vector>
__device__ __forceinline__ void load_pairs(const void* data, uint32_t type, int64_t index,
                                           float (&u)[Vector], float (&v)[Vector]) {
    float low[Vector], high[Vector];
    load_floats(data, type, index, low);
    load_floats(data, type, index + Vector, high);
#pragma unroll
    for (int i = 0; i < 2 * Vector; i += 2) {
        u[i / 2] = i < Vector ? low[i] : high[i - Vector];
        v[i / 2] = i + 1 < Vector ? low[i + 1] : high[i + 1 - Vector];
    }
}
template <int Vector>
__device__ __forceinline__ void store_pairs(void* data, uint32_t type, int64_t index,
                                            const float (&u)[Vector], const float (&v)[Vector]) {
    float low[Vector], high[Vector];
#pragma unroll
    for (int i = 0; i < 2 * Vector; ++i) {
        const float value = i % 2 == 0 ? u[i / 2] : v[i / 2];
        if (i < Vector)
            low[i] = value;
        else
            high[i - Vector] = value;
    }
    store_floats(data, type, index, low);
    store_floats(data, type, index + Vector, high);
}

template <int Vector>
__device__ __forceinline__ void fill_zeros(float (&values)[Vector]) {
#pragma unroll
    for (int i = 0; i < Vector; ++i) values[i] = 0.0f;
}

template <int Vector>
__device__ __forceinline__ float squares_of(const float (&u)[Vector]) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < Vector; ++i) squares += u[i] * u[i];
    return squares;
}

// As if stored as the type and read again.
__device__ __forceinline__ float round_to(uint32_t type, float value) {
    if (type == SLUICE_BF16) return __bfloat162float(__float2bfloat16_rn(value));
    if (type == SLUICE_F16) return __half2float(__float2half_rn(value));
    return value;
}

} // namespace sluice::cuda
