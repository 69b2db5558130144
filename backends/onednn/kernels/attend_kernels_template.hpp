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
using wide_halves = std::uint16_t __attribute__((vector_size(64)));
using halves = std::uint16_t __attribute__((vector_size(32)));
using codes = std::int8_t __attribute__((vector_size(16)));
using whole_numbers = std::int32_t __attribute__((vector_size(64)));
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
    static float scale(const cached_vectors&, std::int64_t) { return 1; }
    static floats load(const std::byte* vector, std::int64_t first) {
        return load_as<floats>(vector + first * bytes);
    }
    static constexpr bool by_parity = false;
    static void load_pair(const std::byte* vector, std::int64_t first, floats (&pair)[2]) {
        pair[0] = load(vector, first);
        pair[1] = load(vector, first + lanes);
    }
    static float at(const std::byte* vector, std::int64_t i) {
        return load_as<float>(vector + i * bytes);
    }
};

struct bfloat16_elements {
    static constexpr std::int64_t bytes = 2;
    static float scale(const cached_vectors&, std::int64_t) { return 1; }
    static floats load(const std::byte* vector, std::int64_t first) {
        return reinterpret_cast<floats>(widened(vector + first * bytes) << 16);
    }
    // The even and the odd elements of 32: their order costs less than widening in order.
    static constexpr bool by_parity = true;
    static void load_pair(const std::byte* vector, std::int64_t first, floats (&pair)[2]) {
        const auto bits = load_as<words>(vector + first * bytes);
        pair[0] = reinterpret_cast<floats>(bits << 16);
        pair[1] = reinterpret_cast<floats>(bits & 0xffff0000u);
    }
    static float at(const std::byte* vector, std::int64_t i) {
        return float_of(load_as<std::uint16_t>(vector + i * bytes));
    }
};

inline std::int64_t offset_of(const cached_vectors& v, std::int64_t j) {
    return (v.index != nullptr ? v.index[j] : j) * v.stride_bytes;
}
inline const std::byte* vector_at(const cached_vectors& v, std::int64_t j) {
    return v.data + offset_of(v, j);
}

// The codes alone: what is summed over a vector takes its scale once.
struct int8_elements {
    static constexpr std::int64_t bytes = 1;
    static float scale(const cached_vectors& v, std::int64_t j) {
        return v.scales == nullptr ? 1 : load_as<float>(v.scales + offset_of(v, j));
    }
    static floats load(const std::byte* vector, std::int64_t first) {
#if defined(__AVX512F__)
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_as<__m128i>(vector + first)));
#else
        return __builtin_convertvector(
            __builtin_convertvector(load_as<codes>(vector + first), whole_numbers), floats);
#endif
    }
    static constexpr bool by_parity = false;
    static void load_pair(const std::byte* vector, std::int64_t first, floats (&pair)[2]) {
        pair[0] = load(vector, first);
        pair[1] = load(vector, first + lanes);
    }
    static float at(const std::byte* vector, std::int64_t i) {
        return static_cast<float>(load_as<std::int8_t>(vector + i));
    }
};

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

constexpr std::int64_t pair_width = 2 * lanes;

// Of a type that is read by parity, each whole 32 elements are the even ones, then the odd ones.
template <class Elements>
void arrange_of(const float* x, std::int64_t width, float* arranged) {
    std::int64_t c = 0;
    for (; Elements::by_parity && c + pair_width <= width; c += pair_width)
        for (int i = 0; i < lanes; ++i) {
            arranged[c + i] = x[c + 2 * i];
            arranged[c + lanes + i] = x[c + 2 * i + 1];
        }
    for (; c < width; ++c) arranged[c] = x[c];
}
template <class Elements>
void restore_of(const float* arranged, std::int64_t width, float* x) {
    std::int64_t c = 0;
    for (; Elements::by_parity && c + pair_width <= width; c += pair_width)
        for (int i = 0; i < lanes; ++i) {
            x[c + 2 * i] = arranged[c + i];
            x[c + 2 * i + 1] = arranged[c + lanes + i];
        }
    for (; c < width; ++c) x[c] = arranged[c];
}

template <class Elements>
void dot_each_of(const float* q, const cached_vectors& v, std::int64_t count, std::int64_t width,
                 float* scores) {
    const std::int64_t whole = width / pair_width * pair_width;
    for (std::int64_t j = 0; j < count; j += 4) {
        const std::byte* vector[4];
        for (int i = 0; i < 4; ++i) vector[i] = vector_at(v, j + i < count ? j + i : j);
        floats sum[4] = {};
        for (std::int64_t c = 0; c < whole; c += pair_width) {
            const auto x = load_as<floats>(q + c);
            const auto y = load_as<floats>(q + c + lanes);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                floats pair[2];
                Elements::load_pair(vector[i], c, pair);
                sum[i] += x * pair[0];
                sum[i] += y * pair[1];
            }
        }
        const four_floats sums = sums_of_lanes(sum);
        float rest[4] = {};
        for (std::int64_t c = whole; c < width; ++c)
            for (int i = 0; i < 4; ++i) rest[i] += q[c] * Elements::at(vector[i], c);
        for (int i = 0; i < 4 && j + i < count; ++i)
            scores[j + i] = (sums[i] + rest[i]) * Elements::scale(v, j + i);
    }
}

#if defined(__AVX512F__)
constexpr int pairs_at_once = 4;
#else
constexpr int pairs_at_once = 2;
#endif

// Columns of 32 * Pairs elements; the sums stay in registers.
template <class Elements, int Pairs>
void add_columns(const float* weights, const cached_vectors& v, std::int64_t count,
                 std::int64_t first, float* sum) {
    floats total[Pairs][2];
    for (int i = 0; i < Pairs; ++i) {
        total[i][0] = load_as<floats>(sum + first + i * pair_width);
        total[i][1] = load_as<floats>(sum + first + i * pair_width + lanes);
    }
    for (std::int64_t j = 0; j < count; ++j) {
        const std::byte* vector = vector_at(v, j);
        const float weight = weights[j] * Elements::scale(v, j);
#pragma GCC unroll 4
        for (int i = 0; i < Pairs; ++i) {
            floats pair[2];
            Elements::load_pair(vector, first + i * pair_width, pair);
            total[i][0] += weight * pair[0];
            total[i][1] += weight * pair[1];
        }
    }
    for (int i = 0; i < Pairs; ++i) {
        __builtin_memcpy(sum + first + i * pair_width, &total[i][0], sizeof total[i][0]);
        __builtin_memcpy(sum + first + i * pair_width + lanes, &total[i][1], sizeof total[i][1]);
    }
}

template <class Elements>
void add_each_of(const float* weights, const cached_vectors& v, std::int64_t count,
                 std::int64_t width, float* sum) {
    std::int64_t first = 0;
    for (; first + pairs_at_once * pair_width <= width; first += pairs_at_once * pair_width)
        add_columns<Elements, pairs_at_once>(weights, v, count, first, sum);
    for (; first + pair_width <= width; first += pair_width)
        add_columns<Elements, 1>(weights, v, count, first, sum);
    if (first == width) return;
    for (std::int64_t j = 0; j < count; ++j) {
        const std::byte* vector = vector_at(v, j);
        const float weight = weights[j] * Elements::scale(v, j);
        for (std::int64_t c = first; c < width; ++c) sum[c] += weight * Elements::at(vector, c);
    }
}

template <class Elements>
void read_of(const cached_vectors& v, std::int64_t count, std::int64_t width, float* to,
             std::int64_t stride) {
    for (std::int64_t j = 0; j < count; ++j) {
        const std::byte* vector = vector_at(v, j);
        const float scale = Elements::scale(v, j);
        float* row = to + j * stride;
        std::int64_t c = 0;
        for (; c + lanes <= width; c += lanes) {
            const floats values = scale * Elements::load(vector, c);
            __builtin_memcpy(row + c, &values, sizeof values);
        }
        for (; c < width; ++c) row[c] = scale * Elements::at(vector, c);
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
    static words load(const std::byte* vector, std::int64_t first, float scale) {
        if constexpr (Elements::bytes != 1)
            return reinterpret_cast<words>(Elements::load(vector, first));
        else
            return reinterpret_cast<words>(scale * Elements::load(vector, first));
    }
    static std::uint32_t lane(float even, float) { return load_as<std::uint32_t>(&even); }
};

struct bfloat16_lanes {
    static constexpr std::int64_t elements = 2;
    template <class Elements>
    static words load(const std::byte* vector, std::int64_t first, float scale) {
        if constexpr (Elements::bytes == 2) {
            return load_as<words>(vector + first * 2);
        } else {
            const floats low = scale * Elements::load(vector, first);
            const floats high = scale * Elements::load(vector, first + lanes);
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

// A vector and what its numbers are multiplied by.
struct scaled_vector {
    const std::byte* data;
    float scale;
};

template <class Elements>
inline scaled_vector scaled_vector_at(const cached_vectors& v, std::int64_t j) {
    return {vector_at(v, j), Elements::scale(v, j)};
}

// Lanes from element `first` on; elements from `width` on are zero.
template <class Lanes, class Elements>
inline words load_lanes(const scaled_vector& v, std::int64_t first, std::int64_t width) {
    constexpr std::int64_t elements = Lanes::elements;
    if (first + lanes * elements <= width)
        return Lanes::template load<Elements>(v.data, first, v.scale);
    words read = {};
    const auto element = [&](std::int64_t i) {
        return i < width ? v.scale * Elements::at(v.data, i) : 0.0f;
    };
    for (int i = 0; i < lanes && first + i * elements < width; ++i)
        read[i] = Lanes::lane(element(first + i * elements), element(first + i * elements + 1));
    return read;
}

// Sixteen vectors' lanes stand in columns of a block afterwards: row i [32] gets lane i of each.
template <class Transpose, class Lanes, class Elements>
void pack_keys_of(const cached_vectors& v, std::int64_t place, std::int64_t count,
                  std::int64_t width, const packed_layout& layout, std::int64_t first,
                  std::byte* weights) {
    constexpr std::int64_t elements = Lanes::elements;
    // Of the padding after the last element nothing but K's own is there.
    const std::int64_t end = first + width == layout.k ? layout.k_padded - first : width;
    const std::int64_t whole = width / (lanes * elements) * (lanes * elements);
    for (std::int64_t j = 0; j < count; j += lanes) {
        const std::int64_t row = place + j;
        auto* block =
            reinterpret_cast<std::uint32_t*>(weights + row / block_width * layout.block_bytes)
            + row % block_width + first / elements * block_width;
        scaled_vector vectors[lanes];
        for (int i = 0; i < lanes; ++i)
            vectors[i] = scaled_vector_at<Elements>(v, j + i < count ? j + i : j);
        words tile[lanes];
        for (std::int64_t c = 0; c < whole; c += lanes * elements) {
#pragma GCC unroll 16
            for (int i = 0; i < lanes; ++i)
                tile[i] = Lanes::template load<Elements>(vectors[i].data, c, vectors[i].scale);
            Transpose::run(tile, block + c / elements * block_width, lanes);
        }
        for (std::int64_t c = whole; c < end; c += lanes * elements) {
            for (int i = 0; i < lanes; ++i)
                tile[i] = load_lanes<Lanes, Elements>(vectors[i], c, width);
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

// Of the values' rows from `first` on: with N's padding where they are the last.
inline std::int64_t padded_width(const packed_layout& layout, std::int64_t first,
                                 std::int64_t width) {
    return first + width == layout.n ? layout.block_count * block_width - first : width;
}

inline std::int64_t padded_count(std::int64_t count) { return (count + lanes - 1) / lanes * lanes; }

template <class Elements>
void pack_values_float32(const cached_vectors& v, std::int64_t place, std::int64_t count,
                         std::int64_t width, const packed_layout& layout, std::int64_t first,
                         std::byte* weights) {
    for (std::int64_t j = 0; j < padded_count(count); ++j)
        for (std::int64_t c = 0; c < padded_width(layout, first, width); c += lanes) {
            const words row = j < count ? load_lanes<float32_lanes, Elements>(
                                  scaled_vector_at<Elements>(v, j), c, width)
                                        : words{};
            __builtin_memcpy(weights + (first + c) / block_width * layout.block_bytes
                                 + ((place + j) * block_width + c % block_width) * 4,
                             &row, sizeof row);
        }
}

// Sixteen elements as bfloat16, each in the lower half of a word; from `width` on they are zero.
template <class Elements>
inline words load_rounded(const scaled_vector& v, std::int64_t first, std::int64_t width) {
    if (first + lanes <= width) {
        if constexpr (Elements::bytes == 2)
            return widened(v.data + first * 2);
        else
            return rounded(v.scale * Elements::load(v.data, first));
    }
    words read = {};
    for (int i = 0; i < lanes && first + i < width; ++i)
        read[i] = bfloat16_of(v.scale * Elements::at(v.data, first + i));
    return read;
}

// Whole blocks of two vectors of bfloat16: their elements in turn.
inline void interleave(const std::byte* even, const std::byte* odd, std::int64_t block_bytes,
                       std::int64_t blocks, std::byte* to) {
    for (std::int64_t b = 0; b < blocks; ++b) {
        const auto x = load_as<wide_halves>(even + b * block_width * 2);
        const auto y = load_as<wide_halves>(odd + b * block_width * 2);
        const wide_halves low =
            __builtin_shufflevector(x, y, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8,
                                    40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47);
        const wide_halves high = __builtin_shufflevector(
            x, y, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57,
            26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
        __builtin_memcpy(to + b * block_bytes, &low, sizeof low);
        __builtin_memcpy(to + b * block_bytes + sizeof low, &high, sizeof high);
    }
}

template <class Elements>
void pack_values_bfloat16(const cached_vectors& v, std::int64_t place, std::int64_t count,
                          std::int64_t width, const packed_layout& layout, std::int64_t first,
                          std::byte* weights) {
    const std::int64_t end = padded_width(layout, first, width);
    for (std::int64_t j = 0; j < padded_count(count); j += 2) {
        std::byte* to =
            weights + first / block_width * layout.block_bytes + (place + j) / 2 * block_width * 4;
        const auto even = scaled_vector_at<Elements>(v, j < count ? j : 0);
        const auto odd = scaled_vector_at<Elements>(v, j + 1 < count ? j + 1 : 0);
        std::int64_t c = 0;
        if (Elements::bytes == 2 && j + 1 < count) {
            c = width / block_width * block_width;
            interleave(even.data, odd.data, layout.block_bytes, c / block_width, to);
        }
        for (; c < end; c += lanes) {
            words pair = {};
            if (j < count) pair = load_rounded<Elements>(even, c, width);
            if (j + 1 < count) pair |= load_rounded<Elements>(odd, c, width) << 16;
            __builtin_memcpy(to + c / block_width * layout.block_bytes + c % block_width * 4, &pair,
                             sizeof pair);
        }
    }
}

// ---- By type ----

// Calls with the elements of the vectors' type.
template <typename Call>
inline void with_elements(cached_type type, Call&& call) {
    if (type == cached_type::float32) return call(float32_elements());
    if (type == cached_type::bfloat16) return call(bfloat16_elements());
    call(int8_elements());
}

void arrange(cached_type type, const float* x, std::int64_t width, float* arranged) {
    with_elements(type, [&](auto elements) { arrange_of<decltype(elements)>(x, width, arranged); });
}
void restore(cached_type type, const float* arranged, std::int64_t width, float* x) {
    with_elements(type, [&](auto elements) { restore_of<decltype(elements)>(arranged, width, x); });
}

void dot_each(const float* q, const cached_vectors& v, std::int64_t count, std::int64_t width,
              float* scores) {
    with_elements(v.type, [&](auto elements) {
        dot_each_of<decltype(elements)>(q, v, count, width, scores);
    });
}

void add_each(const float* weights, const cached_vectors& v, std::int64_t count, std::int64_t width,
              float* sum) {
    with_elements(v.type, [&](auto elements) {
        add_each_of<decltype(elements)>(weights, v, count, width, sum);
    });
}

void read(const cached_vectors& v, std::int64_t count, std::int64_t width, float* to,
          std::int64_t stride) {
    with_elements(v.type,
                  [&](auto elements) { read_of<decltype(elements)>(v, count, width, to, stride); });
}

template <class Transpose>
void pack_keys(const cached_vectors& v, std::int64_t place, std::int64_t count, std::int64_t width,
               const packed_layout& layout, std::int64_t first, std::byte* weights) {
    with_elements(v.type, [&](auto elements) {
        using type = decltype(elements);
        if (layout.storage == weight_storage::float32)
            pack_keys_of<Transpose, float32_lanes, type>(v, place, count, width, layout, first,
                                                         weights);
        else
            pack_keys_of<Transpose, bfloat16_lanes, type>(v, place, count, width, layout, first,
                                                          weights);
    });
}

void pack_values(const cached_vectors& v, std::int64_t place, std::int64_t count,
                 std::int64_t width, const packed_layout& layout, std::int64_t first,
                 std::byte* weights) {
    with_elements(v.type, [&](auto elements) {
        using type = decltype(elements);
        if (layout.storage == weight_storage::float32)
            pack_values_float32<type>(v, place, count, width, layout, first, weights);
        else
            pack_values_bfloat16<type>(v, place, count, width, layout, first, weights);
    });
}

float quantize(const float* x, std::int64_t count, std::int8_t* to) {
    float greatest[lanes] = {};
    for (std::int64_t i = 0; i < count / lanes * lanes; i += lanes)
        for (int lane = 0; lane < lanes; ++lane) {
            const float size = std::fabs(x[i + lane]);
            greatest[lane] = size > greatest[lane] ? size : greatest[lane];
        }
    float m = 0;
    for (std::int64_t i = count / lanes * lanes; i < count; ++i)
        m = std::fabs(x[i]) > m ? std::fabs(x[i]) : m;
    for (const float each : greatest) m = each > m ? each : m;
    const float inverse = m > 0 ? 127.0f / m : 0.0f;
    for (std::int64_t i = 0; i < count; ++i) {
        float code = __builtin_rintf(x[i] * inverse);
        code = code > -127.0f ? code : -127.0f; // and so is what is no number
        code = code < 127.0f ? code : 127.0f;
        to[i] = static_cast<std::int8_t>(static_cast<int>(code));
    }
    return m / 127.0f;
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

void multiply(const float* y, std::int64_t count, float* x) {
    for (std::int64_t i = 0; i < count; ++i) x[i] *= y[i];
}

template <class Transpose>
constexpr attend_kernels make_attend_kernels() {
    return {arrange,     restore,  dot_each, add_each, read, pack_keys<Transpose>,
            pack_values, quantize, soften,   multiply};
}

} // namespace
} // namespace sluice::kernels
