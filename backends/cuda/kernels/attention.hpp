// Attention of the step's rows to the places of their sequences in the paged cache, by the formulas
// of SLUICE_OP_ATTENTION. Three forms of the same function: plain (any types and sizes, the one
// that the others are held to), single rows (decoding: bound by reading the cache) and many rows of
// a sequence (prefilling: bound by the matrix units).
#pragma once

#include "attention_input.hpp"
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
    // Attention of single rows may start while the kernel before still runs; from compute
    // capability 9.0 on.
    bool programmatic = false;
};

// Any types and widths, as far as a query and an output row fit into shared memory together.
inline constexpr int32_t plain_widths_max = 11000; // key_width + value_width
void launch_attention_plain(const attention_call& call, cudaStream_t stream);

// Whether the forms below can run it: q, keys and values of one half type, o of that type or
// float32, all on addresses that are multiples of 16 bytes, keys and values of one width, which is
// one of 32, 64, 96, 128 and 256, up to 64 query heads for each kv head, a scale above zero. The
// rows must be in the order of the batch.
bool fits_attention_matrix(const attention_call& call);

// ---- Single rows ----

// How the places of a row are cut, so that few rows with long contexts fill the device too. Fixed
// by the sizes of the bucket.
struct attention_decode_plan {
    int32_t rows = 0; // that it looks at
    // Whether row r is any row, and belongs to its sequence_of_row. Otherwise it is sequence r's,
    // where that and all sequences before it have one row; the other rows are left to
    // launch_attention_prefill.
    bool takes_all_rows = false;
    int32_t head_chunks = 0; // of all kv heads together: query heads of one kv head, up to 8 or 16
    int32_t splits = 1;      // of a row's places, at most

    uint64_t partial_floats = 0; // room for results of splits
    uint64_t counters = 0;       // int32, zero at first, and again after each launch
};
attention_decode_plan plan_attention_decode(const attention_call& call, int64_t context_max,
                                            int multiprocessor_count);
void launch_attention_decode(const attention_call& call, const attention_decode_plan& plan,
                             float* partial, int32_t* counters, cudaStream_t stream);

// The same for a step of one row, whose queries, key and value come from `input`: what
// launch_qk_norm_rope_write(input) would do before it happens in the same launch, but that no
// queries are written.
bool fits_attention_input(const attention_call& call, const qk_norm_rope_write_call& input);
void launch_attention_decode_input(const attention_call& call, const attention_decode_plan& plan,
                                   const qk_norm_rope_write_call& input, float* partial,
                                   int32_t* counters, cudaStream_t stream);

// ---- Many rows of a sequence ----

// The rows that launch_attention_decode leaves where it looks at `decode_rows` rows and does not
// take them all; every row where that is 0. Also clears the rows of padding.
void launch_attention_prefill(const attention_call& call, int32_t decode_rows, cudaStream_t stream);

// The same with wgmma, on Hopper. It takes what fits_attention_matrix says, with heads of 64 or 128
// elements, blocks of a multiple of 8 tokens, and no softcap.
bool fits_attention_prefill_sm90(const attention_call& call);

// How the places of a tile of rows are cut where there are few tiles. Fixed by the sizes of the
// bucket.
struct attention_prefill_plan {
    bool has_large_tiles = false;
    int32_t splits = 1; // at most

    uint64_t partial_floats = 0; // room for results of splits
    uint64_t counters = 1;       // int32, zero at first, and again after each launch
};
attention_prefill_plan plan_attention_prefill_sm90(const attention_call& call, int64_t context_max,
                                                   int multiprocessor_count);
void launch_attention_prefill_sm90(const attention_call& call, int32_t decode_rows,
                                   const attention_prefill_plan& plan, float* partial,
                                   int32_t* counters, int multiprocessor_count,
                                   cudaStream_t stream);

} // namespace sluice::cuda
