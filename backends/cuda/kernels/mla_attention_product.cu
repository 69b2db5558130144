// The products of mla_attention that go by head: queries to the latents' space and outputs back.
#include "attention_matrix.cuh"
#include "launch.cuh"
#include "mla_attention.hpp"

namespace sluice::cuda {

namespace {

constexpr int product_threads = 128;
constexpr int tile_columns = 64;      // of y
constexpr int step_inner = 64;        // elements of the sum that are in shared memory together
constexpr int pitch = step_inner * 2; // bytes; the same for both orders of w

// Chunk c of a row lies at place c ^ (row % 8), so that 8 rows' chunks c meet no bank twice.
__device__ __forceinline__ int offset_of(int row, int chunk) {
    return row * pitch + ((chunk ^ (row & 7)) << 4);
}

__device__ __forceinline__ void store_pair(const head_product_call& call, int64_t at, float first,
                                           float second) {
    if (call.y_type == SLUICE_F32)
        *reinterpret_cast<float2*>(static_cast<float*>(call.y) + at) = float2{first, second};
    else if (call.y_type == SLUICE_BF16)
        *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(call.y) + at) =
            pack<__nv_bfloat16>(first, second);
    else
        *reinterpret_cast<uint32_t*>(static_cast<__half*>(call.y) + at) =
            pack<__half>(first, second);
}

// warp_rows: warps side by side along the rows, the others along the columns; row_tiles: of 16
// rows, a warp; stages: steps that are in shared memory or on their way. Grid: column tiles, heads,
// row tiles.
template <typename Element, bool is_transposed, int warp_rows, int row_tiles, int stages>
__global__ void __launch_bounds__(product_threads)
    head_product_kernel(const __grid_constant__ head_product_call call) {
    constexpr int warp_columns = 4 / warp_rows;
    constexpr int tile_rows_here = warp_rows * row_tiles * 16;
    constexpr int column_tiles = tile_columns / warp_columns / 8; // of 8 columns, a warp
    constexpr int stage_bytes = (tile_rows_here + tile_columns) * pitch;
    static_assert(column_tiles % 2 == 0);
    extern __shared__ __align__(128) unsigned char head_product_room[];

    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int g = lane / 4, t = lane % 4;
    const int column = static_cast<int>(blockIdx.x) * tile_columns;
    const int head = static_cast<int>(blockIdx.y);
    const int row = static_cast<int>(blockIdx.z) * tile_rows_here;
    const int warp_row = warp / warp_columns * row_tiles * 16;
    const int warp_column = warp % warp_columns * column_tiles * 8;
    const auto* x = static_cast<const Element*>(call.x) + static_cast<int64_t>(head) * call.inner;
    const int64_t x_stride = static_cast<int64_t>(call.heads) * call.inner;
    const auto* w =
        static_cast<const Element*>(call.w) + static_cast<int64_t>(head) * call.inner * call.outer;
    const int steps = call.inner / step_inner;
    start_next_grid();
    if (call.expanded.begin != nullptr) {
        if (__ldg(call.expanded.rows_left) == 0) return;
        bool is_needed = false;
        for (int r = row + thread; r < min(row + tile_rows_here, call.rows); r += product_threads) {
            const int32_t sequence = __ldg(call.sequence_of_row + r);
            is_needed = is_needed || (sequence >= 0 && __ldg(call.expanded.begin + sequence) < 0);
        }
        if (!__syncthreads_or(is_needed)) return;
    }

    const auto copy_rows = [&](int step) {
        if (step >= steps) return;
        unsigned char* rows = head_product_room + step % stages * stage_bytes;
#pragma unroll
        for (int i = thread; i < tile_rows_here * 8; i += product_threads) {
            const int r = i / 8, c = i % 8;
            const bool is_there = row + r < call.rows;
            copy_async(rows + offset_of(r, c),
                       x + (is_there ? row + r : 0) * x_stride + step * step_inner + 8 * c,
                       is_there);
        }
    };
    const auto copy_matrix = [&](int step) {
        if (step >= steps) return;
        unsigned char* matrix =
            head_product_room + step % stages * stage_bytes + tile_rows_here * pitch;
        const int inner = step * step_inner;
#pragma unroll
        for (int i = thread; i < tile_columns * 8; i += product_threads) {
            const int r = i / 8, c = i % 8;
            const int64_t at = is_transposed
                                   ? static_cast<int64_t>(inner + r) * call.outer + column
                                   : static_cast<int64_t>(column + r) * call.inner + inner;
            copy_async(matrix + offset_of(r, c), w + at + 8 * c, true);
        }
    };

    float y[row_tiles][column_tiles][4] = {};
    // The matrices need not wait for the grid before. Their copies count to the first step.
    for (int step = 0; step < stages - 1; ++step) copy_matrix(step);
    wait_for_grids_before();
    for (int step = 0; step < stages - 1; ++step) {
        copy_rows(step);
        copy_commit(); // an empty group too, so that the groups count the steps
    }
    for (int step = 0; step < steps; ++step) {
        copy_wait<stages - 2>();
        __syncthreads(); // this step is here, and the one before is used up
        copy_rows(step + stages - 1);
        copy_matrix(step + stages - 1);
        copy_commit();
        const unsigned char* rows = head_product_room + step % stages * stage_bytes;
        const unsigned char* matrix = rows + tile_rows_here * pitch;
#pragma unroll
        for (int k = 0; k < step_inner / 16; ++k) {
            uint32_t a[row_tiles][4];
#pragma unroll
            for (int m = 0; m < row_tiles; ++m)
                load_matrices(a[m],
                              rows + offset_of(warp_row + 16 * m + lane % 16, 2 * k + lane / 16));
#pragma unroll
            for (int n = 0; n < column_tiles; n += 2) {
                uint32_t b[4];
                if constexpr (is_transposed)
                    load_matrices_transposed(
                        b, matrix + offset_of(16 * k + lane % 16, warp_column / 8 + n + lane / 16));
                else
                    load_matrices(b, matrix
                                         + offset_of(warp_column + 8 * n + lane / 16 * 8 + lane % 8,
                                                     2 * k + lane / 8 % 2));
#pragma unroll
                for (int m = 0; m < row_tiles; ++m) {
                    multiply_add<Element>(y[m][n], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
                    multiply_add<Element>(y[m][n + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2],
                                          b[3]);
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int at_row = row + warp_row + 16 * m + 8 * half + g;
            if (at_row >= call.rows) continue;
            const int64_t at = (static_cast<int64_t>(at_row) * call.heads + head) * call.outer
                               + column + warp_column + 2 * t;
#pragma unroll
            for (int n = 0; n < column_tiles; ++n)
                store_pair(call, at + 8 * n, y[m][n][2 * half], y[m][n][2 * half + 1]);
        }
}

template <typename Element, bool is_transposed, int warp_rows, int row_tiles, int stages>
void launch(const head_product_call& call, cudaStream_t stream) {
    constexpr int rows = warp_rows * row_tiles * 16;
    constexpr int shared = stages * (rows + tile_columns) * pitch;
    const dim3 grid(static_cast<unsigned>(call.outer / tile_columns),
                    static_cast<unsigned>(call.heads),
                    static_cast<unsigned>(divide_up(call.rows, rows)));
    launch_grid(head_product_kernel<Element, is_transposed, warp_rows, row_tiles, stages>, grid,
                product_threads, shared, stream, call.programmatic, call);
    check(cudaGetLastError(), "launching a product by head");
}

// Of few rows there are few blocks, each of which asks for much of its matrix at once.
template <typename Element, bool is_transposed>
void launch_for(const head_product_call& call, cudaStream_t stream) {
    if (call.rows <= 32)
        launch<Element, is_transposed, 1, 1, 9>(call, stream);
    else
        launch<Element, is_transposed, 4, 2, 4>(call, stream);
}

} // namespace

void launch_head_product(const head_product_call& call, cudaStream_t stream) {
    if (call.rows == 0) return;
    if (call.x_type == SLUICE_BF16)
        call.is_transposed ? launch_for<__nv_bfloat16, true>(call, stream)
                           : launch_for<__nv_bfloat16, false>(call, stream);
    else
        call.is_transposed ? launch_for<__half, true>(call, stream)
                           : launch_for<__half, false>(call, stream);
}

} // namespace sluice::cuda
