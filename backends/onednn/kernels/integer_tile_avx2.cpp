#include "integer_tile_template.hpp"

#include <immintrin.h>

namespace sluice::kernels {
namespace {

struct vector_avx2_integers : integer_lanes<32> {
    static constexpr std::int64_t lanes = 8;
    using type = __m256;

    static __m256i bits(integers value) { return reinterpret_cast<__m256i>(value); }
    static integers lanes_of(__m256i value) { return reinterpret_cast<integers>(value); }
    static type load(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, type value) { _mm256_storeu_ps(to, value); }
    static type broadcast(const float* from) { return _mm256_broadcast_ss(from); }
    static type zero() { return _mm256_setzero_ps(); }
    static type fma(type a, type b, type c) { return _mm256_fmadd_ps(a, b, c); }
    static type multiply(type a, type b) { return _mm256_mul_ps(a, b); }
    static type to_float(integers value) { return _mm256_cvtepi32_ps(bits(value)); }
    static __m128i load_half(const std::byte* from) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    }
    static type load_float16(const std::byte* from) { return _mm256_cvtph_ps(load_half(from)); }
    static integers load_zeros(const std::byte* from) {
        return lanes_of(_mm256_cvtepi16_epi32(load_half(from)));
    }
    static integers load_codes(const std::byte* from) {
        return lanes_of(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static integers broadcast_integer(const std::uint32_t* from) {
        return lanes_of(_mm256_set1_epi32(static_cast<int>(*from)));
    }
    static word broadcast_word(const std::uint32_t* from) { return broadcast_integer(from); }

    // vpmaddubsw saturates at 16 bits: pairs of nibbles reach 2 * 15 * 127 and fit, pairs of bytes
    // reach 2 * 255 * 127 and do not. Bytes are widened, even and odd k apart.
    template <bool Four>
    static integers dot(integers sum, integers codes, word x) {
        if constexpr (Four) {
            const __m256i pairs = _mm256_maddubs_epi16(bits(codes), bits(x));
            return sum + lanes_of(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        } else {
            const __m256i even = _mm256_and_si256(bits(codes), _mm256_set1_epi16(0x00ff));
            const __m256i odd = _mm256_srli_epi16(bits(codes), 8);
            const __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(bits(x), 8), 8);
            const __m256i x_odd = _mm256_srai_epi16(bits(x), 8);
            return sum + lanes_of(_mm256_madd_epi16(even, x_even))
                   + lanes_of(_mm256_madd_epi16(odd, x_odd));
        }
    }
};

} // namespace

// Height 4: eight sums leave registers for codes, a word and what `dot` needs.
constinit const integer_kernels integer_kernels_avx2 =
    make_integer_kernels<vector_avx2_integers, 4>();

} // namespace sluice::kernels
