#include "base/element_type.hpp"

#include "base/error.hpp"

#include <array>
#include <cstring>

namespace sluice {
namespace {

struct type_information {
    std::string_view name;
    uint32_t bits;
};

// By element type number.
constexpr std::array<type_information, 17> types = {{
    {"unknown", 0},
    {"f32", 32},
    {"f16", 16},
    {"bf16", 16},
    {"f8_e4m3", 8},
    {"f8_e5m2", 8},
    {"f8_e8m0", 8},
    {"f4_e2m1", 4},
    {"i8", 8},
    {"u8", 8},
    {"i32", 32},
    {"i64", 64},
    {"u4", 4},
    {"i4", 4},
    {"f64", 64},
    {"bool", 8},
    {"i16", 16},
}};

struct type_alias {
    std::string_view name;
    sluice_element_type type;
};

constexpr type_alias aliases[] = {
    {"float32", SLUICE_F32},
    {"float", SLUICE_F32},
    {"float16", SLUICE_F16},
    {"half", SLUICE_F16},
    {"bfloat16", SLUICE_BF16},
    {"float64", SLUICE_F64},
    {"double", SLUICE_F64},
    {"int8", SLUICE_I8},
    {"uint8", SLUICE_U8},
    {"int16", SLUICE_I16},
    {"int32", SLUICE_I32},
    {"int64", SLUICE_I64},
    {"float8_e4m3fn", SLUICE_F8_E4M3},
    {"float8_e5m2", SLUICE_F8_E5M2},
};

template <typename Stored, typename Convert>
void convert_each(const void* source, float* target, size_t count, Convert convert) {
    auto* bytes = static_cast<const std::byte*>(source);
    for (size_t i = 0; i < count; ++i) {
        Stored value;
        std::memcpy(&value, bytes + i * sizeof(Stored), sizeof(Stored)); // any alignment
        target[i] = convert(value);
    }
}

template <typename Convert>
void convert_each_half_byte(const void* source, float* target, size_t count, Convert convert) {
    auto* bytes = static_cast<const uint8_t*>(source);
    for (size_t i = 0; i < count; ++i) {
        target[i] = convert(uint8_t(bytes[i / 2] >> (i % 2 * 4) & 15));
    }
}

template <typename Stored>
float plain(Stored value) {
    return float(value);
}

} // namespace

std::string_view element_type_name(sluice_element_type type) {
    return type < types.size() ? types[type].name : types[0].name;
}

std::optional<sluice_element_type> element_type_from_name(std::string_view name) {
    if (name.starts_with("torch.")) name.remove_prefix(6);
    for (uint32_t type = 1; type < types.size(); ++type) {
        if (types[type].name == name) return type;
    }
    for (const type_alias& alias : aliases) {
        if (alias.name == name) return alias.type;
    }
    return std::nullopt;
}

std::span<const std::string> element_type_names() {
    static const std::array<std::string, types.size() - 1> names = [] {
        std::array<std::string, types.size() - 1> list;
        for (size_t i = 0; i < list.size(); ++i) list[i] = types[i + 1].name;
        return list;
    }();
    return names;
}

uint32_t element_bits(sluice_element_type type) {
    return type < types.size() ? types[type].bits : 0;
}

std::optional<uint64_t> element_count(std::span<const int64_t> shape) {
    uint64_t count = 1;
    for (int64_t dimension : shape) {
        if (dimension < 0) return std::nullopt;
        if (__builtin_mul_overflow(count, uint64_t(dimension), &count)) return std::nullopt;
    }
    return count;
}

std::optional<uint64_t> tensor_bytes(sluice_element_type type, std::span<const int64_t> shape) {
    std::optional<uint64_t> count = element_count(shape);
    uint64_t bits = element_bits(type), size_bits = 0;
    if (!count || bits == 0) return std::nullopt;
    if (__builtin_mul_overflow(*count, bits, &size_bits)) return std::nullopt;
    return size_bits / 8 + (size_bits % 8 != 0 ? 1 : 0);
}

void convert_to_f32(sluice_element_type type, const void* source, float* target, size_t count) {
    switch (type) {
    case SLUICE_F32:
        if (count > 0) std::memcpy(target, source, count * sizeof(float));
        return;
    case SLUICE_F16:
        return convert_each<uint16_t>(source, target, count, f16_to_f32);
    case SLUICE_BF16:
        return convert_each<uint16_t>(source, target, count, bf16_to_f32);
    case SLUICE_F8_E4M3:
        return convert_each<uint8_t>(source, target, count, f8_e4m3_to_f32);
    case SLUICE_F8_E5M2:
        return convert_each<uint8_t>(source, target, count, f8_e5m2_to_f32);
    case SLUICE_F8_E8M0:
        return convert_each<uint8_t>(source, target, count, f8_e8m0_to_f32);
    case SLUICE_F4_E2M1:
        return convert_each_half_byte(source, target, count, f4_e2m1_to_f32);
    case SLUICE_I8:
        return convert_each<int8_t>(source, target, count, plain<int8_t>);
    case SLUICE_U8:
    case SLUICE_BOOL:
        return convert_each<uint8_t>(source, target, count, plain<uint8_t>);
    case SLUICE_I16:
        return convert_each<int16_t>(source, target, count, plain<int16_t>);
    case SLUICE_I32:
        return convert_each<int32_t>(source, target, count, plain<int32_t>);
    case SLUICE_I64:
        return convert_each<int64_t>(source, target, count, plain<int64_t>);
    case SLUICE_F64:
        return convert_each<double>(source, target, count, plain<double>);
    case SLUICE_U4:
        return convert_each_half_byte(source, target, count, plain<uint8_t>);
    case SLUICE_I4:
        return convert_each_half_byte(source, target, count,
                                      [](uint8_t value) { return float((value ^ 8) - 8); });
    default:
        fail(SLUICE_UNSUPPORTED, "cannot read elements of type number {} as f32", type);
    }
}

void convert_from_f32(sluice_element_type type, const float* source, void* target, size_t count) {
    if (type == SLUICE_F32) {
        if (count > 0) std::memcpy(target, source, count * sizeof(float));
        return;
    }
    if (type != SLUICE_F16 && type != SLUICE_BF16) {
        fail(SLUICE_UNSUPPORTED, "cannot round f32 to {}: expected f32, f16 or bf16",
             element_type_name(type));
    }
    auto* halves = static_cast<std::byte*>(target);
    for (size_t i = 0; i < count; ++i) {
        uint16_t half = type == SLUICE_F16 ? f32_to_f16(source[i]) : f32_to_bf16(source[i]);
        std::memcpy(halves + i * sizeof(half), &half, sizeof(half)); // any alignment
    }
}

} // namespace sluice
