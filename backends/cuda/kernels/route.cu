#include "route.cuh"

namespace sluice::cuda {

namespace {

constexpr int warps_usual = 8;
constexpr int warps_max = 32;
constexpr size_t shared_bytes_max = 48 * 1024; // without opt-in

template <int per_lane>
__global__ void __launch_bounds__(per_lane == 0 ? warps_usual * 32 : warps_max * 32)
    route_kernel(const __grid_constant__ route_call call, counting counts, bool weighs) {
    extern __shared__ float shared[];
    wait_for_grids_before();
    start_next_grid();
    route_rows<per_lane>(call, counts, weighs, shared, static_cast<int>(blockIdx.x),
                         static_cast<int>(gridDim.x));
}

constexpr int limit_threads = 1024;

// ceil(capacity_factor * rows * choices / experts) for the rows that are not padding. All threads.
__device__ double room_of(const route_call& call) {
    __shared__ int valid;
    if (threadIdx.x == 0) valid = 0;
    __syncthreads();
    int own = 0;
    for (int row = threadIdx.x; row < call.rows; row += blockDim.x) own += !is_padding(call, row);
    atomicAdd(&valid, own);
    __syncthreads();
    const sluice_routing_specification& routing = call.routing;
    return ceil(static_cast<double>(routing.capacity_factor)
                * (static_cast<double>(valid) * routing.choice_count) / routing.expert_count);
}

// Step 9, DROP, in one block: a thread follows one expert through all ranks and rows. Others'
// entries that change meanwhile are of no interest to it.
__global__ void __launch_bounds__(limit_threads) limit_kernel(route_call call) {
    __shared__ int dropped_sum;
    if (threadIdx.x == 0) dropped_sum = 0;
    const double room = room_of(call);
    const int choices = static_cast<int>(call.routing.choice_count);
    int dropped = 0;
    for (int expert = threadIdx.x; expert < static_cast<int>(call.routing.expert_count);
         expert += blockDim.x) {
        int load = 0;
        for (int rank = 0; rank < choices; ++rank) {
#pragma unroll 8
            for (int row = 0; row < call.rows; ++row) {
                const int64_t at = static_cast<int64_t>(row) * choices + rank;
                if (call.index[at] != expert) continue;
                if (load < room) {
                    ++load;
                    continue;
                }
                ++dropped;
                call.index[at] = none;
                call.weight[at] = 0.0f;
            }
        }
        if (call.count != nullptr) call.count[expert] = load;
    }
    atomicAdd(&dropped_sum, dropped);
    __syncthreads();
    if (threadIdx.x == 0 && call.dropped != nullptr) call.dropped[0] = dropped_sum;
}

// Step 9, REROUTE, in one warp: assignments one after another, since each changes what the next
// ones find. Then all steps from 6 on, in limit_threads / 32 warps.
__global__ void __launch_bounds__(limit_threads) reroute_kernel(route_call call) {
    extern __shared__ int32_t loads[]; // [experts]
    const sluice_routing_specification& routing = call.routing;
    const int experts = static_cast<int>(routing.expert_count);
    const int choices = static_cast<int>(routing.choice_count);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int e = threadIdx.x; e < experts; e += blockDim.x) loads[e] = 0;
    const double room = room_of(call); // with barriers
    if (warp == 0) {
        int dropped = 0;
        for (int rank = 0; rank < choices; ++rank)
            for (int row = 0; row < call.rows; ++row) {
                int32_t* index = call.index + static_cast<int64_t>(row) * choices;
                int32_t expert = index[rank];
                if (expert < 0) continue;
                if (loads[expert] >= room) {
                    const float* choice = call.kept + (static_cast<int64_t>(row) * 2 + 1) * experts;
                    ranked best{0, none};
                    for (int e = lane; e < experts; e += 32) {
                        if (loads[e] >= room || !(choice[e] > -INFINITY)) continue;
                        bool is_taken = false;
                        for (int j = 0; j < choices; ++j) is_taken |= index[j] == e;
                        const ranked own{order_of(choice[e]), e};
                        if (!is_taken && own.order > best.order) best = own;
                    }
                    best = first_of_warp(best);
                    expert = best.order == 0 ? none : best.number;
                    __syncwarp(); // all lanes have read the row
                    if (lane == 0) index[rank] = expert;
                }
                __syncwarp(); // all lanes have read the load
                if (expert < 0)
                    ++dropped;
                else if (lane == 0)
                    ++loads[expert];
                __syncwarp();
            }
        if (lane == 0 && call.dropped != nullptr) call.dropped[0] = dropped;
    }
    __syncthreads();
    if (call.count != nullptr)
        for (int e = threadIdx.x; e < experts; e += blockDim.x) call.count[e] = loads[e];
    for (int row = warp; row < call.rows; row += limit_threads / 32) {
        if (is_padding(call, row)) continue; // its weights are zero already
        chosen final_ones{{none, none}};
        for (int half = 0; half < 2; ++half) {
            const int j = lane + 32 * half;
            if (j < choices)
                final_ones.expert[half] = call.index[static_cast<int64_t>(row) * choices + j];
        }
        const float* scores = call.kept + static_cast<int64_t>(row) * 2 * experts;
        weigh(call, row, final_ones, scores, scores + experts, lane);
    }
}

} // namespace

size_t route_scratch_bytes(const sluice_routing_specification& routing, int64_t rows) {
    if (!(routing.capacity_factor > 0.0f)) return 0;
    return static_cast<size_t>(rows) * routing.expert_count * 2 * sizeof(float);
}

void launch_route(const route_call& call, cudaStream_t stream) {
    if (call.rows <= 0) return;
    const sluice_routing_specification& routing = call.routing;
    const bool limits = routing.capacity_factor > 0.0f;
    const bool reroutes = limits && routing.capacity_policy == SLUICE_CAPACITY_REROUTE;
    const size_t count_bytes = routing.expert_count * sizeof(int32_t);
    const bool counts_here = call.count != nullptr && !limits;
    const int per_lane = experts_per_lane(call);
    const auto bytes_of = [&](counting counts, int warps) {
        return route_floats(call, counts, warps) * sizeof(float);
    };
    // Many rows of a block share what they add to the counts in memory.
    int warps = per_lane > 0 && call.rows >= 64 * warps_max ? warps_max : warps_usual;
    while (warps > 1 && bytes_of(counting::none, warps) > shared_bytes_max) warps /= 2;

    counting counts = counting::none;
    int blocks = (call.rows + warps - 1) / warps;
    if (counts_here && call.rows <= 2 * warps
        && bytes_of(counting::in_block, warps) <= shared_bytes_max) {
        counts = counting::in_block;
        blocks = 1;
    } else if (counts_here) {
        counts = counting::in_memory;
        cudaMemsetAsync(call.count, 0, count_bytes, stream);
    }
    // A clearing of `count` is not a kernel, and must have ended.
    const bool programmatic = call.programmatic && !limits && counts != counting::in_memory;
    const auto kernel = per_lane == 0   ? route_kernel<0>
                        : per_lane == 4 ? route_kernel<4>
                        : per_lane == 8 ? route_kernel<8>
                                        : route_kernel<16>;
    launch_grid(kernel, dim3(static_cast<unsigned>(blocks)), static_cast<unsigned>(warps) * 32,
                bytes_of(counts, warps), stream, programmatic, call, counts, !reroutes);
    if (reroutes)
        reroute_kernel<<<1, limit_threads, count_bytes, stream>>>(call);
    else if (limits)
        limit_kernel<<<1, limit_threads, 0, stream>>>(call);
}

} // namespace sluice::cuda
