// IEEE 754 binary16 by bits: what scales are stored in.
#pragma once

#include <bit>
#include <cstdint>

namespace sluice::quantizers {

constexpr float half_max = 65504.0F;
constexpr float half_least = 5.9604644775390625e-8F; // the smallest subnormal, 2^-24

// The nearest binary16 value, ties to even, as a float. `value` is finite, at least 0 and under
// 65520, where rounding would reach infinity.
inline float round_to_half(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const int exponent = static_cast<int>(bits >> 23) - 127;
    if (exponent < -14) {
        // Subnormal halves are multiples of 2^-24: adding 0.5 leaves that many bits in a float.
        const float shifted = value + 0.5F;
        return shifted - 0.5F;
    }
    const uint32_t odd = (bits >> 13) & 1U;
    return std::bit_cast<float>((bits + 0xfffU + odd) & ~0x1fffU);
}

} // namespace sluice::quantizers
