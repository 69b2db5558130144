#include "packed_matrix.hpp"

#include "bfloat16.hpp"

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

// Bytes of the values or codes of one block for two neighbours in k.
std::int64_t pair_bytes(weight_storage storage) {
    switch (storage) {
    case weight_storage::float32:
        return 2 * block_width * 4;
    case weight_storage::bfloat16:
        return 2 * block_width * 2;
    case weight_storage::int8:
        return 2 * block_width;
    case weight_storage::int4:
        return block_width;
    }
    return 0;
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
                                 std::int64_t group_size, bool zero_points) {
    if (n < 1 || k < 1) {
        throw std::invalid_argument("packed matrix: expected dimensions of at least 1, found "
                                    + std::to_string(n) + " x " + std::to_string(k));
    }
    packed_layout layout;
    layout.storage = storage;
    layout.n = n;
    layout.k = k;
    layout.block_count = n / block_width + (n % block_width != 0);
    multiply_checked(k, 16);
    layout.k_padded = round_up(k, 2);
    std::int64_t bytes = multiply_checked(layout.k_padded / 2, pair_bytes(storage));
    if (is_quantized(storage)) {
        if (group_size < 2 || group_size % 2 != 0) {
            throw std::invalid_argument("packed matrix: expected an even group size of at least 2, "
                                        "found "
                                        + std::to_string(group_size));
        }
        layout.zero_points = zero_points;
        layout.group_size = group_size;
        layout.group_count = k / group_size + (k % group_size != 0);
        layout.scales_offset = round_up(bytes, packed_alignment);
        bytes = layout.scales_offset + multiply_checked(layout.group_count, block_width * 4);
        layout.zeros_offset = round_up(bytes, packed_alignment);
        if (zero_points) {
            bytes = layout.zeros_offset + multiply_checked(layout.group_count, block_width * 2);
        }
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

void pack_quantized_blocks(const packed_layout& layout, const quantized_row_reader& read_row,
                           std::int64_t block_begin, std::int64_t block_end,
                           std::byte* destination) {
    require_range(layout, true, block_begin, block_end);
    std::vector<std::int8_t> codes(static_cast<std::size_t>(layout.k));
    std::vector<float> scales(static_cast<std::size_t>(layout.group_count));
    std::vector<std::int16_t> zeros(layout.zero_points ? scales.size() : 0);
    for (std::int64_t index = block_begin; index < block_end; ++index) {
        std::byte* block = destination + index * layout.block_bytes;
        std::memset(block, 0, static_cast<std::size_t>(layout.block_bytes));
        auto* out_codes = reinterpret_cast<std::uint8_t*>(block);
        auto* out_scales = reinterpret_cast<float*>(block + layout.scales_offset);
        auto* out_zeros = reinterpret_cast<std::int16_t*>(block + layout.zeros_offset);
        const std::int64_t n = index * block_width;
        const std::int64_t row_count = std::min(block_width, layout.n - n);
        for (std::int64_t column = 0; column < row_count; ++column) {
            read_row(n + column, codes.data(), scales.data(),
                     layout.zero_points ? zeros.data() : nullptr);
            for (std::int64_t k = 0; k < layout.k; ++k) {
                const auto code = static_cast<std::uint8_t>(codes[static_cast<std::size_t>(k)]);
                if (layout.storage == weight_storage::int8) {
                    out_codes[k * block_width + column] = code;
                } else {
                    out_codes[k / 2 * block_width + column] |=
                        static_cast<std::uint8_t>((code & 0x0fu) << (k % 2 * 4));
                }
            }
            for (std::int64_t group = 0; group < layout.group_count; ++group) {
                const auto at = static_cast<std::size_t>(group);
                out_scales[group * block_width + column] = scales[at];
                if (layout.zero_points) out_zeros[group * block_width + column] = zeros[at];
            }
        }
    }
}

void unpack_row(const packed_matrix_view& matrix, std::int64_t n, float* out) {
    const packed_layout& layout = matrix.layout;
    const std::byte* block = matrix.block(n / block_width);
    const std::int64_t column = n % block_width;
    const auto* scales = reinterpret_cast<const float*>(block + layout.scales_offset);
    const auto* zeros = reinterpret_cast<const std::int16_t*>(block + layout.zeros_offset);
    for (std::int64_t k = 0; k < layout.k; ++k) {
        int code = 0;
        switch (layout.storage) {
        case weight_storage::float32:
            out[k] = reinterpret_cast<const float*>(block)[k * block_width + column];
            continue;
        case weight_storage::bfloat16:
            out[k] = float_from_bfloat16(reinterpret_cast<const std::uint16_t*>(
                block)[(k / 2 * block_width + column) * 2 + k % 2]);
            continue;
        case weight_storage::int8:
            code = reinterpret_cast<const std::int8_t*>(block)[k * block_width + column];
            break;
        case weight_storage::int4:
            code = std::to_integer<int>(block[k / 2 * block_width + column]) >> (k % 2 * 4) & 0x0f;
            break;
        }
        const std::int64_t at = k / layout.group_size * block_width + column;
        const int zero_default = layout.storage == weight_storage::int4 ? 8 : 0;
        const int zero = layout.zero_points ? zeros[at] : zero_default;
        out[k] = static_cast<float>(code - zero) * scales[at];
    }
}

} // namespace sluice::kernels
