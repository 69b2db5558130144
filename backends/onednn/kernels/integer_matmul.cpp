#include "integer_matmul.hpp"

#include "integer_tile.hpp"

#include <algorithm>
#include <cstring>

namespace sluice::kernels {
namespace {

// How far ahead of the multiplication few rows, which memory bounds, read the weights.
constexpr std::int64_t prefetch_distance = 4096;
// The rows of a chunk stay in a second-level cache of 1 MB beside a block of weights.
constexpr std::int64_t rows_bytes_max = 640 * 1024;

const integer_kernels* kernels_of(instruction_set set) {
    const cpu_features features = detect_cpu_features();
#if defined(SLUICE_KERNELS_X86)
    if (set >= instruction_set::avx512 && features.avx512_vnni) return &integer_kernels_vnni;
    if (set >= instruction_set::avx2 && features.avx2) return &integer_kernels_avx2;
#else
    (void)set;
    (void)features;
#endif
    return &integer_kernels_plain;
}

std::int64_t words_of(std::int64_t k) { // of a group
    const std::int64_t runs = (k + run_k_max - 1) / run_k_max;
    return 2 * runs + (k + stored_k_unit - 1) / stored_k_unit * (stored_k_unit / 4);
}

} // namespace

integer_kernel_set::integer_kernel_set(instruction_set set) : kernels_(kernels_of(set)) {}

packed_rows_layout integer_kernel_set::rows_layout(const packed_layout& weights,
                                                   std::int64_t m) const {
    auto layout = make_packed_rows_layout(float_type::float32, m, weights.k, kernels_->height_max);
    const std::int64_t last = weights.group_count - 1;
    layout.words = last * words_of(weights.group_size) + words_of(weights.group_k(last));
    layout.total_bytes = m * layout.row_bytes();
    return layout;
}

void integer_kernel_set::quantize(const packed_layout& weights, const packed_rows_layout& layout,
                                  const row_source& source, std::int64_t row_begin,
                                  std::int64_t row_end, std::uint32_t* rows) const {
    const std::int64_t size = source.type == float_type::float32 ? 4 : 2;
    for (std::int64_t m = row_begin; m < row_end; ++m) {
        const std::int64_t row = source.row_index != nullptr ? source.row_index[m] : m;
        quantize_arguments a;
        a.row = static_cast<const std::byte*>(source.data) + row * source.row_stride * size;
        a.type = source.type;
        a.layout = &weights;
        a.words = rows + m * layout.words;
        kernels_->quantize(a);
    }
}

void integer_kernel_set::gather(const packed_rows_layout& layout, const std::uint32_t* rows,
                                const std::int32_t* row_index, std::int64_t tile_begin,
                                std::int64_t tile_end, std::byte* destination) const {
    constexpr std::int64_t stretch = 64; // words at a time: the tile's part stays in the cache
    for (std::int64_t tile = tile_begin; tile < tile_end; ++tile) {
        const std::int64_t first = layout.tile_begin(tile);
        const std::int64_t height = layout.tile_height(tile);
        auto* to = reinterpret_cast<std::uint32_t*>(destination + first * layout.row_bytes());
        for (std::int64_t begin = 0; begin < layout.words; begin += stretch) {
            const std::int64_t end = std::min(begin + stretch, layout.words);
            for (std::int64_t h = 0; h < height; ++h) {
                const std::int64_t row = row_index != nullptr ? row_index[first + h] : first + h;
                const std::uint32_t* from = rows + row * layout.words;
                for (std::int64_t i = begin; i < end; ++i) to[i * height + h] = from[i];
            }
        }
    }
}

void integer_kernel_set::multiply(const packed_matrix_view& weights, const packed_rows_view& rows,
                                  std::int64_t block_begin, std::int64_t block_end, float* output,
                                  std::int64_t output_row_stride, bool accumulate,
                                  const std::byte* following) const {
    const packed_layout& layout = weights.layout;
    const packed_rows_layout& shape = rows.layout;
    if (shape.m == 0 || block_begin >= block_end) return;
    const bool is_int4 = layout.storage == weight_storage::int4;
    const auto& tiles = (is_int4 ? kernels_->int4 : kernels_->int8)[layout.zero_points ? 1 : 0];
    const std::int64_t tile_bytes = shape.row_bytes() * shape.tile_height(0);
    const std::int64_t chunk = std::max<std::int64_t>(1, rows_bytes_max / tile_bytes);
    tile_arguments a;
    a.layout = &layout;
    a.output_row_stride = output_row_stride;
    a.accumulate = accumulate;
    for (std::int64_t chunk_begin = 0; chunk_begin < shape.tile_count; chunk_begin += chunk) {
        const std::int64_t chunk_end = std::min(chunk_begin + chunk, shape.tile_count);
        for (std::int64_t block = block_begin; block < block_end; ++block) {
            a.block = weights.block(block);
            a.prefetch = a.block + layout.block_bytes;
            if (block + 1 == block_end && following != nullptr) a.prefetch = following;
            a.columns = std::min(block_width, layout.n - block * block_width);
            // The first tile brings the next block in, the others find this one in the cache.
            a.prefetch_step = shape.m <= 4 ? prefetch_distance : layout.block_bytes;
            for (std::int64_t tile = chunk_begin; tile < chunk_end; ++tile) {
                a.rows = rows.tile(tile);
                a.output =
                    output + shape.tile_begin(tile) * output_row_stride + block * block_width;
                tiles[shape.tile_height(tile)](a);
                a.prefetch_step = 0;
            }
        }
    }
}

} // namespace sluice::kernels
