#include "tile_template.hpp"
#include "transpose_avx512.hpp"

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

// Elements k to k + 31 of a row as pairs; those beyond the row are zero. Rounds to nearest, ties to
// even.
inline __m512i pairs_of(const row_source& source, std::int64_t at, std::int64_t rest) {
    const __mmask32 inside = rest >= 32 ? static_cast<__mmask32>(0xffffffffu)
                                        : static_cast<__mmask32>((1u << rest) - 1u);
    if (source.type == float_type::bfloat16)
        return _mm512_maskz_loadu_epi16(inside,
                                        static_cast<const std::uint16_t*>(source.data) + at);
    const auto* x = static_cast<const float*>(source.data) + at;
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(inside), x);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(inside >> 16), x + 16);
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

void pack_tile_bfloat16(const pack_arguments& a) {
    auto* tile = static_cast<float*>(a.tile); // [k/2][height] pairs
    const auto rows = static_cast<__mmask16>((1u << a.height) - 1u);
    const std::int64_t pair_count = (a.k + 1) / 2;
    std::int64_t offset[tile_height_limit];
    for (std::int64_t h = 0; h < a.height; ++h) {
        const std::int64_t m = a.row_begin + h;
        offset[h] =
            (a.source.row_index != nullptr ? a.source.row_index[m] : m) * a.source.row_stride;
    }
    for (std::int64_t k = 0; k < a.k; k += 32) {
        __m512 r[16];
        for (std::int64_t h = 0; h < 16; ++h)
            r[h] = h < a.height ? _mm512_castsi512_ps(pairs_of(a.source, offset[h] + k, a.k - k))
                                : _mm512_setzero_ps();
        transpose(r);
        const std::int64_t count = pair_count - k / 2 < 16 ? pair_count - k / 2 : 16;
        for (std::int64_t i = 0; i < count; ++i)
            _mm512_mask_storeu_ps(tile + (k / 2 + i) * a.height, rows, r[i]);
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
