#include "elements.cuh"
#include "expert_sort.hpp"

namespace sluice::cuda {

namespace {

constexpr int warp_count = 8;
constexpr unsigned all_lanes = 0xffffffffu;

// The local expert of a choice; expert_count where it has none here.
__device__ __forceinline__ int expert_of(const expert_sort_call& call, int choice) {
    int expert = call.index[choice];
    if (call.map != nullptr && expert >= 0) expert = expert < call.map_size ? call.map[expert] : -1;
    return expert >= 0 && expert < call.expert_count ? expert : call.expert_count;
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
