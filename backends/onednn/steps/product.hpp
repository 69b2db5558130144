// The matrix product that several steps are made of: rows are packed by all workers, then each
// takes runs of weight blocks.
#pragma once

#include "step.hpp"

namespace sluice::onednn {

// Blocks of 32 columns that a worker computes at once before it converts them.
inline constexpr int64_t blocks_per_run = 8;

class product {
  public:
    product() = default;
    // rows_max bounds the rows of any call. In float32 by our own kernels.
    product(const kernels::kernel_set& set, kernels::packed_layout weights, int64_t rows_max)
        : set_(&set), weights_(weights), rows_max_(rows_max) {}
    // By whatever was found to be the fastest for that type.
    product(const kernel_choice& choice, sluice_element_type activations,
            kernels::packed_layout weights, int64_t rows_max)
        : product(choice.of(activations), weights, rows_max) {
        if (choice.library != nullptr && activations == SLUICE_BF16
            && library_product::fits(weights))
            library_ = &choice.library->of(weights.k);
    }

    int64_t packed_bytes() const { return packed_bytes(rows_max_); }
    int64_t packed_bytes(int64_t rows) const { return aligned(rows_layout(rows).total_bytes) + 64; }
    // Bytes behind the last row that may be read as well.
    int64_t slack_bytes() const {
        return library_ == nullptr ? 64 : library_product::row_bucket_max * weights_.k * 2;
    }
    int64_t kernel_scratch_bytes() const {
        return aligned(library_ == nullptr ? set_->scratch_bytes(weights_)
                                           : library_->scratch_bytes());
    }
    int64_t block_count() const { return weights_.block_count; }
    const kernels::packed_layout& weights() const { return weights_; }

    kernels::packed_rows_layout rows_layout(int64_t rows) const {
        return library_ == nullptr ? set_->rows_layout(weights_.storage, rows, weights_.k)
                                   : library_product::rows_layout(rows, weights_.k);
    }
    void pack(const kernels::packed_rows_layout& layout, const kernels::row_source& rows,
              int64_t tile_begin, int64_t tile_end, std::byte* packed) const {
        if (tile_begin >= tile_end) return;
        if (library_ == nullptr)
            set_->pack_rows(layout, rows, tile_begin, tile_end, packed);
        else
            library_product::pack_rows(layout, rows, tile_begin, tile_end, packed);
    }
    // Columns of the blocks [block_begin, block_end), written from output[0] on.
    void multiply(const kernels::packed_matrix_view& weights,
                  const kernels::packed_rows_layout& layout, const std::byte* packed,
                  int64_t block_begin, int64_t block_end, float* output, int64_t stride,
                  std::byte* kernel_scratch) const {
        float* first = output - block_begin * kernels::block_width;
        if (library_ == nullptr)
            set_->multiply(weights, {layout, packed}, block_begin, block_end, first, stride, false,
                           kernel_scratch);
        else
            library_->multiply(weights, {layout, packed}, block_begin, block_end, first, stride,
                               kernel_scratch);
    }
    int64_t columns(int64_t block_begin, int64_t block_end) const {
        return std::min(block_end * kernels::block_width, weights_.n)
               - block_begin * kernels::block_width;
    }

  private:
    const kernels::kernel_set* set_ = nullptr;
    const library_product* library_ = nullptr;
    kernels::packed_layout weights_;
    int64_t rows_max_ = 0;
};

} // namespace sluice::onednn
