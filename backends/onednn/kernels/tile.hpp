// Internal to the kernels: the functions of one instruction set, and what they are given. This
// header and tile_template.hpp are compiled with that set's flags, so nothing here may be an inline
// function with external linkage.
#pragma once

#include "packed_rows.hpp"

#include <cstddef>
#include <cstdint>

namespace sluice::kernels {

inline constexpr int tile_height_limit = 14;

struct tile_arguments {
    const void* rows = nullptr;       // a tile of packed rows from the first k on
    const std::byte* block = nullptr; // a block of weights from its begin, or a panel [k][32] f32
    std::int64_t k_count = 0;         // even
    const packed_layout* layout = nullptr; // quantized only: how the groups of the block lie
    float* output = nullptr;               // [height, 32], of which `columns` are there
    std::int64_t output_row_stride = 0;
    std::int64_t columns = 0;
    bool accumulate = false;             // start from the output instead of zero
    float* panel = nullptr;              // [k_count][32], written by the widening functions
    const std::byte* prefetch = nullptr; // read into the second-level cache while multiplying,
    std::int64_t prefetch_step = 0;      // two lines for each pair of k, this many bytes apart
};

// y[h, n] (+)= sum over k of x[h, k] * w[n, k], in rising k, each output in one chain.
using tile_function = void (*)(const tile_arguments&);

struct widen_arguments {
    const std::byte* block = nullptr;
    std::int64_t k_begin = 0;              // even
    std::int64_t k_count = 0;              // even
    const packed_layout* layout = nullptr; // quantized only
    float* panel = nullptr;                // [k_count][32]
};

using widen_function = void (*)(const widen_arguments&);

struct pack_arguments {
    row_source source;
    std::int64_t row_begin = 0;
    std::int64_t height = 0;
    std::int64_t k = 0;
    void* tile = nullptr; // [padded k][height]
};

using pack_function = void (*)(const pack_arguments&);

struct tile_kernels {
    int height_max = 0; // of packed tiles
    // Up to this height a single tile multiplies straight from the block; more rows multiply from a
    // panel of float32, which the first tile leaves behind, or a pass of its own where there is no
    // such function (the tile would not fit the registers). float32 needs neither.
    int direct_height_max[weight_storage_count] = {};
    tile_function direct[weight_storage_count][tile_height_limit + 1] = {}; // by height
    tile_function widening[weight_storage_count][tile_height_limit + 1] = {};
    widen_function widen[weight_storage_count] = {};
    pack_function pack_float32 = nullptr;
};

// vdpbf16ps: rows and weights in bfloat16, no panel.
struct bfloat16_tile_kernels {
    int height_max = 0;
    tile_function direct[tile_height_limit + 1] = {};
    pack_function pack_bfloat16 = nullptr;
};

extern const tile_kernels tile_kernels_plain;
#if defined(SLUICE_KERNELS_X86)
extern const tile_kernels tile_kernels_avx2;
extern const tile_kernels tile_kernels_avx512;
extern const bfloat16_tile_kernels tile_kernels_avx512_bf16;
#endif

} // namespace sluice::kernels
