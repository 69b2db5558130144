// Cases of data movement.
#include "generators.hpp"

#include <algorithm>

namespace sluice::checker {
namespace {

operation_case gather_rows(draw& with) {
    case_builder to(with, with.rows());
    const int64_t rows = with.between(1, 30);
    const value_number x = to.floats({fixed(rows), fixed(with.between(1, 40))});
    std::vector<int32_t> chosen;
    for (uint32_t i = 0; i < to.rows(); ++i)
        chosen.push_back(static_cast<int32_t>(with.between(-1, rows)));
    return to.finish({to.program().gather_rows("y", x, to.row_integers({tokens()}, chosen))});
}

operation_case gather(draw& with) {
    case_builder to(with, with.rows());
    const int64_t size = with.between(1, 30);
    const int64_t taken = with.between(1, 12);
    std::vector<int32_t> chosen;
    for (int64_t i = 0; i < to.rows() * taken; ++i)
        chosen.push_back(static_cast<int32_t>(with.between(-1, size)));
    const value_number index = to.row_integers({tokens(), fixed(taken)}, chosen);
    // Leading axes broadcast.
    const value_number x =
        with.coin() ? to.floats({tokens(), fixed(size)}) : to.floats({fixed(1), fixed(size)});
    return to.finish({to.program().gather("y", x, index)});
}

operation_case scatter_add(draw& with) {
    case_builder to(with, with.rows());
    const int64_t rows = with.between(1, 12);
    const int64_t size = with.between(1, 40);
    const value_number base = to.floats({fixed(rows), fixed(size)}, SLUICE_F32);
    std::vector<int32_t> chosen;
    for (uint32_t i = 0; i < to.rows(); ++i)
        chosen.push_back(static_cast<int32_t>(with.between(-1, rows)));
    const value_number where = to.row_integers({tokens()}, chosen);
    const value_number x = to.floats({tokens(), fixed(size)});
    return to.finish({to.program().scatter_add("y", base, where, x)});
}

operation_case reshape(draw& with) {
    case_builder to(with, with.rows());
    const int64_t heads = with.between(1, 6);
    const int64_t size = with.between(1, 20);
    const bool splits = with.coin();
    const value_shape whole{tokens(), fixed(heads * size)};
    const value_shape parts{tokens(), fixed(heads), fixed(size)};
    const value_number x = to.floats(splits ? whole : parts);
    return to.finish({to.program().reshape("y", x, splits ? parts : whole)});
}

operation_case transpose(draw& with) {
    case_builder to(with, with.rows(), false);
    std::vector<uint32_t> order{0, 1, 2, 3};
    order.resize(static_cast<size_t>(with.between(2, 4)));
    value_shape shape;
    for (size_t axis = 0; axis < order.size(); ++axis) shape.push_back(fixed(with.between(1, 9)));
    // Rows in front stay there, so that a step with fewer of them is well defined.
    const bool has_rows = with.coin();
    if (has_rows) shape[0] = tokens();
    std::shuffle(order.begin() + (has_rows ? 1 : 0), order.end(), with.random);
    const value_number x = to.floats(shape);
    return to.finish({to.program().transpose("y", x, order)});
}

operation_case slice(draw& with) {
    case_builder to(with, with.rows());
    const int64_t size = with.between(1, 40);
    const int64_t taken = with.between(1, size);
    const int64_t begin = with.between(0, size - taken);
    const int64_t other = with.between(1, 6);
    const bool middle = with.coin();
    const value_number x = to.floats(middle ? value_shape{tokens(), fixed(size), fixed(other)}
                                            : value_shape{tokens(), fixed(other), fixed(size)});
    return to.finish({to.program().slice("y", x, middle ? 1 : 2, begin, fixed(taken))});
}

operation_case concat(draw& with) {
    case_builder to(with, with.rows());
    const auto axis = static_cast<uint32_t>(with.between(1, 2));
    std::vector<value_number> parts;
    for (int64_t i = with.between(1, 4); i > 0; --i) {
        value_shape shape{tokens(), fixed(3), fixed(5)};
        shape[axis] = fixed(with.between(1, 9));
        parts.push_back(to.floats(shape));
    }
    return to.finish({to.program().concat("y", parts, axis)});
}

operation_case cast(draw& with) {
    case_builder to(with, with.rows());
    constexpr sluice_element_type types[] = {SLUICE_F32, SLUICE_BF16, SLUICE_F16, SLUICE_I32};
    const value_shape shape{tokens(), fixed(with.between(1, 70))};
    const sluice_element_type from = types[with.between(0, 3)];
    const auto sized = to.sizes(shape);
    const value_number x = to.tensor(
        shape, host_tensor::floats(sized, normal_numbers(with.random, count_of(sized), 300), from));
    return to.finish({to.program().cast("y", x, types[with.between(0, 3)])});
}

operation_case copy(draw& with) {
    case_builder to(with, with.rows());
    const value_number x = to.floats({tokens(), fixed(with.between(1, 70))});
    return to.finish({to.program().copy("y", x)});
}

} // namespace

std::vector<generator> movement_generators() {
    return {{SLUICE_OP_GATHER_ROWS, "gather_rows", false, true, gather_rows},
            {SLUICE_OP_GATHER, "gather", false, true, gather},
            {SLUICE_OP_SCATTER_ADD, "scatter_add", false, true, scatter_add},
            {SLUICE_OP_RESHAPE, "reshape", false, true, reshape},
            {SLUICE_OP_TRANSPOSE, "transpose", false, true, transpose},
            {SLUICE_OP_SLICE, "slice", false, true, slice},
            {SLUICE_OP_CONCAT, "concat", false, true, concat},
            {SLUICE_OP_CAST, "cast", false, false, cast},
            {SLUICE_OP_COPY, "copy", false, true, copy}};
}

} // namespace sluice::checker
