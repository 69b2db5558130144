// Everything between the projections of multi-head latent attention and the attention, in one
// launch: queries are parted and their second part is turned, the latent is normalised, the shared
// key is turned, and both go to the slots of a paged cache.
#pragma once

#include "attention_input.hpp"

namespace sluice::cuda {

// Types are F32, BF16 or F16, each operand's own.
struct mla_input_call {
    const void* q = nullptr; // [rows, heads, nope + rope]
    uint32_t q_type = 0;
    const void* kv = nullptr; // [rows, latent + rope]
    uint32_t kv_type = 0;
    head_norm norm;                    // of the latent; no kernel writes its weight
    uint32_t normed_type = 0;          // to which the latent is rounded before it is cached
    uint32_t turned_type = 0;          // the same for the key
    rope_view turns;                   // of `rope` elements
    const int32_t* position = nullptr; // [rows]
    const int32_t* slot = nullptr;     // [rows]; outside of 0 .. slots - 1: nothing is cached
    int64_t slots = 0;
    int32_t rows = 0;
    int32_t heads = 0;
    int32_t nope = 0;
    int32_t rope = 0;
    int32_t latent = 0;
    void* q_nope = nullptr; // [rows, heads, nope] of q's type
    void* q_pe = nullptr;   // [rows, heads, rope]
    uint32_t q_pe_type = 0;
    void* latents = nullptr; // [slots, latent]
    uint32_t latent_type = 0;
    void* rope_keys = nullptr; // [slots, rope]
    uint32_t rope_key_type = 0;
    // May start while the kernel before still runs; from compute capability 9.0 on.
    bool programmatic = false;
};

// Whether the kernel can run it: nope a multiple of 8, rope one of 16, and latent one of 8 up to
// mla_input_latent_max; on addresses that are multiples of 16 bytes.
inline constexpr int32_t mla_input_latent_max = 512;
bool fits_mla_input(const mla_input_call& call);

// Rounds as the separate operations do.
void launch_mla_input(const mla_input_call& call, cudaStream_t stream);

} // namespace sluice::cuda
