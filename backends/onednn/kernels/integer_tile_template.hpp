// The integer register tile, written once over a vector type; see tile_template.hpp for why all of
// this is in an unnamed namespace.
//
// Vector, besides load, store, zero, fma, multiply and broadcast of float32 `type`s with `lanes`
// lanes: integers (32-bit lanes), word (four codes of a row, as `dot` wants them), load_float16,
// load_codes (16 or so columns x 4 k), low and high (nibbles to codes), broadcast_word,
// broadcast_integer, shift_left<bits>, multiply_integers, load_zeros (int16 to integers),
// to_float, add, and dot<Four>(sum, codes, word): sum + codes * word over four k, codes unsigned
// (up to 15 where Four), word signed.
#pragma once

#include "integer_tile.hpp"
#include "tile_template.hpp"

namespace sluice::kernels {
namespace {

// What sets share whose integers are a vector type of the compiler, in 32-bit lanes, as the dot
// products take them: where a sum changes its type on the way round a loop, the compiler keeps a
// copy of it in memory.
template <int Bytes>
struct integer_lanes {
    // Not an alias by `using`, which loses an attribute that depends on a template's parameter.
    typedef std::int32_t integers __attribute__((vector_size(Bytes)));
    using word = integers;

    static integers low(integers codes) { return codes & 0x0f0f0f0f; }
    static integers high(integers codes) { return codes >> 4 & 0x0f0f0f0f; }
    static integers zero_integers() { return integers{}; }
    template <int Bits>
    static integers shift_left(integers value) {
        return value << Bits;
    }
    static integers multiply_integers(integers a, integers b) { return a * b; }
    static integers add(integers a, integers b) { return a + b; }
};

// Scales and zero points of one group for two vectors of columns.
template <class Vector, bool Zeros>
struct integer_group {
    typename Vector::type scale[2];
    typename Vector::integers zero[Zeros ? 2 : 1];

    integer_group(const packed_layout& layout, const std::byte* block, std::int64_t group,
                  std::int64_t column) {
        const std::byte* scales = block + group * layout.group_bytes;
        const std::byte* zeros = block + layout.zeros_offset + group * block_width * 2;
        for (int i = 0; i < 2; ++i) {
            const std::int64_t at = column + i * Vector::lanes;
            scale[i] = layout.scales == scale_type::float16
                           ? Vector::load_float16(scales + at * 2)
                           : Vector::load(reinterpret_cast<const float*>(scales) + at);
            if constexpr (Zeros) zero[i] = Vector::load_zeros(zeros + at * 2);
        }
    }
};

// Brings a line in. Few rows read the weights once: past the second-level cache, which measured up
// to a tenth faster. More rows come back for them.
template <int Height>
inline __attribute__((always_inline)) void fetch(const std::byte* line) {
    if constexpr (Height <= 4)
        __builtin_prefetch(line, 0, 0);
    else
        __builtin_prefetch(line, 0, 2);
}

// Sums of one run for two vectors of columns.
template <class Vector, int Height>
struct run_sums {
    using integers = typename Vector::integers;
    integers sum[Height][2];

    // sum += four k. x: [Height] words
    template <bool Four>
    inline __attribute__((always_inline)) void add(const std::uint32_t* x, const integers (&w)[2]) {
#pragma GCC unroll 14
        for (int h = 0; h < Height; ++h) {
            const auto word = Vector::broadcast_word(x + h);
            sum[h][0] = Vector::template dot<Four>(sum[h][0], w[0], word);
            sum[h][1] = Vector::template dot<Four>(sum[h][1], w[1], word);
        }
    }
};

// acc += sums of one run, scaled. x: [2 + 2 * units][Height] words, codes: units of 8 k.
template <class Vector, int Height, bool Four, bool Zeros>
inline __attribute__((always_inline)) void
multiply_run(const std::uint32_t* x, const std::byte* codes, std::int64_t units,
             std::int64_t prefetch_step, const integer_group<Vector, Zeros>& group,
             typename Vector::type (&acc)[Height][2]) {
    constexpr std::int64_t register_bytes = Vector::lanes * 4;
    constexpr std::int64_t quad_bytes = block_width * 4; // of four k, or eight nibbles
    // Few rows have few independent sums: the upper four k of a unit get their own.
    constexpr int chains = Height <= 2 ? 2 : 1;
    run_sums<Vector, Height> sums[chains];
#pragma GCC unroll 14
    for (int h = 0; h < Height; ++h) {
        // The zero point's share, exactly: minus zero times the sum of the row's codes.
        const auto minus = Vector::broadcast_integer(x + Height + h);
        for (int i = 0; i < 2; ++i) {
            if constexpr (Zeros)
                sums[0].sum[h][i] = Vector::multiply_integers(minus, group.zero[i]);
            else
                sums[0].sum[h][i] = Vector::template shift_left < Four ? 3 : 7 > (minus);
            if constexpr (chains == 2) sums[1].sum[h][i] = Vector::zero_integers();
        }
    }
    const std::uint32_t* factors = x;
    x += 2 * Height;
    for (std::int64_t unit = 0; unit < units; ++unit) {
        fetch<Height>(codes + prefetch_step);
        fetch<Height>(codes + prefetch_step + 64);
        typename Vector::integers w[2] = {Vector::load_codes(codes),
                                          Vector::load_codes(codes + register_bytes)};
        if constexpr (Four) {
            sums[0].template add<true>(x, {Vector::low(w[0]), Vector::low(w[1])});
            for (auto& one : w) one = Vector::high(one);
            codes += quad_bytes;
        } else {
            fetch<Height>(codes + prefetch_step + 128);
            fetch<Height>(codes + prefetch_step + 192);
            sums[0].template add<false>(x, w);
            for (int i = 0; i < 2; ++i)
                w[i] = Vector::load_codes(codes + quad_bytes + i * register_bytes);
            codes += 2 * quad_bytes;
        }
        sums[chains - 1].template add<Four>(x + Height, w);
        x += 2 * Height;
    }
#pragma GCC unroll 14
    for (int h = 0; h < Height; ++h) {
        const auto factor = Vector::broadcast(reinterpret_cast<const float*>(factors + h));
        for (int i = 0; i < 2; ++i) {
            auto sum = sums[0].sum[h][i];
            if constexpr (chains == 2) sum = Vector::add(sum, sums[1].sum[h][i]);
            acc[h][i] = Vector::fma(Vector::to_float(sum), Vector::multiply(group.scale[i], factor),
                                    acc[h][i]);
        }
    }
}

// Two vectors of columns at a time, as multiply_tile.
template <class Vector, int Height, bool Four, bool Zeros>
void multiply_integer_tile(const tile_arguments& a) {
    const packed_layout& layout = *a.layout;
    const std::byte* end = a.block + layout.block_bytes;
    for (std::int64_t column = 0; column < a.columns; column += 2 * Vector::lanes) {
        typename Vector::type acc[Height][2];
        load_accumulators<Vector, Height>(a, column, acc);
        const auto* x = static_cast<const std::uint32_t*>(a.rows);
        std::int64_t k_left = layout.k;
        for (std::int64_t g = 0; g < layout.group_count; ++g) {
            const std::byte* codes = a.block + g * layout.group_bytes;
            const std::int64_t ahead =
                a.prefetch_step + (codes + a.prefetch_step < end ? 0 : a.prefetch - end);
            fetch<Height>(codes + ahead);
            const integer_group<Vector, Zeros> group(layout, a.block, g, column);
            codes += layout.scale_bytes + column * 4;
            const std::int64_t group_end =
                k_left > layout.group_size ? k_left - layout.group_size : 0;
            while (k_left > group_end) {
                const std::int64_t left = k_left - group_end;
                const std::int64_t count = left < run_k_max ? left : run_k_max;
                const std::int64_t units = (count + 7) / 8;
                multiply_run<Vector, Height, Four, Zeros>(x, codes, units, ahead, group, acc);
                x += Height * (2 + 2 * units);
                codes += units * (Four ? 1 : 2) * block_width * 4;
                k_left -= count;
            }
        }
        store_accumulators<Vector, Height>(a, column, acc);
    }
}

// Quantizes `count` values (at most 64) to whole words; to nearest, ties to even.
inline std::uint32_t* quantize_run(const float* x, std::int64_t count, std::uint32_t* words) {
    float room[run_k_max];
    const std::int64_t stored = (count + stored_k_unit - 1) / stored_k_unit * stored_k_unit;
    __builtin_memcpy(room, x, static_cast<std::size_t>(count) * sizeof(float));
    for (std::int64_t i = count; i < stored; ++i) room[i] = 0.0f;
    // As bits, magnitudes are in order and a NaN is above all: it is not lost.
    std::uint32_t bits[run_k_max];
    __builtin_memcpy(bits, room, static_cast<std::size_t>(stored) * sizeof(float));
    std::uint32_t most[8] = {};
    for (std::int64_t i = 0; i < stored; i += 8)
        for (int lane = 0; lane < 8; ++lane) {
            const std::uint32_t magnitude = bits[i + lane] & 0x7fffffffu;
            most[lane] = most[lane] > magnitude ? most[lane] : magnitude;
        }
    std::uint32_t largest_bits = 0;
    for (const std::uint32_t one : most) largest_bits = one > largest_bits ? one : largest_bits;
    float largest = 0;
    __builtin_memcpy(&largest, &largest_bits, sizeof largest);
    const float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
    // Adding 1.5 * 2^23 leaves the rounded number in the low bits.
    std::int8_t codes[run_k_max];
    for (std::int64_t i = 0; i < stored; ++i) {
        const float moved = room[i] * inverse + 12582912.0f;
        __builtin_memcpy(bits + i, &moved, sizeof moved);
    }
    std::int32_t sum = 0;
    for (std::int64_t i = 0; i < stored; ++i) {
        codes[i] = static_cast<std::int8_t>(bits[i] & 0xffu);
        sum += codes[i];
    }
    const float scale = largest / 127.0f;
    const std::int32_t minus = -sum;
    __builtin_memcpy(words, &scale, sizeof scale);
    __builtin_memcpy(words + 1, &minus, sizeof minus);
    __builtin_memcpy(words + 2, codes, static_cast<std::size_t>(stored));
    return words + 2 + stored / 4;
}

inline void quantize_row(const quantize_arguments& a) {
    std::uint32_t* words = a.words;
    for (std::int64_t group = 0; group < a.layout->group_count; ++group) {
        const std::int64_t begin = group * a.layout->group_size;
        const std::int64_t rest = a.layout->k - begin;
        const std::int64_t end =
            begin + (rest < a.layout->group_size ? rest : a.layout->group_size);
        for (std::int64_t k = begin; k < end; k += run_k_max) {
            const std::int64_t count = end - k < run_k_max ? end - k : run_k_max;
            if (a.type == float_type::float32) {
                words = quantize_run(static_cast<const float*>(a.row) + k, count, words);
                continue;
            }
            std::uint32_t wide[run_k_max];
            const auto* halves = static_cast<const std::uint16_t*>(a.row) + k;
            for (std::int64_t i = 0; i < count; ++i)
                wide[i] = static_cast<std::uint32_t>(halves[i]) << 16;
            float values[run_k_max];
            __builtin_memcpy(values, wide, sizeof values);
            words = quantize_run(values, count, words);
        }
    }
}

template <class Vector, bool Four, bool Zeros, int HeightMax>
constexpr void fill_integer_heights(tile_function (&table)[tile_height_limit + 1]) {
    if constexpr (HeightMax > 0) {
        table[HeightMax] = multiply_integer_tile<Vector, HeightMax, Four, Zeros>;
        fill_integer_heights<Vector, Four, Zeros, HeightMax - 1>(table);
    }
}

template <class Vector, int HeightMax>
constexpr integer_kernels make_integer_kernels() {
    integer_kernels kernels;
    kernels.height_max = HeightMax;
    fill_integer_heights<Vector, false, false, HeightMax>(kernels.int8[0]);
    fill_integer_heights<Vector, false, true, HeightMax>(kernels.int8[1]);
    fill_integer_heights<Vector, true, false, HeightMax>(kernels.int4[0]);
    fill_integer_heights<Vector, true, true, HeightMax>(kernels.int4[1]);
    kernels.quantize = quantize_row;
    return kernels;
}

} // namespace
} // namespace sluice::kernels
