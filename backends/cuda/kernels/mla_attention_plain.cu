#include "attention_plain.cuh"
#include "mla_attention.hpp"

#include "../errors.hpp"

namespace sluice::cuda {

namespace {

// The absorbed form: the key is the latent and the rotated key, the value the latent. Element: see
// cached_element.
template <typename Element>
struct latent_cache {
    const mla_attention_call& call;
    int32_t key_width;
    int32_t value_width;

    __device__ float latent(int32_t slot, int d) const {
        return cached_element<Element>(call.latents, call.latent_type,
                                       static_cast<int64_t>(slot) * call.latent + d);
    }
    __device__ float rope_key(int32_t slot, int d) const {
        return cached_element<Element>(call.rope_keys, call.rope_key_type,
                                       static_cast<int64_t>(slot) * call.rope + d);
    }
    __device__ float key(int32_t slot, int d) const {
        return d < call.latent ? latent(slot, d) : rope_key(slot, d - call.latent);
    }
    __device__ float value(int32_t slot, int d) const { return latent(slot, d); }
};

// The expanded form: key and value of the head are computed from the latent.
template <typename Element>
struct expanded_cache {
    latent_cache<Element> cache;
    int32_t head;
    int32_t key_width;
    int32_t value_width;

    __device__ float product(const weight_view& up, int d, int32_t slot) const {
        float sum = 0;
        for (int r = 0; r < cache.call.latent; ++r)
            sum += load_weight(up, head, d, r) * cache.latent(slot, r);
        return sum;
    }
    __device__ float key(int32_t slot, int d) const {
        return d < cache.call.nope ? product(cache.call.key_up, d, slot)
                                   : cache.rope_key(slot, d - cache.call.nope);
    }
    __device__ float value(int32_t slot, int d) const {
        return product(cache.call.value_up, d, slot);
    }
};

// Block: one row and head.
template <typename Element, bool is_expanded>
__global__ void __launch_bounds__(plain_threads)
    mla_attention_plain_kernel(const __grid_constant__ mla_attention_call call) {
    extern __shared__ float mla_plain_room[];
    __shared__ plain_tile_room room;
    const int32_t content = is_expanded ? call.nope : call.latent;
    float* q_nope = mla_plain_room;
    float* q = q_nope + call.nope; // [content + rope]
    float* o = q + content + call.rope;
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
    for (int d = thread; d < call.nope; d += plain_threads)
        q_nope[d] = load_as_float(call.q_nope, call.q_nope_type, at * call.nope + d);
    for (int d = thread; d < call.rope; d += plain_threads)
        q[content + d] = load_as_float(call.q_pe, call.q_pe_type, at * call.rope + d);
    __syncthreads();
    for (int r = thread; r < content; r += plain_threads) {
        if constexpr (is_expanded) {
            q[r] = q_nope[r];
        } else {
            float sum = 0; // q' = W_uk^T q_nope
#pragma unroll 8
            for (int d = 0; d < call.nope; ++d)
                sum += load_weight(call.key_up, head, d, r) * q_nope[d];
            q[r] = sum;
        }
    }
    const latent_cache<Element> latents = {call, call.latent + call.rope, call.latent};
    if constexpr (is_expanded) {
        const expanded_cache<Element> cache = {latents, head, call.nope + call.rope,
                                               call.value_width};
        attend_plainly(cache, call.rows, table, places, call.scale, 0.0f, nullptr, q, o, room);
        for (int d = thread; d < call.value_width; d += plain_threads)
            store_from_float(call.o, call.o_type, at * call.value_width + d, o[d]);
    } else {
        attend_plainly(latents, call.rows, table, places, call.scale, 0.0f, nullptr, q, o, room);
        __syncthreads();
        for (int d = thread / 32; d < call.value_width; d += plain_threads / 32) {
            float sum = 0; // o = W_uv (sum of latents)
            for (int r = thread % 32; r < call.latent; r += 32)
                sum += load_weight(call.value_up, head, d, r) * o[r];
            sum = reduce_warp(sum, add_numbers{});
            if (thread % 32 == 0)
                store_from_float(call.o, call.o_type, at * call.value_width + d, sum);
        }
    }
}

} // namespace

void launch_mla_attention_plain(const mla_attention_call& call, bool is_expanded,
                                cudaStream_t stream) {
    const int64_t blocks = static_cast<int64_t>(call.rows.rows) * call.heads;
    if (blocks == 0) return;
    const int32_t widths = is_expanded ? 2 * call.nope + call.rope + call.value_width
                                       : call.nope + call.rope + 2 * call.latent;
    const int shared = widths * static_cast<int>(sizeof(float));
    auto kernel = is_expanded ? mla_attention_plain_kernel<void, true>
                              : mla_attention_plain_kernel<void, false>;
    if (!is_expanded && call.latent_type == call.rope_key_type) {
        if (call.latent_type == SLUICE_F32) kernel = mla_attention_plain_kernel<float, false>;
        if (call.latent_type == SLUICE_BF16)
            kernel = mla_attention_plain_kernel<__nv_bfloat16, false>;
        if (call.latent_type == SLUICE_F16) kernel = mla_attention_plain_kernel<__half, false>;
    }
    kernel<<<static_cast<unsigned>(blocks), plain_threads, shared, stream>>>(call);
    check(cudaGetLastError(), "launching mla_attention");
}

} // namespace sluice::cuda
