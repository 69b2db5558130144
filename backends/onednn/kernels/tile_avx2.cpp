#include "tile_template.hpp"

#include <immintrin.h>

namespace sluice::kernels {
namespace {

struct vector_avx2 {
    static constexpr std::int64_t lanes = 8;
    using type = __m256;

    static type load(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, type value) { _mm256_storeu_ps(to, value); }
    static type broadcast(const float* from) { return _mm256_broadcast_ss(from); }
    static type zero() { return _mm256_setzero_ps(); }
    static type fma(type a, type b, type c) { return _mm256_fmadd_ps(a, b, c); }
    static type subtract(type a, type b) { return _mm256_sub_ps(a, b); }
    static type multiply(type a, type b) { return _mm256_mul_ps(a, b); }
    static __m256i pairs(const std::byte* from) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    }
    static type even_of_pair(const std::byte* from) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(pairs(from), 16));
    }
    static type odd_of_pair(const std::byte* from) {
        return _mm256_castsi256_ps(
            _mm256_and_si256(pairs(from), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
    }
    static type load_int16(const std::byte* from) {
        return _mm256_cvtepi32_ps(
            _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    }
    static type load_float16(const std::byte* from) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    static type bits(const std::byte* from, int shift, int mask) {
        const __m256i moved = _mm256_srl_epi32(pairs(from), _mm_cvtsi32_si128(shift));
        return _mm256_cvtepi32_ps(_mm256_and_si256(moved, _mm256_set1_epi32(mask)));
    }
};

} // namespace

// Height 6: 12 accumulators, two vectors of weights and one activation fill 15 of 16 registers.
constinit const tile_kernels tile_kernels_avx2 =
    make_tile_kernels<vector_avx2, 6, 4>(pack_tile_by_row);

} // namespace sluice::kernels
