#include "base/element_type.hpp"

#include "error_check.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

using namespace sluice;

namespace {

// What a binary float with these fields means, from the definition: the oracle.
double float_value(uint32_t sign, uint32_t exponent, uint32_t mantissa, int mantissa_bits,
                   int bias) {
    double fraction = std::ldexp(double(mantissa), -mantissa_bits);
    double magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias)
                                     : std::ldexp(1 + fraction, int(exponent) - bias);
    return sign != 0 ? -magnitude : magnitude;
}

} // namespace

TEST_CASE("names and sizes of element types") {
    for (const std::string& name : element_type_names()) {
        auto type = element_type_from_name(name);
        REQUIRE(type);
        CHECK(element_type_name(*type) == name);
        CHECK(element_bits(*type) >= 4);
    }
    CHECK(element_type_names().size() == 16);
    CHECK(element_type_from_name("bfloat16") == SLUICE_BF16);
    CHECK(element_type_from_name("torch.float16") == SLUICE_F16);
    CHECK(element_type_from_name("float32") == SLUICE_F32);
    CHECK(!element_type_from_name("unknown"));
    CHECK(!element_type_from_name(""));
    CHECK(element_bits(SLUICE_BF16) == 16);
    CHECK(element_bits(SLUICE_F4_E2M1) == 4);
    CHECK(element_bits(SLUICE_ELEMENT_UNKNOWN) == 0);
    CHECK(element_bits(12345) == 0);
    CHECK(element_type_name(12345) == "unknown");
}

TEST_CASE("sizes of tensors, with overflow") {
    CHECK(tensor_bytes(SLUICE_F32, std::vector<int64_t>{}) == 4);
    CHECK(tensor_bytes(SLUICE_BF16, std::vector<int64_t>{3, 5}) == 30);
    CHECK(tensor_bytes(SLUICE_U4, std::vector<int64_t>{3, 5}) == 8);
    CHECK(tensor_bytes(SLUICE_F32, std::vector<int64_t>{7, 0}) == 0);
    CHECK(!tensor_bytes(SLUICE_F32, std::vector<int64_t>{-1}));
    CHECK(!tensor_bytes(SLUICE_F32, std::vector<int64_t>{INT64_MAX, 3}));
    CHECK(!tensor_bytes(SLUICE_F64, std::vector<int64_t>{INT64_MAX}));
    CHECK(!tensor_bytes(SLUICE_ELEMENT_UNKNOWN, std::vector<int64_t>{1}));
}

TEST_CASE("every f16 means what IEEE 754 says, and survives the way there and back") {
    for (uint32_t bits = 0; bits < 65536; ++bits) {
        float value = f16_to_f32(uint16_t(bits));
        uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023;
        if (exponent == 31) {
            REQUIRE((mantissa == 0 ? std::isinf(value) : std::isnan(value)));
        } else {
            REQUIRE(double(value) == float_value(bits >> 15, exponent, mantissa, 10, 15));
        }
        if (exponent != 31 || mantissa == 0) REQUIRE(f32_to_f16(value) == bits);
        if (std::isnan(value)) REQUIRE(std::isnan(f16_to_f32(f32_to_f16(value))));
    }
}

TEST_CASE("every 8-bit and 4-bit float means what its specification says") {
    for (uint32_t bits = 0; bits < 256; ++bits) {
        float e4m3 = f8_e4m3_to_f32(uint8_t(bits));
        if ((bits & 127) == 127) {
            CHECK(std::isnan(e4m3));
        } else {
            CHECK(double(e4m3) == float_value(bits >> 7, bits >> 3 & 15, bits & 7, 3, 7));
        }
        float e5m2 = f8_e5m2_to_f32(uint8_t(bits));
        if ((bits >> 2 & 31) == 31) {
            CHECK(((bits & 3) == 0 ? std::isinf(e5m2) : std::isnan(e5m2)));
        } else {
            CHECK(double(e5m2) == float_value(bits >> 7, bits >> 2 & 31, bits & 3, 2, 15));
        }
        float e8m0 = f8_e8m0_to_f32(uint8_t(bits));
        if (bits == 255) CHECK(std::isnan(e8m0));
        if (bits != 255) CHECK(double(e8m0) == std::ldexp(1.0, int(bits) - 127));
    }
    for (uint32_t bits = 0; bits < 16; ++bits) {
        double value = float_value(bits >> 3, bits >> 1 & 3, bits & 1, 1, 1);
        CHECK(double(f4_e2m1_to_f32(uint8_t(bits))) == value);
    }
}

TEST_CASE("rounding to f16 and bf16 is to nearest, ties to even") {
    // Between two neighbours: below the middle down, above it up, the middle to the even one.
    for (uint32_t bits = 0; bits < 0x7bff; bits += 7) {
        double low = f16_to_f32(uint16_t(bits)), high = f16_to_f32(uint16_t(bits + 1));
        float middle = float((low + high) / 2); // exact: one more mantissa bit
        REQUIRE(f32_to_f16(middle) == (bits % 2 == 0 ? bits : bits + 1));
        REQUIRE(f32_to_f16(std::nextafter(middle, 0.0f)) == bits);
        REQUIRE(f32_to_f16(std::nextafter(middle, 1e30f)) == bits + 1);
        REQUIRE(f32_to_f16(-middle) == (0x8000 | (bits % 2 == 0 ? bits : bits + 1)));
    }
    CHECK(f32_to_f16(65519.9f) == 0x7bff);
    CHECK(f32_to_f16(65520.0f) == 0x7c00);
    CHECK(f32_to_f16(-1e30f) == 0xfc00);
    CHECK(f32_to_f16(1e-30f) == 0);
    for (uint32_t bits = 0; bits < 0x7f7f; bits += 7) {
        double low = bf16_to_f32(uint16_t(bits)), high = bf16_to_f32(uint16_t(bits + 1));
        float middle = float((low + high) / 2);
        REQUIRE(f32_to_bf16(middle) == (bits % 2 == 0 ? bits : bits + 1));
        REQUIRE(f32_to_bf16(std::nextafter(middle, HUGE_VALF)) == bits + 1);
    }
    CHECK(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7f80);
    CHECK(f32_to_bf16(-std::numeric_limits<float>::infinity()) == 0xff80);
    CHECK(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
    CHECK(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0xffffffffu)))));
}

TEST_CASE("arrays convert from any type at any alignment") {
    auto check = [](sluice_element_type type, auto stored, std::vector<float> expected) {
        std::vector<char> bytes(stored.size() * sizeof(stored[0]) + 1);
        std::memcpy(bytes.data() + 1, stored.data(), bytes.size() - 1);
        std::vector<float> values(expected.size());
        convert_to_f32(type, bytes.data() + 1, values.data(), values.size());
        CHECK(values == expected);
    };
    check(SLUICE_F32, std::vector<float>{1.5f, -2}, {1.5f, -2});
    check(SLUICE_F64, std::vector<double>{1.5, -2}, {1.5f, -2});
    check(SLUICE_F16, std::vector<uint16_t>{0x3c00, 0xc000}, {1, -2});
    check(SLUICE_BF16, std::vector<uint16_t>{0x3f80, 0xc000}, {1, -2});
    check(SLUICE_I8, std::vector<int8_t>{-128, 127}, {-128, 127});
    check(SLUICE_U8, std::vector<uint8_t>{0, 255}, {0, 255});
    check(SLUICE_BOOL, std::vector<uint8_t>{0, 1}, {0, 1});
    check(SLUICE_I16, std::vector<int16_t>{-3, 300}, {-3, 300});
    check(SLUICE_I32, std::vector<int32_t>{-70000, 5}, {-70000, 5});
    check(SLUICE_I64, std::vector<int64_t>{-1, 1 << 20}, {-1, 1 << 20});
    check(SLUICE_U4, std::vector<uint8_t>{0xf1, 0x08}, {1, 15, 8});
    check(SLUICE_I4, std::vector<uint8_t>{0xf1, 0x08}, {1, -1, -8});
    check(SLUICE_F4_E2M1, std::vector<uint8_t>{0x72}, {1, 6});
    check(SLUICE_F8_E8M0, std::vector<uint8_t>{127, 128}, {1, 2});
    float value = 1;
    test::check_error([&] { convert_to_f32(0, &value, &value, 1); }, SLUICE_UNSUPPORTED,
                      {"type number 0"});
    test::check_error([&] { convert_from_f32(SLUICE_I8, &value, &value, 1); }, SLUICE_UNSUPPORTED,
                      {"i8", "bf16"});
    std::vector<float> source = {1, -2.5f, 3e38f};
    std::vector<uint16_t> half(3);
    convert_from_f32(SLUICE_F16, source.data(), half.data(), 3);
    CHECK(half == std::vector<uint16_t>{0x3c00, 0xc100, 0x7c00});
    convert_from_f32(SLUICE_BF16, source.data(), half.data(), 3);
    CHECK(half == std::vector<uint16_t>{0x3f80, 0xc020, 0x7f62});
}
