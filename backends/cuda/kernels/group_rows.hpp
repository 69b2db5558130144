// The choices of rows sorted by expert, keeping their order within one: a counting sort. One launch
// for few choices, three for many.
#pragma once

#include "shape.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

// Choice c = t * choices + j belongs to row t. Its expert is index[c], mapped where there is a map;
// a choice whose expert is not in 0 .. experts - 1 has none.
struct group_rows_call {
    const int32_t* index = nullptr; // [rows, choices]
    int64_t rows = 0;               // of the bucket
    int64_t choices = 0;
    sized_axis rows_present; // rows from there on are padding: their choices have no expert
    const int32_t* present = nullptr;
    const int32_t* expert_map = nullptr; // [map_size]; NULL: none
    int64_t map_size = 0;
    int32_t experts = 0; // at most grouped_experts_max

    // Sorted place p holds row[p] and choice[p]; -1 from offset[experts] on.
    int32_t* row = nullptr;    // [rows * choices]
    int32_t* choice = nullptr; // [rows * choices], or NULL
    int32_t* place = nullptr;  // [rows, choices]: where the choice went; -1: nowhere
    int32_t* offset = nullptr; // [experts + 1]: expert m owns places offset[m] to offset[m + 1] - 1
    // The experts that own places, in rising order, -1 behind them; and their number. NULL: not
    // wanted; both or none.
    int32_t* active = nullptr;       // [experts]
    int32_t* active_count = nullptr; // [1]

    void* scratch = nullptr; // [group_rows_scratch_bytes()]
};
inline constexpr int32_t grouped_experts_max = 8192;
uint64_t group_rows_scratch_bytes(int64_t rows, int64_t choices, int32_t experts);
void launch_group_rows(const group_rows_call& call, cudaStream_t stream);

} // namespace sluice::cuda
