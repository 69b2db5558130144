#include "tile_template.hpp"

namespace sluice::kernels {
namespace {

// Vectors of the compiler's own, which every target has or is given: four floats.
struct vector_plain {
    static constexpr std::int64_t lanes = 4;
    using type = float __attribute__((vector_size(16)));

    static type load(const float* from) {
        type value;
        __builtin_memcpy(&value, from, sizeof value);
        return value;
    }
    static void store(float* to, type value) { __builtin_memcpy(to, &value, sizeof value); }
    static type broadcast(const float* from) { return zero() + *from; }
    static type zero() { return type{}; }
    static type fma(type a, type b, type c) { return a * b + c; }
    static type subtract(type a, type b) { return a - b; }
    static type multiply(type a, type b) { return a * b; }
    static type even_of_pair(const std::byte* from) {
        std::uint32_t bits __attribute__((vector_size(16)));
        __builtin_memcpy(&bits, from, sizeof bits);
        return reinterpret_cast<type>(bits << 16);
    }
    static type odd_of_pair(const std::byte* from) {
        std::uint32_t bits __attribute__((vector_size(16)));
        __builtin_memcpy(&bits, from, sizeof bits);
        return reinterpret_cast<type>(bits & 0xffff0000u);
    }
    static type load_int8(const std::byte* from) {
        std::int8_t codes __attribute__((vector_size(4)));
        __builtin_memcpy(&codes, from, sizeof codes);
        return __builtin_convertvector(codes, type);
    }
    static type load_int16(const std::byte* from) {
        std::int16_t values __attribute__((vector_size(8)));
        __builtin_memcpy(&values, from, sizeof values);
        return __builtin_convertvector(values, type);
    }
    static type nibble_low(const std::byte* from) {
        std::uint8_t codes __attribute__((vector_size(4)));
        __builtin_memcpy(&codes, from, sizeof codes);
        return __builtin_convertvector(codes & std::uint8_t{0x0f}, type);
    }
    static type nibble_high(const std::byte* from) {
        std::uint8_t codes __attribute__((vector_size(4)));
        __builtin_memcpy(&codes, from, sizeof codes);
        return __builtin_convertvector(codes >> 4, type);
    }
};

} // namespace

constinit const tile_kernels tile_kernels_plain =
    make_tile_kernels<vector_plain, 4, 4>(pack_tile_by_row);

} // namespace sluice::kernels
