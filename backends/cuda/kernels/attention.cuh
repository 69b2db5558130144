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

// ---- Which rows a block works for ----

struct attended_row {
    int32_t row;
    int32_t sequence; // -1: none
};

// Row `at` of the decoding rows; takes_all_rows as in attention_decode_plan.
__device__ __forceinline__ attended_row decoding_row(const attended_rows& rows, int32_t at,
                                                     bool takes_all_rows) {
    if (takes_all_rows) {
        const int32_t sequence = __ldg(rows.sequence_of_row + at);
        return {at, sequence < rows.sequences ? sequence : -1};
    }
    const bool is_single =
        __ldg(rows.query_start + at) == at && __ldg(rows.query_start + at + 1) == at + 1;
    return {at, is_single ? at : -1};
}

// Rows [begin, end) of one sequence.
struct tile_of_rows {
    int32_t sequence;
    int32_t begin;
    int32_t end;
};

// Tiles of up to tile_tokens rows, without the sequences that decoding takes: of its first
// `decode_rows` rows. Sequence s owns the tiles from query_start[s] / tile_tokens + s on, of which
// there are always enough: the sum of the parts, each rounded up, is at most one more each. This is
// tile `tile`, if s owns it; else its sequence is -1.
__device__ __forceinline__ tile_of_rows tile_of_sequence(const attended_rows& rows,
                                                         int32_t decode_rows, int32_t tile_tokens,
                                                         int32_t tile, int32_t s) {
    const int32_t begin = __ldg(rows.query_start + s), end = __ldg(rows.query_start + s + 1);
    const int32_t first = begin + (tile - begin / tile_tokens - s) * tile_tokens;
    const bool is_decoded = s < decode_rows && begin == s && end == s + 1;
    if (first < begin || first >= end || is_decoded) return {-1, 0, 0};
    return {s, first, min(first + tile_tokens, end)};
}

// All threads of the block look for the tile; one that finds it writes `found`.
__device__ __forceinline__ void find_tile(const attended_rows& rows, int32_t decode_rows,
                                          int32_t tile_tokens, int32_t tile, int threads,
                                          tile_of_rows& found) {
    for (int32_t s = static_cast<int32_t>(threadIdx.x); s < rows.sequences; s += threads) {
        const tile_of_rows own = tile_of_sequence(rows, decode_rows, tile_tokens, tile, s);
        if (own.sequence >= 0) found = own;
    }
}
__host__ __device__ constexpr int32_t tiles_at_most(int32_t rows, int32_t sequences,
                                                    int32_t tile_tokens) {
    return rows / tile_tokens + sequences;
}

// ---- Splits ----

// What a split of a row's places leaves: o [rows, width] not yet divided by the weights' sum, then
// the scores' maximum as a power of two [rows], then the sum [rows].
template <int rows, int width>
constexpr int split_floats = rows*(width + 2);

// Adds up what the splits left, in their order, and calls store(row, d, value). `threads`, a
// multiple of 32, are all of the block. The splits' weights take the place of their maxima.
template <int rows_max, int width, typename Store>
__device__ void combine_splits(float* partial, int splits, int rows, int threads,
                               const float* sinks, Store&& store) {
    constexpr int size = split_floats<rows_max, width>;
    static_assert(width % 4 == 0 && size % 4 == 0);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int row = static_cast<int>(threadIdx.x) / 32; row < rows; row += threads / 32) {
        float* maxima = partial + rows_max * width + row;
        float maximum = sinks != nullptr ? sinks[row] : -INFINITY;
        for (int s = lane; s < splits; s += 32) maximum = fmaxf(maximum, __ldcg(maxima + s * size));
        for (int step = 16; step > 0; step /= 2)
            maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, step));
        float sum = 0;
        for (int s = lane; s < splits; s += 32)
            sum +=
                exp2f(__ldcg(maxima + s * size) - maximum) * __ldcg(maxima + s * size + rows_max);
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (sinks != nullptr) sum += exp2f(sinks[row] - maximum);
        for (int s = lane; s < splits; s += 32)
            __stcg(maxima + s * size, exp2f(__ldcg(maxima + s * size) - maximum) / sum);
    }
    __syncthreads();
    for (int i = 4 * static_cast<int>(threadIdx.x); i < rows * width; i += 4 * threads) {
        const int row = i / width, d = i % width;
        const float* weights = partial + rows_max * width + row;
        float4 o{0, 0, 0, 0};
#pragma unroll 8
        for (int s = 0; s < splits; ++s) {
            const float weight = __ldcg(weights + s * size);
            const float4 part = __ldcg(reinterpret_cast<const float4*>(partial + s * size + i));
            o.x += weight * part.x;
            o.y += weight * part.y;
            o.z += weight * part.z;
            o.w += weight * part.w;
        }
        store(row, d, o.x);
        store(row, d + 1, o.y);
        store(row, d + 2, o.z);
        store(row, d + 3, o.w);
    }
}

// Whether this block is the last of `splits` to come here; the counter is then zero again. What the
// others wrote before can be read. All threads call it.
__device__ __forceinline__ bool is_last_split(int32_t* counter, int splits, bool& shared_flag) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        shared_flag = atomicAdd(counter, 1) == splits - 1;
        if (shared_flag) *counter = 0;
    }
    __syncthreads();
    if (shared_flag) __threadfence();
    return shared_flag;
}

// A row's places cut into `splits_at_most` parts of whole multiples of `step`, not less than
// `least`: how many a part has.
__device__ __forceinline__ int places_of_split(int count, int splits_at_most, int step, int least) {
    const int places = max((count + splits_at_most - 1) / splits_at_most, least);
    return (places + step - 1) / step * step;
}

} // namespace sluice::cuda
