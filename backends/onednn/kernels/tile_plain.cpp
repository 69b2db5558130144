#include "tile_template.hpp"

#include "float16.hpp"

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
    static type load_int16(const std::byte* from) {
        std::int16_t values __attribute__((vector_size(8)));
        __builtin_memcpy(&values, from, sizeof values);
        return __builtin_convertvector(values, type);
    }
    static type load_float16(const std::byte* from) {
        std::uint16_t halves[lanes];
        __builtin_memcpy(halves, from, sizeof halves);
        type value;
        for (int i = 0; i < lanes; ++i) value[i] = float_from_float16(halves[i]);
        return value;
    }
    static type bits(const std::byte* from, int shift, int mask) {
        std::int32_t words __attribute__((vector_size(16)));
        __builtin_memcpy(&words, from, sizeof words);
        return __builtin_convertvector(words >> shift & mask, type);
    }
};

} // namespace

constinit const tile_kernels tile_kernels_plain =
    make_tile_kernels<vector_plain, 4, 4>(pack_tile_by_row);

} // namespace sluice::kernels
