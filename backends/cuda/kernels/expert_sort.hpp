// The choices of rows sorted by expert, and the experts' outputs summed back into rows.
#pragma once

#include "view.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

// A stable counting sort of choices by (mapped) expert. Choice c belongs to row c / choice_count;
// at sorted place p stands row[p]; place[c] is where choice c went, -1 for one without an expert
// here; expert m owns places offset[m] to offset[m + 1] - 1. Rows of unused places are -1.
struct expert_sort_call {
    const int32_t* index = nullptr; // [total]
    const int32_t* map = nullptr;   // [map_size]: to local experts, NULL for none
    int32_t map_size = 0;
    int32_t total = 0;              // rows * choice_count
    int32_t choice_count = 0;       // of a row
    int32_t expert_count = 0;       // local ones
    int32_t* row = nullptr;         // [total]
    int32_t* place = nullptr;       // [total]
    int32_t* offset = nullptr;      // [expert_count + 1]
    const float* weight = nullptr;  // [total], or NULL
    float* sorted_weight = nullptr; // [total]: weight at its place; where weight is given
};
void launch_expert_sort(const expert_sort_call& call, cudaStream_t stream);

// y[t] = sum over j in rising order of weight[t, j] * expert_y[place[t, j]], and for identity
// experts (index of identity_from or more) x[t] times the sum of their weights.
struct expert_combine_call {
    const float* expert_y = nullptr; // [total, width]
    const int32_t* place = nullptr;  // [rows, choice_count]
    const float* weight = nullptr;   // [rows, choice_count]; NULL: all 1
    int32_t rows = 0;
    int32_t choice_count = 0;
    int64_t width = 0;
    int32_t identity_from = 0;              // 0: there are no identity experts
    const int32_t* index = nullptr;         // [rows, choice_count], for identity experts
    const float* identity_weight = nullptr; // [rows, choice_count], likewise
    const void* x = nullptr;                // [rows, width], likewise
    uint32_t x_type = 0;
    void* y = nullptr; // [rows, width]
    uint32_t y_type = 0;
};
void launch_expert_combine(const expert_combine_call& call, cudaStream_t stream);

} // namespace sluice::cuda
