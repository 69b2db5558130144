// Element types by name and size, and the scalar conversions that everything else builds on.
#pragma once

#include <sluice/abi/tensor.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace sluice {

// "f32", "bf16", "f8_e4m3", ...; "unknown" for what is none.
std::string_view element_type_name(sluice_element_type type);

// Reads the names above, and PyTorch's ("float32", "bfloat16", "half", "torch.float16", ...), which
// config.json uses. Nothing for any other text; element_type_names() lists what could be said.
std::optional<sluice_element_type> element_type_from_name(std::string_view name);
std::span<const std::string> element_type_names();

// Bits of one element: 4 to 64; 0 for an unknown type.
uint32_t element_bits(sluice_element_type type);

// f32, f16 or bf16: what weights are in that are not quantized.
constexpr bool is_plain_float(sluice_element_type type) {
    return type == SLUICE_F32 || type == SLUICE_F16 || type == SLUICE_BF16;
}

// The elements in a shape, and the bytes of a dense tensor (sub-byte elements fill whole bytes only
// at the end). Nothing when a dimension is negative, the type unknown, or the product overflows.
std::optional<uint64_t> element_count(std::span<const int64_t> shape);
std::optional<uint64_t> tensor_bytes(sluice_element_type type, std::span<const int64_t> shape);

// Arrays. `source` needs no alignment. Every type but UNKNOWN is read; sub-byte elements lie two a
// byte, the lower half first; integers round to nearest as C++ does. Fails with UNSUPPORTED else.
void convert_to_f32(sluice_element_type type, const void* source, float* target, size_t count);

// To f32, f16 or bf16, to nearest with ties to even; values beyond the range become infinite. Any
// other type fails with UNSUPPORTED.
void convert_from_f32(sluice_element_type type, const float* source, void* target, size_t count);

// IEEE 754 binary16.
inline float f16_to_f32(uint16_t value) {
    uint32_t sign = uint32_t(value & 0x8000u) << 16;
    uint32_t magnitude = value & 0x7fffu;
    if (magnitude >= 0x7c00u) { // infinity and NaN keep their mantissa
        return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    }
    if (magnitude < 0x0400u) { // zero and subnormal: mantissa * 2^-24, exact in binary32
        return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(float(magnitude) * 0x1p-24f));
    }
    return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
}

inline uint16_t f32_to_f16(float value) {
    uint32_t bits = std::bit_cast<uint32_t>(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x47800000u) return uint16_t(sign | 0x7c00u); // 65536 and more
    if (magnitude < 0x38800000u) { // under 2^-14: one unit in the last place of 0.5 is 2^-24
        float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        return uint16_t(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
    }
    magnitude -= 112u << 23;
    magnitude += 0xfffu + ((magnitude >> 13) & 1u); // to nearest, ties to even
    return uint16_t(sign | magnitude >> 13);
}

// The upper half of a binary32.
inline float bf16_to_f32(uint16_t value) { return std::bit_cast<float>(uint32_t(value) << 16); }

inline uint16_t f32_to_bf16(float value) {
    uint32_t bits = std::bit_cast<uint32_t>(value);
    // Rounding could carry a NaN's mantissa into infinity, so it is cut and made quiet instead.
    if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t(bits >> 16 | 0x40u);
    return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// OCP 8-bit float E4M3: bias 7, no infinity, NaN is S.1111.111.
inline float f8_e4m3_to_f32(uint8_t value) {
    uint32_t sign = uint32_t(value & 0x80u) << 24;
    uint32_t magnitude = value & 0x7fu;
    if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
    if (magnitude < 8) { // mantissa * 2^-9
        return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(float(magnitude) * 0x1p-9f));
    }
    return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
}

// OCP 8-bit float E5M2: the upper half of a binary16.
inline float f8_e5m2_to_f32(uint8_t value) { return f16_to_f32(uint16_t(value << 8)); }

// OCP microscaling scale E8M0: 2^(value - 127), 255 is NaN.
inline float f8_e8m0_to_f32(uint8_t value) {
    if (value == 0xff) return std::bit_cast<float>(0x7fc00000u);
    return std::bit_cast<float>(value == 0 ? 0x00400000u : uint32_t(value) << 23);
}

// OCP microscaling 4-bit float E2M1, in the lower four bits.
inline float f4_e2m1_to_f32(uint8_t value) {
    constexpr float magnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    float magnitude = magnitudes[value & 7u];
    return (value & 8u) != 0 ? -magnitude : magnitude;
}

} // namespace sluice
