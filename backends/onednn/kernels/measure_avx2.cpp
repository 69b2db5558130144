#include "measure_loops.hpp"

#include <immintrin.h>

namespace sluice::kernels {
namespace {

constexpr int chains = 12;

// Keeps a value in its register and the compiler from knowing it.
template <class Type>
inline void keep(Type& value) {
    __asm__ volatile("" : "+x"(value));
}

} // namespace

std::int64_t float32_loop_avx2(std::int64_t rounds) {
    __m256 x = _mm256_set1_ps(0.5f);
    __m256 sum[chains];
    for (auto& value : sum) value = _mm256_setzero_ps();
    for (std::int64_t round = 0; round < rounds; ++round) {
        keep(x);
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) sum[i] = _mm256_fmadd_ps(x, x, sum[i]);
    }
    for (auto& value : sum) keep(value);
    return rounds * chains * 8 * 2;
}

std::int64_t int8_loop_avx2(std::int64_t rounds) {
    __m256i x = _mm256_set1_epi8(1);
    __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[chains];
    for (auto& value : sum) value = _mm256_setzero_si256();
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) {
            keep(x); // each product is computed anew
            const __m256i pairs = _mm256_maddubs_epi16(x, x);
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs, ones));
        }
    }
    for (auto& value : sum) keep(value);
    return rounds * chains * 32 * 2;
}

} // namespace sluice::kernels
