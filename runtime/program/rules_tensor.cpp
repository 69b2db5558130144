// Rules of data movement, elementwise operations and operations along the last axis.
#include "program/checker.hpp"

#include <cmath>

namespace sluice {

namespace {

using size::fixed;

bool is_number(sluice_element_type type) { return is_float(type) || type == SLUICE_I32; }

void check_gather_rows(const operation_checker& check) {
    const program_value& x = check.any(0);
    const program_value& rows = check.integers(1, 1);
    check.require(!x.dimensions.empty(), "operand 0 (x) must have rows");
    value_shape y = x.dimensions;
    y[0] = rows.dimensions[0];
    check.result(0, x.element_type, y);
}

void check_gather(const operation_checker& check) {
    const program_value& x = check.any(0);
    const program_value& index = check.integers(1);
    check.require(!x.dimensions.empty() && !index.dimensions.empty(),
                  "both operands must have a last axis");
    value_shape y;
    check.require(broadcast(std::span(x.dimensions).first(x.dimensions.size() - 1),
                            std::span(index.dimensions).first(index.dimensions.size() - 1), y),
                  fmt::format("the leading axes of {} and {} do not broadcast",
                              dimensions_text(x.dimensions), dimensions_text(index.dimensions)));
    y.push_back(index.dimensions.back());
    check.result(0, x.element_type, y);
}

void check_scatter_add(const operation_checker& check) {
    const program_value& base = check.floats(0);
    const program_value& rows = check.integers(1, 1);
    const program_value& x = check.floats(2);
    check.require(base.element_type == SLUICE_F32 && !base.dimensions.empty(),
                  "operand 0 (base) must be f32 with rows");
    value_shape expected = base.dimensions;
    expected[0] = rows.dimensions[0];
    check.shape_in(2, expected);
    check.require(is_float(x.element_type), "operand 2 (x) must be a float tensor");
    check.same_result(0, base);
}

void check_reshape(const operation_checker& check) {
    const program_value& x = check.any(0);
    const program_value& y = check.out(0);
    check.require(same_element_count(x.dimensions, y.dimensions),
                  fmt::format("{} and {} hold different numbers of elements",
                              dimensions_text(x.dimensions), dimensions_text(y.dimensions)));
    check.result(0, x.element_type, y.dimensions);
}

void check_transpose(const operation_checker& check) {
    const program_value& x = check.any(0);
    const auto& attributes = check.attributes<sluice_transpose_attributes>();
    const size_t rank = x.dimensions.size();
    uint32_t seen = 0;
    value_shape y;
    for (size_t axis = 0; axis < rank; ++axis) {
        const uint32_t from = attributes.order[axis];
        check.require(from < rank && (seen & 1u << from) == 0,
                      "order must name each axis of x once");
        seen |= 1u << from;
        y.push_back(x.dimensions[from]);
    }
    check.result(0, x.element_type, y);
}

void check_slice(const operation_checker& check) {
    const program_value& x = check.any(0);
    const auto& attributes = check.attributes<sluice_axis_attributes>();
    check.require(attributes.axis < x.dimensions.size(),
                  fmt::format("axis {} of {}", attributes.axis, dimensions_text(x.dimensions)));
    const program_value& y = check.out(0);
    check.require(y.dimensions.size() == x.dimensions.size(), "the result must have the rank of x");
    const dimension& whole = x.dimensions[attributes.axis];
    const dimension& part = y.dimensions[attributes.axis];
    // The slice fits under every extent from 1 up when what remains does not shrink as it grows.
    const bool comparable = is_fixed(part) || part.extent == whole.extent;
    const int64_t growth =
        (is_fixed(whole) ? 0 : int64_t(whole.factor)) - (is_fixed(part) ? 0 : int64_t(part.factor));
    const int64_t rest = whole.offset - part.offset;
    check.require(comparable && attributes.begin >= 0 && growth >= 0
                      && attributes.begin <= rest + growth,
                  fmt::format("elements {} to {} + {} are not all within {}", attributes.begin,
                              attributes.begin, dimension_text(part), dimension_text(whole)));
    value_shape expected = x.dimensions;
    expected[attributes.axis] = part;
    check.result(0, x.element_type, expected);
}

void check_concat(const operation_checker& check) {
    const auto& attributes = check.attributes<sluice_axis_attributes>();
    const program_value& first = check.any(0);
    check.require(attributes.axis < first.dimensions.size(),
                  fmt::format("axis {} of {}", attributes.axis, dimensions_text(first.dimensions)));
    check.require(attributes.begin == 0, "begin is of slice only");
    value_shape expected = first.dimensions;
    for (size_t i = 1; i < check.input_count(); ++i) {
        const program_value& x = check.any(i);
        check.require(x.element_type == first.element_type
                          && x.dimensions.size() == first.dimensions.size(),
                      fmt::format("operand {} must have the type and rank of operand 0", i));
        value_shape with_axis = first.dimensions;
        with_axis[attributes.axis] = x.dimensions[attributes.axis];
        check.shape_in(i, with_axis);
        expected[attributes.axis] = add(expected[attributes.axis], x.dimensions[attributes.axis]);
    }
    check.result(0, first.element_type, expected);
}

bool can_cast(sluice_element_type type) {
    return is_number(type) || type == SLUICE_BOOL || type == SLUICE_F64 || type == SLUICE_I64
           || type == SLUICE_I8 || type == SLUICE_U8 || type == SLUICE_I16;
}

void check_unary(const operation_checker& check) {
    const auto& attributes = check.attributes<sluice_unary_attributes>();
    check.known(attributes.function, SLUICE_UNARY_CEIL + 1, "unary function");
    const program_value& x = check.any(0);
    const bool whole = x.element_type == SLUICE_I32 && attributes.function == SLUICE_UNARY_AFFINE
                       && attributes.a == std::trunc(attributes.a)
                       && attributes.b == std::trunc(attributes.b);
    check.require(is_float(x.element_type) || whole,
                  "operand 0 (x) must be f32, f16 or bf16; i32 only for an affine function with "
                  "whole numbers");
    check.require(!std::isnan(attributes.a) && !std::isnan(attributes.b),
                  "a and b must be numbers");
    check.same_result(0, x);
}

void check_binary(const operation_checker& check) {
    const uint32_t function = check.attributes<sluice_binary_attributes>().function;
    check.known(function, SLUICE_BINARY_OR + 1, "binary function");
    const program_value& x = check.any(0);
    const program_value& y = check.any(1);
    const bool logical = function == SLUICE_BINARY_AND || function == SLUICE_BINARY_OR;
    const bool comparison = function >= SLUICE_BINARY_LESS && !logical;
    check.require(x.element_type == y.element_type
                      && (logical ? x.element_type == SLUICE_BOOL : is_number(x.element_type)),
                  fmt::format("the operands must both be {}, found {} and {}",
                              logical ? "bool" : "of one float type or i32",
                              element_type_name(x.element_type),
                              element_type_name(y.element_type)));
    value_shape z;
    check.require(broadcast(x.dimensions, y.dimensions, z),
                  fmt::format("{} and {} do not broadcast", dimensions_text(x.dimensions),
                              dimensions_text(y.dimensions)));
    check.result(0, comparison ? SLUICE_BOOL : x.element_type, z);
}

void check_select(const operation_checker& check) {
    const program_value& condition = check.any(0);
    const program_value& x = check.any(1);
    const program_value& y = check.any(2);
    check.require(condition.element_type == SLUICE_BOOL, "operand 0 (condition) must be bool");
    check.require(x.element_type == y.element_type, "x and y must have one type");
    value_shape chosen;
    value_shape z;
    check.require(broadcast(x.dimensions, y.dimensions, chosen)
                      && broadcast(condition.dimensions, chosen, z),
                  "the operands' shapes do not broadcast");
    check.result(0, x.element_type, z);
}

void check_topk(const operation_checker& check) {
    const program_value& x = check.floats(0);
    const program_value& value = check.out(0);
    check.require(!x.dimensions.empty() && value.dimensions.size() == x.dimensions.size(),
                  "x and the results must have the same rank, at least 1");
    const int64_t count = check.fixed(value, value.dimensions.size() - 1);
    const dimension& width = x.dimensions.back();
    check.require(!is_fixed(width) || count <= width.offset,
                  fmt::format("the {} largest of {}", count, dimension_text(width)));
    value_shape expected = x.dimensions;
    expected.back() = fixed(count);
    check.result(0, x.element_type, expected);
    check.result(1, SLUICE_I32, expected);
}

void check_matmul(const operation_checker& check) {
    const program_value& x = check.floats(0);
    const program_value& y = check.floats(1);
    const size_t rank_x = x.dimensions.size();
    const size_t rank_y = y.dimensions.size();
    check.require(rank_x >= 2 && rank_y >= 2, "both operands must have rank 2 at least");
    check.require(same(x.dimensions[rank_x - 1], y.dimensions[rank_y - 2]),
                  fmt::format("the inner sizes of {} and {} differ", dimensions_text(x.dimensions),
                              dimensions_text(y.dimensions)));
    value_shape z;
    check.require(broadcast(std::span(x.dimensions).first(rank_x - 2),
                            std::span(y.dimensions).first(rank_y - 2), z),
                  fmt::format("the leading axes of {} and {} do not broadcast",
                              dimensions_text(x.dimensions), dimensions_text(y.dimensions)));
    z.push_back(x.dimensions[rank_x - 2]);
    z.push_back(y.dimensions[rank_y - 1]);
    check.float_result(0, z);
}

void check_accumulate(const operation_checker& check) {
    const program_value& x = check.floats(0, 2);
    const bool gram = check.operation().kind == SLUICE_OP_ACCUMULATE_GRAM;
    if (check.has(1)) {
        const program_value& index = check.integers(1, 2);
        check.require(same(index.dimensions[0], x.dimensions[0]),
                      "operand 1 (index) must have as many rows as x");
    }
    const dimension square[] = {x.dimensions[1], x.dimensions[1]};
    const dimension one[] = {fixed(1)};
    check.floats(2);
    check.shape_in(2, std::span(square).first(gram ? 2 : 1));
    check.shape_in(3, one);
    check.result(0, SLUICE_F32, check.in(2).dimensions);
    check.result(1, SLUICE_F32, one);
    check.require(check.in(2).element_type == SLUICE_F32 && check.in(3).element_type == SLUICE_F32,
                  "the sums must be f32");
}

void check_reduce(const operation_checker& check) {
    const uint32_t function = check.attributes<sluice_reduce_attributes>().function;
    check.known(function, SLUICE_REDUCE_MEAN + 1, "reduce function");
    const program_value& x = check.any(0);
    check.require(!x.dimensions.empty(), "operand 0 (x) must have a last axis");
    check.require(is_float(x.element_type)
                      || (x.element_type == SLUICE_I32 && function != SLUICE_REDUCE_MEAN),
                  "operand 0 (x) must be f32, f16 or bf16, or i32 unless the mean is taken");
    value_shape y = x.dimensions;
    y.back() = fixed(1);
    check.result(0, x.element_type, y);
}

void check_sample(const operation_checker& check) {
    check.known(check.attributes<sluice_sample_attributes>().method, SLUICE_SAMPLE_GREEDY + 1,
                "method");
    const program_value& logits = check.floats(0, 2);
    const auto rows = std::span(logits.dimensions).first(1);
    check.result(0, SLUICE_I32, rows);
    if (check.has_output(1)) check.result(1, SLUICE_F32, rows);
}

} // namespace

void check_movement(const operation_checker& check) {
    switch (check.operation().kind) {
    case SLUICE_OP_GATHER_ROWS:
        return check_gather_rows(check);
    case SLUICE_OP_GATHER:
        return check_gather(check);
    case SLUICE_OP_SCATTER_ADD:
        return check_scatter_add(check);
    case SLUICE_OP_RESHAPE:
        return check_reshape(check);
    case SLUICE_OP_TRANSPOSE:
        return check_transpose(check);
    case SLUICE_OP_SLICE:
        return check_slice(check);
    case SLUICE_OP_CONCAT:
        return check_concat(check);
    case SLUICE_OP_CAST: {
        const program_value& x = check.any(0);
        const program_value& y = check.out(0);
        check.require(can_cast(x.element_type) && can_cast(y.element_type),
                      fmt::format("no cast from {} to {}", element_type_name(x.element_type),
                                  element_type_name(y.element_type)));
        return check.result(0, y.element_type, x.dimensions);
    }
    case SLUICE_OP_COPY:
        return check.same_result(0, check.any(0));
    case SLUICE_OP_DEQUANTIZE: {
        const program_value& weight = check.weight(0, -1);
        check.require(weight.kind == SLUICE_VALUE_WEIGHT, "operand 0 (W) must be a weight");
        return check.float_result(0, weight.dimensions);
    }
    default:
        return;
    }
}

void check_elementwise(const operation_checker& check) {
    switch (check.operation().kind) {
    case SLUICE_OP_UNARY:
        return check_unary(check);
    case SLUICE_OP_BINARY:
        return check_binary(check);
    case SLUICE_OP_SELECT:
        return check_select(check);
    case SLUICE_OP_FILL: {
        const sluice_element_type type = check.out(0).element_type;
        return check.require(is_number(type) || type == SLUICE_BOOL,
                             "the result must be f32, f16, bf16, i32 or bool");
    }
    case SLUICE_OP_IOTA:
        check.require(!check.out(0).dimensions.empty(), "the result must have a last axis");
        return check.result(0, SLUICE_I32, check.out(0).dimensions);
    default:
        return;
    }
}

void check_last_axis(const operation_checker& check) {
    switch (check.operation().kind) {
    case SLUICE_OP_SOFTMAX: {
        const program_value& x = check.floats(0);
        check.require(!x.dimensions.empty(), "operand 0 (x) must have a last axis");
        return check.float_result(0, x.dimensions);
    }
    case SLUICE_OP_REDUCE:
        return check_reduce(check);
    case SLUICE_OP_TOPK:
        return check_topk(check);
    case SLUICE_OP_CUMSUM: {
        const program_value& x = check.any(0);
        check.require((x.element_type == SLUICE_F32 || x.element_type == SLUICE_I32)
                          && !x.dimensions.empty(),
                      "operand 0 (x) must be f32 or i32 with a last axis");
        return check.same_result(0, x);
    }
    case SLUICE_OP_MATMUL:
        return check_matmul(check);
    case SLUICE_OP_ACCUMULATE_GRAM:
    case SLUICE_OP_ACCUMULATE_ABS_MAX:
        return check_accumulate(check);
    case SLUICE_OP_SAMPLE:
        return check_sample(check);
    default:
        return;
    }
}

} // namespace sluice
