// One element at a time, of any type: slow, and obviously right.
#pragma once

#include <sluice/plugin/host_backend.hpp>

#include <bit>
#include <cmath>
#include <limits>

namespace sluice::plain {

namespace plugin = sluice::plugin;

inline float bf16_to_float(uint16_t bits) {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// To nearest, ties to even; NaN stays NaN.
inline uint16_t float_to_bf16(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40u);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float f16_to_float(uint16_t bits) {
    const float sign = (bits & 0x8000u) != 0 ? -1.0f : 1.0f;
    const int exponent = (bits >> 10) & 31;
    const int mantissa = bits & 1023;
    if (exponent == 31)
        return mantissa == 0 ? sign * std::numeric_limits<float>::infinity()
                             : std::numeric_limits<float>::quiet_NaN();
    if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
    return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

// To nearest, ties to even; overflow gives infinity.
inline uint16_t float_to_f16(float value) {
    const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000u : 0u);
    const float magnitude = std::fabs(value);
    if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00u);
    if (magnitude == 0.0f) return sign; // has no exponent to count units by
    if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00u);
    int exponent = 0;
    std::frexp(magnitude, &exponent); // magnitude in [2^(exponent-1), 2^exponent)
    const int unit = std::max(exponent - 11, -24);
    // Counting in units of the last place keeps ties exact: nearbyint rounds them to even.
    const auto count = static_cast<int>(std::nearbyint(std::ldexp(magnitude, -unit)));
    if (unit == -24) return static_cast<uint16_t>(sign | count);
    return static_cast<uint16_t>(sign | (((unit + 25) << 10) + (count - 1024)));
}

// bits: sign, exponent_bits of exponent, the rest mantissa; finite formats of OCP.
inline float small_float(uint32_t bits, int exponent_bits, int mantissa_bits, int bias) {
    const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
    const int exponent = static_cast<int>((bits >> mantissa_bits) & ((1u << exponent_bits) - 1));
    const bool negative = ((bits >> (exponent_bits + mantissa_bits)) & 1u) != 0;
    const float value = exponent == 0
                            ? std::ldexp(static_cast<float>(mantissa), 1 - bias - mantissa_bits)
                            : std::ldexp(static_cast<float>(mantissa + (1u << mantissa_bits)),
                                         exponent - bias - mantissa_bits);
    return negative ? -value : value;
}

inline float f8_e4m3_to_float(uint8_t bits) {
    if ((bits & 0x7fu) == 0x7fu) return std::numeric_limits<float>::quiet_NaN();
    return small_float(bits, 4, 3, 7);
}

inline float f8_e5m2_to_float(uint8_t bits) {
    if ((bits & 0x7cu) == 0x7cu)
        return (bits & 3u) != 0 ? std::numeric_limits<float>::quiet_NaN()
                                : std::copysign(std::numeric_limits<float>::infinity(),
                                                (bits & 0x80u) != 0 ? -1.0f : 1.0f);
    return small_float(bits, 5, 2, 15);
}

// Element `index` of an array of that type, as a float.
inline float get(const void* data, sluice_element_type type, int64_t index) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    switch (type) {
    case SLUICE_F32:
        return static_cast<const float*>(data)[index];
    case SLUICE_F64:
        return static_cast<float>(static_cast<const double*>(data)[index]);
    case SLUICE_F16:
        return f16_to_float(static_cast<const uint16_t*>(data)[index]);
    case SLUICE_BF16:
        return bf16_to_float(static_cast<const uint16_t*>(data)[index]);
    case SLUICE_F8_E4M3:
        return f8_e4m3_to_float(bytes[index]);
    case SLUICE_F8_E5M2:
        return f8_e5m2_to_float(bytes[index]);
    case SLUICE_F8_E8M0:
        return std::ldexp(1.0f, bytes[index] - 127);
    case SLUICE_I8:
        return static_cast<float>(static_cast<const int8_t*>(data)[index]);
    case SLUICE_U8:
    case SLUICE_BOOL:
        return static_cast<float>(bytes[index]);
    case SLUICE_I32:
        return static_cast<float>(static_cast<const int32_t*>(data)[index]);
    case SLUICE_F4_E2M1:
    case SLUICE_U4:
    case SLUICE_I4: {
        const uint32_t nibble = (bytes[index / 2] >> (index % 2 * 4)) & 15u;
        if (type == SLUICE_U4) return static_cast<float>(nibble);
        if (type == SLUICE_F4_E2M1) return small_float(nibble, 2, 1, 1);
        return static_cast<float>(nibble < 8 ? static_cast<int>(nibble)
                                             : static_cast<int>(nibble) - 16);
    }
    default:
        plugin::fail(SLUICE_UNSUPPORTED, "element type ", type, " cannot be read as float");
    }
}

inline float get(const plugin::tensor& t, int64_t index) { return get(t.data, t.type, index); }

inline void put(const plugin::tensor& t, int64_t index, float value) {
    switch (t.type) {
    case SLUICE_F32:
        t.as<float>()[index] = value;
        return;
    case SLUICE_F16:
        t.as<uint16_t>()[index] = float_to_f16(value);
        return;
    case SLUICE_BF16:
        t.as<uint16_t>()[index] = float_to_bf16(value);
        return;
    case SLUICE_I32:
        t.as<int32_t>()[index] = static_cast<int32_t>(value);
        return;
    case SLUICE_BOOL:
        t.as<uint8_t>()[index] = value != 0.0f ? 1 : 0;
        return;
    default:
        plugin::fail(SLUICE_UNSUPPORTED, "element type ", t.type, " cannot be written");
    }
}

// `count` elements from `index` on, as floats.
inline void get_row(const plugin::tensor& t, int64_t index, int64_t count, float* row) {
    for (int64_t i = 0; i < count; ++i) row[i] = get(t, index + i);
}

} // namespace sluice::plain
