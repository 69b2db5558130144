// Rows to and from the slots of a paged cache. Float types are F32, BF16 and F16, each operand its
// own.
#pragma once

#include "shape.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

struct kv_part {
    const void* x = nullptr; // [rows, width]
    uint32_t x_type = 0;
    void* cached = nullptr; // [slots, width]
    uint32_t cached_type = 0;
    int64_t width = 0;
};
inline constexpr int kv_parts_max = 4; // SLUICE_STATE_PARTS_MAX
struct kv_write_call {
    kv_part part[kv_parts_max];
    int32_t part_count = 0;
    const int32_t* slot = nullptr; // [rows]; outside of 0 .. slots - 1: nothing is written
    int64_t slots = 0;
    int64_t rows = 0;
};
void launch_kv_write(const kv_write_call& call, cudaStream_t stream);

struct kv_gather_call {
    const int32_t* block_table = nullptr; // [sequences, columns_bound], -1 for absent blocks
    int64_t sequences = 0;
    int64_t columns_bound = 0;
    sized_axis columns; // of which so many are read
    const int32_t* present = nullptr;
    int64_t tokens_per_block = 1;
    const void* cached = nullptr; // [slots, width]
    uint32_t cached_type = 0;
    int64_t slots = 0;
    int64_t width = 0;
    void* x = nullptr; // [sequences, columns * tokens_per_block, width]
    uint32_t x_type = 0;
};
void launch_kv_gather(const kv_gather_call& call, cudaStream_t stream);

} // namespace sluice::cuda
