// Every warp has a run of neighbouring choices. It counts how many of them each expert has; sums
// over the runs before and over the experts before say where its first choice of each expert goes;
// then it deals its choices out in order.
#include "group_rows.hpp"

#include "launch.cuh"
#include "reduce.cuh"
#include "shape.cuh"

namespace sluice::cuda {

namespace {

constexpr uint32_t all_lanes = 0xffffffffu;

__device__ __forceinline__ int32_t expert_of(const group_rows_call& call, int64_t present_choices,
                                             int64_t choice) {
    if (choice >= present_choices) return -1;
    int32_t expert = call.index[choice];
    if (expert < 0) return -1;
    if (call.expert_map != nullptr) expert = expert < call.map_size ? call.expert_map[expert] : -1;
    return expert >= 0 && expert < call.experts ? expert : -1;
}

__device__ __forceinline__ int64_t present_choices_of(const group_rows_call& call) {
    return min(call.rows, size_of(call.rows_present, call.present)) * call.choices;
}

// Calls deal(choice, expert, how many choices before this one in the run's 32 have that expert, how
// many of the 32 have it) for the choices of a run.
template <typename Deal>
__device__ __forceinline__ void walk_run(const group_rows_call& call, int64_t begin, int64_t end,
                                         Deal&& deal) {
    const int64_t present_choices = present_choices_of(call);
    const unsigned lane = threadIdx.x % 32;
    for (int64_t first = begin; first < end; first += 32) {
        const int64_t choice = first + lane;
        const int32_t expert = choice < end ? expert_of(call, present_choices, choice) : -1;
        const uint32_t alike = __match_any_sync(all_lanes, expert);
        deal(choice, expert, __popc(alike & ((1u << lane) - 1)), __popc(alike));
    }
}

__device__ void count_run(const group_rows_call& call, int64_t begin, int64_t end,
                          int32_t* counts) {
    walk_run(call, begin, end, [&](int64_t, int32_t expert, int32_t before, int32_t alike) {
        if (expert >= 0 && before == 0) counts[expert] += alike;
        __syncwarp();
    });
}

// `next`: the place of the next choice of each expert.
__device__ void deal_run(const group_rows_call& call, int64_t begin, int64_t end, int32_t* next) {
    walk_run(call, begin, end, [&](int64_t choice, int32_t expert, int32_t before, int32_t alike) {
        int32_t place = -1;
        if (expert >= 0) place = next[expert] + before;
        __syncwarp();
        if (expert >= 0 && before == 0) next[expert] += alike;
        __syncwarp();
        if (choice >= end) return;
        call.place[choice] = place;
        if (place < 0) return;
        call.row[place] = static_cast<int32_t>(choice / call.choices);
        if (call.choice != nullptr) call.choice[place] = static_cast<int32_t>(choice);
    });
}

__device__ __forceinline__ void clear_place(const group_rows_call& call, int64_t place) {
    call.row[place] = -1;
    if (call.choice != nullptr) call.choice[place] = -1;
}

// Turns the number of choices of each expert into the place of its first one, and writes offsets
// and active experts. The whole block calls it; returns the number of places that are owned.
__device__ int32_t place_experts(const group_rows_call& call, int32_t* total) {
    __shared__ unsigned long long of_warp[32];
    // Two sums at once: choices in the lower half, experts that have any in the upper.
    unsigned long long carried = 0;
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int32_t first = 0; first < call.experts; first += static_cast<int32_t>(blockDim.x)) {
        const int32_t expert = first + static_cast<int32_t>(threadIdx.x);
        const int32_t own = expert < call.experts ? total[expert] : 0;
        const unsigned long long value =
            static_cast<unsigned long long>(own) | (own > 0 ? 1ull << 32 : 0ull);
        unsigned long long sum = value;
#pragma unroll
        for (unsigned distance = 1; distance < 32; distance *= 2) {
            const unsigned long long other = __shfl_up_sync(all_lanes, sum, distance);
            if (lane >= distance) sum += other;
        }
        if (lane == 31) of_warp[warp] = sum;
        __syncthreads();
        unsigned long long before = carried;
        for (unsigned i = 0; i < blockDim.x / 32; ++i) {
            if (i < warp) before += of_warp[i];
            carried += of_warp[i];
        }
        before += sum - value;
        if (expert < call.experts) {
            const auto place = static_cast<int32_t>(before & 0xffffffffu);
            total[expert] = place;
            call.offset[expert] = place;
            if (own > 0 && call.active != nullptr) call.active[before >> 32] = expert;
        }
        __syncthreads(); // of_warp is written again
    }
    const auto owned = static_cast<int32_t>(carried & 0xffffffffu);
    const auto active = static_cast<int32_t>(carried >> 32);
    if (threadIdx.x == 0) {
        call.offset[call.experts] = owned;
        if (call.active_count != nullptr) *call.active_count = active;
    }
    if (call.active != nullptr)
        for (int32_t i = active + static_cast<int32_t>(threadIdx.x); i < call.experts;
             i += static_cast<int32_t>(blockDim.x))
            call.active[i] = -1;
    return owned;
}

// ---- One block for all ----

// Shared memory: [warps + 1, experts]; the last row is of the whole.
__global__ void __launch_bounds__(1024) group_few_kernel(group_rows_call call) {
    extern __shared__ int32_t counts[];
    const int warps = static_cast<int>(blockDim.x / 32), warp = static_cast<int>(threadIdx.x / 32);
    const int32_t experts = call.experts;
    int32_t* total = counts + static_cast<int64_t>(warps) * experts;
    const int64_t choices = call.rows * call.choices;
    const int64_t run = (choices + 32 * warps - 1) / (32 * warps) * 32;
    const int64_t begin = min(choices, warp * run), end = min(choices, begin + run);
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < warps * experts;
         i += static_cast<int32_t>(blockDim.x))
        counts[i] = 0;
    __syncthreads();
    count_run(call, begin, end, counts + static_cast<int64_t>(warp) * experts);
    __syncthreads();
    for (int32_t expert = static_cast<int32_t>(threadIdx.x); expert < experts;
         expert += static_cast<int32_t>(blockDim.x)) {
        int32_t sum = 0;
        for (int i = 0; i < warps; ++i) {
            int32_t& of_run = counts[static_cast<int64_t>(i) * experts + expert];
            const int32_t own = of_run;
            of_run = sum;
            sum += own;
        }
        total[expert] = sum;
    }
    __syncthreads();
    const int32_t owned = place_experts(call, total);
    __syncthreads();
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < warps * experts;
         i += static_cast<int32_t>(blockDim.x))
        counts[i] += total[i % experts];
    __syncthreads();
    deal_run(call, begin, end, counts + static_cast<int64_t>(warp) * experts);
    for (int64_t place = owned + static_cast<int64_t>(threadIdx.x); place < choices;
         place += blockDim.x)
        clear_place(call, place);
}

// ---- Many blocks ----

// Choices of a warp's run.
constexpr int64_t run_choices = 256;

int64_t runs_of(int64_t choices) { return divide_up(choices, run_choices); }

// Scratch memory: counts [experts, runs], then [experts] of all runs together.
struct run_counts {
    int32_t* of_run;
    int32_t* total;
    int64_t runs;
};

// A warp is a block of its own: blocks meet nowhere, and shared memory holds as many experts as
// there may be.
__global__ void count_runs_kernel(group_rows_call call, run_counts counts) {
    extern __shared__ int32_t own[];
    const unsigned lane = threadIdx.x;
    for (int32_t i = static_cast<int32_t>(lane); i < call.experts; i += 32) own[i] = 0;
    __syncwarp();
    const int64_t begin = blockIdx.x * run_choices;
    count_run(call, begin, min(call.rows * call.choices, begin + run_choices), own);
    for (int32_t i = static_cast<int32_t>(lane); i < call.experts; i += 32)
        counts.of_run[i * counts.runs + blockIdx.x] = own[i];
}

__global__ void __launch_bounds__(1024) place_runs_kernel(group_rows_call call, run_counts counts) {
    const unsigned lane = threadIdx.x % 32;
    for (int32_t expert = static_cast<int32_t>(threadIdx.x / 32); expert < call.experts;
         expert += static_cast<int32_t>(blockDim.x / 32)) {
        int32_t* of_run = counts.of_run + expert * counts.runs;
        int32_t carried = 0;
        for (int64_t first = 0; first < counts.runs; first += 32) {
            const int64_t at = first + lane;
            const int32_t own = at < counts.runs ? of_run[at] : 0;
            int32_t sum = own;
#pragma unroll
            for (unsigned distance = 1; distance < 32; distance *= 2) {
                const int32_t other = __shfl_up_sync(all_lanes, sum, distance);
                if (lane >= distance) sum += other;
            }
            if (at < counts.runs) of_run[at] = carried + sum - own;
            carried += __shfl_sync(all_lanes, sum, 31);
        }
        if (lane == 0) counts.total[expert] = carried;
    }
    __syncthreads(); // also makes the block's writes to `total` visible to it
    place_experts(call, counts.total);
}

__global__ void deal_runs_kernel(group_rows_call call, run_counts counts) {
    extern __shared__ int32_t own[];
    const unsigned lane = threadIdx.x;
    for (int32_t i = static_cast<int32_t>(lane); i < call.experts; i += 32)
        own[i] = counts.of_run[i * counts.runs + blockIdx.x] + counts.total[i];
    __syncwarp();
    const int64_t begin = blockIdx.x * run_choices;
    const int64_t end = min(call.rows * call.choices, begin + run_choices);
    deal_run(call, begin, end, own);
    const int32_t owned = call.offset[call.experts];
    for (int64_t place = begin + lane; place < end; place += 32)
        if (place >= owned) clear_place(call, place);
}

// ---- Which of them ----

constexpr int64_t few_choices = 8192;
constexpr int64_t few_shared_bytes = 47 * 1024; // of the 48 KiB that every kernel may have

// Warps that one block has for so few choices; 0: they are many.
int64_t few_warps(int64_t choices, int64_t experts) {
    const int64_t wanted = std::clamp<int64_t>(divide_up(choices, 32), 4, 32);
    const int64_t room = few_shared_bytes / (experts * static_cast<int64_t>(sizeof(int32_t))) - 1;
    return choices <= few_choices && room >= std::min<int64_t>(wanted, 8) ? std::min(wanted, room)
                                                                          : 0;
}

} // namespace

uint64_t group_rows_scratch_bytes(int64_t rows, int64_t choices, int32_t experts) {
    const int64_t count = rows * choices;
    if (few_warps(count, experts) != 0) return 0;
    return static_cast<uint64_t>((runs_of(count) + 1) * experts) * sizeof(int32_t);
}

void launch_group_rows(const group_rows_call& call, cudaStream_t stream) {
    const int64_t choices = call.rows * call.choices;
    const auto expert_bytes = static_cast<size_t>(call.experts) * sizeof(int32_t);
    if (const int64_t warps = few_warps(choices, call.experts); warps != 0) {
        launch_kernel("launching group_rows", group_few_kernel, dim3(1),
                      dim3(static_cast<unsigned>(32 * warps)),
                      static_cast<size_t>(warps + 1) * expert_bytes, stream, call);
        return;
    }
    run_counts counts{};
    counts.runs = runs_of(choices);
    counts.of_run = static_cast<int32_t*>(call.scratch);
    counts.total = counts.of_run + counts.runs * call.experts;
    const dim3 runs(static_cast<unsigned>(counts.runs));
    launch_kernel("launching group_rows", count_runs_kernel, runs, dim3(32), expert_bytes, stream,
                  call, counts);
    launch_kernel("launching group_rows", place_runs_kernel, dim3(1), dim3(1024), 0, stream, call,
                  counts);
    launch_kernel("launching group_rows", deal_runs_kernel, runs, dim3(32), expert_bytes, stream,
                  call, counts);
}

} // namespace sluice::cuda
