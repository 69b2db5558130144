// Routing of one row by one warp, step by step as abi/router.h numbers the steps.
#pragma once

#include "matrix_unit.cuh"
#include "route.hpp"

#include <cmath>

namespace sluice::cuda {

// In a file of its own for the kernels that route; nothing of it is called from elsewhere.
namespace {

constexpr unsigned all_lanes = 0xffffffffu;
constexpr int32_t none = -1;

// Orders floats as unsigned numbers; NaN as minus infinity, and -0 as 0. Never 0.
__device__ __forceinline__ uint32_t order_of(float value) {
    if (isnan(value)) value = -INFINITY;
    const uint32_t bits = __float_as_uint(value + 0.0f);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// A place in falling order, ties to the lower number: (order, number).
struct ranked {
    uint32_t order;
    int32_t number;
};
__device__ __forceinline__ bool is_before(ranked a, ranked b) {
    return a.order > b.order || (a.order == b.order && a.number < b.number);
}

// The first of all lanes' in that order; the number is `none` where no lane has one (order 0).
__device__ __forceinline__ ranked first_of_warp(ranked own) {
    const uint32_t order = __reduce_max_sync(all_lanes, own.order);
    const uint32_t number = own.order == order ? static_cast<uint32_t>(own.number) : 0xffffffffu;
    return {order, static_cast<int32_t>(__reduce_min_sync(all_lanes, number))};
}

__device__ __forceinline__ float max_of_warp(float value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        value = fmaxf(value, __shfl_xor_sync(all_lanes, value, step));
    return value;
}
__device__ __forceinline__ double sum_of_warp(double value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(all_lanes, value, step);
    return value;
}

// What follows `after` among values[0..count) in falling order. Starts after {0xffffffff, -1}.
__device__ __forceinline__ ranked next_of_warp(const float* values, int count, ranked after,
                                               int lane) {
    ranked best{0, none};
#pragma unroll 4
    for (int e = lane; e < count; e += 32) {
        const ranked own{order_of(values[e]), e};
        if (is_before(after, own) && own.order > best.order) best = own;
    }
    return first_of_warp(best);
}

__device__ __forceinline__ float score_of(uint32_t function, float x) {
    switch (function) {
    case SLUICE_SCORE_SIGMOID:
        return 1.0f / (1.0f + expf(-x));
    case SLUICE_SCORE_SQRT_SOFTPLUS:
        return sqrtf(fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))));
    default:
        return x;
    }
}

// Shared memory of one warp.
struct row_storage {
    float* scores; // [experts]: after step 2
    float* choice; // [experts]: after step 4
    float* worth;  // [groups]
};

__host__ __device__ inline int group_count_of(const sluice_routing_specification& routing) {
    return routing.group_count > 1 ? static_cast<int>(routing.group_count) : 0;
}

__host__ __device__ inline size_t row_floats(const sluice_routing_specification& routing) {
    return 2 * size_t{routing.expert_count} + static_cast<size_t>(group_count_of(routing));
}

// Steps 1 and 2. Each lane writes and later reads experts lane, lane + 32, ...
__device__ void score_row(const route_call& call, int row, float* scores, int lane) {
    const int experts = static_cast<int>(call.routing.expert_count);
    const float* logits = call.logits + static_cast<int64_t>(row) * experts;
    const float cap = call.routing.logit_softcap;
    const bool is_before_choice = call.routing.score_stage == SLUICE_SCORE_BEFORE_CHOICE;
    const bool is_softmax = is_before_choice && call.routing.score == SLUICE_SCORE_SOFTMAX;
    float most = -INFINITY;
#pragma unroll 4
    for (int e = lane; e < experts; e += 32) {
        float x = logits[e];
        if (cap > 0.0f) x = cap * tanhf(x / cap);
        most = fmaxf(most, x);
        scores[e] = is_before_choice && !is_softmax ? score_of(call.routing.score, x) : x;
    }
    if (!is_softmax) return;
    most = max_of_warp(most);
    double sum = 0;
#pragma unroll 4
    for (int e = lane; e < experts; e += 32) {
        const float x = expf(scores[e] - most);
        scores[e] = x;
        sum += x;
    }
    const double share = 1.0 / sum_of_warp(sum);
#pragma unroll 4
    for (int e = lane; e < experts; e += 32) scores[e] = static_cast<float>(scores[e] * share);
}

// The largest of a group, or the sum of its `terms` largest from the largest down.
__device__ float group_worth(const float* choice, int size, int terms, int turn) {
    if (terms <= 2) {
        float first = -INFINITY, second = -INFINITY;
#pragma unroll 4
        for (int i = 0; i < size; ++i) {
            // Each group begins elsewhere, so that lanes read different banks.
            const int at = i + turn;
            const float x = choice[at < size ? at : at - size];
            second = fmaxf(second, fminf(first, x));
            first = fmaxf(first, x);
        }
        return terms == 2 ? first + second : first;
    }
    float sum = 0.0f;
    ranked after{0xffffffffu, none};
    for (int term = 0; term < terms; ++term) {
        ranked best{0, none};
        for (int i = 0; i < size; ++i) {
            const ranked own{order_of(choice[i]), i};
            if (is_before(after, own) && own.order > best.order) best = own;
        }
        if (best.number < 0) break;
        sum = term == 0 ? choice[best.number] : sum + choice[best.number];
        after = best;
    }
    return sum;
}

// Step 4.
__device__ void mask_groups(const sluice_routing_specification& routing, const row_storage& of,
                            int lane) {
    const int groups = static_cast<int>(routing.group_count);
    const int experts = static_cast<int>(routing.expert_count);
    const int size = experts / groups;
    const int terms = routing.group_score == SLUICE_GROUP_SCORE_MAX
                          ? 1
                          : max(1, static_cast<int>(routing.group_score_count));
    for (int g = lane; g < groups; g += 32)
        of.worth[g] = group_worth(of.choice + g * size, size, terms, g % size);
    __syncwarp();
    // The last group that stays: those after it in the order do not.
    ranked last{0xffffffffu, none};
    for (uint32_t i = 0; i < routing.group_choice_count; ++i)
        last = next_of_warp(of.worth, groups, last, lane);
    const float mask = routing.mask_value == SLUICE_MASK_ZERO ? 0.0f : -INFINITY;
    for (int e = lane; e < experts; e += 32) {
        const int g = e / size;
        if (is_before(last, ranked{order_of(of.worth[g]), g})) of.choice[e] = mask;
    }
    __syncwarp();
}

// The experts of one row: lane l has ranks l and l + 32. `none` beyond choice_count.
struct chosen {
    int32_t expert[2];
};

__device__ chosen choose(const route_call& call, int row, const float* choice, int lane) {
    const int choices = static_cast<int>(call.routing.choice_count);
    const int experts = static_cast<int>(call.routing.expert_count);
    chosen result{{none, none}};
    if (call.table != nullptr) {
        const int64_t id = call.token_ids[row];
        for (int half = 0; half < 2; ++half) {
            const int j = lane + 32 * half;
            if (j >= choices || id < 0 || id >= call.table_rows) continue;
            const int32_t expert = call.table[id * choices + j];
            result.expert[half] = expert >= 0 && expert < experts ? expert : none;
        }
        return result;
    }
    ranked last{0xffffffffu, none};
    for (int j = 0; j < choices; ++j) {
        last = next_of_warp(choice, experts, last, lane);
        if (j % 32 == lane) {
            if (j < 32)
                result.expert[0] = last.number;
            else
                result.expert[1] = last.number;
        }
    }
    return result;
}

// Steps 7 and 8 over the choices that name an expert, from what step 6 took for each (0 for
// others); writes the row's weights.
__device__ __forceinline__ void weigh(const route_call& call, int row, const chosen& of,
                                      float (&weight)[2], int lane) {
    const sluice_routing_specification& routing = call.routing;
    const int choices = static_cast<int>(routing.choice_count);
    if (routing.score_stage == SLUICE_SCORE_AFTER_CHOICE) {
        if (routing.score == SLUICE_SCORE_SOFTMAX) {
            float most = -INFINITY;
            for (int half = 0; half < 2; ++half)
                if (of.expert[half] >= 0) most = fmaxf(most, weight[half]);
            most = max_of_warp(most);
            double sum = 0;
            for (int half = 0; half < 2; ++half) {
                weight[half] = of.expert[half] >= 0 ? expf(weight[half] - most) : 0.0f;
                sum += weight[half];
            }
            sum = sum_of_warp(sum);
            if (sum > 0)
                for (float& w : weight) w = static_cast<float>(w / sum);
        } else {
            for (int half = 0; half < 2; ++half)
                if (of.expert[half] >= 0) weight[half] = score_of(routing.score, weight[half]);
        }
    }
    const bool renormalizes = routing.renormalize != SLUICE_RENORMALIZE_NONE;
    if (renormalizes) {
        float sum = 0.0f; // in the order of the ranks
#pragma unroll 4
        for (int j = 0; j < min(choices, 32); ++j) sum += __shfl_sync(all_lanes, weight[0], j);
        for (int j = 32; j < choices; ++j) sum += __shfl_sync(all_lanes, weight[1], j - 32);
        const float epsilon = routing.renormalize_epsilon;
        const float divisor =
            routing.renormalize == SLUICE_RENORMALIZE_ADD ? sum + epsilon : fmaxf(sum, epsilon);
        if (divisor != 0.0f)
            for (float& w : weight) w /= divisor;
    }
    const bool scales = !renormalizes || routing.scale_condition == SLUICE_SCALE_ALWAYS;
    for (int half = 0; half < 2; ++half) {
        const int j = lane + 32 * half;
        if (j >= choices) continue;
        const int32_t expert = of.expert[half];
        float w = scales ? weight[half] * routing.scale : weight[half];
        if (expert < 0)
            w = 0.0f;
        else if (call.per_expert_scale != nullptr)
            w *= call.per_expert_scale[expert];
        call.weight[static_cast<int64_t>(row) * choices + j] = w;
    }
}

// Steps 6 to 8 from scores in memory.
__device__ void weigh(const route_call& call, int row, const chosen& of, const float* scores,
                      const float* choice, int lane) {
    const float* from = call.routing.weight_source == SLUICE_WEIGHT_FROM_CHOICE ? choice : scores;
    float weight[2];
#pragma unroll
    for (int half = 0; half < 2; ++half)
        weight[half] = of.expert[half] >= 0 ? from[of.expert[half]] : 0.0f;
    weigh(call, row, of, weight, lane);
}

__device__ __forceinline__ bool is_padding(const route_call& call, int row) {
    return call.position != nullptr && call.position[row] < 0;
}

// Zeros as the weights of a row of padding.
__device__ __forceinline__ void weigh_nothing(const route_call& call, int row, int lane) {
    const int choices = static_cast<int>(call.routing.choice_count);
    for (int j = lane; j < choices; j += 32)
        call.weight[static_cast<int64_t>(row) * choices + j] = 0.0f;
}

// Steps 1 to 8 of a row in memory that the warp has, `of`.
__device__ __forceinline__ chosen route_in_memory(const route_call& call, int row,
                                                  const row_storage& of, bool weighs, int lane) {
    const sluice_routing_specification& routing = call.routing;
    const int experts = static_cast<int>(routing.expert_count);
    if (is_padding(call, row)) {
        weigh_nothing(call, row, lane);
        return {{none, none}};
    }
    score_row(call, row, of.scores, lane);
    const bool has_bias = call.choice_bias != nullptr && call.table == nullptr;
    for (int e = lane; e < experts; e += 32)
        of.choice[e] = has_bias ? of.scores[e] + call.choice_bias[e] : of.scores[e];
    __syncwarp();
    if (routing.group_count > 1 && call.table == nullptr) mask_groups(routing, of, lane);
    const chosen best = choose(call, row, of.choice, lane);
    if (weighs) weigh(call, row, best, of.scores, of.choice, lane);
    if (call.kept != nullptr) {
        float* kept = call.kept + static_cast<int64_t>(row) * 2 * experts;
        for (int e = lane; e < 2 * experts; e += 32) kept[e] = of.scores[e];
    }
    __syncwarp(); // the next row overwrites what lanes may still read
    return best;
}

// Steps 1 to 5 in registers: lane l has experts l, l + 32, ..., at most `per_lane` of them; and
// what step 6 takes for each choice. Without groups, a table and capacity, for a row that is no
// padding. `picks`: [choices], the warp's own, in shared memory.
template <int per_lane>
__device__ __forceinline__ chosen choose_in_registers(const route_call& call, int row,
                                                      float2* picks, float (&weight)[2], int lane) {
    const sluice_routing_specification& routing = call.routing;
    const int experts = static_cast<int>(routing.expert_count);
    const float* logits = call.logits + static_cast<int64_t>(row) * experts;
    float score[per_lane], bias[per_lane];
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
        const int e = lane + 32 * i;
        score[i] = -INFINITY;
        bias[i] = 0.0f;
        if (e < experts) {
            // Past the first cache, for blocks of the same grid may have written it.
            score[i] = *static_cast<const volatile float*>(logits + e);
            if (call.choice_bias != nullptr) bias[i] = call.choice_bias[e];
        }
    }

    const float cap = routing.logit_softcap;
    if (cap > 0.0f) {
#pragma unroll
        for (int i = 0; i < per_lane; ++i) score[i] = cap * tanhf(score[i] / cap);
    }
    if (routing.score_stage == SLUICE_SCORE_BEFORE_CHOICE) {
        if (routing.score == SLUICE_SCORE_SOFTMAX) {
            float most = -INFINITY;
#pragma unroll
            for (int i = 0; i < per_lane; ++i)
                if (lane + 32 * i < experts) most = fmaxf(most, score[i]);
            most = max_of_warp(most);
            double sum = 0;
#pragma unroll
            for (int i = 0; i < per_lane; ++i) {
                if (lane + 32 * i >= experts) continue;
                score[i] = expf(score[i] - most);
                sum += score[i];
            }
            const double share = 1.0 / sum_of_warp(sum);
#pragma unroll
            for (int i = 0; i < per_lane; ++i) score[i] = static_cast<float>(score[i] * share);
        } else {
#pragma unroll
            for (int i = 0; i < per_lane; ++i) score[i] = score_of(routing.score, score[i]);
        }
    }

    // What is left to choose from, as numbers above 0; `score` becomes what weights are made of.
    uint32_t left[per_lane];
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
        const float choice = call.choice_bias != nullptr ? score[i] + bias[i] : score[i];
        left[i] = lane + 32 * i < experts ? order_of(choice) : 0u;
        if (routing.weight_source == SLUICE_WEIGHT_FROM_CHOICE) score[i] = choice;
    }
    const int choices = static_cast<int>(routing.choice_count);
    int found = 0;
#pragma unroll 1
    for (int j = 0; j < choices; ++j) {
        uint32_t own = left[0], number = static_cast<uint32_t>(lane);
        float value = score[0];
#pragma unroll
        for (int i = 1; i < per_lane; ++i) {
            if (left[i] <= own) continue;
            own = left[i];
            number = static_cast<uint32_t>(lane + 32 * i);
            value = score[i];
        }
        const uint32_t most = __reduce_max_sync(all_lanes, own);
        if (most == 0) break;
        // What no lane waits for: the choices go to shared memory.
        bool is_first = own == most;
        const unsigned holders = __ballot_sync(all_lanes, is_first);
        if ((holders & (holders - 1)) != 0) // several
            is_first = number == __reduce_min_sync(all_lanes, is_first ? number : 0xffffffffu);
        if (is_first) picks[j] = {__int_as_float(static_cast<int>(number)), value};
#pragma unroll
        for (int i = 0; i < per_lane; ++i)
            if (is_first && number == static_cast<uint32_t>(lane + 32 * i)) left[i] = 0;
        found = j + 1;
    }
    __syncwarp();
    chosen result{{none, none}};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        weight[half] = 0.0f;
        if (lane + 32 * half >= found) continue;
        const float2 pick = picks[lane + 32 * half];
        result.expert[half] = __float_as_int(pick.x);
        weight[half] = pick.y;
    }
    __syncwarp(); // the next row's choices take their place
    return result;
}

// Steps 1 to 8 of a row without those that choose_in_registers leaves out.
template <int per_lane>
__device__ __forceinline__ chosen route_in_registers(const route_call& call, int row, float2* picks,
                                                     int lane) {
    const bool is_nothing = is_padding(call, row);
    float weight[2];
    const chosen best = choose_in_registers<per_lane>(call, row, picks, weight, lane);
    if (is_nothing) {
        weigh_nothing(call, row, lane);
        return {{none, none}};
    }
    weigh(call, row, best, weight, lane);
    return best;
}

// Experts of a lane in registers; 0 where a row is routed in memory.
__host__ __device__ inline int experts_per_lane(const route_call& call) {
    if (group_count_of(call.routing) > 0 || call.table != nullptr || call.kept != nullptr
        || call.routing.expert_count > 512)
        return 0;
    return call.routing.expert_count <= 128 ? 4 : (call.routing.expert_count <= 256 ? 8 : 16);
}

__device__ __forceinline__ void write_index(const route_call& call, int row, const chosen& of,
                                            int lane) {
    const int choices = static_cast<int>(call.routing.choice_count);
#pragma unroll
    for (int half = 0; half < 2; ++half)
        if (lane + 32 * half < choices)
            call.index[static_cast<int64_t>(row) * choices + lane + 32 * half] = of.expert[half];
}

enum class counting : int { none, in_block, in_memory };

// Floats of shared memory that a block of route_rows needs.
inline size_t route_floats(const route_call& call, counting counts, int warps) {
    const size_t rows = experts_per_lane(call) > 0 ? 2 * size_t{call.routing.choice_count}
                                                   : row_floats(call.routing);
    return rows * static_cast<size_t>(warps)
           + (counts != counting::none ? call.routing.expert_count : 0);
}

// A warp a row; block `block` of `blocks` takes every blocks-th set of rows. With
// counting::in_block there is one block, and it writes the whole of `count`; with in_memory `count`
// is 0 before. `shared`: route_floats. `per_lane`: experts_per_lane.
template <int per_lane>
__device__ __forceinline__ void route_rows(const route_call& call, counting counts, bool weighs,
                                           float* shared, int block, int blocks) {
    const sluice_routing_specification& routing = call.routing;
    const int experts = static_cast<int>(routing.expert_count);
    const int choices = static_cast<int>(routing.choice_count);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warps = blockDim.x / 32;
    row_storage of{};
    if constexpr (per_lane == 0) {
        of.scores = shared + warp * row_floats(routing);
        of.choice = of.scores + experts;
        of.worth = of.choice + experts;
        shared += warps * row_floats(routing);
    }
    auto* picks = reinterpret_cast<float2*>(shared) + warp * choices;
    if constexpr (per_lane > 0) shared += warps * choices * 2;
    auto* histogram = reinterpret_cast<int32_t*>(shared);
    if (counts != counting::none) {
        for (int e = threadIdx.x; e < experts; e += blockDim.x) histogram[e] = 0;
        __syncthreads();
    }

    for (int row = block * warps + warp; row < call.rows; row += blocks * warps) {
        chosen best;
        if constexpr (per_lane == 0)
            best = route_in_memory(call, row, of, weighs, lane);
        else
            best = route_in_registers<per_lane>(call, row, picks, lane);
        write_index(call, row, best, lane);
        if (counts == counting::none) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half)
            if (best.expert[half] >= 0) atomicAdd(&histogram[best.expert[half]], 1);
    }
    if (counts != counting::none) {
        __syncthreads();
        for (int e = threadIdx.x; e < experts; e += blockDim.x) {
            if (counts == counting::in_block)
                call.count[e] = histogram[e];
            else if (histogram[e] != 0)
                atomicAdd(&call.count[e], histogram[e]);
        }
    }
    if (call.dropped != nullptr && block == 0 && threadIdx.x == 0) call.dropped[0] = 0;
}

} // namespace

} // namespace sluice::cuda
