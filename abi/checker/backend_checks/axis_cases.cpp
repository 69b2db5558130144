// Cases along the last axis, of matrix products and of statistics.
#include "generators.hpp"

#include <algorithm>
#include <limits>

namespace sluice::checker {
namespace {

value_shape row_shape(draw& with, int64_t size) {
    if (with.coin()) return {tokens(), fixed(size)};
    return {tokens(), fixed(with.between(1, 4)), fixed(size)};
}

operation_case softmax(draw& with) {
    case_builder to(with, with.rows());
    const value_shape shape = row_shape(with, with.between(1, 130));
    const auto sized = to.sizes(shape);
    auto values = normal_numbers(with.random, count_of(sized), 4);
    // Some places masked, and all of the first row: it gives zeros.
    for (float& value : values)
        if (with.between(0, 5) == 0) value = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < sized.back(); ++i)
        values[static_cast<size_t>(i)] = -std::numeric_limits<float>::infinity();
    const value_number x = to.tensor(shape, host_tensor::floats(sized, values, with.type));
    return to.finish({to.program().softmax("y", x)});
}

operation_case reduce(draw& with) {
    case_builder to(with, with.rows());
    const value_shape shape = row_shape(with, with.between(1, 130));
    const bool whole = with.between(0, 3) == 0;
    const auto function = static_cast<uint32_t>(
        with.between(SLUICE_REDUCE_SUM, whole ? SLUICE_REDUCE_MINIMUM : SLUICE_REDUCE_MEAN));
    const auto sized = to.sizes(shape);
    const value_number x =
        whole ? to.tensor(
            shape, host_tensor::integers(sized, whole_numbers(with.random, count_of(sized), 1000)))
              : to.floats(shape);
    return to.finish({to.program().reduce("y", function, x)});
}

operation_case topk(draw& with) {
    case_builder to(with, with.rows());
    const int64_t size = with.between(1, 90);
    const value_shape shape = row_shape(with, size);
    const auto sized = to.sizes(shape);
    // Few different numbers: ties, and now and then what is no number.
    std::vector<float> values;
    for (int64_t i = 0; i < count_of(sized); ++i) {
        values.push_back(static_cast<float>(with.between(-9, 9)) * 0.5F);
        // Only as long as enough numbers are left: what a NaN's own value reads as is not said.
        if (i % size == 3 && size > 12) values.back() = std::numeric_limits<float>::quiet_NaN();
    }
    const value_number x = to.tensor(shape, host_tensor::floats(sized, values, with.type));
    const auto made = to.program().topk("top", x, with.between(1, std::min<int64_t>(size, 10)));
    return to.finish({made.value, made.index});
}

operation_case cumsum(draw& with) {
    case_builder to(with, with.rows());
    const value_shape shape = row_shape(with, with.between(1, 90));
    const auto sized = to.sizes(shape);
    const value_number x =
        with.coin() ? to.floats(shape, SLUICE_F32)
                    : to.tensor(shape, host_tensor::integers(
                                           sized, whole_numbers(with.random, count_of(sized), 50)));
    return to.finish({to.program().cumsum("y", x)});
}

operation_case matmul(draw& with) {
    case_builder to(with, with.rows());
    const int64_t inner = with.between(1, 120);
    const int64_t columns = with.between(1, 60);
    switch (with.between(0, 2)) {
    case 0: {
        const value_number x = to.floats({tokens(), fixed(inner)});
        const value_number y = to.floats({fixed(inner), fixed(columns)});
        return to.finish({to.program().matmul("z", x, y, with.type)});
    }
    case 1: { // a stack of matrices against one
        const value_number x = to.floats({tokens(), fixed(with.between(1, 5)), fixed(inner)});
        const value_number y = to.floats({fixed(inner), fixed(columns)});
        return to.finish({to.program().matmul("z", x, y, with.type)});
    }
    default: {
        const value_number x = to.floats({tokens(), fixed(with.between(1, 5)), fixed(inner)});
        const value_number y = to.floats({tokens(), fixed(inner), fixed(columns)});
        return to.finish({to.program().matmul("z", x, y, with.type)});
    }
    }
}

// Logits as models write them, among them ties for the first place, and what is not finite. The
// first row may have no finite one.
operation_case sample(draw& with) {
    case_builder to(with, with.rows());
    // Long rows are shared by several blocks or workers.
    const int64_t size = with.number % 3 == 2 ? with.between(4000, 9000) : with.between(1, 130);
    const value_shape shape = {tokens(), fixed(size)};
    const auto sized = to.sizes(shape);
    auto values = normal_numbers(with.random, count_of(sized), 4);
    constexpr float absent[] = {std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity(),
                                std::numeric_limits<float>::quiet_NaN()};
    for (float& value : values) {
        const int64_t drawn = with.between(0, 60);
        if (drawn < 3) value = absent[drawn];
        if (drawn < 6 && drawn >= 3) value = 16;
    }
    if (with.coin())
        for (int64_t i = 0; i < size; ++i) values[static_cast<size_t>(i)] = absent[i % 3];
    const value_number logits = to.tensor(shape, host_tensor::floats(sized, values, with.type));
    const auto made = to.program().sample("next", logits);
    return to.finish({made.token, made.log_probability});
}

value_number draw_expert_index(case_builder& to) {
    draw& with = to.with();
    if (with.coin()) return value_none;
    std::vector<int32_t> index;
    for (uint32_t row = 0; row < to.rows(); ++row) {
        index.push_back(static_cast<int32_t>(with.between(-1, 3)));
        index.push_back(index.back() == 0 ? 3 : 0);
    }
    return to.row_integers({tokens(), fixed(2)}, index);
}

operation_case accumulate(draw& with, bool gram) {
    case_builder to(with, with.rows());
    // Any size, and multiples of a vector, which have kernels of their own.
    const int64_t size = with.coin() ? with.between(1, 40) : 4 * with.between(1, 24);
    const value_number x = to.floats({tokens(), fixed(size)});
    const value_number index = draw_expert_index(to);
    const value_number sum = gram ? to.floats({fixed(size), fixed(size)}, SLUICE_F32)
                                  : to.floats({fixed(size)}, SLUICE_F32);
    const value_number rows = to.tensor({fixed(1)}, host_tensor::floats({1}, {7.0F}));
    const auto expert = static_cast<uint32_t>(with.between(0, 3));
    const auto made = gram
                          ? to.program().accumulate_gram("gram", x, index, sum, rows, expert)
                          : to.program().accumulate_abs_max("maximum", x, index, sum, rows, expert);
    return to.finish({made.sum, made.rows});
}

operation_case accumulate_gram(draw& with) { return accumulate(with, true); }
operation_case accumulate_abs_max(draw& with) { return accumulate(with, false); }

} // namespace

std::vector<generator> axis_generators() {
    return {{SLUICE_OP_SOFTMAX, "softmax", false, true, softmax},
            {SLUICE_OP_REDUCE, "reduce", false, true, reduce},
            {SLUICE_OP_TOPK, "topk", false, true, topk},
            {SLUICE_OP_SAMPLE, "sample", false, true, sample},
            {SLUICE_OP_CUMSUM, "cumsum", false, false, cumsum},
            {SLUICE_OP_MATMUL, "matmul", false, true, matmul},
            {SLUICE_OP_ACCUMULATE_GRAM, "accumulate_gram", false, true, accumulate_gram},
            {SLUICE_OP_ACCUMULATE_ABS_MAX, "accumulate_abs_max", false, true, accumulate_abs_max}};
}

} // namespace sluice::checker
