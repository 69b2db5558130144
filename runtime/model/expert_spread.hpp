// Spreads the experts of a layer over several placements: one moe_ffn for each, with its own slice
// of the stacked weights and an expert map, and the sum of their partial sums.
#pragma once

#include "model/model_program.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace sluice {

// An input of kind CUSTOM, i32 [values.size()], that is the same in every step.
struct constant_input {
    value_number value = value_none;
    std::vector<int32_t> values;
};

struct spread_program {
    // Values of the source keep their numbers; stacks that were cut up are used by nothing any
    // more.
    program step;
    std::vector<weight_request> weights; // of what is used, by rising value number
    std::vector<constant_input> constants;
};

// experts: by the number of a moe_ffn operation the placement of each of its experts. The sum has
// the placement of the operation itself. Fails with SLUICE_UNSUPPORTED for operations whose experts
// cannot be told apart by a map.
spread_program spread_experts(const program& source, const std::vector<weight_request>& weights,
                              const std::map<uint32_t, std::vector<uint32_t>>& experts);

} // namespace sluice
