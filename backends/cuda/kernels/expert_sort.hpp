// The choices of rows sorted by expert.
#pragma once

#include "shape.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

// A stable counting sort of choices by (mapped) expert. Choice c belongs to row c / choice_count;
// at sorted place p stands row[p]; place[c] is where choice c went, -1 for one without an expert
// here; expert m owns places offset[m] to offset[m + 1] - 1. Rows of unused places are -1.
struct expert_sort_call {
    const int32_t* index = nullptr; // [total]
    const int32_t* map = nullptr;   // [map_size]: to local experts, NULL for none
    int32_t map_size = 0;
    int32_t total = 0;        // rows * choice_count
    int32_t choice_count = 0; // of a row
    int32_t expert_count = 0; // local ones
    sized_axis rows_present;  // where `present` is given: later rows have no expert
    const int32_t* present = nullptr;
    int32_t* row = nullptr;         // [total]
    int32_t* place = nullptr;       // [total]
    int32_t* offset = nullptr;      // [expert_count + 1]
    int32_t* choice = nullptr;      // [total], or NULL: the choice at a place, -1 where row is
    const float* weight = nullptr;  // [total], or NULL
    float* sorted_weight = nullptr; // [total]: weight at its place; where weight is given
};
void launch_expert_sort(const expert_sort_call& call, cudaStream_t stream);

} // namespace sluice::cuda
