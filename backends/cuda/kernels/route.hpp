// Routing as abi/router.h says, in float32.
#pragma once

#include <sluice/abi/router.h>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace sluice::cuda {

struct route_call {
    sluice_routing_specification routing{};
    const float* logits = nullptr;           // [rows, experts]
    const float* choice_bias = nullptr;      // [experts], or NULL
    const float* per_expert_scale = nullptr; // [experts], or NULL
    const int32_t* position = nullptr;       // [rows], or NULL: no row is padding
    const int32_t* token_ids = nullptr;      // [rows], with `table`
    const int32_t* table = nullptr;          // [table_rows, choices], or NULL
    int64_t table_rows = 0;
    int32_t rows = 0;
    int32_t* index = nullptr;   // [rows, choices]
    float* weight = nullptr;    // [rows, choices]
    int32_t* count = nullptr;   // [experts], or NULL
    int32_t* dropped = nullptr; // [1], or NULL
    // Start while the kernel before still runs; from compute capability 9.0 on, without capacity.
    bool programmatic = false;
    float* kept = nullptr; // route_scratch_bytes(...), or NULL where that is 0
};

// With capacity the scores and choices of all rows stay until the rows before are placed.
size_t route_scratch_bytes(const sluice_routing_specification& routing, int64_t rows);

// One launch without capacity (and a clearing of `count` where there are many rows).
void launch_route(const route_call& call, cudaStream_t stream);

} // namespace sluice::cuda
