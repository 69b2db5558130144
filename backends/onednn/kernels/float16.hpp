// float16 values (IEEE 754 binary16) travel as uint16_t.
#pragma once

#include <bit>
#include <cstdint>

namespace sluice::kernels {

inline float float_from_float16(std::uint16_t value) {
    const std::uint32_t sign = (value & 0x8000u) << 16;
    const std::uint32_t magnitude = value & 0x7fffu;
    if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | magnitude << 13);
    // As a float32 of the same bits the exponent is 112 too small; subnormals come out right too.
    return std::bit_cast<float>(
        sign | std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
}

// Rounds to nearest, ties to even; what is too large becomes infinity, a NaN stays a (quiet) NaN.
inline std::uint16_t float16_from_float(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        // Subnormal: adding 0.5 rounds to units of 2^-24, and leaves their count in the low bits.
        const auto sum = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f);
        return static_cast<std::uint16_t>(sign | (sum - 0x3f000000u));
    }
    const std::uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return static_cast<std::uint16_t>(sign | (rounded - 0x38000000u) >> 13);
}

} // namespace sluice::kernels
