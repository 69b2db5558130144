#include "attention_plain.cuh"

#include "../errors.hpp"

namespace sluice::cuda {

namespace {

// Element: see cached_element.
template <typename Element>
struct grouped_cache {
    const void* keys;
    const void* values;
    uint32_t key_type;
    uint32_t value_type;
    int32_t kv_heads;
    int32_t kv_head;
    int32_t key_width;
    int32_t value_width;

    __device__ float key(int32_t slot, int d) const {
        const int64_t head = static_cast<int64_t>(slot) * kv_heads + kv_head;
        return cached_element<Element>(keys, key_type, head * key_width + d);
    }
    __device__ float value(int32_t slot, int d) const {
        const int64_t head = static_cast<int64_t>(slot) * kv_heads + kv_head;
        return cached_element<Element>(values, value_type, head * value_width + d);
    }
};

// Block: one row and head.
template <typename Element>
__global__ void __launch_bounds__(plain_threads) attention_plain_kernel(attention_call call) {
    extern __shared__ float attention_plain_room[];
    __shared__ plain_tile_room room;
    float* q = attention_plain_room;
    float* o = q + call.key_width;
    const int64_t row = blockIdx.x / call.heads;
    const int32_t head = static_cast<int32_t>(blockIdx.x % call.heads);
    const int32_t sequence = call.rows.sequence_of_row[row];
    const int64_t at = row * call.heads + head;
    const int thread = static_cast<int>(threadIdx.x);
    place_range places = {0, 0};
    const int32_t* table = call.rows.block_table;
    if (sequence >= 0 && sequence < call.rows.sequences) {
        places = places_of(call.rows, call.rows.position[row], call.rows.kv_length[sequence]);
        table += static_cast<int64_t>(sequence) * call.rows.block_columns;
    }
    for (int d = thread; d < call.key_width; d += plain_threads)
        q[d] = load_as_float(call.q, call.q_type, at * call.key_width + d);
    const grouped_cache<Element> cache = {call.keys,      call.values,
                                          call.key_type,  call.value_type,
                                          call.kv_heads,  head / (call.heads / call.kv_heads),
                                          call.key_width, call.value_width};
    float sink = 0;
    if (call.sinks != nullptr) sink = load_as_float(call.sinks, call.sinks_type, head);
    attend_plainly(cache, call.rows, table, places, call.scale, call.softcap,
                   call.sinks != nullptr ? &sink : nullptr, q, o, room);
    for (int d = thread; d < call.value_width; d += plain_threads)
        store_from_float(call.o, call.o_type, at * call.value_width + d, o[d]);
}

} // namespace

void launch_attention_plain(const attention_call& call, cudaStream_t stream) {
    const int64_t blocks = static_cast<int64_t>(call.rows.rows) * call.heads;
    if (blocks == 0) return;
    const int shared = (call.key_width + call.value_width) * static_cast<int>(sizeof(float));
    auto kernel = attention_plain_kernel<void>;
    if (call.key_type == call.value_type) {
        if (call.key_type == SLUICE_F32) kernel = attention_plain_kernel<float>;
        if (call.key_type == SLUICE_BF16) kernel = attention_plain_kernel<__nv_bfloat16>;
        if (call.key_type == SLUICE_F16) kernel = attention_plain_kernel<__half>;
    }
    kernel<<<static_cast<unsigned>(blocks), plain_threads, shared, stream>>>(call);
    check(cudaGetLastError(), "launching attention");
}

} // namespace sluice::cuda
