#include "measure_loops.hpp"

#include <immintrin.h>

namespace sluice::kernels {
namespace {

// More chains than latency times units on any processor; with the operand they fit 32 registers.
constexpr int chains = 24;

// Keeps a value in its register and the compiler from knowing it.
template <class Type>
inline void keep(Type& value) {
    __asm__ volatile("" : "+v"(value));
}

} // namespace

std::int64_t float32_loop_avx512(std::int64_t rounds) {
    __m512 x = _mm512_set1_ps(0.5f);
    __m512 sum[chains];
    for (auto& value : sum) value = _mm512_setzero_ps();
    for (std::int64_t round = 0; round < rounds; ++round) {
        keep(x);
#pragma GCC unroll 24
        for (int i = 0; i < chains; ++i) sum[i] = _mm512_fmadd_ps(x, x, sum[i]);
    }
    for (auto& value : sum) keep(value);
    return rounds * chains * 16 * 2;
}

std::int64_t bfloat16_loop_avx512(std::int64_t rounds) {
    __m512i x = _mm512_set1_epi16(0x3f00);
    __m512 sum[chains];
    for (auto& value : sum) value = _mm512_setzero_ps();
    for (std::int64_t round = 0; round < rounds; ++round) {
        keep(x);
#pragma GCC unroll 24
        for (int i = 0; i < chains; ++i) {
            sum[i] = _mm512_dpbf16_ps(sum[i], reinterpret_cast<__m512bh>(x),
                                      reinterpret_cast<__m512bh>(x));
        }
    }
    for (auto& value : sum) keep(value);
    return rounds * chains * 32 * 2;
}

std::int64_t int8_loop_avx512(std::int64_t rounds) {
    __m512i x = _mm512_set1_epi8(1);
    __m512i sum[chains];
    for (auto& value : sum) value = _mm512_setzero_si512();
    for (std::int64_t round = 0; round < rounds; ++round) {
        keep(x);
#pragma GCC unroll 24
        for (int i = 0; i < chains; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], x, x);
    }
    for (auto& value : sum) keep(value);
    return rounds * chains * 64 * 2;
}

} // namespace sluice::kernels
