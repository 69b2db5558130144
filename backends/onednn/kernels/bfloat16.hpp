// bfloat16 values travel as uint16_t: the upper half of a float32's bits.
#pragma once

#include <bit>
#include <cstdint>

namespace sluice::kernels {

inline float float_from_bfloat16(std::uint16_t value) {
    return std::bit_cast<float>(std::uint32_t{value} << 16);
}

// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
inline std::uint16_t bfloat16_from_float(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

} // namespace sluice::kernels
