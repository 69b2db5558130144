// Attention of one query row of one head, by one block, in float32: plain, for any cache that can
// say element d of a place's key and value.
#pragma once

#include "attention.cuh"
#include "reduce.cuh"

namespace sluice::cuda {

inline constexpr int plain_threads = 128;
inline constexpr int plain_tile = 64; // places that are scored together
inline constexpr int lanes_per_place = 8;

// Of one tile, in shared memory.
struct plain_tile_room {
    float score[plain_tile];
    float weight[plain_tile];
    int32_t slot[plain_tile];
};

// Element `at` of a part of a cache. Element: its type, or void where only the call knows.
template <typename Element>
__device__ __forceinline__ float cached_element(const void* part, uint32_t type, int64_t at) {
    if constexpr (std::is_void_v<Element>)
        return load_as_float(part, type, at);
    else
        return to_float(static_cast<const Element*>(part)[at]);
}

// o[d] = sum over the places of weight * value(d), for all d, with the weights' sum as in
// SLUICE_OP_ATTENTION. The maximum and the sum are kept while places stream by, as in Milakov and
// Gimelshein 2018, algorithm 3. All threads of the block call it; q and o are in shared memory, and
// each thread owns the elements of o from its number on in steps of plain_threads.
//
// Cache: key_width, value_width, float key(slot, d), float value(slot, d).
template <typename Cache>
__device__ void attend_plainly(const Cache& cache, const attended_rows& rows, const int32_t* table,
                               place_range places, float scale, float softcap, const float* sink,
                               const float* q, float* o, plain_tile_room& room) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    float maximum = -INFINITY, sum = 0;
    for (int d = thread; d < cache.value_width; d += plain_threads) o[d] = 0;
    for (int32_t first = places.begin; first < places.end; first += plain_tile) {
        const int count = min(plain_tile, places.end - first);
        __syncthreads(); // the tile before is used up, and q is written
        if (thread < count) room.slot[thread] = slot_of(rows, table, first + thread);
        __syncthreads();
        // All lanes go round equally often, for the shuffles.
        for (int i = thread / lanes_per_place; i < plain_tile;
             i += plain_threads / lanes_per_place) {
            float product = 0;
            if (i < count && room.slot[i] >= 0)
#pragma unroll 8
                for (int d = thread % lanes_per_place; d < cache.key_width; d += lanes_per_place)
                    product += q[d] * cache.key(room.slot[i], d);
            for (int step = lanes_per_place / 2; step > 0; step /= 2)
                product += __shfl_xor_sync(0xffffffffu, product, step);
            if (thread % lanes_per_place == 0)
                room.score[i] = i < count ? score_of(product, scale, softcap) : -INFINITY;
        }
        __syncthreads();
        // Each warp computes the same numbers; the first one writes them.
        const float score0 = room.score[lane], score1 = room.score[lane + 32];
        const float maximum_now =
            fmaxf(maximum, reduce_warp(fmaxf(score0, score1), larger_number{}));
        // The first score of a tile is of a place that is there, so that the maximum is finite,
        // unless the numbers themselves are not.
        const float weight0 = expf(score0 - maximum_now), weight1 = expf(score1 - maximum_now);
        const float correction = expf(maximum - maximum_now);
        sum = sum * correction + reduce_warp(weight0 + weight1, add_numbers{});
        maximum = maximum_now;
        if (thread < 32) {
            room.weight[lane] = weight0;
            room.weight[lane + 32] = weight1;
        }
        __syncthreads();
        for (int d = thread; d < cache.value_width; d += plain_threads) {
            float mixed = o[d] * correction;
#pragma unroll 8
            for (int i = 0; i < count; ++i)
                mixed += room.slot[i] >= 0 ? room.weight[i] * cache.value(room.slot[i], d) : 0;
            o[d] = mixed;
        }
    }
    if (places.begin >= places.end) return;
    float correction = 1;
    if (sink != nullptr) {
        const float maximum_now = fmaxf(maximum, *sink);
        correction = expf(maximum - maximum_now);
        sum = sum * correction + expf(*sink - maximum_now);
    }
    for (int d = thread; d < cache.value_width; d += plain_threads) o[d] *= correction / sum;
}

} // namespace sluice::cuda
