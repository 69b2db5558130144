// y = x * transpose(W) by integer dot products: rows quantized to int8, weights int8 or int4.
//
// Within a run (packed_rows.hpp) the sum of products of codes is exact in 32 bits, whatever the set
// of instructions: at most 64 * 255 * 127. Runs are added up in float32 in rising k, as
//   y[m, n] += float(sum) * (scale of the weight's group * scale of the row's run),
// so a row gives the same bits whatever the number of rows, the tile or the range of blocks.
//
// The error that the rows' rounding causes: a code is off by at most half a step, and a step is
// (largest |x| of the run) / 127, so |error of y| <= sum over runs of max|x| / 254 * sum |w|.
//
// Every function runs on the calling thread alone, never blocks and never allocates.
#pragma once

#include "cpu_features.hpp"
#include "packed_matrix.hpp"
#include "packed_rows.hpp"

namespace sluice::kernels {

struct integer_kernels; // internal

// The kernels of one instruction set; copied freely, refers to constants.
class integer_kernel_set {
  public:
    // The highest set that is not above `set` and that this build and processor have: VNNI of
    // AVX-512, AVX2, or portable code.
    explicit integer_kernel_set(instruction_set set);

    static bool takes(const packed_layout& weights) {
        return weights.storage == weight_storage::int8 || weights.storage == weight_storage::int4;
    }

    // Rows for weights of this layout; layouts of one K and group size share them.
    packed_rows_layout rows_layout(const packed_layout& weights, std::int64_t m) const;

    // Quantizes the rows [row_begin, row_end) of the source: row m to rows + m * layout.words. A
    // run with an infinity or a NaN gives no finite result.
    void quantize(const packed_layout& weights, const packed_rows_layout& layout,
                  const row_source& source, std::int64_t row_begin, std::int64_t row_end,
                  std::uint32_t* rows) const;

    // Gathers quantized rows into the tiles [tile_begin, tile_end) below `destination`, the start
    // of the whole buffer. Row m is row_index[m] of `rows`, or row m where row_index is null.
    void gather(const packed_rows_layout& layout, const std::uint32_t* rows,
                const std::int32_t* row_index, std::int64_t tile_begin, std::int64_t tile_end,
                std::byte* destination) const;

    // As kernel_set::multiply; needs no scratch. `following` is what the caller reads next, which
    // is fetched towards the end; null: what lies behind the blocks.
    void multiply(const packed_matrix_view& weights, const packed_rows_view& rows,
                  std::int64_t block_begin, std::int64_t block_end, float* output,
                  std::int64_t output_row_stride, bool accumulate,
                  const std::byte* following = nullptr) const;

  private:
    const integer_kernels* kernels_;
};

} // namespace sluice::kernels
