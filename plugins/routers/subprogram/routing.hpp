// A routing specification spelt out in primitives.
#pragma once

#include "builder.hpp"

#include <sluice/abi/router.h>

namespace sluice::routers {

// What the checkpoint gives besides the logits.
struct routing_inputs {
    bool choice_bias = false;
    bool per_expert_scale = false;
    uint32_t table_row_count = 0; // 0: no hash table

    bool operator==(const routing_inputs&) const = default;
};

// Adds the steps of abi/router.h, without capacity, to an empty builder, with the inputs and
// outputs that a sub-program must have. The specification has been checked, and asks for no
// capacity.
void build_routing(program_builder& program, const sluice_routing_specification& routing,
                   const routing_inputs& inputs);

} // namespace sluice::routers
