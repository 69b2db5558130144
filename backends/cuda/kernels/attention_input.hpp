// What lies between the projections of queries, keys and values and attention.
#pragma once

#include "rope.hpp"

namespace sluice::cuda {

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

} // namespace sluice::cuda
