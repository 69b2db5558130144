#include "integer_tile_template.hpp"

#include "float16.hpp"

namespace sluice::kernels {
namespace {

// Arrays in the place of registers: what the other sets are compared with.
struct vector_plain_integers {
    static constexpr std::int64_t lanes = 16;
    struct type {
        float lane[lanes];
    };
    struct integers {
        std::int32_t lane[lanes]; // or four codes each, the first k lowest
    };
    struct word {
        std::int32_t code[4];
    };

    template <class Function>
    static type floats(Function&& lane) {
        type made;
        for (int i = 0; i < lanes; ++i) made.lane[i] = lane(i);
        return made;
    }
    template <class Function>
    static integers whole(Function&& lane) {
        integers made;
        for (int i = 0; i < lanes; ++i) made.lane[i] = lane(i);
        return made;
    }
    static type load(const float* from) {
        return floats([&](int i) { return from[i]; });
    }
    static void store(float* to, const type& value) {
        for (int i = 0; i < lanes; ++i) to[i] = value.lane[i];
    }
    static type broadcast(const float* from) {
        return floats([&](int) { return *from; });
    }
    static type zero() { return type{}; }
    static type fma(const type& a, const type& b, const type& c) {
        return floats([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
    }
    static type multiply(const type& a, const type& b) {
        return floats([&](int i) { return a.lane[i] * b.lane[i]; });
    }
    static type to_float(const integers& value) {
        return floats([&](int i) { return static_cast<float>(value.lane[i]); });
    }
    static type load_float16(const std::byte* from) {
        std::uint16_t halves[lanes];
        __builtin_memcpy(halves, from, sizeof halves);
        return floats([&](int i) { return float_from_float16(halves[i]); });
    }
    static integers load_zeros(const std::byte* from) {
        std::int16_t values[lanes];
        __builtin_memcpy(values, from, sizeof values);
        return whole([&](int i) { return std::int32_t{values[i]}; });
    }
    static integers load_codes(const std::byte* from) {
        integers made;
        __builtin_memcpy(&made, from, sizeof made);
        return made;
    }
    static integers low(const integers& codes) {
        return whole([&](int i) { return codes.lane[i] & 0x0f0f0f0f; });
    }
    static integers high(const integers& codes) {
        return whole([&](int i) { return codes.lane[i] >> 4 & 0x0f0f0f0f; });
    }
    static integers zero_integers() { return integers{}; }
    static integers broadcast_integer(const std::uint32_t* from) {
        return whole([&](int) { return static_cast<std::int32_t>(*from); });
    }
    static word broadcast_word(const std::uint32_t* from) {
        word made;
        for (int j = 0; j < 4; ++j)
            made.code[j] = static_cast<std::int8_t>(static_cast<std::uint8_t>(*from >> (8 * j)));
        return made;
    }
    template <int Bits>
    static integers shift_left(const integers& value) {
        return whole([&](int i) { return value.lane[i] * (1 << Bits); });
    }
    static integers multiply_integers(const integers& a, const integers& b) {
        return whole([&](int i) { return a.lane[i] * b.lane[i]; });
    }
    static integers add(const integers& a, const integers& b) {
        return whole([&](int i) { return a.lane[i] + b.lane[i]; });
    }
    template <bool Four>
    static integers dot(const integers& sum, const integers& codes, const word& x) {
        return whole([&](int i) {
            std::int32_t total = sum.lane[i];
            for (int j = 0; j < 4; ++j) total += (codes.lane[i] >> (8 * j) & 0xff) * x.code[j];
            return total;
        });
    }
};

} // namespace

constinit const integer_kernels integer_kernels_plain =
    make_integer_kernels<vector_plain_integers, 4>();

} // namespace sluice::kernels
