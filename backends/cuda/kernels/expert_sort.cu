#include "expert_sort.hpp"

#include "launch.cuh"
#include "shape.cuh"

namespace sluice::cuda {

namespace {

constexpr int warp_count = 8;
constexpr unsigned all_lanes = 0xffffffffu;

// Choices of the rows that are present.
__device__ __forceinline__ int choices_present(const expert_sort_call& call) {
    if (call.present == nullptr) return call.total;
    const int64_t choices = size_of(call.rows_present, call.present) * call.choice_count;
    return static_cast<int>(min(int64_t{call.total}, choices));
}

// The local expert that the index of a choice names; expert_count where there is none here.
__device__ __forceinline__ int expert_named(const expert_sort_call& call, int expert, int choice,
                                            int choices) {
    if (choice >= choices) return call.expert_count;
    if (call.map != nullptr && expert >= 0) expert = expert < call.map_size ? call.map[expert] : -1;
    return expert >= 0 && expert < call.expert_count ? expert : call.expert_count;
}
__device__ __forceinline__ int expert_of(const expert_sort_call& call, int choice, int choices) {
    return expert_named(call, call.index[choice], choice, choices);
}

__device__ __forceinline__ void place_choice(const expert_sort_call& call, int choice, int place,
                                             bool has_expert) {
    call.place[choice] = has_expert ? place : -1;
    call.row[place] = has_expert ? choice / call.choice_count : -1;
    if (call.choice != nullptr) call.choice[place] = has_expert ? choice : -1;
    if (call.sorted_weight != nullptr)
        call.sorted_weight[place] = has_expert ? call.weight[choice] : 0.0f;
}

// One block an expert, and one more for the choices without an expert. A block needs nothing of the
// others: the first place of expert e is the number of choices of lower experts. Each warp counts
// and then places one run of neighbouring choices, which keeps their order.
__global__ void __launch_bounds__(warp_count * 32) expert_sort_kernel(expert_sort_call call) {
    __shared__ int lower[warp_count], own[warp_count];
    const int expert = blockIdx.x;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int run = ((call.total + warp_count - 1) / warp_count + 31) / 32 * 32;
    const int begin = min(warp * run, call.total), end = min(begin + run, call.total);
    const int choices = choices_present(call);

    int lower_count = 0, own_count = 0;
    for (int c = begin + lane; c < end; c += 32) {
        const int e = expert_of(call, c, choices);
        lower_count += e < expert;
        own_count += e == expert;
    }
    lower_count = __reduce_add_sync(all_lanes, lower_count);
    own_count = __reduce_add_sync(all_lanes, own_count);
    if (lane == 0) {
        lower[warp] = lower_count;
        own[warp] = own_count;
    }
    __syncthreads();
    int first = 0, at = 0;
    for (int w = 0; w < warp_count; ++w) {
        first += lower[w];
        if (w < warp) at += own[w];
    }
    at += first;
    if (threadIdx.x == 0) call.offset[expert] = first;

    const bool has_none = expert == call.expert_count;
    for (int c_first = begin; c_first < end; c_first += 32) {
        const int c = c_first + lane;
        const bool is_own = c < end && expert_of(call, c, choices) == expert;
        const unsigned owners = __ballot_sync(all_lanes, is_own);
        if (is_own) place_choice(call, c, at + __popc(owners & ((1u << lane) - 1u)), !has_none);
        at += __popc(owners);
    }
}

// For up to chunk_experts_max experts: one block a chunk of neighbouring choices, each of its
// threads one of them. A block needs nothing of the others: it counts all choices itself, those of
// the chunks before its own apart. Within the chunk order comes from the numbers of warps and
// lanes.
constexpr int chunk = 1024;
constexpr int chunk_warps = chunk / 32;
constexpr int chunk_experts_max = 512;

size_t chunk_bytes(int experts) {
    return static_cast<size_t>(experts + 1) * (2 * sizeof(int) + chunk_warps * sizeof(uint16_t));
}

__global__ void __launch_bounds__(chunk)
    chunk_sort_kernel(const __grid_constant__ expert_sort_call call) {
    extern __shared__ int chunk_shared[];
    __shared__ int warp_sum[chunk_warps];
    const int slots = call.expert_count + 1; // the last is that of choices without an expert
    int* before = chunk_shared;              // [slots]: choices of the chunks before
    int* others = before + slots;            // [slots]: the other choices
    auto* of_warp = reinterpret_cast<uint16_t*>(others + slots); // [warps, slots]
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const int chunk_begin = static_cast<int>(blockIdx.x) * chunk;
    const int choices = choices_present(call);

    for (int i = thread; i < 2 * slots; i += chunk) chunk_shared[i] = 0;
    for (int i = thread; i < chunk_warps * slots; i += chunk) of_warp[i] = 0;
    __syncthreads();

    // Four choices at a time, four such loads on the way: chunks are multiples of four.
    constexpr int at_once = 4;
    const int whole = call.total / 4;
    for (int first = 0; first < whole; first += at_once * chunk) {
        int4 index[at_once];
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            const int at = first + i * chunk + thread;
            if (at < whole) index[i] = reinterpret_cast<const int4*>(call.index)[at];
        }
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            const int at = first + i * chunk + thread;
            if (at >= whole) continue;
            int* counts = at * 4 < chunk_begin ? before : others;
            atomicAdd(&counts[expert_named(call, index[i].x, at * 4, choices)], 1);
            atomicAdd(&counts[expert_named(call, index[i].y, at * 4 + 1, choices)], 1);
            atomicAdd(&counts[expert_named(call, index[i].z, at * 4 + 2, choices)], 1);
            atomicAdd(&counts[expert_named(call, index[i].w, at * 4 + 3, choices)], 1);
        }
    }
    // What is left over is in the last chunk, of which nothing is before any.
    if (thread < call.total - whole * 4)
        atomicAdd(&others[expert_of(call, whole * 4 + thread, choices)], 1);

    // The rank of the own choice among those of the warp for the same expert.
    const int choice = chunk_begin + thread;
    const bool is_there = choice < call.total;
    const int expert = is_there ? expert_of(call, choice, choices) : slots;
    const unsigned alike = __match_any_sync(all_lanes, expert);
    const int rank = __popc(alike & ((1u << lane) - 1u));
    if (is_there && rank == 0)
        of_warp[warp * slots + expert] = static_cast<uint16_t>(__popc(alike));
    __syncthreads();

    // First places of experts: a running sum over all of them, one a thread.
    const int own = thread < slots ? before[thread] + others[thread] : 0;
    int sum = own;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const int lower = __shfl_up_sync(all_lanes, sum, distance);
        if (lane >= distance) sum += lower;
    }
    if (lane == 31) warp_sum[warp] = sum;
    __syncthreads();
    int first_place = sum - own;
    for (int w = 0; w < warp; ++w) first_place += warp_sum[w];
    if (thread < slots) {
        if (blockIdx.x == 0) call.offset[thread] = first_place;
        before[thread] += first_place; // the first place of the chunk's choices
        int of_chunk = 0;
#pragma unroll 8
        for (int w = 0; w < chunk_warps; ++w) {
            const int count = of_warp[w * slots + thread];
            of_warp[w * slots + thread] = static_cast<uint16_t>(of_chunk);
            of_chunk += count;
        }
    }
    __syncthreads();

    if (!is_there) return;
    place_choice(call, choice, before[expert] + of_warp[warp * slots + expert] + rank,
                 expert != call.expert_count);
}

} // namespace

void launch_expert_sort(const expert_sort_call& call, cudaStream_t stream) {
    const bool by_chunk =
        call.total > 0 && call.expert_count <= chunk_experts_max && is_aligned(call.index);
    if (by_chunk)
        launch_kernel("sorting rows by expert", chunk_sort_kernel,
                      dim3(static_cast<unsigned>(divide_up(call.total, chunk))), dim3(chunk),
                      chunk_bytes(call.expert_count), stream, call);
    else
        launch_kernel("sorting rows by expert", expert_sort_kernel,
                      dim3(static_cast<unsigned>(call.expert_count + 1)), dim3(warp_count * 32), 0,
                      stream, call);
}

} // namespace sluice::cuda
