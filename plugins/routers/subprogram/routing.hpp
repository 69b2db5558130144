// A routing specification spelt out in primitives.
#pragma once

#include "builder.hpp"

#include <sluice/abi/router.h>

namespace sluice::routers {

// Adds the steps of abi/router.h, without capacity, to an empty builder, with the inputs and
// outputs that a sub-program must have. The specification has been checked, and asks for no
// capacity.
void build_routing(program_builder& program, const sluice_routing_specification& routing,
                   bool has_choice_bias);

} // namespace sluice::routers
