// Tensors whose sizes a kernel finds out when it runs: some axes follow the extents of the planned
// step.
//
// Values whose only extent is that of their first axis are laid out alike for the bucket's sizes
// and for the step's: kernels may treat padding as rows like others. Values with an extent on
// another axis are dense at the sizes of the planned step, as in host memory; kernels that look at
// places must know those sizes.
#pragma once

#include "view.hpp"

namespace sluice::cuda {

// base + factor * present[extent]
struct sized_axis {
    int64_t base = 1;
    int32_t factor = 0;
    uint32_t extent = 0; // SLUICE_EXTENT_*
};

struct sized_view {
    void* data = nullptr;
    uint32_t type = 0;
    int32_t rank = 0;
    sized_axis shape[SLUICE_RANK_MAX];
};

inline sized_axis fixed_axis(int64_t size) { return {size, 0, 0}; }

} // namespace sluice::cuda
