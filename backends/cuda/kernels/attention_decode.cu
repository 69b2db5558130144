// Attention of single rows by the matrix units, with a row's places cut into splits that run side
// by side (flash decoding; Dao, Haziza, Massa and Sizov 2023).
//
// A block has the query heads of one kv head, so that keys and values are read once for all of
// them. Each warp takes 16 places at a time, straight from the cache to registers, 16 bytes a lane:
//   scores [16 places, 8 heads] = K Q^T, and o [width, 8 heads] += V^T P^T.
// The order of a key's elements does not matter to the products as long as the query's is the same,
// so that fragments are taken as the loads bring them: for 32 elements, from 32 c on, lane (g, t)
// holds elements 8 t to 8 t + 7 of place g and of place g + 8 as words x, y, z, w each; x and y are
// one step of 16 elements, z and w the next. Values need their transposes: word i of the lanes is
// an 8 x 8 matrix [place, column], column k being element 32 c + 8 (k / 2) + 2 i + k % 2.
#include "attention.cuh"
#include "attention_matrix.cuh"
#include "launch.cuh"
#include "turn_heads.cuh"

#include "../errors.hpp"

#include <algorithm>

namespace sluice::cuda {

namespace {

constexpr int warps = 4;
constexpr int decode_threads = warps * 32;
constexpr int warp_places = 16;                   // a warp's step
constexpr int block_places = warps * warp_places; // a block's
constexpr int split_places_min = 2 * block_places;
constexpr int splits_max = 96;

struct decode_arguments {
    attention_call call;
    attention_decode_plan plan;
    qk_norm_rope_write_call input; // where the kernel takes it
    float* partial;
    int32_t* counters;
};

template <int width, int head_tiles>
struct decode_room {
    static constexpr int heads = 8 * head_tiles;
    static constexpr int pitch = width + 1; // so that the lanes' writes meet no bank twice

    float o[warps][heads * pitch];
    float maximum[warps][heads];
    float sum[warps][heads];
    // Of all warps:
    float block_maximum[heads];
    float block_sum[heads];
    bool is_last;
};

// Waits for the grids before; then queries of a block's heads to shared memory, [heads, width],
// normed and turned, and where `writes` the row's key and value of the kv head to their slot. All
// threads of the block.
template <typename Element, int width>
__device__ __forceinline__ void take_input(const qk_norm_rope_write_call& input, int row,
                                           int first_head, int heads, int kv_head, bool writes,
                                           Element* queries) {
    constexpr int head_lanes = width / 16, heads_at_once = 32 / head_lanes, half = width / 2;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int own = lane / head_lanes, pair = lane % head_lanes * 8;
    const int64_t slot = input.slot[row];
    writes = writes && slot >= 0 && slot < input.slots;
    float cosine[8], sine[8];
    load_turn(input.rope, input.position[row], pair, cosine, sine);
    wait_for_grids_before();
    // Groups of queries, then one of the key.
    const int groups = (heads + heads_at_once - 1) / heads_at_once;
    for (int group = warp; group <= groups; group += warps) {
        const bool is_query = group < groups;
        const int head = group * heads_at_once + own;
        const bool is_there = is_query ? head < heads : writes && own == 0;
        const head_source& source = is_query ? input.q : input.k;
        const head_norm& norm = is_query ? input.q_norm : input.k_norm;
        head_halves halves{make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)};
        if (is_there) {
            const auto* from = static_cast<const Element*>(source.data) + row * source.stride
                               + (is_query ? first_head + head : kv_head) * width + pair;
            halves.low = load_own(from);
            halves.high = load_own(from + half);
        }
        float u[8], v[8];
        turn_head(norm, source.type, halves, width, pair, cosine, sine, u, v);
        if (!is_there) continue;
        void* to = is_query ? queries : input.key_cache;
        const int64_t at = (is_query ? head : slot * input.kv_heads + kv_head) * width + pair;
        store_floats(to, source.type, at, u);
        store_floats(to, source.type, at + half, v);
    }
    if (!writes) return;
    const auto* value =
        static_cast<const Element*>(input.v.data) + row * input.v.stride + kv_head * width;
    auto* cached =
        static_cast<Element*>(input.value_cache) + (slot * input.kv_heads + kv_head) * width;
    for (int d = static_cast<int>(threadIdx.x) * 8; d < width; d += decode_threads * 8)
        *reinterpret_cast<uint4*>(cached + d) = *reinterpret_cast<const uint4*>(value + d);
}

// Grid: splits, head chunks, rows.
template <typename Element, int width, int head_tiles, bool takes_input>
__global__ void __launch_bounds__(decode_threads)
    attention_decode_kernel(const __grid_constant__ decode_arguments a) {
    using room_type = decode_room<width, head_tiles>;
    constexpr int chunks = width / 32; // of a vector
    constexpr int heads_max = 8 * head_tiles;
    extern __shared__ __align__(16) unsigned char attention_decode_room[];
    room_type& room = *reinterpret_cast<room_type*>(attention_decode_room);

    const attention_call& call = a.call;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int g = lane / 4, t = lane % 4;
    const int group = call.heads / call.kv_heads;
    const int chunks_per_kv_head = (group + heads_max - 1) / heads_max;
    const int kv_head = static_cast<int>(blockIdx.y) / chunks_per_kv_head;
    const int head_in_group = static_cast<int>(blockIdx.y) % chunks_per_kv_head * heads_max;
    const int heads = min(heads_max, group - head_in_group);
    start_next_grid();
    // Up to the wait only the inputs of the step are read, and with `takes_input` what earlier
    // steps left in the cache.
    const auto [row, sequence] =
        decoding_row(call.rows, static_cast<int32_t>(blockIdx.z), a.plan.takes_all_rows);
    const int64_t first_head =
        static_cast<int64_t>(row) * call.heads + kv_head * group + head_in_group; // of all rows
    const auto clear = [&] {
        if (blockIdx.x != 0) return;
        for (int i = thread; i < heads * width; i += decode_threads)
            store_from_float(call.o, call.o_type, first_head * width + i, 0.0f);
    };
    if (sequence < 0) {
        wait_for_grids_before();
        if (a.plan.takes_all_rows) clear(); // else launch_attention_prefill clears the padding
        return;
    }

    const place_range places = places_of(call.rows, __ldg(call.rows.position + row),
                                         __ldg(call.rows.kv_length + sequence));
    const int count = places.end - places.begin;
    const int splits_there = static_cast<int>(gridDim.x);
    const int split_places =
        places_of_split(max(count, 1), splits_there, block_places, split_places_min);
    const int splits = (count + split_places - 1) / split_places; // with work
    const int split = static_cast<int>(blockIdx.x);
    if (split >= splits) {
        wait_for_grids_before();
        if (count <= 0) clear();
        return;
    }
    const int begin = places.begin + split * split_places;
    const int end = min(begin + split_places, places.end);

    const int32_t* table =
        call.rows.block_table + static_cast<int64_t>(sequence) * call.rows.block_columns;
    const auto* keys = static_cast<const Element*>(call.keys) + kv_head * width + 8 * t;
    const auto* values = static_cast<const Element*>(call.values) + kv_head * width + 8 * t;
    const int64_t slot_stride = static_cast<int64_t>(call.kv_heads) * width;

    // Places past the end read the last one, and get no weight.
    const auto slot_at = [&](int place) { return slot_of(call.rows, table, min(place, end - 1)); };
    // Those of a step's places that lie in slot `own`, or all others; -1: all.
    const auto load_part = [&](uint4(&to)[2][chunks], const Element* from, const int(&slot)[2],
                               int own, bool wants_own) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int c = 0; c < chunks; ++c) {
                if (slot[half] < 0 || (slot[half] == own) != wants_own) continue;
                const Element* place = from + slot[half] * slot_stride + 32 * c;
                to[half][c] = takes_input ? load_own(place) : load_streamed(place);
            }
    };
    const auto load = [&](uint4(&to)[2][chunks], const Element* from, const int(&slot)[2]) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int c = 0; c < chunks; ++c) to[half][c] = uint4{0, 0, 0, 0};
        load_part(to, from, slot, -1, false);
    };

    int first = begin + warp * warp_places;
    uint4 key[2][chunks] = {}, value[2][chunks] = {};
    int slot[2] = {-1, -1}, slot_next[2] = {-1, -1};
    if (first < end) {
        slot[0] = slot_at(first + g);
        slot[1] = slot_at(first + g + 8);
        slot_next[0] = slot_at(first + block_places + g);
        slot_next[1] = slot_at(first + block_places + g + 8);
    }
    int own_slot = -1;
    if constexpr (takes_input) {
        own_slot = __ldg(a.input.slot + row);
        load_part(key, keys, slot, own_slot, false);
        load_part(value, values, slot, own_slot, false);
    }

    const auto* queries = static_cast<const Element*>(call.q) + first_head * width;
    if constexpr (takes_input) {
        static_assert(sizeof(room.o) >= heads_max * width * sizeof(Element));
        auto* staged = reinterpret_cast<Element*>(&room.o);
        take_input<Element, width>(a.input, row, kv_head * group + head_in_group, heads, kv_head,
                                   end == places.end, staged);
        __syncthreads();
        queries = staged;
        if (own_slot >= 0) {
            load_part(key, keys, slot, own_slot, true);
            load_part(value, values, slot, own_slot, true);
        }
    } else {
        wait_for_grids_before();
        load_part(key, keys, slot, own_slot, false);
        load_part(value, values, slot, own_slot, false);
    }

    // Queries as B: column g of head tile n is head 8 n + g.
    uint4 q[head_tiles][chunks];
#pragma unroll
    for (int n = 0; n < head_tiles; ++n) {
        const int head = 8 * n + g;
        const auto* from = queries + min(head, heads - 1) * width + 8 * t;
#pragma unroll
        for (int c = 0; c < chunks; ++c) {
            q[n][c] = *reinterpret_cast<const uint4*>(from + 32 * c);
            if (head >= heads) q[n][c] = uint4{0, 0, 0, 0};
        }
    }
    if constexpr (takes_input) __syncthreads(); // the sums of warps will lie where queries did

    float maximum[head_tiles][2], sum[head_tiles][2]; // of heads 2 t and 2 t + 1; sum: own places
    float o[head_tiles][chunks][2][4] = {};
#pragma unroll
    for (int n = 0; n < head_tiles; ++n) {
        maximum[n][0] = maximum[n][1] = -INFINITY;
        sum[n][0] = sum[n][1] = 0;
    }

    for (; first < end; first += block_places) {
        const bool has_next = first + block_places < end;
        float score[head_tiles][4] = {};
#pragma unroll
        for (int c = 0; c < chunks; ++c)
#pragma unroll
            for (int n = 0; n < head_tiles; ++n) {
                multiply_add<Element>(score[n], key[0][c].x, key[1][c].x, key[0][c].y, key[1][c].y,
                                      q[n][c].x, q[n][c].y);
                multiply_add<Element>(score[n], key[0][c].z, key[1][c].z, key[0][c].w, key[1][c].w,
                                      q[n][c].z, q[n][c].w);
            }
        slot[0] = slot_next[0];
        slot[1] = slot_next[1];
        if (has_next) load(key, keys, slot);
        slot_next[0] = slot_at(first + 2 * block_places + g);
        slot_next[1] = slot_at(first + 2 * block_places + g + 8);

        const bool is_there[2] = {first + g < end, first + g + 8 < end};
        uint32_t weights[head_tiles][2]; // P^T as B
#pragma unroll
        for (int n = 0; n < head_tiles; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                score[n][i] = is_there[i / 2]
                                  ? score_of(score[n][i], call.scale, call.softcap) * log2_e
                                  : -INFINITY;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float found = fmaxf(score[n][i], score[n][i + 2]);
                // Finite, for the first of the warp's places is there.
                const float now = fmaxf(maximum[n][i], maximum_over_groups(found));
                const float correction = power_of_2(maximum[n][i] - now);
                maximum[n][i] = now;
                score[n][i] = power_of_2(score[n][i] - now);
                score[n][i + 2] = power_of_2(score[n][i + 2] - now);
                sum[n][i] = sum[n][i] * correction + score[n][i] + score[n][i + 2];
#pragma unroll
                for (int c = 0; c < chunks; ++c)
#pragma unroll
                    for (int j = 0; j < 2; ++j) {
                        o[n][c][j][i] *= correction;
                        o[n][c][j][i + 2] *= correction;
                    }
            }
            weights[n][0] = transposed(pack<Element>(score[n][0], score[n][1]));
            weights[n][1] = transposed(pack<Element>(score[n][2], score[n][3]));
        }
#pragma unroll
        for (int c = 0; c < chunks; ++c)
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const uint32_t a0 = transposed(words(value[0][c])[2 * j]);
                const uint32_t a1 = transposed(words(value[0][c])[2 * j + 1]);
                const uint32_t a2 = transposed(words(value[1][c])[2 * j]);
                const uint32_t a3 = transposed(words(value[1][c])[2 * j + 1]);
#pragma unroll
                for (int n = 0; n < head_tiles; ++n)
                    multiply_add<Element>(o[n][c][j], a0, a1, a2, a3, weights[n][0], weights[n][1]);
            }
        if (has_next) load(value, values, slot);
    }

    // The warps' parts become one.
#pragma unroll
    for (int n = 0; n < head_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float whole = sum_over_groups(sum[n][i]);
            if (g == 0) {
                room.maximum[warp][8 * n + 2 * t + i] = maximum[n][i];
                room.sum[warp][8 * n + 2 * t + i] = whole;
            }
        }
    __syncthreads();
    if (thread < heads_max) {
        float block_maximum = room.maximum[0][thread], block_sum = 0;
        for (int w = 1; w < warps; ++w)
            block_maximum = fmaxf(block_maximum, room.maximum[w][thread]);
        for (int w = 0; w < warps; ++w)
            block_sum += room.sum[w][thread] * power_of_2(room.maximum[w][thread] - block_maximum);
        room.block_maximum[thread] = block_maximum;
        room.block_sum[thread] = block_sum;
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < head_tiles; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int head = 8 * n + 2 * t + i;
            const float correction = power_of_2(maximum[n][i] - room.block_maximum[head]);
#pragma unroll
            for (int c = 0; c < chunks; ++c)
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    float* to = room.o[warp] + head * room_type::pitch + 32 * c + 8 * (g / 2)
                                + 4 * j + g % 2;
                    to[0] = o[n][c][j][i] * correction;
                    to[2] = o[n][c][j][i + 2] * correction;
                }
        }
    __syncthreads();

    // The first of the row's sinks, as a power of two like the scores.
    __shared__ float sinks[heads_max];
    const bool has_sinks = call.sinks != nullptr;
    if (has_sinks) {
        if (thread < heads)
            sinks[thread] = log2_e
                            * load_as_float(call.sinks, call.sinks_type,
                                            kv_head * group + head_in_group + thread);
        __syncthreads();
    }
    const auto whole_of = [&](int head, int d) {
        float whole = 0;
        for (int w = 0; w < warps; ++w) whole += room.o[w][head * room_type::pitch + d];
        return whole;
    };
    if (splits == 1) {
        for (int i = thread; i < heads * width; i += decode_threads) {
            const int head = i / width, d = i % width;
            float scale = 1, sum_of_head = room.block_sum[head];
            if (has_sinks) {
                const float now = fmaxf(room.block_maximum[head], sinks[head]);
                scale = power_of_2(room.block_maximum[head] - now);
                sum_of_head = sum_of_head * scale + power_of_2(sinks[head] - now);
            }
            store_from_float(call.o, call.o_type, first_head * width + i,
                             whole_of(head, d) * scale / sum_of_head);
        }
        return;
    }
    constexpr int size = split_floats<heads_max, width>;
    const int64_t unit = static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y;
    float* partials = a.partial + unit * splits_there * size;
    float* partial = partials + static_cast<int64_t>(split) * size;
    for (int i = thread; i < heads * width; i += decode_threads)
        partial[i] = whole_of(i / width, i % width);
    if (thread < heads) {
        partial[heads_max * width + thread] = room.block_maximum[thread];
        partial[heads_max * (width + 1) + thread] = room.block_sum[thread];
    }
    if (!is_last_split(a.counters + unit, splits, room.is_last)) return;
    combine_splits<heads_max, width>(
        partials, splits, heads, decode_threads, has_sinks ? sinks : nullptr,
        [&](int head, int d, float value) {
            store_from_float(call.o, call.o_type, (first_head + head) * width + d, value);
        });
}

// Head tiles of a block: two where a group fills more than one and the registers allow it.
int head_tiles_of(const attention_call& call) {
    return call.heads / call.kv_heads > 8 && call.key_width <= 128 ? 2 : 1;
}

template <typename Element, int width, int head_tiles>
void launch(const decode_arguments& a, cudaStream_t stream) {
    auto* kernel = attention_decode_kernel<Element, width, head_tiles, false>;
    if constexpr (width == 64 || width == 128 || width == 256)
        if (a.input.rows > 0) kernel = attention_decode_kernel<Element, width, head_tiles, true>;
    constexpr int shared = sizeof(decode_room<width, head_tiles>);
    const dim3 grid(static_cast<unsigned>(a.plan.splits), static_cast<unsigned>(a.plan.head_chunks),
                    static_cast<unsigned>(a.plan.rows));
    launch_grid(kernel, grid, decode_threads, shared, stream, a.call.programmatic, a);
    check(cudaGetLastError(), "launching attention of single rows");
}

template <typename Element>
void launch_for(const decode_arguments& a, cudaStream_t stream) {
    const bool has_two = head_tiles_of(a.call) == 2;
    switch (a.call.key_width) {
    case 32:
        return has_two ? launch<Element, 32, 2>(a, stream) : launch<Element, 32, 1>(a, stream);
    case 64:
        return has_two ? launch<Element, 64, 2>(a, stream) : launch<Element, 64, 1>(a, stream);
    case 96:
        return has_two ? launch<Element, 96, 2>(a, stream) : launch<Element, 96, 1>(a, stream);
    case 128:
        return has_two ? launch<Element, 128, 2>(a, stream) : launch<Element, 128, 1>(a, stream);
    default:
        return launch<Element, 256, 1>(a, stream);
    }
}

} // namespace

bool fits_attention_matrix(const attention_call& call) {
    const bool has_type = call.q_type == SLUICE_BF16 || call.q_type == SLUICE_F16;
    const bool has_width = call.key_width == 32 || call.key_width == 64 || call.key_width == 96
                           || call.key_width == 128 || call.key_width == 256;
    return has_type && has_width && call.scale > 0 && call.heads / call.kv_heads <= 64
           && call.key_type == call.q_type && call.value_type == call.q_type
           && (call.o_type == call.q_type || call.o_type == SLUICE_F32)
           && call.value_width == call.key_width && is_aligned(call.o) && is_aligned(call.q)
           && is_aligned(call.keys) && is_aligned(call.values);
}

attention_decode_plan plan_attention_decode(const attention_call& call, int64_t context_max,
                                            int multiprocessor_count) {
    attention_decode_plan plan;
    // A bucket of no more rows than sequences may hold sequences of several rows, a few.
    plan.takes_all_rows = call.rows.rows <= call.rows.sequences;
    plan.rows = std::min(call.rows.rows, call.rows.sequences);
    const int heads_max = 8 * head_tiles_of(call);
    const int group = call.heads / call.kv_heads;
    plan.head_chunks = call.kv_heads * ((group + heads_max - 1) / heads_max);
    const int64_t units = std::max<int64_t>(int64_t{plan.rows} * plan.head_chunks, 1);
    if (context_max > 0 && call.rows.window > 0)
        context_max = std::min<int64_t>(context_max, call.rows.window);
    const int64_t wanted = (2 * int64_t{multiprocessor_count} + units - 1) / units;
    const int64_t useful = (context_max + split_places_min - 1) / split_places_min;
    plan.splits =
        static_cast<int32_t>(std::clamp<int64_t>(std::min(wanted, useful), 1, splits_max));
    if (plan.splits > 1) {
        plan.partial_floats = static_cast<uint64_t>(units) * static_cast<uint64_t>(plan.splits)
                              * static_cast<uint64_t>(heads_max * (call.key_width + 2));
        plan.counters = static_cast<uint64_t>(units);
    }
    return plan;
}

bool fits_attention_input(const attention_call& call, const qk_norm_rope_write_call& input) {
    return call.rows.rows == 1 && fits_attention_matrix(call) && turns_whole_heads(input)
           && input.rows == 1 && input.width == call.key_width
           && input.value_width == call.value_width && input.query_heads == call.heads
           && input.kv_heads == call.kv_heads && input.q.type == call.q_type
           && input.k.type == call.q_type && input.v.type == call.q_type
           && input.q_out_type == call.q_type && input.key_type == call.q_type
           && input.value_type == call.q_type;
}

void launch_attention_decode(const attention_call& call, const attention_decode_plan& plan,
                             float* partial, int32_t* counters, cudaStream_t stream) {
    launch_attention_decode_input(call, plan, {}, partial, counters, stream);
}

void launch_attention_decode_input(const attention_call& call, const attention_decode_plan& plan,
                                   const qk_norm_rope_write_call& input, float* partial,
                                   int32_t* counters, cudaStream_t stream) {
    if (plan.rows == 0) return;
    const decode_arguments arguments{call, plan, input, partial, counters};
    if (call.q_type == SLUICE_BF16)
        launch_for<__nv_bfloat16>(arguments, stream);
    else
        launch_for<__half>(arguments, stream);
}

} // namespace sluice::cuda
