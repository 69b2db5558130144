// The layout in which activations lie for the matrix kernels.
//
// Activations x [M, K] are cut into tiles of rows of nearly equal height, at most the kernel set's
// height. A tile is [padded K][height] float32, so that the kernel reads it as one stream and one
// multiplication reads neighbours. Kernels of the set avx512_bf16 with bfloat16 weights read
// [padded K / 2][height][2] bfloat16 instead. A row's result does not depend on the tile it is in.
//
// For int8 and int4 weights rows can be quantized as well (integer_matmul.hpp). A row then is a
// sequence of 32-bit words: K is cut into runs of at most 64 within the weight's groups, and each
// run is its scale (float32), the sum of its codes negated (int32), and its codes (int8, symmetric,
// -127..127), filled with zeros to a multiple of 8. A tile is [words][height] of these.
#pragma once

#include "packed_matrix.hpp"

#include <cstddef>
#include <cstdint>

namespace sluice::kernels {

struct packed_rows_layout {
    float_type element = float_type::float32;
    std::int64_t m = 0; // rows of x, 0 is legal
    std::int64_t k = 0;
    std::int64_t k_padded = 0;
    std::int64_t tile_count = 0;
    std::int64_t total_bytes = 0;
    std::int64_t words = 0; // of a quantized row; 0: rows of `element`

    std::int64_t tile_begin(std::int64_t tile) const { // first row of the tile
        const std::int64_t longer = m % tile_count;
        return tile * (m / tile_count) + (tile < longer ? tile : longer);
    }
    std::int64_t tile_height(std::int64_t tile) const {
        return m / tile_count + (tile < m % tile_count ? 1 : 0);
    }
    std::int64_t row_bytes() const {
        return words != 0 ? words * 4 : k_padded * (element == float_type::float32 ? 4 : 2);
    }
};

// m >= 0, k >= 1; height_max is that of the kernel set.
packed_rows_layout make_packed_rows_layout(float_type element, std::int64_t m, std::int64_t k,
                                           std::int64_t height_max);

// Borrows `data`: total_bytes, aligned to packed_alignment.
struct packed_rows_view {
    packed_rows_layout layout;
    const std::byte* data = nullptr;

    const std::byte* tile(std::int64_t index) const {
        return data + layout.tile_begin(index) * layout.row_bytes();
    }
};

// Rows of x in memory, borrowed. Row m of the matrix is row row_index[m] of data, or row m where
// row_index is null (the gather of a mixture of experts costs nothing here).
struct row_source {
    const void* data = nullptr;
    float_type type = float_type::float32;
    std::int64_t row_stride = 0; // elements
    const std::int32_t* row_index = nullptr;
};

} // namespace sluice::kernels
