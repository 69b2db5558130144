// Walking over tensors of any shape, with operands that broadcast as in NumPy.
#pragma once

#include "shape.hpp"

namespace sluice::cuda {

// `present`: the extents of the planned step, by SLUICE_EXTENT_*.
__host__ __device__ inline int64_t size_of(const sized_axis& axis, const int32_t* present) {
    return axis.factor == 0 ? axis.base
                            : axis.base + static_cast<int64_t>(axis.factor) * present[axis.extent];
}

// Elements of the axes from `first` to before `end`.
__host__ __device__ inline int64_t count_of(const sized_view& view, int first, int end,
                                            const int32_t* present) {
    int64_t count = 1;
    for (int axis = first; axis < end; ++axis) count *= size_of(view.shape[axis], present);
    return count;
}
__host__ __device__ inline int64_t count_of(const sized_view& view, const int32_t* present) {
    return count_of(view, 0, view.rank, present);
}

struct tensor_place {
    int64_t at[SLUICE_RANK_MAX];
};

// The place of element `flat`; the view has one.
__host__ __device__ inline tensor_place place_of(const sized_view& view, int64_t flat,
                                                 const int32_t* present) {
    tensor_place place{};
    for (int axis = view.rank - 1; axis >= 0; --axis) {
        const int64_t size = size_of(view.shape[axis], present);
        place.at[axis] = flat % size;
        flat /= size;
    }
    return place;
}

// The element of `operand` that broadcasts to `place` of a result of `rank` axes; the last `skip`
// axes are left out on both sides.
__host__ __device__ inline int64_t broadcast_index(const sized_view& operand,
                                                   const tensor_place& place, int rank, int skip,
                                                   const int32_t* present) {
    int64_t flat = 0;
    for (int axis = 0; axis + skip < operand.rank; ++axis) {
        const int64_t size = size_of(operand.shape[axis], present);
        const int64_t at = place.at[rank - operand.rank + axis];
        flat = flat * size + (size == 1 ? 0 : at);
    }
    return flat;
}

} // namespace sluice::cuda
