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
    // rows_max bounds the rows of any call.
    product(const kernels::kernel_set& set, kernels::packed_layout weights, int64_t rows_max)
        : set_(&set), weights_(weights), rows_max_(rows_max) {}

    int64_t packed_bytes() const { return packed_bytes(rows_max_); }
    int64_t packed_bytes(int64_t rows) const {
        return aligned(set_->rows_layout(weights_.storage, rows, weights_.k).total_bytes) + 64;
    }
    int64_t kernel_scratch_bytes() const { return aligned(set_->scratch_bytes(weights_)); }
    int64_t block_count() const { return weights_.block_count; }
    int64_t run_count() const {
        return (weights_.block_count + blocks_per_run - 1) / blocks_per_run;
    }
    const kernels::packed_layout& weights() const { return weights_; }

    kernels::packed_rows_layout rows_layout(int64_t rows) const {
        return set_->rows_layout(weights_.storage, rows, weights_.k);
    }
    void pack(const kernels::packed_rows_layout& layout, const kernels::row_source& rows,
              int64_t tile_begin, int64_t tile_end, std::byte* packed) const {
        if (tile_begin < tile_end) set_->pack_rows(layout, rows, tile_begin, tile_end, packed);
    }
    // Columns of the blocks [block_begin, block_end), written from output[0] on.
    void multiply(const kernels::packed_matrix_view& weights,
                  const kernels::packed_rows_layout& layout, const std::byte* packed,
                  int64_t block_begin, int64_t block_end, float* output, int64_t stride,
                  std::byte* kernel_scratch) const {
        set_->multiply(weights, {layout, packed}, block_begin, block_end,
                       output - block_begin * kernels::block_width, stride, false, kernel_scratch);
    }
    int64_t columns(int64_t block_begin, int64_t block_end) const {
        return std::min(block_end * kernels::block_width, weights_.n)
               - block_begin * kernels::block_width;
    }

  private:
    const kernels::kernel_set* set_ = nullptr;
    kernels::packed_layout weights_;
    int64_t rows_max_ = 0;
};

} // namespace sluice::onednn
