// One number out of those of a warp or a block, in an order that never changes.
#pragma once

namespace sluice::cuda {

struct add_numbers {
    template <typename Number>
    __device__ __forceinline__ Number operator()(Number x, Number y) const {
        return x + y;
    }
};
// A NaN gives way to a number.
struct larger_number {
    __device__ __forceinline__ float operator()(float x, float y) const { return fmaxf(x, y); }
    template <typename Number>
    __device__ __forceinline__ Number operator()(Number x, Number y) const {
        return x < y ? y : x;
    }
};
struct smaller_number {
    __device__ __forceinline__ float operator()(float x, float y) const { return fminf(x, y); }
    template <typename Number>
    __device__ __forceinline__ Number operator()(Number x, Number y) const {
        return y < x ? y : x;
    }
};

// All lanes get the result.
template <typename Number, typename Combine>
__device__ __forceinline__ Number reduce_warp(Number value, Combine combine) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// All threads of a block of whole warps along x get the result; every thread calls it.
template <typename Number, typename Combine>
__device__ Number reduce_block(Number value, Combine combine) {
    __shared__ Number of_warp[32];
    const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32;
    value = reduce_warp(value, combine);
    if (threadIdx.x % 32 == 0) of_warp[warp] = value;
    __syncthreads();
    Number result = of_warp[0];
    for (unsigned i = 1; i < warps; ++i) result = combine(result, of_warp[i]);
    __syncthreads(); // the next reduction writes there again
    return result;
}

template <bool one_warp, typename Number, typename Combine>
__device__ __forceinline__ Number reduce_row(Number value, Combine combine) {
    if constexpr (one_warp)
        return reduce_warp(value, combine);
    else
        return reduce_block(value, combine);
}

} // namespace sluice::cuda
