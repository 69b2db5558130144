// Attention of the step's rows to the places of their sequences in the paged cache, by the formulas
// of SLUICE_OP_ATTENTION. Three forms of the same function: plain (any types and sizes, the one
// that the others are held to), single rows (decoding: bound by reading the cache) and many rows of
// a sequence (prefilling: bound by the matrix units).
#pragma once

#include "view.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

// Which places the rows of a step attend to. All arrays are on the device and belong to the planned
// step; the sizes are those of the bucket.
struct attended_rows {
    const int32_t* position = nullptr;        // [rows]
    const int32_t* sequence_of_row = nullptr; // [rows], -1 for padding
    const int32_t* kv_length = nullptr;       // [sequences]
    const int32_t* block_table = nullptr;     // [sequences, block_columns], -1 for absent blocks
    const int32_t* query_start = nullptr;     // [sequences + 1]
    int32_t rows = 0;
    int32_t sequences = 0;
    int32_t block_columns = 0;
    int32_t tokens_per_block = 1;
    int32_t block_shift = -1; // log2 of tokens_per_block, or -1 where that is no power of two
    int32_t window = 0;       // 0: none
};

struct attention_call {
    attended_rows rows;
    const void* q = nullptr;    // [rows, heads, key_width]
    uint32_t q_type = 0;        // F32, BF16 or F16, as all types here
    const void* keys = nullptr; // [slots, kv_heads, key_width]
    uint32_t key_type = 0;
    const void* values = nullptr; // [slots, kv_heads, value_width]
    uint32_t value_type = 0;
    const void* sinks = nullptr; // [heads], or NULL
    uint32_t sinks_type = 0;
    void* o = nullptr; // [rows, heads, value_width]
    uint32_t o_type = 0;
    int32_t heads = 0;
    int32_t kv_heads = 0;
    int32_t key_width = 0;
    int32_t value_width = 0;
    float scale = 1;
    float softcap = 0; // 0: none
};

// Any types and widths, as far as a query and an output row fit into shared memory together.
inline constexpr int32_t plain_widths_max = 11000; // key_width + value_width
void launch_attention_plain(const attention_call& call, cudaStream_t stream);

} // namespace sluice::cuda
