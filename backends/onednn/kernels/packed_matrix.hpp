// The layout in which weights lie for the matrix kernels, and how rows get into it.
//
// A weight is a matrix [N, K] ("out features, in features") and is used as y = x * transpose(W).
// It is cut along N into blocks of 32 rows of W (columns of y); the last block is padded with
// zeros. K is padded with one zero to an even number ("padded K" below). One block is contiguous
// and complete in itself, so that a kernel reads memory as one stream and a worker's share of the
// blocks is one range of bytes. The parts of a block, each starting at a multiple of 64 bytes:
//
//   float32    values  f32 [K][32]
//   bfloat16   values  bf16[K/2][32][2]   two neighbours in K together: one 32-bit lane holds the
//                                         operand of vdpbf16ps, and a shift or a mask widens it
//   int8       groups  [groups] of: scales [32], codes u8 [stored k / 4][2][16][4]: code + 128;
//   four
//                      neighbours in k of one column together, as vpdpbusd takes them
//   int4       groups  [groups] of: scales [32], codes u8 [stored k / 8][2][16][4]: 0..15, low
//                      nibble: the first four k, high nibble: the next four
//              zeros   i16 [groups][32] behind all groups, only when the layout has zero points
//
// Groups are runs of group_size in K, the last may be shorter; groups = ceil(K / group_size). A
// group's k are stored up to a multiple of 8, so that each begins at whole registers; what is
// behind a group's own k is multiplied by zeros. Scales are f16 where they came so, else f32. A
// quantized weight means (code - zero) * scale in float32, with codes as they are stored. Without
// zero points, zero is 128 for int8 and 8 for int4.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace sluice::kernels {

enum class weight_storage { float32, bfloat16, int8, int4 };
inline constexpr int weight_storage_count = 4;

enum class scale_type { float16, float32 };

inline constexpr std::int64_t block_width = 32;
inline constexpr std::int64_t packed_alignment = 64; // bytes; huge pages help where possible
inline constexpr std::int64_t stored_k_unit = 8;     // of int8 and int4: k that begin a register

// Plain numbers, copied freely. Make one by make_packed_layout; all sizes are in bytes.
struct packed_layout {
    weight_storage storage = weight_storage::float32;
    bool zero_points = false;
    std::int64_t n = 0;          // rows of W
    std::int64_t k = 0;          // columns of W
    std::int64_t k_padded = 0;   // k rounded up to an even number
    std::int64_t group_size = 0; // 0 unless quantized; even
    std::int64_t group_count = 0;
    scale_type scales = scale_type::float32;
    std::int64_t scale_bytes = 0;  // of one group of a block
    std::int64_t group_bytes = 0;  // from one group of a block to the next
    std::int64_t block_count = 0;  // ceil(n / 32)
    std::int64_t zeros_offset = 0; // within a block, behind all groups
    std::int64_t block_bytes = 0;
    std::int64_t total_bytes = 0;

    // How many k a group has; the last one may have fewer than the others.
    std::int64_t group_k(std::int64_t group) const {
        const std::int64_t rest = k - group * group_size;
        return rest < group_size ? rest : group_size;
    }
};

// group_size, zero_points and scales are read for int8 and int4 only. Throws std::invalid_argument
// when a dimension is below 1, the group size is odd or below 2, or the size overflows 62 bits.
packed_layout make_packed_layout(weight_storage storage, std::int64_t n, std::int64_t k,
                                 std::int64_t group_size = 0, bool zero_points = false,
                                 scale_type scales = scale_type::float32);

// Borrows `data`, which is aligned to packed_alignment and total_bytes long.
struct packed_matrix_view {
    packed_layout layout;
    const std::byte* data = nullptr;

    const std::byte* block(std::int64_t index) const { return data + index * layout.block_bytes; }
};

enum class float_type { float32, bfloat16 };

// Rows of W in memory as [N, K]; borrowed. Alignment is not needed beyond the element's own.
struct float_rows {
    const void* data = nullptr;
    float_type type = float_type::float32;
    std::int64_t row_stride = 0; // elements
};

// Writes row n of W into out[k]. May be called from several threads for different rows.
using float_row_reader = std::function<void(std::int64_t n, float* out)>;

// Writes row n of a quantized W, codes and zero points as they are stored: codes[k] (int8: the
// code + 128, int4: 0..15), scales[groups] (rounded to the layout's type) and, when the layout has
// zero points, zeros[groups] (null otherwise).
using quantized_row_reader =
    std::function<void(std::int64_t n, std::uint8_t* codes, float* scales, std::int16_t* zeros)>;

// Each packs the blocks [block_begin, block_end) to their place below `destination`, the start of
// the whole matrix (total_bytes, aligned). Ranges that do not overlap may be packed by different
// threads at once. Rounding to bfloat16 is to nearest, ties to even; bfloat16 rows are copied bit
// by bit. Throws std::invalid_argument for a storage that the function does not write; a block's
// rows are the largest temporary.
void pack_blocks(const packed_layout& layout, const float_rows& rows, std::int64_t block_begin,
                 std::int64_t block_end, std::byte* destination);
void pack_blocks(const packed_layout& layout, const float_row_reader& read_row,
                 std::int64_t block_begin, std::int64_t block_end, std::byte* destination);
void pack_quantized_blocks(const packed_layout& layout, const quantized_row_reader& read_row,
                           std::int64_t block_begin, std::int64_t block_end,
                           std::byte* destination);

// The values of row n as the kernels see them, out[k]; for embedding look-ups and tests.
void unpack_row(const packed_matrix_view& matrix, std::int64_t n, float* out);

} // namespace sluice::kernels
