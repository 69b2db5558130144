#include "shapes.hpp"

namespace sluice::plain {

namespace {

float unary_value(const sluice_unary_attributes& a, float given) {
    const double x = given;
    switch (a.function) {
    case SLUICE_UNARY_EXP:
        return static_cast<float>(std::exp(x));
    case SLUICE_UNARY_LOG:
        return static_cast<float>(std::log(x));
    case SLUICE_UNARY_SQRT:
        return static_cast<float>(std::sqrt(x));
    case SLUICE_UNARY_SIGMOID:
        return static_cast<float>(1.0 / (1.0 + std::exp(-x)));
    case SLUICE_UNARY_SOFTPLUS:
        return static_cast<float>(std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))));
    case SLUICE_UNARY_TANH:
        return static_cast<float>(std::tanh(x));
    case SLUICE_UNARY_RECIPROCAL:
        return static_cast<float>(1.0 / x);
    case SLUICE_UNARY_AFFINE:
        return a.a * given + a.b;
    case SLUICE_UNARY_CLAMP:
        return std::min(std::max(given, a.a), a.b);
    case SLUICE_UNARY_ABS:
        return std::fabs(given);
    case SLUICE_UNARY_CEIL:
        return std::ceil(given);
    default:
        plugin::fail(SLUICE_UNSUPPORTED, "unary function ", a.function, " is not known here");
    }
}

void unary(const call& c, int64_t begin, int64_t end) {
    const auto& a = c.attributes<sluice_unary_attributes>();
    for (int64_t i = begin; i < end; ++i) {
        if (c.in(0).type == SLUICE_I32 && a.function == SLUICE_UNARY_AFFINE)
            c.out(0).as<int32_t>()[i] = static_cast<int32_t>(
                static_cast<int64_t>(a.a) * c.in(0).as<int32_t>()[i] + static_cast<int64_t>(a.b));
        else
            put(c.out(0), i, unary_value(a, get(c.in(0), i)));
    }
}

template <typename Number>
Number arithmetic(uint32_t function, Number x, Number y) {
    switch (function) {
    case SLUICE_BINARY_ADD:
        return x + y;
    case SLUICE_BINARY_SUBTRACT:
        return x - y;
    case SLUICE_BINARY_MULTIPLY:
        return x * y;
    case SLUICE_BINARY_DIVIDE:
        if constexpr (std::is_integral_v<Number>)
            return y == 0 ? 0 : x / y;
        else
            return x / y;
    case SLUICE_BINARY_MAXIMUM:
        return std::max(x, y);
    case SLUICE_BINARY_MINIMUM:
        return std::min(x, y);
    default:
        plugin::fail(SLUICE_UNSUPPORTED, "binary function ", function, " is not known here");
    }
}

template <typename Number>
bool comparison(uint32_t function, Number x, Number y) {
    switch (function) {
    case SLUICE_BINARY_LESS:
        return x < y;
    case SLUICE_BINARY_LESS_EQUAL:
        return x <= y;
    case SLUICE_BINARY_EQUAL:
        return x == y;
    case SLUICE_BINARY_GREATER:
        return x > y;
    case SLUICE_BINARY_GREATER_EQUAL:
        return x >= y;
    case SLUICE_BINARY_AND:
        return x != 0 && y != 0;
    case SLUICE_BINARY_OR:
        return x != 0 || y != 0;
    default:
        plugin::fail(SLUICE_UNSUPPORTED, "binary function ", function, " is not known here");
    }
}

void binary(const call& c, int64_t begin, int64_t end) {
    const uint32_t function = c.attributes<sluice_binary_attributes>().function;
    const auto& out = c.out(0);
    for (int64_t i = begin; i < end; ++i) {
        const auto place = unflatten(i, out);
        const int64_t x = broadcast_index(c.in(0), place, out.rank);
        const int64_t y = broadcast_index(c.in(1), place, out.rank);
        const bool whole = c.in(0).type == SLUICE_I32;
        if (function >= SLUICE_BINARY_LESS)
            put(out, i,
                whole ? comparison<int64_t>(function, c.in(0).as<int32_t>()[x],
                                            c.in(1).as<int32_t>()[y])
                      : comparison<float>(function, get(c.in(0), x), get(c.in(1), y)));
        else if (whole)
            out.as<int32_t>()[i] = static_cast<int32_t>(
                arithmetic<int64_t>(function, c.in(0).as<int32_t>()[x], c.in(1).as<int32_t>()[y]));
        else
            put(out, i, arithmetic<float>(function, get(c.in(0), x), get(c.in(1), y)));
    }
}

void select(const call& c, int64_t begin, int64_t end) {
    const auto& out = c.out(0);
    for (int64_t i = begin; i < end; ++i) {
        const auto place = unflatten(i, out);
        const bool first = c.in(0).as<uint8_t>()[broadcast_index(c.in(0), place, out.rank)] != 0;
        const auto& chosen = c.in(first ? 1 : 2);
        const int64_t at = broadcast_index(chosen, place, out.rank);
        if (out.type == SLUICE_I32)
            out.as<int32_t>()[i] = chosen.as<int32_t>()[at];
        else
            put(out, i, get(chosen, at));
    }
}

void fill(const call& c, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
        put(c.out(0), i, c.attributes<sluice_fill_attributes>().value);
}

void iota(const call& c, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
        c.out(0).as<int32_t>()[i] = static_cast<int32_t>(i % c.out(0).width());
}

} // namespace

kernel find_elementwise_kernel(uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_UNARY:
        return {elements_of_output, unary};
    case SLUICE_OP_BINARY:
        return {elements_of_output, binary};
    case SLUICE_OP_SELECT:
        return {elements_of_output, select};
    case SLUICE_OP_FILL:
        return {elements_of_output, fill};
    case SLUICE_OP_IOTA:
        return {elements_of_output, iota};
    default:
        return {};
    }
}

} // namespace sluice::plain
