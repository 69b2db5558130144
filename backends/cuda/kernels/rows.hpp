// Kernels that work row by row: embeddings, norms, rotary positions, activations, and the paged
// cache. Float types are F32, BF16 and F16, each operand its own. Wherever addresses and sizes
// allow, eight elements are read and written at once.
#pragma once

#include "shape.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

// ---- Embeddings and norms ----

struct embed_call {
    const int32_t* ids = nullptr; // [rows]
    int64_t rows = 0;
    weight_view weight; // of one matrix
    float scale = 1;
    void* x = nullptr; // [rows, columns of the weight]
    uint32_t x_type = 0;
};
void launch_embed(const embed_call& call, cudaStream_t stream);

// u = x + addend; y = u / sqrt(mean(u^2) + epsilon) * (weight + weight_offset) over each run of
// `group` elements.
struct rms_norm_call {
    const void* x = nullptr; // [rows, width], or [source_rows, width]
    uint32_t x_type = 0;
    const void* addend = nullptr; // likewise; NULL: none
    uint32_t addend_type = 0;
    // Row r reads row source_row[r] of x and addend; one outside of 0 .. source_rows - 1 reads as
    // zeros. NULL: row r.
    const int32_t* source_row = nullptr;
    int64_t source_rows = 0;
    void* sum = nullptr; // [rows, width]: u; or NULL
    // u is rounded to this type, also where `sum` is NULL; 0: not rounded. May be the memory of x
    // or of addend, where source_row is NULL.
    uint32_t sum_type = 0;
    const void* weight = nullptr; // [group]
    uint32_t weight_type = 0;
    void* y = nullptr; // [rows, width]
    uint32_t y_type = 0;
    int64_t rows = 0;
    int64_t width = 0;
    int64_t group = 0; // divides the width
    float epsilon = 0;
    float weight_offset = 0;
};
void launch_rms_norm(const rms_norm_call& call, cudaStream_t stream);

struct layer_norm_call {
    const void* x = nullptr; // [rows, width]
    uint32_t x_type = 0;
    const void* weight = nullptr; // [width]
    uint32_t weight_type = 0;
    const void* bias = nullptr; // [width], or NULL
    uint32_t bias_type = 0;
    void* y = nullptr; // [rows, width]
    uint32_t y_type = 0;
    int64_t rows = 0;
    int64_t width = 0;
    float epsilon = 0;
};
void launch_layer_norm(const layer_norm_call& call, cudaStream_t stream);

// ---- Rotary positions ----

// How positions turn pairs of elements. Positions beyond the table are computed in float64.
struct rope_view {
    const float* table = nullptr; // [positions, 2, dimension / 2]: cosines, then sines; scaled
    int64_t positions = 0;
    const double* frequencies = nullptr; // [dimension / 2], on the device
    double magnitude = 1;
    int32_t dimension = 0; // 0: nothing is turned
    bool interleaved = false;
    bool inverse = false;
};
// Writes the table of `rope`.
void launch_rope_table(const rope_view& rope, float* table, cudaStream_t stream);

struct rope_call {
    const void* x = nullptr; // [rows, heads, width]
    uint32_t x_type = 0;
    const int32_t* position = nullptr; // [rows]
    rope_view rope;
    void* y = nullptr; // [rows, heads, width]; may be x where the types agree
    uint32_t y_type = 0;
    int64_t rows = 0;
    int64_t heads = 0;
    int64_t width = 0;
};
void launch_rope(const rope_call& call, cudaStream_t stream);

// Heads as columns of wider rows.
struct head_source {
    const void* data = nullptr; // row r begins at element r * stride
    uint32_t type = 0;
    int64_t stride = 0;
};
struct head_norm {
    const void* weight = nullptr; // [width]; NULL: no norm
    uint32_t weight_type = 0;
    float epsilon = 0;
    float weight_offset = 0;
};

// Everything between the projection of queries, keys and values and attention, in one launch: norms
// of the heads of q and k, rope on both, q to a tensor, k and v to the slots of a paged cache.
struct qk_norm_rope_write_call {
    head_source q; // [rows, query_heads * width]
    head_source k; // [rows, kv_heads * width]
    head_source v; // [rows, kv_heads * value_width]
    head_norm q_norm;
    head_norm k_norm;
    rope_view rope;
    const int32_t* position = nullptr; // [rows]; not read where nothing is turned
    const int32_t* slot = nullptr;     // [rows]; outside of 0 .. slots - 1: nothing is cached
    int64_t slots = 0;
    int32_t rows = 0;
    int32_t query_heads = 0;
    int32_t kv_heads = 0;
    int32_t width = 0;       // of heads of q and k: at most qk_width_max
    int32_t value_width = 0; // of heads of v
    void* q_out = nullptr;   // [rows, query_heads, width]; may be q where stride and types agree
    uint32_t q_out_type = 0;
    void* key_cache = nullptr; // [slots, kv_heads * width]
    uint32_t key_type = 0;
    void* value_cache = nullptr; // [slots, kv_heads * value_width]
    uint32_t value_type = 0;
    // May start while the kernel before still runs, where the form for that is taken; from compute
    // capability 9.0 on.
    bool programmatic = false;
};
inline constexpr int32_t qk_width_max = 2048;
void launch_qk_norm_rope_write(const qk_norm_rope_write_call& call, cudaStream_t stream);
// Whether q and k are of half types, and their heads turned as a whole: element d with element
// d + width / 2.
bool turns_whole_heads(const qk_norm_rope_write_call& call);

// ---- Activations ----

struct activation_call {
    const void* x = nullptr; // [count]
    uint32_t x_type = 0;
    void* y = nullptr; // [count]
    uint32_t y_type = 0;
    int64_t count = 0;
    uint32_t activation = 0; // SLUICE_ACTIVATION_*
};
void launch_activation(const activation_call& call, cudaStream_t stream);

struct gated_activation_call {
    const void* gate = nullptr; // [rows, width]; both of them [rows, 2 * width] where not SPLIT
    uint32_t gate_type = 0;
    const void* up = nullptr; // [rows, width] where SPLIT
    uint32_t up_type = 0;
    void* y = nullptr; // [rows, width]
    uint32_t y_type = 0;
    int64_t rows = 0;
    int64_t width = 0;
    uint32_t activation = 0;  // SLUICE_ACTIVATION_*
    uint32_t gate_layout = 0; // SLUICE_GATE_*
    float alpha = 0;
    float clamp = 0;
};
void launch_gated_activation(const gated_activation_call& call, cudaStream_t stream);

// ---- The paged cache ----

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

// ---- Experts ----

// o[t] = sum over j in rising order of weight[t, j] * y[place[t, j]]
struct combine_rows_call {
    const void* y = nullptr; // [places, width]
    uint32_t y_type = 0;
    int64_t places = 0;
    const int32_t* place = nullptr; // [rows, choices]; outside of 0 .. places - 1: adds nothing
    const float* weight = nullptr;  // [rows, choices], or NULL: all 1
    void* o = nullptr;              // [rows, width]
    uint32_t o_type = 0;
    int64_t rows = 0;
    int64_t choices = 0;
    int64_t width = 0;
};
void launch_combine_rows(const combine_rows_call& call, cudaStream_t stream);

} // namespace sluice::cuda
