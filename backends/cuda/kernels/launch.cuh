// Launching kernels, and how threads are laid over rows.
#pragma once

#include "../errors.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

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

// ---- Grids of which one starts before the one before it has ended ----

// What follows may read what the grids before wrote. Does nothing where the launch was not
// programmatic.
__device__ __forceinline__ void wait_for_grids_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next grid may start (and wait for this one) as soon as every block of this one came here.
// Called behind wait_for_grids_before, the results of the grid before this one are there for the
// next from its beginning; called before, more than two grids may be on the card together.
__device__ __forceinline__ void start_next_grid() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// `programmatic`: the grid may start while the one before it in the stream still runs.
// `cluster_blocks`: of a cluster; 1: there are none.
template <typename... Parameters, typename... Arguments>
void launch_clusters(void (*kernel)(Parameters...), dim3 grid, unsigned threads,
                     size_t shared_bytes, cudaStream_t stream, bool programmatic,
                     unsigned cluster_blocks, Arguments&&... arguments) {
    if (shared_bytes > 48 * 1024)
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes));
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    cudaLaunchAttribute attributes[2] = {};
    config.attrs = attributes;
    if (programmatic) {
        auto& overlap = attributes[config.numAttrs++];
        overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        overlap.val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster_blocks > 1) {
        auto& cluster = attributes[config.numAttrs++];
        cluster.id = cudaLaunchAttributeClusterDimension;
        cluster.val.clusterDim.x = cluster_blocks;
        cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
        constexpr unsigned portable = 8;
        if (cluster_blocks > portable)
            cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    }
    cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}
template <typename... Parameters, typename... Arguments>
void launch_grid(void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared_bytes,
                 cudaStream_t stream, bool programmatic, Arguments&&... arguments) {
    launch_clusters(kernel, grid, threads, shared_bytes, stream, programmatic, 1,
                    std::forward<Arguments>(arguments)...);
}

// ---- Layouts ----

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
