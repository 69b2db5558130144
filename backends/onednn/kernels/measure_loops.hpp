// Internal to measure.cpp: the loops that need an instruction set's flags. Each does `rounds`
// rounds of independent operations in registers and returns the operations done.
#pragma once

#include <cstdint>

namespace sluice::kernels {

using measure_loop = std::int64_t (*)(std::int64_t rounds);

#if defined(SLUICE_KERNELS_X86)
std::int64_t float32_loop_avx2(std::int64_t rounds);
std::int64_t int8_loop_avx2(std::int64_t rounds);
std::int64_t float32_loop_avx512(std::int64_t rounds);
std::int64_t bfloat16_loop_avx512(std::int64_t rounds);
std::int64_t int8_loop_avx512(std::int64_t rounds);
#endif

} // namespace sluice::kernels
