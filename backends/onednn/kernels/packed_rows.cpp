#include "packed_rows.hpp"

namespace sluice::kernels {

packed_rows_layout make_packed_rows_layout(float_type element, std::int64_t m, std::int64_t k,
                                           std::int64_t height_max) {
    packed_rows_layout layout;
    layout.element = element;
    layout.m = m;
    layout.k = k;
    layout.k_padded = k + k % 2;
    layout.tile_count = (m + height_max - 1) / height_max;
    layout.total_bytes = m * layout.row_bytes();
    return layout;
}

} // namespace sluice::kernels
