// The kernels of attention, written over the compiler's own vectors of sixteen lanes, which every
// target has or is given. Included after row_kernels_template.hpp by one file per instruction set.
// All in an unnamed namespace: see tile_template.hpp for why.
#pragma once

#include "attend_kernels.hpp"
#include "row_kernels_template.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sluice::kernels {
namespace {

using floats = float __attribute__((vector_size(64)));
using halves = std::uint16_t __attribute__((vector_size(32)));
using words = std::uint32_t __attribute__((vector_size(64)));
using four_floats = float __attribute__((vector_size(16)));
using eight_floats = float __attribute__((vector_size(32)));

template <typename Vector>
inline Vector load_as(const void* from) {
    Vector value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

// Sixteen numbers of 16 bits, widened with zeros.
inline words widened(const std::byte* from) {
#if defined(__AVX512F__)
    // GCC 12 makes five instructions of the general form.
    return reinterpret_cast<words>(_mm512_cvtepu16_epi32(load_as<__m256i>(from)));
#else
    return __builtin_convertvector(load_as<halves>(from), words);
#endif
}

struct float32_elements {
    static constexpr std::int64_t bytes = 4;
    static floats load(const std::byte* vector, std::int64_t first) {
        return load_as<floats>(vector + first * bytes);
    }
    static float at(const std::byte* vector, std::int64_t i) {
        return load_as<float>(vector + i * bytes);
    }
};

struct bfloat16_elements {
    static constexpr std::int64_t bytes = 2;
    static floats load(const std::byte* vector, std::int64_t first) {
        return reinterpret_cast<floats>(widened(vector + first * bytes) << 16);
    }
    static float at(const std::byte* vector, std::int64_t i) {
        return float_of(load_as<std::uint16_t>(vector + i * bytes));
    }
};

inline const std::byte* vector_at(const cached_vectors& v, std::int64_t j) {
    return v.data + (v.index != nullptr ? v.index[j] : j) * v.stride_bytes;
}

// Vectors of one head lie far apart in a cache, where the processor foresees nothing.
constexpr std::int64_t vectors_ahead = 8;

template <class Elements>
inline void fetch_ahead(const cached_vectors& v, std::int64_t j, std::int64_t count,
                        std::int64_t width) {
    if (j >= count) return;
    const std::byte* vector = vector_at(v, j);
    for (std::int64_t byte = 0; byte < width * Elements::bytes; byte += 64)
        __builtin_prefetch(vector + byte);
}

inline four_floats folded(floats v) {
    const eight_floats half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7)
                              + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3)
           + __builtin_shufflevector(half, half, 4, 5, 6, 7);
}

// The sums of the lanes of four vectors.
inline four_floats sums_of_lanes(const floats (&v)[4]) {
    const four_floats a = folded(v[0]), b = folded(v[1]), c = folded(v[2]), d = folded(v[3]);
    const four_floats ab =
        __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
    const four_floats cd =
        __builtin_shufflevector(c, d, 0, 4, 2, 6) + __builtin_shufflevector(c, d, 1, 5, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5)
           + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

template <class Elements>
void dot_each_of(const float* q, const cached_vectors& v, std::int64_t count, std::int64_t width,
                 float* scores) {
    const std::int64_t whole = width / lanes * lanes;
    for (std::int64_t j = 0; j < count; j += 4) {
        const std::byte* vector[4];
        for (int i = 0; i < 4; ++i) {
            vector[i] = vector_at(v, j + i < count ? j + i : j);
            fetch_ahead<Elements>(v, j + i + vectors_ahead, count, width);
        }
        floats sum[4] = {};
        for (std::int64_t c = 0; c < whole; c += lanes) {
            const auto x = load_as<floats>(q + c);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) sum[i] += x * Elements::load(vector[i], c);
        }
        const four_floats sums = sums_of_lanes(sum);
        float rest[4] = {};
        for (std::int64_t c = whole; c < width; ++c)
            for (int i = 0; i < 4; ++i) rest[i] += q[c] * Elements::at(vector[i], c);
        for (int i = 0; i < 4 && j + i < count; ++i) scores[j + i] = sums[i] + rest[i];
    }
}

#if defined(__AVX512F__)
constexpr int columns_at_once = 8;
#else
constexpr int columns_at_once = 4;
#endif

// Columns of 16 * Columns elements; the sums stay in registers.
template <class Elements, int Columns>
void add_columns(const float* weights, const cached_vectors& v, std::int64_t count,
                 std::int64_t width, std::int64_t first, float* sum) {
    floats total[Columns];
    for (int i = 0; i < Columns; ++i) total[i] = load_as<floats>(sum + first + i * lanes);
    for (std::int64_t j = 0; j < count; ++j) {
        const std::byte* vector = vector_at(v, j);
        if (first == 0) fetch_ahead<Elements>(v, j + vectors_ahead, count, width);
#pragma GCC unroll 8
        for (int i = 0; i < Columns; ++i)
            total[i] += weights[j] * Elements::load(vector, first + i * lanes);
    }
    for (int i = 0; i < Columns; ++i)
        __builtin_memcpy(sum + first + i * lanes, &total[i], sizeof total[i]);
}

template <class Elements>
void add_each_of(const float* weights, const cached_vectors& v, std::int64_t count,
                 std::int64_t width, float* sum) {
    std::int64_t first = 0;
    for (; first + columns_at_once * lanes <= width; first += columns_at_once * lanes)
        add_columns<Elements, columns_at_once>(weights, v, count, width, first, sum);
    for (; first + lanes <= width; first += lanes)
        add_columns<Elements, 1>(weights, v, count, width, first, sum);
    if (first == width) return;
    for (std::int64_t j = 0; j < count; ++j) {
        const std::byte* vector = vector_at(v, j);
        for (std::int64_t c = first; c < width; ++c) sum[c] += weights[j] * Elements::at(vector, c);
    }
}

// ---- Packing: a vector is read as 32-bit lanes, each a float32 or a pair of bfloat16 ----

// Rounds to nearest, ties to even; numbers only.
inline words rounded(floats values) {
    const auto bits = reinterpret_cast<words>(values);
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

struct float32_lanes {
    static constexpr std::int64_t elements = 1; // of a lane
    template <class Elements>
    static words load(const std::byte* vector, std::int64_t first) {
        return reinterpret_cast<words>(Elements::load(vector, first));
    }
    static std::uint32_t lane(float even, float) { return load_as<std::uint32_t>(&even); }
};

struct bfloat16_lanes {
    static constexpr std::int64_t elements = 2;
    template <class Elements>
    static words load(const std::byte* vector, std::int64_t first) {
        if constexpr (Elements::bytes == 2) {
            return load_as<words>(vector + first * 2);
        } else {
            const floats low = Elements::load(vector, first);
            const floats high = Elements::load(vector, first + lanes);
            const auto even = __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18,
                                                      20, 22, 24, 26, 28, 30);
            const auto odd = __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19,
                                                     21, 23, 25, 27, 29, 31);
            return rounded(even) | rounded(odd) << 16;
        }
    }
    static std::uint32_t lane(float even, float odd) {
        return static_cast<std::uint32_t>(bfloat16_of(even))
               | static_cast<std::uint32_t>(bfloat16_of(odd)) << 16;
    }
};

// Lanes from element `first` on; elements from `width` on are zero.
template <class Lanes, class Elements>
inline words load_lanes(const std::byte* vector, std::int64_t first, std::int64_t width) {
    constexpr std::int64_t elements = Lanes::elements;
    if (first + lanes * elements <= width) return Lanes::template load<Elements>(vector, first);
    words read = {};
    const auto element = [&](std::int64_t i) { return i < width ? Elements::at(vector, i) : 0.0f; };
    for (int i = 0; i < lanes && first + i * elements < width; ++i)
        read[i] = Lanes::lane(element(first + i * elements), element(first + i * elements + 1));
    return read;
}

// Sixteen vectors' lanes stand in columns of a block afterwards: row i [32] gets lane i of each.
template <class Transpose, class Lanes, class Elements>
void pack_keys_of(const cached_vectors& v, std::int64_t count, std::int64_t width,
                  const packed_layout& layout, std::int64_t first, std::byte* weights) {
    constexpr std::int64_t elements = Lanes::elements;
    // Of the padding after the last element nothing but K's own is there.
    const std::int64_t end = first + width == layout.k ? layout.k_padded - first : width;
    for (std::int64_t j = 0; j < count; j += lanes) {
        auto* block =
            reinterpret_cast<std::uint32_t*>(weights + j / block_width * layout.block_bytes)
            + j % block_width + first / elements * block_width;
        for (std::int64_t c = 0; c < end; c += lanes * elements) {
            words tile[lanes];
            for (int i = 0; i < lanes; ++i)
                tile[i] =
                    load_lanes<Lanes, Elements>(vector_at(v, j + i < count ? j + i : j), c, width);
            const std::int64_t rest = (end - c) / elements;
            Transpose::run(tile, block + c / elements * block_width, rest < lanes ? rest : lanes);
        }
    }
}

// Row i of `to`, block_width apart, gets lane i of the sixteen; `rows` of them.
struct transpose_plain {
    static void run(const words (&tile)[lanes], std::uint32_t* to, std::int64_t rows) {
        for (std::int64_t i = 0; i < rows; ++i)
            for (int j = 0; j < lanes; ++j) to[i * block_width + j] = tile[j][i];
    }
};

template <class Elements>
void pack_values_float32(const cached_vectors& v, std::int64_t count, std::int64_t width,
                         const packed_layout& layout, std::byte* weights) {
    for (std::int64_t j = 0; j < layout.k_padded; ++j)
        for (std::int64_t c = 0; c < layout.block_count * block_width; c += lanes) {
            const words row = j < count
                                  ? load_lanes<float32_lanes, Elements>(vector_at(v, j), c, width)
                                  : words{};
            __builtin_memcpy(weights + c / block_width * layout.block_bytes
                                 + (j * block_width + c % block_width) * 4,
                             &row, sizeof row);
        }
}

// Sixteen elements of a vector as bfloat16.
template <class Elements>
inline words load_rounded(const std::byte* vector, std::int64_t first, std::int64_t width) {
    if (first + lanes <= width) {
        if constexpr (Elements::bytes == 2)
            return widened(vector + first * 2);
        else
            return rounded(Elements::load(vector, first));
    }
    words read = {};
    for (int i = 0; i < lanes && first + i < width; ++i)
        read[i] = bfloat16_of(Elements::at(vector, first + i));
    return read;
}

template <class Elements>
void pack_values_bfloat16(const cached_vectors& v, std::int64_t count, std::int64_t width,
                          const packed_layout& layout, std::byte* weights) {
    for (std::int64_t j = 0; j < layout.k_padded; j += 2)
        for (std::int64_t c = 0; c < layout.block_count * block_width; c += lanes) {
            words pair = {};
            if (j < count) pair = load_rounded<Elements>(vector_at(v, j), c, width);
            if (j + 1 < count) pair |= load_rounded<Elements>(vector_at(v, j + 1), c, width) << 16;
            __builtin_memcpy(weights + c / block_width * layout.block_bytes
                                 + (j / 2 * block_width + c % block_width) * 4,
                             &pair, sizeof pair);
        }
}

// ---- By type ----

void dot_each(const float* q, const cached_vectors& v, std::int64_t count, std::int64_t width,
              float* scores) {
    if (v.type == cached_type::float32)
        dot_each_of<float32_elements>(q, v, count, width, scores);
    else
        dot_each_of<bfloat16_elements>(q, v, count, width, scores);
}

void add_each(const float* weights, const cached_vectors& v, std::int64_t count, std::int64_t width,
              float* sum) {
    if (v.type == cached_type::float32)
        add_each_of<float32_elements>(weights, v, count, width, sum);
    else
        add_each_of<bfloat16_elements>(weights, v, count, width, sum);
}

template <class Transpose>
void pack_keys(const cached_vectors& v, std::int64_t count, std::int64_t width,
               const packed_layout& layout, std::int64_t first, std::byte* weights) {
    const bool wide = layout.storage == weight_storage::float32;
    if (v.type == cached_type::float32)
        (wide ? pack_keys_of<Transpose, float32_lanes, float32_elements>
              : pack_keys_of<Transpose, bfloat16_lanes, float32_elements>)(v, count, width, layout,
                                                                           first, weights);
    else
        (wide ? pack_keys_of<Transpose, float32_lanes, bfloat16_elements>
              : pack_keys_of<Transpose, bfloat16_lanes, bfloat16_elements>)(v, count, width, layout,
                                                                            first, weights);
}

void pack_values(const cached_vectors& v, std::int64_t count, std::int64_t width,
                 const packed_layout& layout, std::byte* weights) {
    const bool wide = layout.storage == weight_storage::float32;
    if (v.type == cached_type::float32)
        (wide ? pack_values_float32<float32_elements>
              : pack_values_bfloat16<float32_elements>)(v, count, width, layout, weights);
    else
        (wide ? pack_values_float32<bfloat16_elements>
              : pack_values_bfloat16<bfloat16_elements>)(v, count, width, layout, weights);
}

float soften(float* scores, std::int64_t begin, std::int64_t end, std::int64_t count, float factor,
             score_sum& so_far) {
    for (std::int64_t i = 0; i < begin; ++i) scores[i] = 0;
    for (std::int64_t i = begin < end ? end : begin; i < count; ++i) scores[i] = 0;
    if (begin >= end) return 1;
    float* seen = scores + begin;
    scale(factor, end - begin, seen);
    const float highest = maximum(seen, end - begin);
    const float before = so_far.maximum;
    if (highest > before) so_far.maximum = highest;
    const float decay = exp_of(before - so_far.maximum);
    so_far.sum = so_far.sum * decay + exp_in_place(seen, so_far.maximum, end - begin);
    return decay;
}

template <class Transpose>
constexpr attend_kernels make_attend_kernels() {
    return {dot_each, add_each, pack_keys<Transpose>, pack_values, soften};
}

} // namespace
} // namespace sluice::kernels
