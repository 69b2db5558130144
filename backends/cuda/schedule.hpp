// Which operations of a program run together in one launch.
#pragma once

#include <sluice/plugin/memory_plan.hpp>

#include <optional>
#include <variant>

namespace sluice::cuda {

namespace plugin = sluice::plugin;

// ---- What groups are made of ----
// Numbers are those of values; operations are the program's.

// Attention and what makes its rows: [rms_norm q] [rms_norm k], rope q, rope k and kv_write, with
// the reshapes between them.
struct turned_attention {
    uint32_t q = 0, k = 0, v = 0; // [tokens, heads * width]
    const plugin::operation* q_norm = nullptr;
    const plugin::operation* k_norm = nullptr;
    const plugin::operation* q_rope = nullptr;
    const plugin::operation* write = nullptr;
    const plugin::operation* attention = nullptr;
};

// What lies between the projections of multi-head latent attention and the attention itself: the
// slices of q, of which the second goes through a rope, and of the latent and the shared key, with
// the rms_norm of the one, the rope of the other and kv_write, and the reshapes between them.
struct mla_input {
    uint32_t q = 0;                            // [tokens, heads * (nope + rope)]
    uint32_t kv = 0;                           // [tokens, latent + rope]
    const plugin::operation* q_nope = nullptr; // the slice
    const plugin::operation* q_rope = nullptr;
    const plugin::operation* latent_norm = nullptr;
    const plugin::operation* k_rope = nullptr;
    const plugin::operation* write = nullptr;
};

// gather_rows of the stream and of its addend, and the norm over both.
struct head_input {
    const plugin::operation* stream = nullptr;
    const plugin::operation* addend = nullptr;
    const plugin::operation* norm = nullptr;
};

// rms_norm over whole rows and the linear right after it that reads it; where that linear is the
// router, also its route, else up to few_parts_more later linears that read the same rows.
struct normed_product {
    const plugin::operation* norm = nullptr;
    std::vector<const plugin::operation*> linears; // in the order of the program
    const plugin::operation* route = nullptr;      // or NULL
};

// moe_ffn and gated_mlp of the same rows, and their sum.
struct shared_experts {
    const plugin::operation* routed = nullptr; // moe_ffn
    const plugin::operation* shared = nullptr; // gated_mlp
    const plugin::operation* sum = nullptr;
    // With a route: what runs right before and makes those rows, or none.
    std::optional<normed_product> router;
};

// The first of them: an operation by itself.
using fused_group = std::variant<std::monostate, turned_attention, mla_input, head_input,
                                 normed_product, shared_experts>;

// ---- The order ----

struct fused_schedule {
    plugin::schedule groups;        // of operations, in the order in which they run
    std::vector<fused_group> fused; // [groups]: what each is made of
};

// With `fuses` false every operation is a group of its own. A group runs at the place of its last
// operation, but a normed product without a route at that of its first linear: the later ones need
// nothing else. The result names operations of `program`, which must outlive it.
fused_schedule make_schedule(const plugin::program& program, bool fuses);

} // namespace sluice::cuda
