// Multi-head latent attention by the formulas of SLUICE_OP_MLA_ATTENTION (DeepSeek-V2,
// section 2.1).
#pragma once

#include "attention.hpp"

#include <cstddef>

namespace sluice::cuda {

// Rows that launch_mla_attention_expanded takes, so that other launches may leave them out. Without
// it both are NULL.
struct expanded_rows {
    const int32_t* begin = nullptr; // [sequences]: not negative where a sequence's rows are such
    const int32_t* rows_left = nullptr; // [1]: how many rows of sequences are not
};

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
    expanded_rows expanded;
    // By the matrix units: launches may start while the kernel before still runs, from compute
    // capability 9.0 on. Only where decoding takes all rows; positions, sequences and the block
    // table are there before that kernel.
    bool programmatic = false;
};

// Any types and widths. `is_expanded`: keys and values of each head are computed from the latents,
// place by place; otherwise queries are taken to the latents' space and outputs back from it.
inline constexpr int32_t mla_plain_widths_max = 11000; // 2 nope + rope + 2 latent + value_width
void launch_mla_attention_plain(const mla_attention_call& call, bool is_expanded,
                                cudaStream_t stream);

// ---- By the matrix units: the absorbed form ----

// Three launches: q' = W_uk^T q_nope into `latent_rows`, attention in the latents' space, whose
// result takes the place of q' there, and o = W_uv of that. Where the places of a row are split,
// a fourth adds up their results before the last.

// Whether they can run it: queries, cache and matrices of one half type, on addresses that are
// multiples of 16 bytes, latents of 512 and rotated keys of 64 elements, nope and value_width
// multiples of 64, up to 64 heads or a multiple of 64, a scale above zero. The rows must be in the
// order of the batch.
bool fits_mla_attention_matrix(const mla_attention_call& call);

struct mla_attention_plan {
    attention_decode_plan decode;   // of single rows
    uint64_t latent_rows_bytes = 0; // [rows, heads, latent] of q's type
};
mla_attention_plan plan_mla_attention(const mla_attention_call& call, int64_t context_max,
                                      int multiprocessor_count);
// partial: as in attention_decode_plan; there are no counters.
void launch_mla_attention_matrix(const mla_attention_call& call, const mla_attention_plan& plan,
                                 void* latent_rows, float* partial, cudaStream_t stream);

// ---- Many rows of a sequence: the expanded form ----

// On sm_90a, for sequences of many rows that there is room for; which those are is found out on the
// device. Three launches after launch_mla_gather: keys and values of the sequences' places as
// products of their latents, and attention to those. It comes after launch_mla_attention_matrix,
// which may write o for the rows of such sequences, too.
struct mla_expanded_plan {
    int32_t places = 0; // that there is room for, in whole turns; 0: the form cannot be used
    // In bytes of scratch memory:
    uint64_t begin_at = 0;     // int32 [sequences]: the first of a sequence's places, or -1
    uint64_t offset_at = 0;    // int32 [2]: 0 and how many places there are
    uint64_t rows_left_at = 0; // int32: see expanded_rows
    uint64_t gathered_at = 0;  // [places, latent]
    uint64_t keys_at = 0;      // [places, heads, nope]
    uint64_t values_at = 0;    // [places, heads, value_width]
    uint64_t partial_at = 0;   // see attention_prefill_plan
    uint64_t scratch_bytes = 0;

    attention_prefill_plan attention;
};
mla_expanded_plan plan_mla_expanded(const mla_attention_call& call, int64_t context_max,
                                    int multiprocessor_count);
expanded_rows expanded_rows_of(const mla_expanded_plan& plan, const std::byte* scratch);
void launch_mla_gather(const mla_attention_call& call, const mla_expanded_plan& plan,
                       std::byte* scratch, int multiprocessor_count, cudaStream_t stream);
// counters: as in attention_prefill_plan.
void launch_mla_attention_expanded(const mla_attention_call& call, const mla_expanded_plan& plan,
                                   std::byte* scratch, int32_t* counters, int multiprocessor_count,
                                   cudaStream_t stream);

// y[row, head, j] = sum over k of x[row, head, k] w[head, j, k], for x [rows, heads, inner] of a
// half type, which w's is too, and y [rows, heads, outer] of any float type. is_transposed: the sum
// is of w [head, k, j]. inner and outer are multiples of 64.
struct head_product_call {
    const void* x = nullptr;
    const void* w = nullptr;
    void* y = nullptr;
    uint32_t x_type = 0;
    uint32_t y_type = 0;
    int32_t rows = 0;
    int32_t heads = 0;
    int32_t inner = 0;
    int32_t outer = 0;
    bool is_transposed = false;
    const int32_t* sequence_of_row = nullptr; // with `expanded`
    expanded_rows expanded;
    // May start while the kernel before still runs, which does not write w; without `expanded`.
    bool programmatic = false;
};
void launch_head_product(const head_product_call& call, cudaStream_t stream);

} // namespace sluice::cuda
