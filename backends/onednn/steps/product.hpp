// The matrix product that several steps are made of: rows are packed by all workers, then each
// takes runs of weight blocks.
#pragma once

#include "step.hpp"

#include "../kernels/tile.hpp"

namespace sluice::onednn {

// Blocks of 32 columns that a worker computes at once before it converts them.
inline constexpr int64_t blocks_per_run = 8;

// So few rows are packed by every worker for itself, which costs less than to wait for each other,
// and then wait for memory: workers take short runs of blocks as they are free, since the memory of
// one core is at times slower than another's. Of more rows each worker computes a fixed share.
inline constexpr int64_t lone_rows_max = 4;
inline constexpr int64_t blocks_per_lone_run = 4;

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
        if (choice.quantizes(activations) && kernels::integer_kernel_set::takes(weights))
            integers_ = &choice.integers;
        else if (choice.library != nullptr && activations == SLUICE_BF16
                 && library_product::fits(weights))
            library_ = &choice.library->of(weights.k);
    }
    // For two weights that the same rows are multiplied by, gate and up: in float32 where no faster
    // form of rows suits both.
    product(const kernel_choice& choice, sluice_element_type activations,
            const kernels::packed_layout& weights, const kernels::packed_layout& others,
            int64_t rows_max)
        : product(choice, activations, weights, rows_max) {
        using kernels::integer_kernel_set;
        const bool alike = integers_ != nullptr ? integer_kernel_set::takes(others)
                                                      && weights.group_size == others.group_size
                                                : weights.storage == others.storage;
        if (!alike) *this = product(choice.exact, weights, rows_max);
    }

    // Whether rows are rounded to int8 on the way; see `quantize`.
    bool quantizes() const { return integers_ != nullptr; }
    int64_t packed_bytes() const { return packed_bytes(rows_max_); }
    int64_t packed_bytes(int64_t rows) const { return aligned(rows_layout(rows).total_bytes) + 64; }
    // Of as many rows as a worker packs alone.
    int64_t lone_packed_bytes() const { return aligned(packed_bytes(lone_rows_max)); }
    // Bytes behind the last row that may be read as well.
    int64_t slack_bytes() const {
        return library_ == nullptr ? 64 : library_product::row_bucket_max * weights_.k * 2;
    }
    // Scratch of a worker, for `pack` and `multiply`.
    int64_t kernel_scratch_bytes() const {
        if (integers_ != nullptr) return aligned(kernels::tile_height_limit * row_words() * 4);
        return aligned(library_ == nullptr ? set_->scratch_bytes(weights_)
                                           : library_->scratch_bytes());
    }
    int64_t block_count() const { return weights_.block_count; }
    const kernels::packed_layout& weights() const { return weights_; }

    kernels::packed_rows_layout rows_layout(int64_t rows) const {
        if (integers_ != nullptr) return integers_->rows_layout(weights_, rows);
        return library_ == nullptr ? set_->rows_layout(weights_.storage, rows, weights_.k)
                                   : library_product::rows_layout(rows, weights_.k);
    }
    void pack(const kernels::packed_rows_layout& layout, const kernels::row_source& rows,
              int64_t tile_begin, int64_t tile_end, std::byte* packed,
              std::byte* kernel_scratch) const {
        if (tile_begin >= tile_end) return;
        if (integers_ != nullptr)
            pack_quantized(layout, rows, tile_begin, tile_end, packed, kernel_scratch);
        else if (library_ == nullptr)
            set_->pack_rows(layout, rows, tile_begin, tile_end, packed);
        else
            library_product::pack_rows(layout, rows, tile_begin, tile_end, packed);
    }

    // The two halves of `pack` where rows are quantized and go into several tiles: each row once,
    // row m to quantized + m * row_words(); then tiles of rows that were.
    int64_t row_words() const { return integers_->rows_layout(weights_, 1).words; }
    void quantize(const kernels::row_source& rows, int64_t row_begin, int64_t row_end,
                  uint32_t* quantized) const {
        integers_->quantize(weights_, integers_->rows_layout(weights_, rows_max_), rows, row_begin,
                            row_end, quantized);
    }
    void gather(const kernels::packed_rows_layout& layout, const uint32_t* quantized,
                const int32_t* row_index, int64_t tile_begin, int64_t tile_end,
                std::byte* packed) const {
        integers_->gather(layout, quantized, row_index, tile_begin, tile_end, packed);
    }
    // Columns of the blocks [block_begin, block_end), written from output[0] on. `following`, where
    // it is known, is the memory that the worker reads next.
    void multiply(const kernels::packed_matrix_view& weights,
                  const kernels::packed_rows_layout& layout, const std::byte* packed,
                  int64_t block_begin, int64_t block_end, float* output, int64_t stride,
                  std::byte* kernel_scratch, const std::byte* following = nullptr) const {
        float* first = output - block_begin * kernels::block_width;
        if (integers_ != nullptr)
            integers_->multiply(weights, {layout, packed}, block_begin, block_end, first, stride,
                                false, following);
        else if (library_ == nullptr)
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
    // Tile by tile, so that the rows of one are still in the cache when they are interleaved. A
    // tile of one row is the quantized row itself.
    void pack_quantized(const kernels::packed_rows_layout& layout, const kernels::row_source& rows,
                        int64_t tile_begin, int64_t tile_end, std::byte* packed,
                        std::byte* kernel_scratch) const {
        auto* target = reinterpret_cast<uint32_t*>(packed);
        auto* room = reinterpret_cast<uint32_t*>(kernel_scratch);
        for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
            const int64_t first = layout.tile_begin(tile);
            const int64_t height = layout.tile_height(tile);
            if (height == 1) {
                integers_->quantize(weights_, layout, rows, first, first + 1, target);
                continue;
            }
            // The tile's first row comes to lie at the begin of the scratch.
            uint32_t* quantized = room - first * layout.words;
            integers_->quantize(weights_, layout, rows, first, first + height, quantized);
            integers_->gather(layout, quantized, nullptr, tile, tile + 1, packed);
        }
    }

    const kernels::kernel_set* set_ = nullptr;
    const kernels::integer_kernel_set* integers_ = nullptr;
    const library_product* library_ = nullptr;
    kernels::packed_layout weights_;
    int64_t rows_max_ = 0;
};

inline const std::byte* block_or_null(const kernels::packed_matrix_view& weights, int64_t block) {
    return block == work_run::none ? nullptr : weights.block(block);
}

// Calls function(run) with the runs of blocks that the worker computes. The counter was reset
// before all workers met.
template <typename Function>
void share_blocks(const plugin::worker& self, int64_t rows, int64_t block_count,
                  work_counter& counter, Function&& function) {
    if (rows <= lone_rows_max) {
        take_runs(counter, block_count, blocks_per_lone_run, function);
        return;
    }
    const auto blocks = self.share(block_count);
    for (int64_t first = blocks.begin; first < blocks.end; first += blocks_per_run)
        function(work_run{first, std::min(first + blocks_per_run, blocks.end), work_run::none});
}

// Rows packed for one product: by all workers together in the shared scratch, or by each for
// itself.
class packing_place {
  public:
    // shared: product.packed_bytes(rows); own: product.lone_packed_bytes() of the worker.
    packing_place(const plugin::worker& self, const product& p, int64_t rows, std::byte* shared,
                  std::byte* own)
        : self_(self), product_(p), layout_(p.rows_layout(rows)), is_lone_(rows <= lone_rows_max),
          packed_(is_lone_ ? own : shared) {}

    // On every worker; the rows may be read when it returns.
    void pack(const kernels::row_source& rows, std::byte* kernel_scratch) const {
        const auto tiles = is_lone_ ? plugin::worker::range{0, layout_.tile_count}
                                    : self_.share(layout_.tile_count);
        product_.pack(layout_, rows, tiles.begin, tiles.end, packed_, kernel_scratch);
        if (!is_lone_) self_.meet.wait();
    }
    const kernels::packed_rows_layout& layout() const { return layout_; }
    const std::byte* packed() const { return packed_; }

  private:
    const plugin::worker& self_;
    const product& product_;
    kernels::packed_rows_layout layout_;
    bool is_lone_;
    std::byte* packed_;
};

} // namespace sluice::onednn
