#include "packed_matrix.hpp"

#include "bfloat16.hpp"
#include "float16.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace sluice::kernels {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

std::int64_t multiply_checked(std::int64_t a, std::int64_t b) {
    std::int64_t product = 0;
    if (__builtin_mul_overflow(a, b, &product) || product > std::int64_t{1} << 62) {
        throw std::invalid_argument("packed matrix: expected a size below 2^62 bytes, found "
                                    + std::to_string(a) + " * " + std::to_string(b));
    }
    return product;
}

bool is_quantized(weight_storage storage) {
    return storage == weight_storage::int8 || storage == weight_storage::int4;
}

// Bytes of the codes of a block for `k` neighbours in one group.
std::int64_t code_bytes(weight_storage storage, std::int64_t k) {
    return round_up(k, stored_k_unit) * block_width / (storage == weight_storage::int4 ? 2 : 1);
}

// Where in a group's codes the one of its i-th k lies, and how far up in its byte.
struct code_place {
    std::int64_t offset;
    int shift;
};

code_place place_of(weight_storage storage, std::int64_t i, std::int64_t column) {
    const std::int64_t in_register = column * 4 + i % 4;
    if (storage == weight_storage::int8) return {i / 4 * (block_width * 4) + in_register, 0};
    return {i / 8 * (block_width * 4) + in_register, static_cast<int>(i % 8 / 4 * 4)};
}

// Rows of one block, values[row_count][row_stride], go to block[k][32] or block[K/2][32][2]. Tiles
// of k keep the destination lines of a tile in the first-level cache.
constexpr std::int64_t interleave_tile = 64;

template <class Element>
void interleave_float32(const packed_layout& layout, const Element* values, std::int64_t row_stride,
                        std::int64_t row_count, float* block) {
    for (std::int64_t k_begin = 0; k_begin < layout.k; k_begin += interleave_tile) {
        const std::int64_t k_end = std::min(k_begin + interleave_tile, layout.k);
        for (std::int64_t column = 0; column < row_count; ++column) {
            const Element* row = values + column * row_stride;
            for (std::int64_t k = k_begin; k < k_end; ++k) {
                if constexpr (sizeof(Element) == 4)
                    block[k * block_width + column] = row[k];
                else
                    block[k * block_width + column] = float_from_bfloat16(row[k]);
            }
        }
    }
}

template <class Element>
void interleave_bfloat16(const packed_layout& layout, const Element* values,
                         std::int64_t row_stride, std::int64_t row_count, std::uint16_t* block) {
    for (std::int64_t k_begin = 0; k_begin < layout.k; k_begin += interleave_tile) {
        const std::int64_t k_end = std::min(k_begin + interleave_tile, layout.k);
        for (std::int64_t column = 0; column < row_count; ++column) {
            const Element* row = values + column * row_stride;
            std::uint16_t* out = block + column * 2;
            for (std::int64_t k = k_begin; k < k_end; ++k) {
                std::uint16_t value = 0;
                if constexpr (sizeof(Element) == 2)
                    value = row[k];
                else
                    value = bfloat16_from_float(row[k]);
                out[k / 2 * block_width * 2 + k % 2] = value;
            }
        }
    }
}

template <class Element>
void pack_float_block(const packed_layout& layout, const Element* values, std::int64_t row_stride,
                      std::int64_t row_count, std::byte* block) {
    // Padding rows and the padded k must read as zero; only those blocks need clearing.
    if (row_count < block_width || layout.k != layout.k_padded) {
        std::memset(block, 0, static_cast<std::size_t>(layout.block_bytes));
    }
    if (layout.storage == weight_storage::float32) {
        interleave_float32(layout, values, row_stride, row_count, reinterpret_cast<float*>(block));
    } else {
        interleave_bfloat16(layout, values, row_stride, row_count,
                            reinterpret_cast<std::uint16_t*>(block));
    }
}

void require_range(const packed_layout& layout, bool quantized, std::int64_t block_begin,
                   std::int64_t block_end) {
    if (is_quantized(layout.storage) != quantized) {
        throw std::invalid_argument(
            quantized ? "pack_quantized_blocks: expected int8 or int4 storage, "
                        "found a float storage; use pack_blocks"
                      : "pack_blocks: expected float32 or bfloat16 storage, found "
                        "a quantized storage; use pack_quantized_blocks");
    }
    if (block_begin < 0 || block_end > layout.block_count || block_begin > block_end) {
        throw std::invalid_argument(
            "packed matrix: expected blocks within 0.." + std::to_string(layout.block_count)
            + ", found " + std::to_string(block_begin) + ".." + std::to_string(block_end));
    }
}

} // namespace

packed_layout make_packed_layout(weight_storage storage, std::int64_t n, std::int64_t k,
                                 std::int64_t group_size, bool zero_points, scale_type scales) {
    if (n < 1 || k < 1) {
        throw std::invalid_argument("packed matrix: expected dimensions of at least 1, found "
                                    + std::to_string(n) + " x " + std::to_string(k));
    }
    packed_layout layout;
    layout.storage = storage;
    layout.n = n;
    layout.k = k;
    layout.block_count = n / block_width + (n % block_width != 0);
    multiply_checked(k, 64);
    layout.k_padded = round_up(k, 2);
    std::int64_t bytes = 0;
    if (is_quantized(storage)) {
        if (group_size < 2 || group_size % 2 != 0) {
            throw std::invalid_argument("packed matrix: expected an even group size of at least 2, "
                                        "found "
                                        + std::to_string(group_size));
        }
        layout.zero_points = zero_points;
        layout.group_size = std::min(group_size, layout.k_padded);
        layout.group_count = k / layout.group_size + (k % layout.group_size != 0);
        layout.scales = scales;
        layout.scale_bytes = block_width * (scales == scale_type::float16 ? 2 : 4);
        layout.group_bytes =
            layout.scale_bytes + multiply_checked(code_bytes(storage, layout.group_size), 1);
        layout.zeros_offset = multiply_checked(layout.group_count - 1, layout.group_bytes)
                              + layout.scale_bytes
                              + code_bytes(storage, layout.group_k(layout.group_count - 1));
        bytes = layout.zeros_offset + (zero_points ? layout.group_count * block_width * 2 : 0);
    } else {
        bytes = multiply_checked(layout.k_padded,
                                 block_width * (storage == weight_storage::float32 ? 4 : 2));
    }
    layout.block_bytes = round_up(bytes, packed_alignment);
    layout.total_bytes = multiply_checked(layout.block_count, layout.block_bytes);
    return layout;
}

void pack_blocks(const packed_layout& layout, const float_rows& rows, std::int64_t block_begin,
                 std::int64_t block_end, std::byte* destination) {
    require_range(layout, false, block_begin, block_end);
    for (std::int64_t index = block_begin; index < block_end; ++index) {
        const std::int64_t n = index * block_width;
        const std::int64_t row_count = std::min(block_width, layout.n - n);
        std::byte* block = destination + index * layout.block_bytes;
        if (rows.type == float_type::float32) {
            pack_float_block(layout, static_cast<const float*>(rows.data) + n * rows.row_stride,
                             rows.row_stride, row_count, block);
        } else {
            pack_float_block(layout,
                             static_cast<const std::uint16_t*>(rows.data) + n * rows.row_stride,
                             rows.row_stride, row_count, block);
        }
    }
}

void pack_blocks(const packed_layout& layout, const float_row_reader& read_row,
                 std::int64_t block_begin, std::int64_t block_end, std::byte* destination) {
    require_range(layout, false, block_begin, block_end);
    std::vector<float> values(static_cast<std::size_t>(block_width * layout.k)); // [32, K]
    for (std::int64_t index = block_begin; index < block_end; ++index) {
        const std::int64_t n = index * block_width;
        const std::int64_t row_count = std::min(block_width, layout.n - n);
        for (std::int64_t row = 0; row < row_count; ++row) {
            read_row(n + row, values.data() + row * layout.k);
        }
        pack_float_block(layout, values.data(), layout.k, row_count,
                         destination + index * layout.block_bytes);
    }
}

namespace {

// One row of W becomes column `column` of a block.
void pack_quantized_column(const packed_layout& layout, const std::uint8_t* codes,
                           const float* scales, const std::int16_t* zeros, std::int64_t column,
                           std::byte* block) {
    auto* out_zeros = reinterpret_cast<std::int16_t*>(block + layout.zeros_offset);
    for (std::int64_t group = 0; group < layout.group_count; ++group) {
        std::byte* at = block + group * layout.group_bytes;
        if (layout.scales == scale_type::float16)
            reinterpret_cast<std::uint16_t*>(at)[column] = float16_from_float(scales[group]);
        else
            reinterpret_cast<float*>(at)[column] = scales[group];
        if (zeros != nullptr) out_zeros[group * block_width + column] = zeros[group];
        auto* out = reinterpret_cast<std::uint8_t*>(at + layout.scale_bytes);
        const std::uint8_t* from = codes + group * layout.group_size;
        const std::int64_t count = layout.group_k(group);
        for (std::int64_t i = 0; i < count; ++i) {
            const code_place place = place_of(layout.storage, i, column);
            out[place.offset] |= static_cast<std::uint8_t>(from[i] << place.shift);
        }
    }
}

} // namespace

void pack_quantized_blocks(const packed_layout& layout, const quantized_row_reader& read_row,
                           std::int64_t block_begin, std::int64_t block_end,
                           std::byte* destination) {
    require_range(layout, true, block_begin, block_end);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(layout.k));
    std::vector<float> scales(static_cast<std::size_t>(layout.group_count));
    std::vector<std::int16_t> zeros(layout.zero_points ? scales.size() : 0);
    std::int16_t* const row_zeros = layout.zero_points ? zeros.data() : nullptr;
    for (std::int64_t index = block_begin; index < block_end; ++index) {
        std::byte* block = destination + index * layout.block_bytes;
        std::memset(block, 0, static_cast<std::size_t>(layout.block_bytes));
        const std::int64_t n = index * block_width;
        const std::int64_t row_count = std::min(block_width, layout.n - n);
        for (std::int64_t column = 0; column < row_count; ++column) {
            read_row(n + column, codes.data(), scales.data(), row_zeros);
            pack_quantized_column(layout, codes.data(), scales.data(), row_zeros, column, block);
        }
    }
}

namespace {

void unpack_quantized_row(const packed_layout& layout, const std::byte* block, std::int64_t column,
                          float* out) {
    const auto* zeros = reinterpret_cast<const std::int16_t*>(block + layout.zeros_offset);
    const bool four = layout.storage == weight_storage::int4;
    for (std::int64_t group = 0; group < layout.group_count; ++group) {
        const std::byte* at = block + group * layout.group_bytes;
        const float scale =
            layout.scales == scale_type::float16
                ? float_from_float16(reinterpret_cast<const std::uint16_t*>(at)[column])
                : reinterpret_cast<const float*>(at)[column];
        const int middle = four ? 8 : 128;
        const int zero = layout.zero_points ? zeros[group * block_width + column] : middle;
        const std::byte* codes = at + layout.scale_bytes;
        const std::int64_t count = layout.group_k(group);
        for (std::int64_t i = 0; i < count; ++i) {
            const code_place place = place_of(layout.storage, i, column);
            const int code = std::to_integer<int>(codes[place.offset]) >> place.shift;
            *out++ = static_cast<float>((four ? code & 0x0f : code) - zero) * scale;
        }
    }
}

} // namespace

void unpack_row(const packed_matrix_view& matrix, std::int64_t n, float* out) {
    const packed_layout& layout = matrix.layout;
    const std::byte* block = matrix.block(n / block_width);
    const std::int64_t column = n % block_width;
    if (is_quantized(layout.storage)) {
        unpack_quantized_row(layout, block, column, out);
        return;
    }
    for (std::int64_t k = 0; k < layout.k; ++k) {
        if (layout.storage == weight_storage::float32) {
            out[k] = reinterpret_cast<const float*>(block)[k * block_width + column];
        } else {
            out[k] = float_from_bfloat16(reinterpret_cast<const std::uint16_t*>(
                block)[(k / 2 * block_width + column) * 2 + k % 2]);
        }
    }
}

} // namespace sluice::kernels
