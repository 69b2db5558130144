#include "tile_template.hpp"

#include <immintrin.h>

namespace sluice::kernels {
namespace {

// vdpbf16ps adds the products of both elements of a pair, rounding to nearest after each and
// flushing denormals.
struct vector_bfloat16_pairs {
    static constexpr std::int64_t lanes = 16;
    using type = __m512;
    static type load(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, type value) { _mm512_storeu_ps(to, value); }
    static type zero() { return _mm512_setzero_ps(); }
};

template <int Height>
void multiply_tile_bfloat16(const tile_arguments& a) {
    __m512 sum[Height][2];
    load_accumulators<vector_bfloat16_pairs, Height>(a, 0, sum);
    const int* x = static_cast<const int*>(a.rows); // [k/2][height] pairs
    const std::byte* block = a.block;
    const std::byte* prefetch = a.prefetch;
    for (std::int64_t pair = 0; pair < a.k_count / 2; ++pair) {
        __builtin_prefetch(prefetch, 0, 2);
        __builtin_prefetch(prefetch + 64, 0, 2);
        prefetch += a.prefetch_step;
        const auto w0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(block));
        const auto w1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(block + 64));
#pragma GCC unroll 14
        for (int h = 0; h < Height; ++h) {
            const auto value = reinterpret_cast<__m512bh>(_mm512_set1_epi32(x[h]));
            sum[h][0] = _mm512_dpbf16_ps(sum[h][0], value, w0);
            sum[h][1] = _mm512_dpbf16_ps(sum[h][1], value, w1);
        }
        x += Height;
        block += block_width * 4;
    }
    store_accumulators<vector_bfloat16_pairs, Height>(a, 0, sum);
}

template <int Height>
constexpr void fill_bfloat16(tile_function (&table)[tile_height_limit + 1]) {
    if constexpr (Height > 0) {
        table[Height] = multiply_tile_bfloat16<Height>;
        fill_bfloat16<Height - 1>(table);
    }
}

// Rounds to nearest, ties to even, as bfloat16_from_float does.
inline std::uint16_t rounded(float value) {
    std::uint32_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void pack_tile_bfloat16(const pack_arguments& a) {
    auto* tile = static_cast<std::uint16_t*>(a.tile); // [k/2][height][2]
    for (std::int64_t h = 0; h < a.height; ++h) {
        const std::int64_t m = a.row_begin + h;
        const std::int64_t row = a.source.row_index != nullptr ? a.source.row_index[m] : m;
        const std::int64_t offset = row * a.source.row_stride;
        std::uint16_t* out = tile + h * 2;
        const auto* floats = static_cast<const float*>(a.source.data) + offset;
        const auto* halves = static_cast<const std::uint16_t*>(a.source.data) + offset;
        const bool is_float = a.source.type == float_type::float32;
        for (std::int64_t k = 0; k < a.k; ++k) {
            out[k / 2 * a.height * 2 + k % 2] = is_float ? rounded(floats[k]) : halves[k];
        }
        if (a.k % 2 != 0) out[a.k / 2 * a.height * 2 + 1] = 0;
    }
}

constexpr bfloat16_tile_kernels make_bfloat16_tile_kernels() {
    bfloat16_tile_kernels kernels;
    kernels.height_max = 14;
    fill_bfloat16<14>(kernels.direct);
    kernels.pack_bfloat16 = pack_tile_bfloat16;
    return kernels;
}

} // namespace

constinit const bfloat16_tile_kernels tile_kernels_avx512_bf16 = make_bfloat16_tile_kernels();

} // namespace sluice::kernels
