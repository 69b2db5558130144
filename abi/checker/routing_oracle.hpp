// Routing straight from the steps of abi/router.h: what routers and backends are held to.
#pragma once

#include <sluice/abi/router.h>

#include <span>
#include <vector>

namespace sluice::checker {

struct routing_inputs {
    std::span<const float> logits;           // [rows, experts]
    std::span<const float> choice_bias;      // [experts], or empty
    std::span<const float> per_expert_scale; // [experts], or empty
    std::span<const int32_t> position;       // [rows], or empty: no padding
    std::span<const int32_t> token_ids;      // [rows], where there is a table
    std::span<const int32_t> table;          // [words, choices], or empty
};

struct routing_outputs {
    std::vector<int32_t> index; // [rows, choices]
    std::vector<float> weight;  // [rows, choices]
    std::vector<int32_t> count; // [experts]
    int32_t dropped = 0;
};

// `routing` has been checked.
routing_outputs route_directly(const sluice_routing_specification& routing,
                               const routing_inputs& inputs);

} // namespace sluice::checker
