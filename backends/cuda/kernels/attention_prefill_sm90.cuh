// Attention of many rows of a sequence by the warpgroups' matrix instruction, in the manner of
// FlashAttention-3 (Shah et al. 2024).
//
// A block stays on its multiprocessor and takes tile after tile of query rows, each for the heads
// of one kv head: row m of a tile is token m / group, head m % group. Where there are few tiles,
// their places are split among several blocks. One warp has queries, keys and values brought by
// tensor copies, box by box of the cache's blocks; each of the other warpgroups multiplies 64 rows
// of the tile. Keys are taken from the last ones to the first, so that what has to be masked comes
// at the beginning.
#pragma once

#include "attention.cuh"
#include "attention_matrix.cuh"
#include "wgmma.cuh"

#include "../errors.hpp"

#include <algorithm>
#include <numeric>

namespace sluice::cuda::prefill {

// consumers: warpgroups that multiply; places: of a turn; stages: turns of keys and values in
// shared memory; rope_width: the last columns of a key, which all heads share (see
// expanded_source).
template <int key_width_, int value_width_, int consumers_, int places_, int stages_,
          int rope_width_ = 0>
struct form {
    static constexpr int key_width = key_width_;
    static constexpr int value_width = value_width_;
    static constexpr int rope_width = rope_width_;
    static constexpr int consumers = consumers_;
    static constexpr int places = places_;
    static constexpr int stages = stages_;
    // Scores of a turn run beside the values of the one before, and warpgroups start their products
    // in turn, so that one's run while the other makes weights. Three warpgroups lack the registers
    // for that, and fill each other's gaps without it.
    static constexpr bool overlaps = consumers == 2;

    static constexpr int rows = 64 * consumers;
    static constexpr int threads = 128 * (consumers + 1);
    static constexpr int key_chunks = key_width / 64, value_chunks = value_width / 64;
    static constexpr int rope_chunks = rope_width / 64; // the last ones of a key
    // Queries, keys and values lie as chunks of 64 columns: [chunk][row or place][128 bytes].
    static constexpr int query_chunk = rows * 128;
    static constexpr int place_chunk = places * 128;
    static constexpr int query_bytes = key_chunks * query_chunk;
    static constexpr int key_bytes = key_chunks * place_chunk;
    static constexpr int value_bytes = value_chunks * place_chunk;
    static constexpr int shared_bytes = 1024 + query_bytes + stages * (key_bytes + value_bytes);
    // Of 65536 of the multiprocessor.
    static constexpr int producer_registers = consumers == 2 ? 40 : 32;
    static constexpr int consumer_registers = consumers == 2 ? 232 : 160;
};

struct arguments {
    attention_call call;
    int32_t decode_rows;
    int32_t tile_tokens; // of a tile of query rows
    int32_t tiles;       // at most
    int32_t box_rows;    // places that a copy of keys or values brings: they lie in one block
    int32_t splits;      // of a tile's places, at most
    float4* partial;     // what splits leave, see consumer::gathers_splits
    int32_t* counters;   // of items taken, then of the splits of each warp's rows that are done
    // With rope_width, [sequences]: keys (but for their rotated part) and values do not lie in the
    // cache, but one place of sequence s after another from expanded_begin[s] on, up to the end of
    // the last turn. Sequences of -1 are left out.
    const int32_t* expanded_begin;
};

struct tensor_maps {
    CUtensorMap queries;    // [rows, heads, key_width], boxes [tile_tokens, group, 64]
    CUtensorMap keys;       // [slots, kv_heads * key_width], boxes [box_rows, 64]
    CUtensorMap values;     // [slots, kv_heads * value_width], boxes [box_rows, 64]
    CUtensorMap value_rows; // the same, boxes [1, 64]
    // With rope_width: `queries` and `keys` are without these columns, and keys and values come in
    // boxes [places, 64].
    CUtensorMap rope_queries; // [rows, heads, rope_width], boxes [tile_tokens, 1, 64]
    CUtensorMap rope_keys;    // [slots, rope_width], boxes [box_rows, 64]
};

// A tile of query rows, and which places its rows attend to.
struct tile {
    tile_of_rows rows;
    int32_t kv_head;
    int32_t unit;               // number of tile and kv head
    int32_t split, splits;      // this one, and how many have turns
    int32_t first;              // place of the first turn
    int32_t turns;              // 0: there are no more tiles
    int32_t all_begin, all_end; // places that every row attends to
};

// Turns that a split has, but for the last one.
inline constexpr int split_turns_min = 4;
inline constexpr int splits_max = 32;

template <int stages>
struct barriers {
    uint64_t query_full, query_empty;
    uint64_t key_full[stages], key_empty[stages];
    uint64_t value_full[stages], value_empty[stages];
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Of a group of `threads` threads, those that arrive included ("bar").
__device__ __forceinline__ void wait_named(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void arrive_named(int barrier, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// ---- The warp that has things copied ----

template <typename Form>
struct producer {
    const arguments& a;
    const tensor_maps& maps;
    barriers<Form::stages>& at;
    tile& shared;                   // which the queries in shared memory are of
    uint32_t queries, keys, values; // in shared memory
    int lane;

    tile own;
    int32_t any_end;      // place behind the last that any row attends to
    const int32_t* table; // of the tile's sequence
    int32_t expanded;     // where the sequence begins, with rope_width

    // Item `item` of the launch, a split of a tile, those of long tiles first; false where there is
    // none.
    __device__ __forceinline__ bool find(int32_t item) {
        const attended_rows& rows = a.call.rows;
        own.unit = item / a.splits;
        own.split = item % a.splits;
        own.kv_head = own.unit % a.call.kv_heads;
        const int32_t number = a.tiles - 1 - own.unit / a.call.kv_heads;
        tile_of_rows found = {-1, 0, 0};
        for (int32_t from = 0; from < rows.sequences && found.sequence < 0; from += 32) {
            const int32_t s = from + lane;
            tile_of_rows part = {-1, 0, 0};
            if (s < rows.sequences)
                part = tile_of_sequence(rows, a.decode_rows, a.tile_tokens, number, s);
            found.sequence = __reduce_max_sync(0xFFFFFFFFu, part.sequence);
            found.begin = __reduce_max_sync(0xFFFFFFFFu, part.begin);
            found.end = __reduce_max_sync(0xFFFFFFFFu, part.end);
        }
        if (found.sequence < 0) return false;
        if constexpr (Form::rope_width > 0) {
            expanded = __ldg(a.expanded_begin + found.sequence);
            if (expanded < 0) return false;
        }
        const int32_t length = __ldg(rows.kv_length + found.sequence);
        int32_t any_begin = INT32_MAX, all_begin = 0, all_end = INT32_MAX;
        any_end = 0;
        for (int32_t row = found.begin + lane; row < found.end; row += 32) {
            const place_range places = places_of(rows, __ldg(rows.position + row), length);
            if (places.begin < places.end) {
                any_begin = min(any_begin, places.begin);
                any_end = max(any_end, places.end);
            }
            all_begin = max(all_begin, places.begin);
            all_end = min(all_end, places.end);
        }
        any_end = __reduce_max_sync(0xFFFFFFFFu, any_end);
        any_begin = min(__reduce_min_sync(0xFFFFFFFFu, any_begin), any_end);
        table = rows.block_table + static_cast<int64_t>(found.sequence) * rows.block_columns;
        own.rows = found;
        own.first = any_begin / a.box_rows * a.box_rows;
        // One turn at least, so that rows without places need no case of their own.
        const int turns = max((any_end - own.first + Form::places - 1) / Form::places, 1);
        const int split_turns = max((turns + a.splits - 1) / a.splits, split_turns_min);
        own.splits = (turns + split_turns - 1) / split_turns;
        if (own.split >= own.splits) return false;
        own.first += own.split * split_turns * Form::places;
        own.turns = min(turns - own.split * split_turns, split_turns);
        own.all_begin = __reduce_max_sync(0xFFFFFFFFu, all_begin);
        own.all_end = __reduce_min_sync(0xFFFFFFFFu, all_end);
        return true;
    }

    // Where the copies of a turn begin in the cache, box b in lane b: a slot, or -box_rows for a
    // box of zeros.
    __device__ __forceinline__ int32_t slot_of_box(int turn) const {
        const int32_t place = own.first + turn * Form::places + lane * a.box_rows;
        const int32_t slot = lane * a.box_rows < Form::places && place < any_end
                                 ? slot_of(a.call.rows, table, place)
                                 : -1;
        return slot < 0 ? -a.box_rows : slot;
    }

    // Boxes of all of a turn's places, for chunks of 64 columns.
    template <int chunks>
    __device__ __forceinline__ void copy_boxes(uint32_t target, const CUtensorMap& map, int column,
                                               int32_t slots, uint32_t full) {
        const int boxes = Form::places / a.box_rows;
        for (int b = 0; b < boxes; ++b) {
            const int32_t slot = __shfl_sync(0xFFFFFFFFu, slots, b);
            if (elect_lane()) {
#pragma unroll
                for (int c = 0; c < chunks; ++c)
                    copy_box(target + c * Form::place_chunk + b * a.box_rows * 128, map,
                             column + 64 * c, slot, full);
            }
            __syncwarp();
        }
    }

    // Likewise where they follow each other.
    template <int chunks>
    __device__ __forceinline__ void copy_expanded(uint32_t target, const CUtensorMap& map,
                                                  int column, int turn, uint32_t full) {
        if (elect_lane()) {
#pragma unroll
            for (int c = 0; c < chunks; ++c)
                copy_box(target + c * Form::place_chunk, map, column + 64 * c,
                         expanded + own.first + turn * Form::places, full);
        }
        __syncwarp();
    }

    __device__ __forceinline__ void expect(uint32_t full, uint32_t bytes) {
        if (elect_lane()) arrive_expecting(full, bytes);
        __syncwarp();
    }

    __device__ __forceinline__ void copy_queries(uint32_t full) {
        const int group = a.call.heads / a.call.kv_heads;
        expect(full, Form::key_chunks * 128 * group * a.tile_tokens);
        if (elect_lane()) {
            constexpr int chunks = Form::key_chunks - Form::rope_chunks;
#pragma unroll
            for (int c = 0; c < chunks; ++c)
                copy_box(queries + c * Form::query_chunk, maps.queries, 64 * c, own.kv_head * group,
                         own.rows.begin, full);
#pragma unroll
            for (int c = 0; c < Form::rope_chunks; ++c)
                copy_box(queries + (chunks + c) * Form::query_chunk, maps.rope_queries, 64 * c,
                         own.kv_head * group, own.rows.begin, full);
        }
        __syncwarp();
    }

    __device__ __forceinline__ void copy_keys(int turn, uint32_t target, int32_t slots,
                                              uint32_t full) {
        expect(full, Form::key_bytes);
        if constexpr (Form::rope_width > 0) {
            constexpr int chunks = Form::key_chunks - Form::rope_chunks;
            copy_expanded<chunks>(target, maps.keys, own.kv_head * 64 * chunks, turn, full);
            copy_boxes<Form::rope_chunks>(target + chunks * Form::place_chunk, maps.rope_keys, 0,
                                          slots, full);
        } else {
            copy_boxes<Form::key_chunks>(target, maps.keys, own.kv_head * Form::key_width, slots,
                                         full);
        }
    }

    // Values are multiplied by a weight of zero where a row does not attend to them, so that those
    // of places that were never written must not be read: they could be anything.
    __device__ __forceinline__ void copy_values(int turn, uint32_t target, int32_t slots,
                                                uint32_t full) {
        expect(full, Form::value_bytes);
        const int column = own.kv_head * Form::value_width;
        if constexpr (Form::rope_width > 0)
            return copy_expanded<Form::value_chunks>(target, maps.values, column, turn, full);
        const int32_t rest = any_end - own.first - turn * Form::places;
        if (rest >= Form::places || rest % a.box_rows == 0)
            return copy_boxes<Form::value_chunks>(target, maps.values, column, slots, full);
        const int boxes = Form::places / a.box_rows;
        for (int b = 0; b < boxes; ++b) {
            const int32_t slot = __shfl_sync(0xFFFFFFFFu, slots, b);
            const uint32_t box = target + b * a.box_rows * 128;
            const int32_t there = rest - b * a.box_rows;
            if (elect_lane()) {
#pragma unroll
                for (int c = 0; c < Form::value_chunks; ++c) {
                    if (there <= 0 || there >= a.box_rows) {
                        copy_box(box + c * Form::place_chunk, maps.values, column + 64 * c, slot,
                                 full);
                    } else {
                        for (int r = 0; r < a.box_rows; ++r)
                            copy_box(box + c * Form::place_chunk + r * 128, maps.value_rows,
                                     column + 64 * c, r < there && slot >= 0 ? slot + r : -1, full);
                    }
                }
            }
            __syncwarp();
        }
    }

    __device__ __forceinline__ void run() {
        const int32_t items = a.tiles * a.call.kv_heads * a.splits;
        ring<Form::stages> next;
        uint32_t parity = 1; // of query_empty
        for (int32_t item = static_cast<int32_t>(blockIdx.x); item < items;
             item = next_item(items)) {
            if (!find(item)) continue;
            int32_t slots = slot_of_box(own.turns - 1);
            for (int turn = own.turns - 1; turn >= 0; --turn) {
                const int32_t current = slots;
                if (turn > 0) slots = slot_of_box(turn - 1);
                wait_for_phase(shared_address(&at.key_empty[next.slot]), next.parity ^ 1);
                copy_keys(turn, keys + next.slot * Form::key_bytes, current,
                          shared_address(&at.key_full[next.slot]));
                // The first keys have room before the queries do.
                if (turn == own.turns - 1) {
                    give_tile(parity);
                    copy_queries(shared_address(&at.query_full));
                    parity ^= 1;
                }
                wait_for_phase(shared_address(&at.value_empty[next.slot]), next.parity ^ 1);
                copy_values(turn, values + next.slot * Form::value_bytes, current,
                            shared_address(&at.value_full[next.slot]));
                next.advance();
            }
        }
        own.turns = 0;
        give_tile(parity);
        if (lane == 0) arrive(shared_address(&at.query_full));
    }

    // Leaves the tile where those that multiply find it with its queries.
    __device__ __forceinline__ void give_tile(uint32_t parity) {
        wait_for_phase(shared_address(&at.query_empty), parity);
        if (lane == 0) shared = own;
        __syncwarp();
    }

    // A block's first item is that of its number; the others are taken as blocks come for them. The
    // last to come has got what no other will ask for.
    __device__ __forceinline__ int32_t next_item(int32_t items) {
        int32_t taken = 0;
        if (lane == 0) {
            taken = atomicAdd(a.counters, 1);
            if (taken == items - 1) *a.counters = 0;
        }
        return __shfl_sync(0xFFFFFFFFu, taken, 0) + static_cast<int32_t>(gridDim.x);
    }
};

// ---- A warpgroup that multiplies ----

template <typename Form, typename Half>
struct consumer {
    static constexpr int places = Form::places, value_width = Form::value_width;
    // Weights may exceed one by so many powers of two before all is scaled down, which is rare then
    // (Zadouri et al., FlashAttention-4).
    static constexpr float headroom = 8;

    const arguments& a;
    barriers<Form::stages>& at;
    const tile& shared;             // which the queries in shared memory are of
    uint32_t queries, keys, values; // in shared memory; queries: of this warpgroup
    int warpgroup, lane, warp;      // warp: of the warpgroup
    float factor;                   // makes powers of two of scores

    tile own;
    ring<Form::stages> key_at, value_at;
    place_range seen[2]; // of rows g and g + 8
    float maximum[2];    // that weights are relative to
    float sum[2];        // of the weights of the lane's own columns
    float correction[2];
    float score[places / 2];
    float o[value_width / 2];
    uint32_t weight[places / 4];

    __device__ __forceinline__ int row_of(int half) const {
        return warpgroup * 64 + warp * 16 + half * 8 + lane / 4;
    }

    __device__ __forceinline__ void release(uint64_t& barrier) {
        __syncwarp();
        if (lane == 0) arrive(shared_address(&barrier));
    }

    // With them the tile, which each lane has read for itself.
    __device__ __forceinline__ void release_queries() { arrive(shared_address(&at.query_empty)); }

    __device__ __forceinline__ void start_scores() {
        wait_for_phase(shared_address(&at.key_full[key_at.slot]), key_at.parity);
        const uint64_t q = tile_descriptor(queries);
        const uint64_t k = tile_descriptor(keys + key_at.slot * Form::key_bytes);
        fence_registers();
#pragma unroll
        for (int step = 0; step < Form::key_width / 16; ++step)
            warpgroup_product<places>::template add<Half>(
                score, q + step / 4 * (Form::query_chunk / 16) + step % 4 * 2,
                k + step / 4 * (Form::place_chunk / 16) + step % 4 * 2, step > 0);
        commit_products();
    }

    __device__ __forceinline__ void start_values(bool keeps) {
        wait_for_phase(shared_address(&at.value_full[value_at.slot]), value_at.parity);
        const uint64_t v =
            tile_descriptor_along_n(values + value_at.slot * Form::value_bytes, Form::place_chunk);
        fence_registers();
#pragma unroll
        for (int step = 0; step < places / 16; ++step)
            warpgroup_product<value_width>::template add<Half, true>(
                o, weight + 4 * step, v + step * (2048 / 16), step > 0 || keeps);
        commit_products();
    }

    __device__ __forceinline__ void end_scores() {
        pin_registers(score);
        release(at.key_empty[key_at.slot]);
        key_at.advance();
    }
    __device__ __forceinline__ void end_values() {
        pin_registers(o);
        release(at.value_empty[value_at.slot]);
        value_at.advance();
    }

    // Makes weights of the scores of turn `turn`, and says whether any o of the warp is to be
    // corrected.
    __device__ __forceinline__ bool weigh(int turn) {
        const int32_t first = own.first + turn * places;
        if (first < own.all_begin || first + places > own.all_end) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int from = first + lane % 4 * 2;
                const int begin = seen[half].begin - from, end = seen[half].end - from;
#pragma unroll
                for (int c = 0; c < places / 8; ++c)
#pragma unroll
                    for (int i = 0; i < 2; ++i)
                        if (8 * c + i < begin || 8 * c + i >= end)
                            score[4 * c + 2 * half + i] = -INFINITY;
            }
        }
        bool corrects = false;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float found = fmaxf(score[2 * half], score[2 * half + 1]);
#pragma unroll
            for (int c = 1; c < places / 8; ++c)
                found = fmaxf(found, fmaxf(score[4 * c + 2 * half], score[4 * c + 2 * half + 1]));
            found = maximum_in_group(found);
            // Decided by row, so that none depends on what its neighbours are. A row that has seen
            // no place yet has no maximum.
            const bool grows = (found - maximum[half]) * factor > headroom;
            correction[half] = grows ? power_of_2((maximum[half] - found) * factor) : 1.0f;
            maximum[half] = grows ? found : maximum[half];
            sum[half] *= correction[half];
            corrects = corrects || grows;
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float base = maximum[half] == -INFINITY ? 0.0f : maximum[half] * factor;
            float added[2] = {0, 0};
#pragma unroll
            for (int c = 0; c < places / 8; ++c)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float& value = score[4 * c + 2 * half + i];
                    value = power_of_2(value * factor - base);
                    added[i] += value;
                }
            sum[half] += added[0] + added[1];
        }
        return __any_sync(0xFFFFFFFFu, corrects);
    }

    __device__ __forceinline__ void correct() {
#pragma unroll
        for (int i = 0; i < value_width / 2; ++i) o[i] *= correction[i / 2 % 2];
    }

    // Accumulators are where operand A has its elements.
    __device__ __forceinline__ void pack_weights() {
#pragma unroll
        for (int i = 0; i < places / 4; ++i) weight[i] = pack<Half>(score[2 * i], score[2 * i + 1]);
        pin_registers(weight);
    }

    __device__ __forceinline__ void wait_turn() {
        if constexpr (Form::overlaps) wait_named(1 + warpgroup, 256);
    }
    __device__ __forceinline__ void give_turn() {
        if constexpr (Form::overlaps) arrive_named(1 + (warpgroup + 1) % Form::consumers, 256);
    }

    __device__ __forceinline__ void run_overlapped() {
        wait_turn();
        start_scores();
        give_turn();
        wait_products<0>();
        end_scores();
        if (own.turns == 1) release_queries();
        weigh(own.turns - 1);
        pack_weights();
        for (int turn = own.turns - 2; turn >= 0; --turn) {
            wait_turn();
            start_scores();
            start_values(turn < own.turns - 2);
            give_turn();
            wait_products<1>();
            end_scores();
            if (turn == 0) release_queries();
            const bool corrects = weigh(turn);
            wait_products<0>();
            end_values();
            if (corrects) correct();
            pack_weights();
        }
        start_values(own.turns > 1);
        wait_products<0>();
        end_values();
    }

    __device__ __forceinline__ void run_in_order() {
        for (int turn = own.turns - 1; turn >= 0; --turn) {
            start_scores();
            wait_products<0>();
            end_scores();
            if (turn == 0) release_queries();
            if (weigh(turn) && turn < own.turns - 1) correct();
            pack_weights();
            start_values(turn < own.turns - 1);
            wait_products<0>();
            end_values();
        }
    }

    // Leaves what the warp has got for the last of the tile's splits to come, and whether this is
    // the last, which has then added all up, in the splits' order. A lane finds what it left itself
    // where it is in another block: partial [units, warps, splits, value_width / 8 + 1, 32 lanes],
    // four floats each.
    __device__ __forceinline__ bool gathers_splits() {
        constexpr int vectors = value_width / 8, split_vectors = (vectors + 1) * 32;
        const int unit = own.unit * 4 * Form::consumers + warpgroup * 4 + warp;
        float4* parts = a.partial + static_cast<int64_t>(unit) * a.splits * split_vectors + lane;
        float4* mine = parts + own.split * split_vectors;
#pragma unroll
        for (int i = 0; i < vectors; ++i)
            __stcg(mine + 32 * i, float4{o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]});
        __stcg(mine + 32 * vectors, float4{maximum[0], maximum[1], sum[0], sum[1]});
        __threadfence();
        __syncwarp();
        int32_t done = 0;
        if (lane == 0) {
            int32_t* counter = a.counters + 1 + unit;
            done = atomicAdd(counter, 1);
            if (done == own.splits - 1) *counter = 0;
        }
        if (__shfl_sync(0xFFFFFFFFu, done, 0) < own.splits - 1) return false;
        __threadfence();
        maximum[0] = maximum[1] = -INFINITY;
        for (int split = 0; split < own.splits; ++split) {
            const float4 part = __ldcg(parts + split * split_vectors + 32 * vectors);
            maximum[0] = fmaxf(maximum[0], part.x);
            maximum[1] = fmaxf(maximum[1], part.y);
        }
        sum[0] = sum[1] = 0;
#pragma unroll
        for (int i = 0; i < value_width / 2; ++i) o[i] = 0;
        for (int split = 0; split < own.splits; ++split) {
            const float4* from = parts + split * split_vectors;
            const float4 part = __ldcg(from + 32 * vectors);
            const float scale[2] = {
                part.x == -INFINITY ? 0.0f : power_of_2((part.x - maximum[0]) * factor),
                part.y == -INFINITY ? 0.0f : power_of_2((part.y - maximum[1]) * factor)};
            sum[0] += scale[0] * part.z;
            sum[1] += scale[1] * part.w;
#pragma unroll
            for (int i = 0; i < vectors; ++i) {
                const float4 values = __ldcg(from + 32 * i);
                o[4 * i] += scale[0] * values.x;
                o[4 * i + 1] += scale[0] * values.y;
                o[4 * i + 2] += scale[1] * values.z;
                o[4 * i + 3] += scale[1] * values.w;
            }
        }
        return true;
    }

    __device__ __forceinline__ void store() {
        const attention_call& call = a.call;
        const int group = call.heads / call.kv_heads;
        const int row_count = (own.rows.end - own.rows.begin) * group;
        const bool is_float = call.o_type == SLUICE_F32;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = row_of(half);
            const int head = own.kv_head * group + row % group;
            float whole = sum_in_group(sum[half]), scale = 1;
            if (call.sinks != nullptr && whole > 0) {
                const float sink =
                    log2_e * load_as_float(call.sinks, call.sinks_type, min(head, call.heads - 1));
                const float now = fmaxf(maximum[half] * factor, sink);
                scale = power_of_2(maximum[half] * factor - now);
                whole = whole * scale + power_of_2(sink - now);
            }
            scale = whole > 0 ? scale / whole : 0.0f;
            const int64_t to =
                ((own.rows.begin + row / group) * static_cast<int64_t>(call.heads) + head)
                * value_width;
            if (is_float) {
                if (row >= row_count) continue;
                float* out = static_cast<float*>(call.o) + to + lane % 4 * 2;
#pragma unroll
                for (int c = 0; c < value_width / 8; ++c)
                    *reinterpret_cast<float2*>(out + 8 * c) =
                        float2{o[4 * c + 2 * half] * scale, o[4 * c + 2 * half + 1] * scale};
                continue;
            }
            Half* out = static_cast<Half*>(call.o) + to + lane % 4 * 8;
#pragma unroll
            for (int c = 0; c < value_width / 8; c += 4) {
                uint32_t word[4];
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    word[i] = pack<Half>(o[4 * (c + i) + 2 * half] * scale,
                                         o[4 * (c + i) + 2 * half + 1] * scale);
                const uint4 vector = gather_vector(word, lane);
                if (row < row_count) *reinterpret_cast<uint4*>(out + 8 * c) = vector;
            }
        }
    }

    __device__ __forceinline__ void run() {
        const attended_rows& rows = a.call.rows;
        const int group = a.call.heads / a.call.kv_heads;
        if (warpgroup == Form::consumers - 1) give_turn();
        for (uint32_t parity = 0;; parity ^= 1) {
            wait_for_phase(shared_address(&at.query_full), parity);
            own = shared;
            if (own.turns == 0) return;
            const int32_t length = __ldg(rows.kv_length + own.rows.sequence);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int32_t row = min(own.rows.begin + row_of(half) / group, own.rows.end - 1);
                seen[half] = places_of(rows, __ldg(rows.position + row), length);
                maximum[half] = -INFINITY;
                sum[half] = 0;
            }
            if constexpr (Form::overlaps)
                run_overlapped();
            else
                run_in_order();
            if (own.splits == 1 || gathers_splits()) store();
        }
    }
};

#endif

template <typename Form, typename Half>
__global__ void __launch_bounds__(Form::threads, 1)
    attention_kernel(const __grid_constant__ arguments a,
                     const __grid_constant__ tensor_maps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char attention_room[];
    __shared__ barriers<Form::stages> at;
    __shared__ tile shared;
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) {
        constexpr int warps = 4 * Form::consumers;
        start_barrier(shared_address(&at.query_full), 1);
        start_barrier(shared_address(&at.query_empty), 32 * warps);
        for (int i = 0; i < Form::stages; ++i) {
            start_barrier(shared_address(&at.key_full[i]), 1);
            start_barrier(shared_address(&at.key_empty[i]), warps);
            start_barrier(shared_address(&at.value_full[i]), 1);
            start_barrier(shared_address(&at.value_empty[i]), warps);
        }
        fence_started_barriers();
    }
    __syncthreads();
    const uint32_t queries = (shared_address(attention_room) + 1023) / 1024 * 1024;
    const uint32_t keys = queries + Form::query_bytes;
    const uint32_t values = keys + Form::stages * Form::key_bytes;
    // As what the compiler knows to be the same in a warp.
    const int warp = __shfl_sync(0xFFFFFFFFu, thread / 32, 0);
    if (warp < 4) {
        give_registers<Form::producer_registers>();
        if (warp == 0) {
            producer<Form> own{a, maps, at, shared, queries, keys, values, thread};
            own.run();
        }
    } else {
        take_registers<Form::consumer_registers>();
        // Rows of padding become zeros.
        const attended_rows& rows = a.call.rows;
        const int width = a.call.heads * Form::value_width;
        for (int32_t row =
                 __ldg(rows.query_start + rows.sequences) + static_cast<int32_t>(blockIdx.x);
             row < rows.rows; row += static_cast<int32_t>(gridDim.x))
            for (int i = thread - 128; i < width; i += Form::threads - 128)
                store_from_float(a.call.o, a.call.o_type, static_cast<int64_t>(row) * width + i,
                                 0.0f);
        const int warpgroup = warp / 4 - 1;
        consumer<Form, Half> own{
            a,         at,          shared,   queries + warpgroup * 8192, keys, values,
            warpgroup, thread % 32, warp % 4, a.call.scale * log2_e};
        own.run();
    }
#endif
}

// What keys and values are in with rope_width.
struct expanded_source {
    const void* rope_queries = nullptr;      // [rows, heads, rope_width]
    const void* rope_keys = nullptr;         // [slots, rope_width]
    const int32_t* expanded_begin = nullptr; // see arguments
};

// Fills the maps of a call; `places` and `rope_width` are of the form.
bool encode_maps(const arguments& a, const expanded_source& expanded, int places, int rope_width,
                 tensor_maps& maps);

template <typename Form>
attention_prefill_plan plan_form(const attended_rows& rows, int32_t heads, int32_t kv_heads,
                                 int64_t context_max, int multiprocessor_count) {
    attention_prefill_plan plan;
    const int64_t units =
        int64_t{kv_heads}
        * tiles_at_most(rows.rows, rows.sequences, Form::rows / (heads / kv_heads));
    const int64_t turns = (context_max + Form::places - 1) / Form::places;
    const int64_t splits = std::min({multiprocessor_count / std::max<int64_t>(units, 1),
                                     turns / split_turns_min, int64_t{splits_max}});
    if (splits < 2) return plan;
    plan.splits = static_cast<int32_t>(splits);
    const auto warps = static_cast<uint64_t>(units) * 4 * Form::consumers;
    plan.partial_floats =
        warps * static_cast<uint64_t>(splits) * (Form::value_width / 8 + 1) * 32 * 4;
    plan.counters += warps;
    return plan;
}

template <typename Form, typename Half>
void launch_form(const attention_call& call, int32_t decode_rows,
                 const attention_prefill_plan& plan, float* partial, int32_t* counters,
                 int multiprocessor_count, cudaStream_t stream,
                 const expanded_source& expanded = {}) {
    arguments a{call,
                decode_rows,
                0,
                0,
                0,
                plan.splits,
                reinterpret_cast<float4*>(partial),
                counters,
                expanded.expanded_begin};
    a.tile_tokens = Form::rows / (call.heads / call.kv_heads);
    a.tiles = tiles_at_most(call.rows.rows, call.rows.sequences, a.tile_tokens);
    a.box_rows = std::gcd(call.rows.tokens_per_block, Form::places);
    tensor_maps maps{};
    if (!encode_maps(a, expanded, Form::places, Form::rope_width, maps))
        fail_with(cudaErrorNotSupported, "describing tensors to copy");
    const auto kernel = attention_kernel<Form, Half>;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               Form::shared_bytes),
          "preparing attention of many rows");
    const int blocks = std::min(multiprocessor_count, a.tiles * call.kv_heads * a.splits);
    kernel<<<static_cast<unsigned>(blocks), Form::threads, Form::shared_bytes, stream>>>(a, maps);
    check(cudaGetLastError(), "launching attention of many rows");
}

} // namespace sluice::cuda::prefill
