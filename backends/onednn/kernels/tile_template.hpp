// The register-tile kernel, written once over a vector type. Included by one source file per
// instruction set; everything is in an unnamed namespace because each file has its own flags, and a
// shared inline function could end up with the wrong one's instructions.
//
// Vector: lanes, type, load, store, broadcast, zero, fma, even_of_pair and odd_of_pair (bfloat16
// pairs to float32), load_int16, load_float16, bits (of each 32-bit lane, shifted down and masked,
// to float32), subtract, multiply.
#pragma once

#include "tile.hpp"

namespace sluice::kernels {
namespace {

// Weights: how two neighbours in k of two vectors of columns become float32. `pair` counts pairs of
// k from the begin of the block; values that belong to a group of k are loaded by begin_run, which
// returns the pair where the next group begins.

template <class Vector>
struct float32_weights {
    using type = typename Vector::type;
    const float* values;

    template <class Arguments>
    float32_weights(const Arguments& a, std::int64_t column)
        : values(reinterpret_cast<const float*>(a.block) + column) {}
    std::int64_t begin_run(std::int64_t, std::int64_t pair_end) { return pair_end; }
    void even(std::int64_t pair, type (&w)[2]) const {
        const float* at = values + pair * 2 * block_width;
        w[0] = Vector::load(at);
        w[1] = Vector::load(at + Vector::lanes);
    }
    void odd(std::int64_t pair, type (&w)[2]) const {
        const float* at = values + (pair * 2 + 1) * block_width;
        w[0] = Vector::load(at);
        w[1] = Vector::load(at + Vector::lanes);
    }
};

template <class Vector>
struct bfloat16_weights {
    using type = typename Vector::type;
    const std::byte* values;

    template <class Arguments>
    bfloat16_weights(const Arguments& a, std::int64_t column) : values(a.block + column * 4) {}
    std::int64_t begin_run(std::int64_t, std::int64_t pair_end) { return pair_end; }
    void even(std::int64_t pair, type (&w)[2]) const {
        const std::byte* at = values + pair * block_width * 4;
        w[0] = Vector::even_of_pair(at);
        w[1] = Vector::even_of_pair(at + Vector::lanes * 4);
    }
    void odd(std::int64_t pair, type (&w)[2]) const {
        const std::byte* at = values + pair * block_width * 4;
        w[0] = Vector::odd_of_pair(at);
        w[1] = Vector::odd_of_pair(at + Vector::lanes * 4);
    }
};

// Codes with the scale and zero point of the current group, for two vectors of columns.
template <class Vector, bool Four>
struct quantized_weights {
    using type = typename Vector::type;
    const packed_layout& layout;
    const std::byte* block;
    std::int64_t column;
    const std::byte* codes = nullptr; // of the current group
    std::int64_t pair_first = 0;      // of the current group
    type scale[2];
    type zero[2];

    template <class Arguments>
    quantized_weights(const Arguments& a, std::int64_t column_begin)
        : layout(*a.layout), block(a.block), column(column_begin) {
        const float middle = Four ? 8.0f : 128.0f;
        zero[0] = zero[1] = Vector::broadcast(&middle);
    }
    std::int64_t begin_run(std::int64_t pair, std::int64_t pair_end) {
        const std::int64_t pairs_per_group = layout.group_size / 2;
        const std::int64_t group = pair / pairs_per_group;
        const std::byte* scales = block + group * layout.group_bytes;
        const std::byte* zeros = block + layout.zeros_offset + group * block_width * 2;
        for (int i = 0; i < 2; ++i) {
            const std::int64_t at = column + i * Vector::lanes;
            scale[i] = layout.scales == scale_type::float16
                           ? Vector::load_float16(scales + at * 2)
                           : Vector::load(reinterpret_cast<const float*>(scales) + at);
            if (layout.zero_points) zero[i] = Vector::load_int16(zeros + at * 2);
        }
        codes = scales + layout.scale_bytes + column * 4;
        pair_first = group * pairs_per_group;
        const std::int64_t next = pair_first + pairs_per_group;
        return next < pair_end ? next : pair_end;
    }
    void row(std::int64_t i, type (&w)[2]) const { // the group's i-th k
        const std::byte* at = codes + i / (Four ? 8 : 4) * block_width * 4;
        const int shift = static_cast<int>(i % 4 * 8 + (Four ? i % 8 / 4 * 4 : 0));
        for (int v = 0; v < 2; ++v) {
            const type code = Vector::bits(at + v * Vector::lanes * 4, shift, Four ? 0x0f : 0xff);
            w[v] = Vector::multiply(Vector::subtract(code, zero[v]), scale[v]);
        }
    }
    void even(std::int64_t pair, type (&w)[2]) const { row((pair - pair_first) * 2, w); }
    void odd(std::int64_t pair, type (&w)[2]) const { row((pair - pair_first) * 2 + 1, w); }
};

template <class Vector>
using int8_weights = quantized_weights<Vector, false>;
template <class Vector>
using int4_weights = quantized_weights<Vector, true>;

template <class Vector, int Height>
inline void load_accumulators(const tile_arguments& a, std::int64_t column,
                              typename Vector::type (&sum)[Height][2]) {
    constexpr std::int64_t width = 2 * Vector::lanes;
    if (!a.accumulate) {
        for (int h = 0; h < Height; ++h) sum[h][0] = sum[h][1] = Vector::zero();
        return;
    }
    if (column + width <= a.columns) {
        for (int h = 0; h < Height; ++h) {
            const float* row = a.output + h * a.output_row_stride + column;
            sum[h][0] = Vector::load(row);
            sum[h][1] = Vector::load(row + Vector::lanes);
        }
        return;
    }
    for (int h = 0; h < Height; ++h) {
        float part[width] = {};
        const float* row = a.output + h * a.output_row_stride + column;
        for (std::int64_t n = 0; n < a.columns - column; ++n) part[n] = row[n];
        sum[h][0] = Vector::load(part);
        sum[h][1] = Vector::load(part + Vector::lanes);
    }
}

template <class Vector, int Height>
inline void store_accumulators(const tile_arguments& a, std::int64_t column,
                               const typename Vector::type (&sum)[Height][2]) {
    constexpr std::int64_t width = 2 * Vector::lanes;
    if (column + width <= a.columns) {
        for (int h = 0; h < Height; ++h) {
            float* row = a.output + h * a.output_row_stride + column;
            Vector::store(row, sum[h][0]);
            Vector::store(row + Vector::lanes, sum[h][1]);
        }
        return;
    }
    for (int h = 0; h < Height; ++h) {
        float part[width];
        Vector::store(part, sum[h][0]);
        Vector::store(part + Vector::lanes, sum[h][1]);
        float* row = a.output + h * a.output_row_stride + column;
        for (std::int64_t n = 0; n < a.columns - column; ++n) row[n] = part[n];
    }
}

template <class Vector, int Height>
inline __attribute__((always_inline)) void multiply_step(const float* x,
                                                         const typename Vector::type (&w)[2],
                                                         typename Vector::type (&sum)[Height][2]) {
#pragma GCC unroll 14
    for (int h = 0; h < Height; ++h) {
        const auto value = Vector::broadcast(x + h);
        sum[h][0] = Vector::fma(value, w[0], sum[h][0]);
        sum[h][1] = Vector::fma(value, w[1], sum[h][1]);
    }
}

// Two vectors of columns at a time; a vector of 8 lanes goes over the block twice. StorePanel also
// leaves the widened weights in a.panel for the tiles that follow: the stores use ports that the
// multiplications leave idle, where a pass of its own costs several rows' time.
template <class Vector, template <class> class Weights, int Height, bool StorePanel>
void multiply_tile(const tile_arguments& a) {
    constexpr std::int64_t width = 2 * Vector::lanes;
    const std::int64_t pair_count = a.k_count / 2;
    for (std::int64_t column = 0; column < a.columns; column += width) {
        Weights<Vector> weights(a, column);
        typename Vector::type sum[Height][2];
        load_accumulators<Vector, Height>(a, column, sum);
        const float* x = static_cast<const float*>(a.rows);
        const std::byte* prefetch = a.prefetch;
        float* panel = a.panel + column;
        for (std::int64_t pair = 0; pair < pair_count;) {
            const std::int64_t run_end = weights.begin_run(pair, pair_count);
            for (; pair < run_end; ++pair) {
                __builtin_prefetch(prefetch, 0, 2);
                __builtin_prefetch(prefetch + 64, 0, 2);
                prefetch += a.prefetch_step;
                typename Vector::type w[2];
                weights.even(pair, w);
                if constexpr (StorePanel) {
                    Vector::store(panel, w[0]);
                    Vector::store(panel + Vector::lanes, w[1]);
                }
                multiply_step<Vector, Height>(x, w, sum);
                weights.odd(pair, w);
                if constexpr (StorePanel) {
                    Vector::store(panel + block_width, w[0]);
                    Vector::store(panel + block_width + Vector::lanes, w[1]);
                    panel += 2 * block_width;
                }
                multiply_step<Vector, Height>(x + Height, w, sum);
                x += 2 * Height;
            }
        }
        store_accumulators<Vector, Height>(a, column, sum);
    }
}

template <class Vector, template <class> class Weights>
void widen_block(const widen_arguments& a) {
    const std::int64_t pair_begin = a.k_begin / 2;
    const std::int64_t pair_end = pair_begin + a.k_count / 2;
    for (std::int64_t column = 0; column < block_width; column += 2 * Vector::lanes) {
        Weights<Vector> weights(a, column);
        float* out = a.panel + column;
        for (std::int64_t pair = pair_begin; pair < pair_end;) {
            const std::int64_t run_end = weights.begin_run(pair, pair_end);
            for (; pair < run_end; ++pair) {
                typename Vector::type w[2];
                weights.even(pair, w);
                Vector::store(out, w[0]);
                Vector::store(out + Vector::lanes, w[1]);
                weights.odd(pair, w);
                Vector::store(out + block_width, w[0]);
                Vector::store(out + block_width + Vector::lanes, w[1]);
                out += 2 * block_width;
            }
        }
    }
}

template <class Vector, template <class> class Weights, int HeightMax, bool StorePanel = false>
constexpr void fill_heights(tile_function (&table)[tile_height_limit + 1]) {
    if constexpr (HeightMax > 0) {
        table[HeightMax] = multiply_tile<Vector, Weights, HeightMax, StorePanel>;
        fill_heights<Vector, Weights, HeightMax - 1, StorePanel>(table);
    }
}

template <class Vector, int HeightMax, int QuantizedHeightMax>
constexpr tile_kernels make_tile_kernels(pack_function pack) {
    constexpr int int8 = static_cast<int>(weight_storage::int8);
    constexpr int int4 = static_cast<int>(weight_storage::int4);
    constexpr int float32 = static_cast<int>(weight_storage::float32);
    constexpr int bfloat16 = static_cast<int>(weight_storage::bfloat16);
    tile_kernels kernels;
    kernels.height_max = HeightMax;
    kernels.direct_height_max[float32] = HeightMax;
    kernels.direct_height_max[bfloat16] = HeightMax;
    kernels.direct_height_max[int8] = QuantizedHeightMax;
    kernels.direct_height_max[int4] = QuantizedHeightMax;
    fill_heights<Vector, float32_weights, HeightMax>(kernels.direct[float32]);
    fill_heights<Vector, bfloat16_weights, HeightMax>(kernels.direct[bfloat16]);
    fill_heights<Vector, int8_weights, QuantizedHeightMax>(kernels.direct[int8]);
    fill_heights<Vector, int4_weights, QuantizedHeightMax>(kernels.direct[int4]);
    fill_heights<Vector, bfloat16_weights, HeightMax, true>(kernels.widening[bfloat16]);
    kernels.widen[int8] = widen_block<Vector, int8_weights>;
    kernels.widen[int4] = widen_block<Vector, int4_weights>;
    kernels.pack_float32 = pack;
    return kernels;
}

// One row at a time; for sets without a vector transpose.
inline void pack_tile_by_row(const pack_arguments& a) {
    auto* tile = static_cast<float*>(a.tile);
    const std::int64_t k_padded = a.k + a.k % 2;
    for (std::int64_t h = 0; h < a.height; ++h) {
        const std::int64_t m = a.row_begin + h;
        const std::int64_t row = a.source.row_index != nullptr ? a.source.row_index[m] : m;
        const std::int64_t offset = row * a.source.row_stride;
        float* out = tile + h;
        if (a.source.type == float_type::float32) {
            const float* x = static_cast<const float*>(a.source.data) + offset;
            for (std::int64_t k = 0; k < a.k; ++k) out[k * a.height] = x[k];
        } else {
            const auto* x = static_cast<const std::uint16_t*>(a.source.data) + offset;
            for (std::int64_t k = 0; k < a.k; ++k) {
                const std::uint32_t bits = static_cast<std::uint32_t>(x[k]) << 16;
                __builtin_memcpy(out + k * a.height, &bits, sizeof bits);
            }
        }
        if (k_padded != a.k) out[a.k * a.height] = 0.0f;
    }
}

} // namespace
} // namespace sluice::kernels
