#include "axis.hpp"

#include "launch.cuh"
#include "reduce.cuh"
#include "shape.cuh"
#include "vectors.cuh"

#include <sluice/abi/operations.h>

namespace sluice::cuda {

namespace {

// A row is a warp's up to this width, beyond it a block's.
constexpr int64_t warp_width_max = 1024;
constexpr unsigned warps_per_block = 4;

struct axis_layout {
    bool one_warp;
    dim3 grid;
    dim3 block;

    explicit axis_layout(const axis_call& call)
        : one_warp(call.width_bound <= warp_width_max),
          grid(static_cast<unsigned>(divide_up(call.rows, one_warp ? warps_per_block : 1))),
          block(one_warp ? dim3(32, warps_per_block) : dim3(256)) {}
};

// ---- softmax ----

__device__ __forceinline__ float minus_infinity() { return -INFINITY; }

template <bool one_warp>
__global__ void softmax_kernel(axis_call call) {
    const int64_t row = row_index();
    if (row >= call.rows) return; // whole warps, and no block of several warps
    const int64_t width = size_of(call.width, call.present);
    const int64_t first = row * width;
    float maximum = minus_infinity();
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
        maximum = fmaxf(maximum, load_as_float(call.x, call.x_type, first + i));
    maximum = reduce_row<one_warp>(maximum, larger_number{});
    float sum = 0;
    if (maximum != minus_infinity())
        for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
            sum += expf(load_as_float(call.x, call.x_type, first + i) - maximum);
    sum = reduce_row<one_warp>(sum, add_numbers{});
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
        const float x = load_as_float(call.x, call.x_type, first + i);
        store_from_float(call.y, call.y_type, first + i,
                         sum == 0.0f ? 0.0f : expf(x - maximum) / sum);
    }
}

// ---- reduce ----

// Whole numbers exactly, others in float64.
template <bool one_warp, typename Number>
__device__ Number reduced(const axis_call& call, int64_t first, int64_t width, uint32_t function,
                          Number lowest, Number highest) {
    const auto at = [&](int64_t i) -> Number {
        if constexpr (std::is_same_v<Number, double>)
            return load_as_float(call.x, call.x_type, first + i);
        else
            return static_cast<const int32_t*>(call.x)[first + i];
    };
    if (function == SLUICE_REDUCE_MAXIMUM) {
        Number largest = lowest; // of doubles from floats, with NaN giving way
        for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
            largest = larger_number{}(largest, at(i));
        return reduce_row<one_warp>(largest, larger_number{});
    }
    if (function == SLUICE_REDUCE_MINIMUM) {
        Number smallest = highest;
        for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
            smallest = smaller_number{}(smallest, at(i));
        return reduce_row<one_warp>(smallest, smaller_number{});
    }
    Number sum = 0;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) sum += at(i);
    return reduce_row<one_warp>(sum, add_numbers{});
}

template <bool one_warp>
__global__ void reduce_kernel(axis_call call, uint32_t function) {
    const int64_t row = row_index();
    if (row >= call.rows) return;
    const int64_t width = size_of(call.width, call.present);
    const int64_t first = row * width;
    if (call.x_type == SLUICE_I32) {
        const auto value =
            reduced<one_warp, long long>(call, first, width, function, INT32_MIN, INT32_MAX);
        if (threadIdx.x == 0) static_cast<int32_t*>(call.y)[row] = static_cast<int32_t>(value);
        return;
    }
    double value = reduced<one_warp, double>(call, first, width, function, -INFINITY, INFINITY);
    if (function == SLUICE_REDUCE_MEAN) value /= static_cast<double>(width);
    if (threadIdx.x == 0) store_from_float(call.y, call.y_type, row, static_cast<float>(value));
}

// ---- topk ----

// Larger for what comes first; never 0.
__device__ __forceinline__ unsigned long long rank_of(float value, int64_t index) {
    if (isnan(value)) value = minus_infinity();
    const uint32_t bits = __float_as_uint(value == 0.0f ? 0.0f : value); // one zero
    const uint32_t rising = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return static_cast<unsigned long long>(rising) << 32
           | (0xffffffffu - static_cast<uint32_t>(index));
}

// One number after another: the largest of those below the one before.
template <bool one_warp>
__global__ void topk_kernel(axis_call call, int32_t* index, int64_t wanted) {
    const int64_t row = row_index();
    if (row >= call.rows) return;
    const int64_t width = size_of(call.width, call.present);
    const int64_t first = row * width;
    unsigned long long before = ~0ull;
    for (int64_t j = 0; j < wanted; ++j) {
        unsigned long long best = 0;
        for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
            const auto rank = rank_of(load_as_float(call.x, call.x_type, first + i), i);
            if (rank < before && rank > best) best = rank;
        }
        best = reduce_row<one_warp>(best, larger_number{});
        before = best;
        if (threadIdx.x != 0) continue;
        const int64_t at =
            best == 0 ? -1 : static_cast<int64_t>(0xffffffffu - (best & 0xffffffffu));
        const float value =
            at < 0 ? minus_infinity() : load_as_float(call.x, call.x_type, first + at);
        if (call.y != nullptr)
            store_from_float(call.y, call.y_type, row * wanted + j,
                             isnan(value) ? minus_infinity() : value);
        if (index != nullptr) index[row * wanted + j] = static_cast<int32_t>(at);
    }
}

// ---- cumsum ----

// A warp for each row, 32 elements after 32.
template <typename Element, typename Sum>
__global__ void cumsum_kernel(axis_call call) {
    const int64_t row = row_index();
    if (row >= call.rows) return;
    const int64_t width = size_of(call.width, call.present);
    const auto* x = static_cast<const Element*>(call.x) + row * width;
    auto* y = static_cast<Element*>(call.y) + row * width;
    const unsigned lane = threadIdx.x;
    Sum carried = 0;
    for (int64_t begin = 0; begin < width; begin += 32) {
        Sum sum = begin + lane < width ? static_cast<Sum>(x[begin + lane]) : Sum{0};
#pragma unroll
        for (unsigned distance = 1; distance < 32; distance *= 2) {
            const Sum other = __shfl_up_sync(0xffffffffu, sum, distance);
            if (lane >= distance) sum += other;
        }
        sum += carried;
        if (begin + lane < width) y[begin + lane] = static_cast<Element>(sum);
        carried = __shfl_sync(0xffffffffu, sum, 31);
    }
}

// ---- matmul ----

__global__ void matmul_kernel(matmul_call call) {
    const int64_t i = flat_index();
    if (i >= call.count_bound) return;
    if (i >= count_of(call.z, call.present)) { // padding
        store_from_float(call.z.data, call.z.type, i, 0.0f);
        return;
    }
    const int rank = call.z.rank;
    const tensor_place place = place_of(call.z, i, call.present);
    const int64_t n_count = size_of(call.z.shape[rank - 1], call.present);
    const int64_t m_count = size_of(call.z.shape[rank - 2], call.present);
    const int64_t k_count = size_of(call.x.shape[call.x.rank - 1], call.present);
    const int64_t x_matrix = broadcast_index(call.x, place, rank, 2, call.present);
    const int64_t y_matrix = broadcast_index(call.y, place, rank, 2, call.present);
    const int64_t x = (x_matrix * m_count + place.at[rank - 2]) * k_count;
    const int64_t y = y_matrix * k_count * n_count + place.at[rank - 1];
    float sum = 0;
    for (int64_t k = 0; k < k_count; ++k)
        sum += load_as_float(call.x.data, call.x.type, x + k)
               * load_as_float(call.y.data, call.y.type, y + k * n_count);
    store_from_float(call.z.data, call.z.type, i, sum);
}

} // namespace

void launch_softmax(const axis_call& call, cudaStream_t stream) {
    if (call.rows == 0 || call.width_bound == 0) return;
    const axis_layout layout(call);
    launch_kernel("launching softmax",
                  layout.one_warp ? softmax_kernel<true> : softmax_kernel<false>, layout.grid,
                  layout.block, 0, stream, call);
}

void launch_reduce(const axis_call& call, uint32_t function, cudaStream_t stream) {
    if (call.rows == 0) return;
    const axis_layout layout(call);
    launch_kernel("launching reduce", layout.one_warp ? reduce_kernel<true> : reduce_kernel<false>,
                  layout.grid, layout.block, 0, stream, call, function);
}

void launch_topk(const axis_call& call, int32_t* index, int64_t wanted, cudaStream_t stream) {
    if (call.rows == 0 || wanted == 0) return;
    const axis_layout layout(call);
    launch_kernel("launching topk", layout.one_warp ? topk_kernel<true> : topk_kernel<false>,
                  layout.grid, layout.block, 0, stream, call, index, wanted);
}

void launch_cumsum(const axis_call& call, cudaStream_t stream) {
    if (call.rows == 0 || call.width_bound == 0) return;
    launch_kernel("launching cumsum",
                  call.x_type == SLUICE_I32 ? cumsum_kernel<int32_t, long long>
                                            : cumsum_kernel<float, double>,
                  dim3(static_cast<unsigned>(divide_up(call.rows, warps_per_block))),
                  dim3(32, warps_per_block), 0, stream, call);
}

void launch_matmul(const matmul_call& call, cudaStream_t stream) {
    if (call.count_bound == 0) return;
    launch_kernel("launching matmul", matmul_kernel, flat_grid(call.count_bound),
                  dim3(flat_threads), 0, stream, call);
}

} // namespace sluice::cuda
