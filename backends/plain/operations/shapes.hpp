// Walking over broadcast operands.
#pragma once

#include "operations.hpp"

namespace sluice::plain {

using index_array = std::array<int64_t, SLUICE_RANK_MAX>;

// The place of element `flat` in a tensor of `shape`.
inline index_array unflatten(int64_t flat, const plugin::tensor& shape) {
    index_array place{};
    for (int axis = static_cast<int>(shape.rank) - 1; axis >= 0; --axis) {
        place[axis] = flat % shape.shape[axis];
        flat /= shape.shape[axis];
    }
    return place;
}

// The element of `operand` that broadcasts to `place` of a result of `rank` axes; the last `skip`
// axes are left out on both sides.
inline int64_t broadcast_index(const plugin::tensor& operand, const index_array& place,
                               uint32_t rank, uint32_t skip = 0) {
    int64_t flat = 0;
    for (uint32_t axis = 0; axis + skip < operand.rank; ++axis) {
        const int64_t at = place[rank - operand.rank + axis];
        flat = flat * operand.shape[axis] + (operand.shape[axis] == 1 ? 0 : at);
    }
    return flat;
}

inline int64_t elements_of_output(const call& c) { return c.out(0).element_count(); }
inline int64_t rows_of_output(const call& c) { return c.out(0).row_count(); }

} // namespace sluice::plain
