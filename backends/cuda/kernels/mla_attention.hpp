// Multi-head latent attention by the formulas of SLUICE_OP_MLA_ATTENTION (DeepSeek-V2,
// section 2.1).
#pragma once

#include "attention.hpp"

namespace sluice::cuda {

struct mla_attention_call {
    attended_rows rows;
    const void* q_nope = nullptr; // [rows, heads, nope]
    uint32_t q_nope_type = 0;     // F32, BF16 or F16, as all types here
    const void* q_pe = nullptr;   // [rows, heads, rope]
    uint32_t q_pe_type = 0;
    const void* latents = nullptr; // c: [slots, latent]
    uint32_t latent_type = 0;
    const void* rope_keys = nullptr; // p: [slots, rope]
    uint32_t rope_key_type = 0;
    weight_view key_up;   // W_uk [heads, nope, latent]
    weight_view value_up; // W_uv [heads, value_width, latent]
    void* o = nullptr;    // [rows, heads, value_width]
    uint32_t o_type = 0;
    int32_t heads = 0;
    int32_t nope = 0;
    int32_t rope = 0;
    int32_t latent = 0;
    int32_t value_width = 0;
    float scale = 1;
};

// Any types and widths. `is_expanded`: keys and values of each head are computed from the latents,
// place by place; otherwise queries are taken to the latents' space and outputs back from it.
inline constexpr int32_t mla_plain_widths_max = 11000; // nope + rope + 2 latent
void launch_mla_attention_plain(const mla_attention_call& call, bool is_expanded,
                                cudaStream_t stream);

} // namespace sluice::cuda
