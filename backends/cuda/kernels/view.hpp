// What kernels get: tensors and weights on the device as plain structs, passed by value.
#pragma once

#include <sluice/abi/tensor.h>

#include <cstdint>

namespace sluice::cuda {

// A dense row-major tensor on the device. `type` is SLUICE_F32, F16, BF16, I32 or BOOL.
struct tensor_view {
    void* data = nullptr;
    uint32_t type = 0;
    int32_t rank = 0;
    int64_t shape[SLUICE_RANK_MAX] = {};
};

enum class weight_storage : int32_t {
    float32,  // [matrices, rows, columns], row-major
    bfloat16, // likewise
    float16,  // likewise
    int8,     // tiles, see below
    int4,     // tiles, see below
};

// A stack of matrices on the device: y = x W^T with W [rows (N), columns (K)].
//
// Quantized storage comes in tiles of 16 rows and 64 columns, one tile after another along the
// columns, then along the rows, then along the matrices; rows are a multiple of 16 and columns of
// 64. Within a tile codes lie in the order of the A fragment of mma.m16n8k16: lane l (g = l / 4, t
// = l % 4) owns, for step s of 4 along k and register i of 4, the pair of codes
//     row = g + 8 * (i % 2),   column = 16 s + 2 t + 8 * (i / 2) + {0, 1}.
// int4: lane l owns the 16 bytes from 16 l on, as four 32-bit words, one a step; in a word,
// register
//   i's even code is nibble i and its odd code nibble i + 4. Codes are unsigned, 0 to 15.
// int8: lane l owns the 16 bytes from 16 l on for steps 0 and 1, and those from 512 + 16 l on for
//   steps 2 and 3; two 32-bit words a step, register i's pair is bytes 2 (i % 2) and 2 (i % 2) + 1
//   of word i / 2. Codes are unsigned, 0 to 255.
// Scales are of `scale_type` (F16 or BF16 or F32): [matrices, row tiles, groups, 8, 2], where [g,
// h] is row g + 8 h of the tile; a group is group_columns (a multiple of 64) columns. Zeros: the
// same order, one byte each; without zeros the zero point is 8 (int4) or 128 (int8).
//     w = (code - zero) * scale
struct weight_view {
    const void* data = nullptr;
    const void* scales = nullptr;
    const uint8_t* zeros = nullptr; // NULL: the middle
    weight_storage storage = weight_storage::float32;
    uint32_t scale_type = 0;
    int32_t matrices = 1;
    int32_t group_columns = 0;
    int64_t rows = 0;    // N
    int64_t columns = 0; // K
};

inline constexpr int64_t tile_rows = 16;
inline constexpr int64_t tile_columns = 64;

} // namespace sluice::cuda
