// Launching kernels, and how threads are laid over rows.
#pragma once

#include "../errors.hpp"

#include <algorithm>
#include <cstdint>

namespace sluice::cuda {

// The type itself, where arguments are to be converted to it.
template <typename Type>
struct exactly {
    using type = Type;
};

// `doing` is what an error says: "launching rms_norm".
template <typename... Parameters>
void launch_kernel(std::string_view doing, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                   size_t shared_bytes, cudaStream_t stream,
                   const typename exactly<Parameters>::type&... arguments) {
    kernel<<<grid, block, shared_bytes, stream>>>(arguments...);
    check(cudaGetLastError(), doing);
}

inline int64_t divide_up(int64_t units, int64_t per_group) {
    return (units + per_group - 1) / per_group;
}
inline int64_t round_up(int64_t units, int64_t multiple) {
    return divide_up(units, multiple) * multiple;
}

// One thread for each unit.
inline constexpr unsigned flat_threads = 256;
inline dim3 flat_grid(int64_t units) {
    return dim3(static_cast<unsigned>(divide_up(units, flat_threads)));
}
__device__ __forceinline__ int64_t flat_index() {
    return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Rows of `units` each: neighbouring threads take neighbouring units of a row; short rows share a
// block.
struct row_layout {
    dim3 grid;
    dim3 block;

    row_layout(int64_t rows, int64_t units) {
        const int64_t across =
            std::min<int64_t>(flat_threads, round_up(std::max<int64_t>(units, 1), 32));
        const int64_t down = flat_threads / across;
        block = dim3(static_cast<unsigned>(across), static_cast<unsigned>(down));
        grid = dim3(static_cast<unsigned>(divide_up(rows, down)),
                    static_cast<unsigned>(std::clamp<int64_t>(divide_up(units, across), 1, 65535)));
    }
};
__device__ __forceinline__ int64_t row_index() {
    return static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}
__device__ __forceinline__ int64_t unit_begin() {
    return static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t unit_step() {
    return static_cast<int64_t>(gridDim.y) * blockDim.x;
}

// Whether vectors of 16 bytes may be read and written there; NULL counts as such.
inline bool is_aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

} // namespace sluice::cuda
