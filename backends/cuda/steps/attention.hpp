// Attention with what comes before it.
#pragma once

#include "step.hpp"

#include "../kernels/attention_input.hpp"
#include "../rope_tables.hpp"

namespace sluice::cuda {

struct attention_head_input {
    qk_norm_rope_write_call call;
    std::shared_ptr<const rope_table> table; // what the call's rope reads
};

// The step of `operation` and of `input` in one launch where both fit it, else one after the other.
std::unique_ptr<step> make_attention(bound& owner, const plugin::operation& operation,
                                     attention_head_input input);

} // namespace sluice::cuda
