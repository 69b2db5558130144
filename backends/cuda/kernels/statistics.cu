#include "statistics.hpp"

#include "elements.cuh"
#include "launch.cuh"
#include "reduce.cuh"
#include "shape.cuh"

namespace sluice::cuda {

namespace {

__device__ __forceinline__ bool counts(const accumulate_call& call, int64_t row) {
    if (call.index == nullptr) return true;
    for (int64_t j = 0; j < call.choices; ++j)
        if (call.index[row * call.choices + j] == static_cast<int32_t>(call.expert)) return true;
    return false;
}

__global__ void __launch_bounds__(1024) count_rows_kernel(accumulate_call call) {
    const int64_t rows = size_of(call.rows, call.present);
    int32_t count = 0;
    for (int64_t row = threadIdx.x; row < rows; row += blockDim.x) count += counts(call, row);
    count = reduce_block(count, add_numbers{});
    if (threadIdx.x == 0) call.rows_after[0] = call.rows_before[0] + static_cast<float>(count);
}

// A block of 16 x 16 threads for a tile of the result, 4 x 4 elements each; rows in runs that fit
// into shared memory. A run is summed in float32, the runs in float64.
constexpr int tile = 64;
constexpr int run_rows = 32;

__global__ void gram_kernel(accumulate_call call) {
    __shared__ float left[run_rows][tile], right[run_rows][tile];
    const int64_t rows = size_of(call.rows, call.present);
    const int64_t left_begin = static_cast<int64_t>(blockIdx.y) * tile;
    const int64_t right_begin = static_cast<int64_t>(blockIdx.x) * tile;
    const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
    double sums[4][4] = {};
    for (int64_t first = 0; first < rows; first += run_rows) {
        for (int i = thread; i < run_rows * tile; i += 256) {
            const int r = i / tile, c = i % tile;
            const int64_t row = first + r;
            const bool used = row < rows && counts(call, row);
            const int64_t l = left_begin + c, k = right_begin + c;
            left[r][c] = used && l < call.width
                             ? load_as_float(call.x, call.x_type, row * call.width + l)
                             : 0.0f;
            right[r][c] = used && k < call.width
                              ? load_as_float(call.x, call.x_type, row * call.width + k)
                              : 0.0f;
        }
        __syncthreads();
        float run[4][4] = {};
        for (int r = 0; r < run_rows; ++r)
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    run[i][j] += left[r][threadIdx.y + 16 * i] * right[r][threadIdx.x + 16 * j];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) sums[i][j] += static_cast<double>(run[i][j]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int64_t l = left_begin + threadIdx.y + 16 * i;
            const int64_t k = right_begin + threadIdx.x + 16 * j;
            if (l >= call.width || k >= call.width) continue;
            const int64_t at = l * call.width + k;
            call.total_after[at] =
                static_cast<float>(static_cast<double>(call.total[at]) + sums[i][j]);
        }
}

// Threads along x take neighbouring columns, those along y different rows.
__global__ void abs_max_kernel(accumulate_call call) {
    __shared__ float found[8][32];
    const int64_t rows = size_of(call.rows, call.present);
    const int64_t k = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
    float maximum = -INFINITY; // what is there already may be below 0
    if (k < call.width)
        for (int64_t row = threadIdx.y; row < rows; row += blockDim.y)
            if (counts(call, row))
                maximum =
                    fmaxf(maximum, fabsf(load_as_float(call.x, call.x_type, row * call.width + k)));
    found[threadIdx.y][threadIdx.x] = maximum;
    __syncthreads();
    if (threadIdx.y != 0 || k >= call.width) return;
    for (unsigned i = 1; i < 8; ++i) maximum = fmaxf(maximum, found[i][threadIdx.x]);
    const float before = call.total[k];
    call.total_after[k] = maximum > before ? maximum : before;
}

void launch_count_rows(const accumulate_call& call, cudaStream_t stream) {
    launch_kernel("launching a count of rows", count_rows_kernel, dim3(1), dim3(1024), 0, stream,
                  call);
}

} // namespace

void launch_accumulate_gram(const accumulate_call& call, cudaStream_t stream) {
    launch_count_rows(call, stream);
    if (call.width == 0) return;
    const auto tiles = static_cast<unsigned>(divide_up(call.width, tile));
    launch_kernel("launching accumulate_gram", gram_kernel, dim3(tiles, tiles), dim3(16, 16), 0,
                  stream, call);
}

void launch_accumulate_abs_max(const accumulate_call& call, cudaStream_t stream) {
    launch_count_rows(call, stream);
    if (call.width == 0) return;
    launch_kernel("launching accumulate_abs_max", abs_max_kernel,
                  dim3(static_cast<unsigned>(divide_up(call.width, 32))), dim3(32, 8), 0, stream,
                  call);
}

} // namespace sluice::cuda
