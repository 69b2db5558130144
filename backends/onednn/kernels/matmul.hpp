// y = x * transpose(W) over packed weights and packed rows.
//
// Every function here runs on the calling thread alone, never blocks and never allocates. Threads
// share a product by taking different ranges of blocks (32 columns of y each), and share the
// packing of rows by taking different tiles.
//
// An output is one chain of multiply-adds in rising k, whatever the number of rows, the tile, the
// range of blocks or the cache blocking, so a row gives the same bits in a decode and in a prefill,
// and the sets avx2 and avx512 give the same bits as each other. (plain rounds twice per step;
// avx512_bf16 with bfloat16 weights rounds the activations to bfloat16.)
#pragma once

#include "cpu_features.hpp"
#include "packed_matrix.hpp"
#include "packed_rows.hpp"

#include <cstddef>
#include <cstdint>

namespace sluice::kernels {

struct tile_kernels;          // internal
struct bfloat16_tile_kernels; // internal

// The kernels of one instruction set; copied freely, refers to constants.
class kernel_set {
  public:
    // A set that this build or `set` does not have falls to the next lower one; see set().
    explicit kernel_set(instruction_set set);

    instruction_set set() const { return set_; }

    // How rows must be packed for these weights: float32, or bfloat16 for bfloat16 weights under
    // avx512_bf16.
    packed_rows_layout rows_layout(weight_storage storage, std::int64_t m, std::int64_t k) const;

    // Packs the tiles [tile_begin, tile_end) to their place below `destination`, the start of the
    // whole buffer (layout.total_bytes, aligned to 64 bytes).
    void pack_rows(const packed_rows_layout& layout, const row_source& source,
                   std::int64_t tile_begin, std::int64_t tile_end, std::byte* destination) const;

    // Bytes of scratch that multiply needs for weights of this layout, aligned to 64 bytes, one for
    // each thread; its content matters to nobody.
    std::int64_t scratch_bytes(const packed_layout& weights) const;

    // y[m, n] = (accumulate ? y[m, n] : 0) + sum over k of x[m, k] * W[n, k], for the columns of
    // the blocks [block_begin, block_end). `output` is column 0 of y [M, N], row stride in
    // elements. The widths of x and W must agree and the rows be packed by rows_layout for them.
    void multiply(const packed_matrix_view& weights, const packed_rows_view& rows,
                  std::int64_t block_begin, std::int64_t block_end, float* output,
                  std::int64_t output_row_stride, bool accumulate, std::byte* scratch) const;

  private:
    void multiply_direct(const packed_matrix_view& weights, const packed_rows_view& rows,
                         std::int64_t block_begin, std::int64_t block_end, float* output,
                         std::int64_t output_row_stride, bool accumulate) const;

    instruction_set set_;
    const tile_kernels* kernels_;
    const bfloat16_tile_kernels* bfloat16_kernels_ = nullptr;
};

} // namespace sluice::kernels
