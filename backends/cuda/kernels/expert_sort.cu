#include "elements.cuh"
#include "expert_sort.hpp"

namespace sluice::cuda {

namespace {

constexpr int warp_count = 8;
constexpr unsigned all_lanes = 0xffffffffu;

// The local expert that an index names; expert_count where there is none here.
__device__ __forceinline__ int expert_named(const expert_sort_call& call, int expert) {
    if (call.map != nullptr && expert >= 0) expert = expert < call.map_size ? call.map[expert] : -1;
    return expert >= 0 && expert < call.expert_count ? expert : call.expert_count;
}
__device__ __forceinline__ int expert_of(const expert_sort_call& call, int choice) {
    return expert_named(call, call.index[choice]);
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

    int lower_count = 0, own_count = 0;
    for (int c = begin + lane; c < end; c += 32) {
        const int e = expert_of(call, c);
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
        const bool is_own = c < end && expert_of(call, c) == expert;
        const unsigned owners = __ballot_sync(all_lanes, is_own);
        if (is_own) {
            const int p = at + __popc(owners & ((1u << lane) - 1u));
            call.place[c] = has_none ? -1 : p;
            call.row[p] = has_none ? -1 : c / call.choice_count;
            if (call.sorted_weight != nullptr)
                call.sorted_weight[p] = has_none ? 0.0f : call.weight[c];
        }
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
            atomicAdd(&counts[expert_named(call, index[i].x)], 1);
            atomicAdd(&counts[expert_named(call, index[i].y)], 1);
            atomicAdd(&counts[expert_named(call, index[i].z)], 1);
            atomicAdd(&counts[expert_named(call, index[i].w)], 1);
        }
    }
    // What is left over is in the last chunk, of which nothing is before any.
    if (thread < call.total - whole * 4) atomicAdd(&others[expert_of(call, whole * 4 + thread)], 1);

    // The rank of the own choice among those of the warp for the same expert.
    const int choice = chunk_begin + thread;
    const bool is_there = choice < call.total;
    const int expert = is_there ? expert_of(call, choice) : slots;
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
    const bool has_none = expert == call.expert_count;
    const int p = before[expert] + of_warp[warp * slots + expert] + rank;
    call.place[choice] = has_none ? -1 : p;
    call.row[p] = has_none ? -1 : choice / call.choice_count;
    if (call.sorted_weight != nullptr)
        call.sorted_weight[p] = has_none ? 0.0f : call.weight[choice];
}

constexpr int combine_threads = 256;

__global__ void __launch_bounds__(combine_threads) expert_combine_kernel(expert_combine_call call) {
    const int64_t row = blockIdx.y;
    const int64_t column = static_cast<int64_t>(blockIdx.x) * combine_threads + threadIdx.x;
    if (column >= call.width) return;
    float sum = 0.0f;
    float identity = 0.0f;
#pragma unroll 4
    for (int j = 0; j < call.choice_count; ++j) {
        const int64_t choice = row * call.choice_count + j;
        const int64_t place = call.place[choice];
        if (place >= 0) {
            const float value = call.expert_y[place * call.width + column];
            sum += call.weight != nullptr ? call.weight[choice] * value : value;
        } else if (call.identity_from > 0 && call.index[choice] >= call.identity_from) {
            identity += call.identity_weight[choice];
        }
    }
    if (call.identity_from > 0)
        sum += identity * load_as_float(call.x, call.x_type, row * call.width + column);
    store_from_float(call.y, call.y_type, row * call.width + column, sum);
}

} // namespace

void launch_expert_sort(const expert_sort_call& call, cudaStream_t stream) {
    const bool is_aligned = reinterpret_cast<uintptr_t>(call.index) % sizeof(int4) == 0;
    if (call.total > 0 && call.expert_count <= chunk_experts_max && is_aligned) {
        const auto blocks = static_cast<unsigned>((call.total + chunk - 1) / chunk);
        chunk_sort_kernel<<<blocks, chunk, chunk_bytes(call.expert_count), stream>>>(call);
        return;
    }
    expert_sort_kernel<<<static_cast<unsigned>(call.expert_count + 1), warp_count * 32, 0,
                         stream>>>(call);
}

void launch_expert_combine(const expert_combine_call& call, cudaStream_t stream) {
    if (call.rows <= 0) return;
    const dim3 grid(static_cast<unsigned>((call.width + combine_threads - 1) / combine_threads),
                    static_cast<unsigned>(call.rows));
    expert_combine_kernel<<<grid, combine_threads, 0, stream>>>(call);
}

} // namespace sluice::cuda
