// Cases of the elementwise operations.
#include "generators.hpp"

#include <cmath>

namespace sluice::checker {
namespace {

operation_case unary(draw& with) {
    case_builder to(with, with.rows());
    const auto function = static_cast<uint32_t>(with.between(SLUICE_UNARY_EXP, SLUICE_UNARY_CEIL));
    const value_shape shape{tokens(), fixed(with.between(1, 70))};
    const auto sized = to.sizes(shape);
    if (function == SLUICE_UNARY_AFFINE && with.coin()) {
        const value_number x = to.tensor(
            shape, host_tensor::integers(sized, whole_numbers(with.random, count_of(sized), 99)));
        return to.finish({to.program().unary("y", function, x, 3, -7)});
    }
    auto values = normal_numbers(with.random, count_of(sized), 3);
    // Logarithm, root and reciprocal where they are defined, and not near their poles.
    if (function == SLUICE_UNARY_LOG || function == SLUICE_UNARY_SQRT
        || function == SLUICE_UNARY_RECIPROCAL)
        for (float& value : values) value = 0.3F + std::abs(value);
    const value_number x = to.tensor(shape, host_tensor::floats(sized, values, with.type));
    const bool clamps = function == SLUICE_UNARY_CLAMP;
    return to.finish(
        {to.program().unary("y", function, x, clamps ? -1.5F : 2.25F, clamps ? 2.0F : -0.5F)});
}

// Two shapes that broadcast against each other.
std::pair<value_shape, value_shape> broadcast_shapes(draw& with) {
    const int64_t size = with.between(1, 30);
    const int64_t heads = with.between(1, 4);
    switch (with.between(0, 4)) {
    case 0:
        return {{tokens(), fixed(size)}, {tokens(), fixed(size)}};
    case 1:
        return {{tokens(), fixed(size)}, {fixed(size)}};
    case 2:
        return {{tokens(), fixed(size)}, {tokens(), fixed(1)}};
    case 3:
        return {{tokens(), fixed(1), fixed(size)}, {fixed(heads), fixed(1)}};
    default:
        return {{fixed(1)}, {tokens(), fixed(heads), fixed(size)}};
    }
}

operation_case binary(draw& with) {
    case_builder to(with, with.rows());
    const auto function = static_cast<uint32_t>(with.between(SLUICE_BINARY_ADD, SLUICE_BINARY_OR));
    const auto [left, right] = broadcast_shapes(with);
    const auto input = [&](const value_shape& shape, sluice_element_type type, bool divisor) {
        const auto sized = to.sizes(shape);
        const int64_t count = count_of(sized);
        if (type == SLUICE_F32 || type == SLUICE_BF16 || type == SLUICE_F16) {
            auto values = normal_numbers(with.random, count);
            for (float& value : values)
                if (divisor) value = std::copysign(0.3F + std::abs(value), value);
            return to.tensor(shape, host_tensor::floats(sized, values, type));
        }
        auto values = whole_numbers(with.random, count, type == SLUICE_BOOL ? 2 : 7);
        if (type == SLUICE_BOOL)
            return to.tensor(shape, host_tensor::booleans(
                                        sized, std::vector<bool>(values.begin(), values.end())));
        for (int32_t& value : values) value -= 3; // also by zero
        return to.tensor(shape, host_tensor::integers(sized, values));
    };
    const bool logical = function == SLUICE_BINARY_AND || function == SLUICE_BINARY_OR;
    const sluice_element_type type =
        logical ? SLUICE_BOOL : (with.between(0, 2) == 0 ? SLUICE_I32 : with.type);
    const bool divides = function == SLUICE_BINARY_DIVIDE;
    const value_number x = input(left, type, false);
    const value_number y = input(right, type, divides);
    return to.finish({to.program().binary("z", function, x, y)});
}

operation_case select(draw& with) {
    case_builder to(with, with.rows());
    const auto [left, right] = broadcast_shapes(with);
    const value_shape condition_shape = with.coin() ? left : value_shape{tokens(), fixed(1)};
    // A condition of rank 2 against operands of rank 3 would meet rows with columns.
    const auto sized = to.sizes(left.size() == 3 || right.size() == 3 ? left : condition_shape);
    const auto& shape = left.size() == 3 || right.size() == 3 ? left : condition_shape;
    const auto drawn = whole_numbers(with.random, count_of(sized), 2);
    const value_number condition = to.tensor(
        shape, host_tensor::booleans(sized, std::vector<bool>(drawn.begin(), drawn.end())));
    const value_number x = to.floats(left);
    const value_number y = to.floats(right);
    return to.finish({to.program().select("z", condition, x, y)});
}

operation_case fill(draw& with) {
    case_builder to(with, with.rows());
    constexpr sluice_element_type others[] = {SLUICE_I32, SLUICE_BOOL};
    const sluice_element_type type = with.coin() ? with.type : others[with.between(0, 1)];
    const float value = type == SLUICE_BOOL ? 1.0F : type == SLUICE_I32 ? -3.0F : 1.3F;
    return to.finish({to.program().fill("y", type, {tokens(), fixed(with.between(1, 50))}, value)});
}

operation_case iota(draw& with) {
    case_builder to(with, with.rows());
    return to.finish({to.program().iota("y", {tokens(), fixed(with.between(1, 50))})});
}

} // namespace

std::vector<generator> elementwise_generators() {
    return {{SLUICE_OP_UNARY, "unary", false, true, unary},
            {SLUICE_OP_BINARY, "binary", false, true, binary},
            {SLUICE_OP_SELECT, "select", false, true, select},
            {SLUICE_OP_FILL, "fill", false, true, fill},
            {SLUICE_OP_IOTA, "iota", false, false, iota}};
}

} // namespace sluice::checker
