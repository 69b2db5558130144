#include "elementwise.hpp"

#include "launch.cuh"
#include "shape.cuh"
#include "vectors.cuh"

#include <sluice/abi/operations.h>

namespace sluice::cuda {

namespace {

// Comparisons with NaN are false, so that it stays where it stands first.
template <typename Number>
__device__ __forceinline__ Number larger_of(Number x, Number y) {
    return x < y ? y : x;
}
template <typename Number>
__device__ __forceinline__ Number smaller_of(Number x, Number y) {
    return y < x ? y : x;
}

__device__ float unary_value(const unary_call& call, float x) {
    switch (call.function) {
    case SLUICE_UNARY_EXP:
        return expf(x);
    case SLUICE_UNARY_LOG:
        return logf(x);
    case SLUICE_UNARY_SQRT:
        return sqrtf(x);
    case SLUICE_UNARY_SIGMOID:
        return 1.0f / (1.0f + expf(-x));
    case SLUICE_UNARY_SOFTPLUS:
        return larger_of(x, 0.0f) + log1pf(expf(-fabsf(x)));
    case SLUICE_UNARY_TANH:
        return tanhf(x);
    case SLUICE_UNARY_RECIPROCAL:
        return 1.0f / x;
    case SLUICE_UNARY_AFFINE: // rounded after each of the two, as elsewhere
        return __fadd_rn(__fmul_rn(call.a, x), call.b);
    case SLUICE_UNARY_CLAMP:
        return smaller_of(larger_of(x, call.a), call.b);
    case SLUICE_UNARY_ABS:
        return fabsf(x);
    default: // SLUICE_UNARY_CEIL
        return ceilf(x);
    }
}

template <int Vector>
__global__ void unary_kernel(unary_call call) {
    const int64_t i = flat_index() * Vector;
    if (i >= call.count) return;
    if constexpr (Vector == 1) {
        if (call.type == SLUICE_I32) { // AFFINE
            const int64_t x = static_cast<const int32_t*>(call.x)[i];
            static_cast<int32_t*>(call.y)[i] = static_cast<int32_t>(static_cast<int64_t>(call.a) * x
                                                                    + static_cast<int64_t>(call.b));
            return;
        }
    }
    float values[Vector];
    load_floats(call.x, call.type, i, values);
#pragma unroll
    for (int j = 0; j < Vector; ++j) values[j] = unary_value(call, values[j]);
    store_floats(call.y, call.type, i, values);
}

template <typename Number>
__device__ Number arithmetic(uint32_t function, Number x, Number y) {
    switch (function) {
    case SLUICE_BINARY_ADD:
        return x + y;
    case SLUICE_BINARY_SUBTRACT:
        return x - y;
    case SLUICE_BINARY_MULTIPLY:
        return x * y;
    case SLUICE_BINARY_DIVIDE:
        if constexpr (std::is_same_v<Number, float>)
            return x / y;
        else
            return y == 0 ? 0 : x / y;
    case SLUICE_BINARY_MAXIMUM:
        return larger_of(x, y);
    default: // SLUICE_BINARY_MINIMUM
        return smaller_of(x, y);
    }
}

template <typename Number>
__device__ bool comparison(uint32_t function, Number x, Number y) {
    switch (function) {
    case SLUICE_BINARY_LESS:
        return x < y;
    case SLUICE_BINARY_LESS_EQUAL:
        return x <= y;
    case SLUICE_BINARY_EQUAL:
        return x == y;
    case SLUICE_BINARY_GREATER:
        return x > y;
    case SLUICE_BINARY_GREATER_EQUAL:
        return x >= y;
    case SLUICE_BINARY_AND:
        return x != 0 && y != 0;
    default: // SLUICE_BINARY_OR
        return x != 0 || y != 0;
    }
}

__global__ void binary_kernel(binary_call call) {
    const int64_t i = flat_index();
    if (i >= call.count_bound) return;
    int64_t at_x = i, at_y = i;
    if (!call.is_flat) {
        if (i >= count_of(call.z, call.present)) { // padding
            store_from_float(call.z.data, call.z.type, i, 0.0f);
            return;
        }
        const tensor_place place = place_of(call.z, i, call.present);
        at_x = broadcast_index(call.x, place, call.z.rank, 0, call.present);
        at_y = broadcast_index(call.y, place, call.z.rank, 0, call.present);
    }
    if (call.x.type == SLUICE_I32) {
        const int64_t x = static_cast<const int32_t*>(call.x.data)[at_x];
        const int64_t y = static_cast<const int32_t*>(call.y.data)[at_y];
        if (call.function >= SLUICE_BINARY_LESS)
            static_cast<uint8_t*>(call.z.data)[i] = comparison(call.function, x, y);
        else
            static_cast<int32_t*>(call.z.data)[i] =
                static_cast<int32_t>(arithmetic(call.function, x, y));
        return;
    }
    const float x = load_as_float(call.x.data, call.x.type, at_x);
    const float y = load_as_float(call.y.data, call.y.type, at_y);
    if (call.function >= SLUICE_BINARY_LESS)
        static_cast<uint8_t*>(call.z.data)[i] = comparison(call.function, x, y);
    else
        store_from_float(call.z.data, call.z.type, i, arithmetic(call.function, x, y));
}

__global__ void select_kernel(select_call call) {
    const int64_t i = flat_index();
    if (i >= call.count_bound) return;
    if (i >= count_of(call.z, call.present)) { // padding
        store_from_float(call.z.data, call.z.type, i, 0.0f);
        return;
    }
    const int rank = call.z.rank;
    const tensor_place place = place_of(call.z, i, call.present);
    const int64_t at = broadcast_index(call.condition, place, rank, 0, call.present);
    const bool first = static_cast<const uint8_t*>(call.condition.data)[at] != 0;
    const sized_view& chosen = first ? call.x : call.y;
    const int64_t from = broadcast_index(chosen, place, rank, 0, call.present);
    if (call.z.type == SLUICE_I32)
        static_cast<int32_t*>(call.z.data)[i] = static_cast<const int32_t*>(chosen.data)[from];
    else
        store_from_float(call.z.data, call.z.type, i,
                         load_as_float(chosen.data, chosen.type, from));
}

__global__ void fill_kernel(void* y, uint32_t type, int64_t count, float value) {
    const int64_t i = flat_index();
    if (i < count) store_from_float(y, type, i, value);
}

__global__ void iota_kernel(int32_t* y, int64_t count, sized_axis width, const int32_t* present) {
    const int64_t i = flat_index();
    if (i >= count) return;
    const int64_t size = size_of(width, present);
    y[i] = size == 0 ? 0 : static_cast<int32_t>(i % size);
}

} // namespace

void launch_unary(const unary_call& call, cudaStream_t stream) {
    if (call.count == 0) return;
    const bool wide =
        call.count % 8 == 0 && call.type != SLUICE_I32 && is_aligned(call.x) && is_aligned(call.y);
    launch_kernel("launching a function of one operand", wide ? unary_kernel<8> : unary_kernel<1>,
                  flat_grid(wide ? call.count / 8 : call.count), dim3(flat_threads), 0, stream,
                  call);
}

void launch_binary(const binary_call& call, cudaStream_t stream) {
    if (call.count_bound == 0) return;
    launch_kernel("launching a function of two operands", binary_kernel,
                  flat_grid(call.count_bound), dim3(flat_threads), 0, stream, call);
}

void launch_select(const select_call& call, cudaStream_t stream) {
    if (call.count_bound == 0) return;
    launch_kernel("launching select", select_kernel, flat_grid(call.count_bound),
                  dim3(flat_threads), 0, stream, call);
}

void launch_fill(void* y, uint32_t type, int64_t count, float value, cudaStream_t stream) {
    if (count == 0) return;
    launch_kernel("launching fill", fill_kernel, flat_grid(count), dim3(flat_threads), 0, stream, y,
                  type, count, value);
}

void launch_iota(int32_t* y, int64_t count_bound, sized_axis width, const int32_t* present,
                 cudaStream_t stream) {
    if (count_bound == 0) return;
    launch_kernel("launching iota", iota_kernel, flat_grid(count_bound), dim3(flat_threads), 0,
                  stream, y, count_bound, width, present);
}

} // namespace sluice::cuda
