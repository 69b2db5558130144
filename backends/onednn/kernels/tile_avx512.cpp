#include "tile_template.hpp"
#include "transpose_avx512.hpp"

namespace sluice::kernels {
namespace {

struct vector_avx512 {
    static constexpr std::int64_t lanes = 16;
    using type = __m512;

    static type load(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, type value) { _mm512_storeu_ps(to, value); }
    static type broadcast(const float* from) { return _mm512_set1_ps(*from); }
    static type zero() { return _mm512_setzero_ps(); }
    static type fma(type a, type b, type c) { return _mm512_fmadd_ps(a, b, c); }
    static type subtract(type a, type b) { return _mm512_sub_ps(a, b); }
    static type multiply(type a, type b) { return _mm512_mul_ps(a, b); }
    static type even_of_pair(const std::byte* from) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(from), 16));
    }
    static type odd_of_pair(const std::byte* from) {
        return _mm512_castsi512_ps(_mm512_and_si512(
            _mm512_loadu_si512(from), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    }
    static type load_int16(const std::byte* from) {
        return _mm512_cvtepi32_ps(
            _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
    }
    static type load_float16(const std::byte* from) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static type bits(const std::byte* from, int shift, int mask) {
        const __m512i moved = _mm512_srl_epi32(_mm512_loadu_si512(from), _mm_cvtsi32_si128(shift));
        return _mm512_cvtepi32_ps(_mm512_and_si512(moved, _mm512_set1_epi32(mask)));
    }
};

// The k beyond the row read as zero; only the real and the padding k are written.
void pack_tile_avx512(const pack_arguments& a) {
    const std::int64_t k_padded = a.k + a.k % 2;
    const __mmask16 rows = static_cast<__mmask16>((1u << a.height) - 1u);
    auto* tile = static_cast<float*>(a.tile);
    std::int64_t offset[tile_height_limit];
    for (std::int64_t h = 0; h < a.height; ++h) {
        const std::int64_t m = a.row_begin + h;
        offset[h] =
            (a.source.row_index != nullptr ? a.source.row_index[m] : m) * a.source.row_stride;
    }
    for (std::int64_t k = 0; k < k_padded; k += 16) {
        const std::int64_t rest = a.k - k;
        const __mmask16 inside = rest >= 16 ? static_cast<__mmask16>(0xffffu)
                                            : static_cast<__mmask16>((1u << rest) - 1u);
        __m512 r[16];
        for (std::int64_t h = 0; h < 16; ++h) {
            if (h >= a.height) {
                r[h] = _mm512_setzero_ps();
            } else if (a.source.type == float_type::float32) {
                r[h] = _mm512_maskz_loadu_ps(inside, static_cast<const float*>(a.source.data)
                                                         + offset[h] + k);
            } else {
                const __m256i half = _mm256_maskz_loadu_epi16(
                    inside, static_cast<const std::uint16_t*>(a.source.data) + offset[h] + k);
                r[h] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
            }
        }
        transpose(r);
        const std::int64_t count = k_padded - k < 16 ? k_padded - k : 16;
        for (std::int64_t i = 0; i < count; ++i) {
            _mm512_mask_storeu_ps(tile + (k + i) * a.height, rows, r[i]);
        }
    }
}

} // namespace

// Height 14: 28 accumulators, two vectors of weights and one activation fill 31 of 32 registers.
constinit const tile_kernels tile_kernels_avx512 =
    make_tile_kernels<vector_avx512, 14, 8>(pack_tile_avx512);

} // namespace sluice::kernels
