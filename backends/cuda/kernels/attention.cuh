// What all attention kernels share: where places lie, and how scores become weights.
#pragma once

#include "attention.hpp"
#include "elements.cuh"

namespace sluice::cuda {

// The places [begin, end) that a row attends to.
struct place_range {
    int32_t begin;
    int32_t end;
};

__device__ __forceinline__ place_range places_of(const attended_rows& rows, int32_t position,
                                                 int32_t length) {
    const int32_t capacity = rows.block_columns * rows.tokens_per_block;
    const int32_t end = max(min(min(position + 1, length), capacity), 0);
    const int32_t begin = rows.window == 0 ? 0 : max(position + 1 - rows.window, 0);
    return {min(begin, end), end};
}

// The slot of a place in the cache, or -1 where its block is absent: such a place holds zeros.
// table: the sequence's row of the block table.
__device__ __forceinline__ int32_t slot_of(const attended_rows& rows, const int32_t* table,
                                           int32_t place) {
    const int32_t column =
        rows.block_shift >= 0 ? place >> rows.block_shift : place / rows.tokens_per_block;
    const int32_t block = __ldg(table + column);
    return block < 0 ? -1 : block * rows.tokens_per_block + place - column * rows.tokens_per_block;
}

// z of a product of query and key.
__device__ __forceinline__ float score_of(float product, float scale, float softcap) {
    const float score = product * scale;
    return softcap > 0 ? softcap * tanhf(score / softcap) : score;
}

} // namespace sluice::cuda
