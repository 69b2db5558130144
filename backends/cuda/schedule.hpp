// Which operations of a program run together in one launch.
#pragma once

#include <sluice/plugin/memory_plan.hpp>

namespace sluice::cuda {

namespace plugin = sluice::plugin;

// The groups of `program` in the order in which they run. With `fuses` false every operation is a
// group of its own. Groups that are found:
//   attention input  [rms_norm q] [rms_norm k], rope q, rope k and kv_write, with the reshapes
//                    between them
//   mla input        the slices of q, of which the second goes through a rope, and of the latent
//                    and the shared key, with the rms_norm of the one, the rope of the other and
//                    kv_write, and the reshapes between them
//   head input       gather_rows of the stream and of its addend, and the norm over both
//   normed product   rms_norm over whole rows and the linear right after it that reads it; where
//                    that linear is the router, also its route, else up to few_parts_more later
//                    linears that read the same rows
// Each runs at the place of its last operation, but a normed product at that of its first linear:
// the later ones need nothing else.
plugin::schedule make_schedule(const plugin::program& program, bool fuses);

// What make_schedule found an attention input to be made of: value numbers.
struct attention_input {
    uint32_t q = 0, k = 0, v = 0; // [tokens, heads * width]
    const plugin::operation* q_norm = nullptr;
    const plugin::operation* k_norm = nullptr;
    const plugin::operation* q_rope = nullptr;
    const plugin::operation* k_rope = nullptr;
    const plugin::operation* write = nullptr;
};
// Empty where the group is none.
std::optional<attention_input> read_attention_input(const plugin::program& program,
                                                    const std::vector<uint32_t>& group);

// What lies between the projections of multi-head latent attention and the attention itself.
struct mla_input {
    uint32_t q = 0;                            // [tokens, heads * (nope + rope)]
    uint32_t kv = 0;                           // [tokens, latent + rope]
    const plugin::operation* q_nope = nullptr; // the slice
    const plugin::operation* q_rope = nullptr;
    const plugin::operation* latent_norm = nullptr;
    const plugin::operation* k_rope = nullptr;
    const plugin::operation* write = nullptr;
    std::vector<uint32_t> members; // in the order of the program
};
std::optional<mla_input> read_mla_input(const plugin::program& program,
                                        const std::vector<uint32_t>& group);

struct head_input {
    const plugin::operation* stream = nullptr;
    const plugin::operation* addend = nullptr;
    const plugin::operation* norm = nullptr;
};
std::optional<head_input> read_head_input(const plugin::program& program,
                                          const std::vector<uint32_t>& group);

struct normed_product {
    const plugin::operation* norm = nullptr;
    std::vector<const plugin::operation*> linears; // in the order of the program
    const plugin::operation* route = nullptr;      // or NULL
};
std::optional<normed_product> read_normed_product(const plugin::program& program,
                                                  const std::vector<uint32_t>& group);

} // namespace sluice::cuda
