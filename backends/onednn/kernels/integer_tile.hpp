// Internal to the integer kernels: the functions of one instruction set. The rules of tile.hpp hold
// here too.
#pragma once

#include "tile.hpp"

namespace sluice::kernels {

inline constexpr std::int64_t run_k_max = 64; // k that share a scale of a quantized row

struct quantize_arguments {
    const void* row = nullptr; // [layout->k]
    float_type type = float_type::float32;
    const packed_layout* layout = nullptr;
    std::uint32_t* words = nullptr;
};

using quantize_function = void (*)(const quantize_arguments&);

struct integer_kernels {
    int height_max = 0;
    // By height; [0] for the constant zero point, [1] for one of each group. tile_arguments: rows
    // is a tile of quantized rows, k_count is not read, prefetch_step is how many bytes ahead of
    // the multiplication memory is fetched: the block's, and then from `prefetch` on.
    tile_function int8[2][tile_height_limit + 1] = {};
    tile_function int4[2][tile_height_limit + 1] = {};
    quantize_function quantize = nullptr;
};

extern const integer_kernels integer_kernels_plain;
#if defined(SLUICE_KERNELS_X86)
extern const integer_kernels integer_kernels_avx2;
extern const integer_kernels integer_kernels_vnni;
#endif

} // namespace sluice::kernels
