// oneDNN's own matrix product on our packed weights.
//
// Blocks of bfloat16 weights lie as oneDNN's format BA16a32b2a does ([N/32][K/2][32][2], K a
// multiple of 32), so its matmul reads them in place, and which of the two multiplies is chosen by
// measuring. Primitives have fixed sizes: rows come in buckets, columns in runs of 128 or 32.
#pragma once

#include "kernels/packed_matrix.hpp"
#include "kernels/packed_rows.hpp"

#include <array>
#include <map>
#include <memory>
#include <mutex>

namespace sluice::onednn {

namespace kernels = sluice::kernels;

// The primitives for weights with K columns. Immutable; safe to use from several threads.
class library_product {
  public:
    static constexpr std::array<int64_t, 8> row_buckets = {1, 2, 4, 8, 16, 32, 48, 64};
    static constexpr int64_t row_bucket_max = 64;
    static constexpr std::array<int64_t, 2> column_runs = {128, 32};

    explicit library_product(int64_t k);
    ~library_product();

    // Whether weights of this layout can be read as they lie.
    static bool fits(const kernels::packed_layout& weights) {
        return weights.storage == kernels::weight_storage::bfloat16 && weights.k % 32 == 0;
    }

    // Rows lie row-major [m, k] in bfloat16; up to row_bucket_max - 1 rows behind them are read.
    static kernels::packed_rows_layout rows_layout(int64_t m, int64_t k);
    static void pack_rows(const kernels::packed_rows_layout& layout,
                          const kernels::row_source& source, int64_t tile_begin, int64_t tile_end,
                          std::byte* destination);

    // As kernel_set::multiply, without accumulation. Runs on the calling thread alone.
    void multiply(const kernels::packed_matrix_view& weights, const kernels::packed_rows_view& rows,
                  int64_t block_begin, int64_t block_end, float* output, int64_t output_row_stride,
                  std::byte* scratch) const;
    int64_t scratch_bytes() const;

  private:
    struct primitives;
    void multiply_run(const kernels::packed_matrix_view& weights,
                      const kernels::packed_rows_view& rows, int64_t block, size_t run,
                      float* output, int64_t output_row_stride, std::byte* scratch) const;

    int64_t k_;
    std::unique_ptr<const primitives> primitives_;
};

// One library_product for each K, made when it is first asked for, shared by all programs.
class library_products {
  public:
    const library_product& of(int64_t k);

  private:
    std::mutex mutex_;
    std::map<int64_t, std::unique_ptr<const library_product>> made_;
};

} // namespace sluice::onednn
