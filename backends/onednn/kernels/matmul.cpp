#include "matmul.hpp"

#include "tile.hpp"

#include <algorithm>

namespace sluice::kernels {
namespace {

// A panel of weights of this depth and the rows of a chunk together stay in a second-level cache of
// 1.25 MB or more. Deep panels and few rows measured faster than the other way round: the output is
// written once, and memory is quick enough to read the weights again for each chunk of rows.
constexpr std::int64_t k_chunk_max = 2048;
constexpr std::int64_t rows_bytes_max = 768 * 1024;
// How far ahead of the multiplication a direct kernel reads.
constexpr std::int64_t prefetch_distance = 4096;

// Near equal chunks of k, each even and at most k_chunk_max.
std::int64_t k_chunk_of(std::int64_t k_padded) {
    const std::int64_t chunks = (k_padded + k_chunk_max - 1) / k_chunk_max;
    return (k_padded / 2 + chunks - 1) / chunks * 2;
}

// Tiles of one chunk of rows, in near equal chunks.
std::int64_t chunk_tiles_of(const packed_rows_layout& rows, std::int64_t k_chunk) {
    const std::int64_t fitting =
        std::max<std::int64_t>(1, rows_bytes_max / (4 * k_chunk * rows.tile_height(0)));
    const std::int64_t chunks = (rows.tile_count + fitting - 1) / fitting;
    return (rows.tile_count + chunks - 1) / chunks;
}

const tile_kernels* kernels_of(instruction_set set) {
    switch (set) {
#if defined(SLUICE_KERNELS_X86)
    case instruction_set::avx512_bf16:
    case instruction_set::avx512:
        return &tile_kernels_avx512;
    case instruction_set::avx2:
        return &tile_kernels_avx2;
#endif
    default:
        return &tile_kernels_plain;
    }
}

std::size_t index_of(weight_storage storage) { return static_cast<std::size_t>(storage); }

// A whole product as multiply_panel needs it.
struct product {
    const packed_matrix_view& weights;
    const packed_rows_view& rows;
    float* output;
    std::int64_t output_row_stride;
    bool accumulate;
    std::byte* scratch;
    const tile_function* tiles; // by height; read the panel, or the block where it serves as one
    const tile_function* first_tile; // by height; reads the block and writes the panel, or null
    widen_function widen;            // or null
    std::int64_t k_bytes_in_block;   // of one k for all columns; not for `widen`
    std::int64_t k_bytes_in_row;
};

// The part of a product: rows of some tiles, a run of k, and one block.
struct product_part {
    std::int64_t tile_begin;
    std::int64_t tile_end;
    std::int64_t k;
    std::int64_t k_count;
    std::int64_t block;
    std::int64_t block_next; // comes in from memory meanwhile
};

// Bytes that hold the part's k in a block, as an offset and a size; near enough where groups lie
// between. Zero points, few and far away, are left to the hardware.
struct byte_range {
    std::int64_t begin;
    std::int64_t size;
};

byte_range bytes_of_k(const packed_layout& layout, std::int64_t k, std::int64_t k_count) {
    const std::int64_t bytes = layout.zeros_offset != 0 ? layout.zeros_offset : layout.block_bytes;
    return {bytes / layout.k_padded * k, bytes * k_count / layout.k_padded};
}

void multiply_part(const product& p, const product_part& part) {
    const packed_layout& layout = p.weights.layout;
    const packed_rows_layout& shape = p.rows.layout;
    const std::byte* block = p.weights.block(part.block);
    tile_arguments a;
    a.block = block + part.k * p.k_bytes_in_block;
    a.k_count = part.k_count;
    a.columns = std::min(block_width, layout.n - part.block * block_width);
    a.output_row_stride = p.output_row_stride;
    a.accumulate = p.accumulate || part.k > 0;
    a.panel = reinterpret_cast<float*>(p.scratch);
    if (p.widen != nullptr) {
        widen_arguments w;
        w.block = block;
        w.k_begin = part.k;
        w.k_count = part.k_count;
        w.panel = a.panel;
        w.layout = &layout;
        p.widen(w);
        a.block = p.scratch;
    }
    const byte_range range = bytes_of_k(layout, part.k, part.k_count);
    const std::byte* prefetch = p.weights.block(part.block_next) + range.begin;
    const std::int64_t pair_count = part.k_count / 2;
    const std::int64_t tile_count = part.tile_end - part.tile_begin;
    // One line for each pair of k over all tiles where that is enough: evenly, in the background.
    a.prefetch_step = range.size <= 64 * pair_count * tile_count ? 64 : 128;
    std::int64_t prefetched = 0;
    for (std::int64_t tile = part.tile_begin; tile < part.tile_end; ++tile) {
        const auto height = static_cast<std::size_t>(shape.tile_height(tile));
        a.rows = p.rows.tile(tile) + part.k * p.k_bytes_in_row * shape.tile_height(tile);
        a.output =
            p.output + shape.tile_begin(tile) * p.output_row_stride + part.block * block_width;
        a.prefetch = prefetch + std::min(prefetched, range.size);
        if (prefetched >= range.size) a.prefetch_step = 0;
        if (p.first_tile != nullptr && tile == part.tile_begin) {
            p.first_tile[height](a);
            a.block = p.scratch;
        } else {
            p.tiles[height](a);
        }
        prefetched += a.prefetch_step * pair_count;
    }
}

} // namespace

kernel_set::kernel_set(instruction_set set)
    : set_(highest_instruction_set(detect_cpu_features(), set)), kernels_(kernels_of(set_)) {
#if defined(SLUICE_KERNELS_X86)
    if (set_ == instruction_set::avx512_bf16) bfloat16_kernels_ = &tile_kernels_avx512_bf16;
#else
    set_ = instruction_set::plain;
#endif
}

packed_rows_layout kernel_set::rows_layout(weight_storage storage, std::int64_t m,
                                           std::int64_t k) const {
    if (storage == weight_storage::bfloat16 && bfloat16_kernels_ != nullptr) {
        return make_packed_rows_layout(float_type::bfloat16, m, k, bfloat16_kernels_->height_max);
    }
    return make_packed_rows_layout(float_type::float32, m, k, kernels_->height_max);
}

void kernel_set::pack_rows(const packed_rows_layout& layout, const row_source& source,
                           std::int64_t tile_begin, std::int64_t tile_end,
                           std::byte* destination) const {
    const pack_function pack = layout.element == float_type::bfloat16
                                   ? bfloat16_kernels_->pack_bfloat16
                                   : kernels_->pack_float32;
    for (std::int64_t tile = tile_begin; tile < tile_end; ++tile) {
        pack_arguments a;
        a.source = source;
        a.row_begin = layout.tile_begin(tile);
        a.height = layout.tile_height(tile);
        a.k = layout.k;
        a.tile = destination + a.row_begin * layout.row_bytes();
        pack(a);
    }
}

std::int64_t kernel_set::scratch_bytes(const packed_layout& weights) const {
    return k_chunk_of(weights.k_padded) * block_width * 4;
}

// A single tile over whole blocks: memory is read once, in order.
void kernel_set::multiply_direct(const packed_matrix_view& weights, const packed_rows_view& rows,
                                 std::int64_t block_begin, std::int64_t block_end, float* output,
                                 std::int64_t output_row_stride, bool accumulate) const {
    const packed_layout& layout = weights.layout;
    const auto height = static_cast<int>(rows.layout.m);
    const tile_function tile = rows.layout.element == float_type::bfloat16
                                   ? bfloat16_kernels_->direct[height]
                                   : kernels_->direct[index_of(layout.storage)][height];
    tile_arguments a;
    a.rows = rows.data;
    a.k_count = layout.k_padded;
    a.output_row_stride = output_row_stride;
    a.accumulate = accumulate;
    for (std::int64_t block = block_begin; block < block_end; ++block) {
        a.block = weights.block(block);
        a.layout = &layout;
        a.output = output + block * block_width;
        a.columns = std::min(block_width, layout.n - block * block_width);
        a.prefetch = a.block + prefetch_distance;
        a.prefetch_step = layout.block_bytes / (layout.k_padded / 2);
        tile(a);
    }
}

void kernel_set::multiply(const packed_matrix_view& weights, const packed_rows_view& rows,
                          std::int64_t block_begin, std::int64_t block_end, float* output,
                          std::int64_t output_row_stride, bool accumulate,
                          std::byte* scratch) const {
    const packed_layout& layout = weights.layout;
    const packed_rows_layout& shape = rows.layout;
    if (shape.m == 0 || block_begin >= block_end) return;
    const std::size_t storage = index_of(layout.storage);
    const bool pairs = shape.element == float_type::bfloat16;
    const int direct_height_max =
        pairs ? bfloat16_kernels_->height_max : kernels_->direct_height_max[storage];
    if (shape.tile_count == 1 && shape.m <= direct_height_max) {
        multiply_direct(weights, rows, block_begin, block_end, output, output_row_stride,
                        accumulate);
        return;
    }
    constexpr auto float32 = static_cast<std::size_t>(weight_storage::float32);
    const bool tile_widens = !pairs && kernels_->widening[storage][1] != nullptr;
    const product p = {weights,
                       rows,
                       output,
                       output_row_stride,
                       accumulate,
                       scratch,
                       pairs ? bfloat16_kernels_->direct : kernels_->direct[float32],
                       tile_widens ? kernels_->widening[storage] : nullptr,
                       pairs ? nullptr : kernels_->widen[storage],
                       block_width * (layout.storage == weight_storage::bfloat16 ? 2 : 4),
                       pairs ? 2 : 4};
    const std::int64_t k_chunk = k_chunk_of(layout.k_padded);
    const std::int64_t chunk_tiles = chunk_tiles_of(shape, k_chunk);
    for (std::int64_t tile = 0; tile < shape.tile_count; tile += chunk_tiles) {
        const std::int64_t tile_end = std::min(tile + chunk_tiles, shape.tile_count);
        for (std::int64_t k = 0; k < layout.k_padded; k += k_chunk) {
            const std::int64_t k_count = std::min(k_chunk, layout.k_padded - k);
            for (std::int64_t block = block_begin; block < block_end; ++block) {
                const std::int64_t next = block + 1 < block_end ? block + 1 : block_begin;
                multiply_part(p, {tile, tile_end, k, k_count, block, next});
            }
        }
    }
}

} // namespace sluice::kernels
