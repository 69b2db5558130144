#include "integer_tile_template.hpp"

#include <immintrin.h>

namespace sluice::kernels {
namespace {

struct vector_vnni : integer_lanes<64> {
    static constexpr std::int64_t lanes = 16;
    using type = __m512;

    static __m512i bits(integers value) { return reinterpret_cast<__m512i>(value); }
    static integers lanes_of(__m512i value) { return reinterpret_cast<integers>(value); }
    static type load(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, type value) { _mm512_storeu_ps(to, value); }
    static type broadcast(const float* from) { return _mm512_set1_ps(*from); }
    static type zero() { return _mm512_setzero_ps(); }
    static type fma(type a, type b, type c) { return _mm512_fmadd_ps(a, b, c); }
    static type multiply(type a, type b) { return _mm512_mul_ps(a, b); }
    static type to_float(integers value) { return _mm512_cvtepi32_ps(bits(value)); }
    static type load_float16(const std::byte* from) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static integers load_zeros(const std::byte* from) {
        return lanes_of(
            _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
    }
    static integers load_codes(const std::byte* from) { return lanes_of(_mm512_loadu_si512(from)); }
    static integers broadcast_integer(const std::uint32_t* from) {
        return lanes_of(_mm512_set1_epi32(static_cast<int>(*from)));
    }
    static word broadcast_word(const std::uint32_t* from) { return broadcast_integer(from); }
    template <bool Four>
    static integers dot(integers sum, integers codes, word x) {
        return lanes_of(_mm512_dpbusd_epi32(bits(sum), bits(codes), bits(x)));
    }
};

} // namespace

// Height 12: 24 sums, two vectors of codes twice, a mask and one word of a row fill 30 of 32
// registers; the float32 sums wait in the first-level cache from one run to the next.
constinit const integer_kernels integer_kernels_vnni = make_integer_kernels<vector_vnni, 12>();

} // namespace sluice::kernels
