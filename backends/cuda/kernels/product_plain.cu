// The product for any types and sizes, in float32 without the matrix units: tiles of 32 places and
// 64 columns, or of few places a warp for each element.
#include "activate.cuh"
#include "elements.cuh"
#include "product.hpp"
#include "reduce.cuh"

namespace sluice::cuda {

namespace {

constexpr int tile_places = 32;
constexpr int tile_outputs = 64;
constexpr int tile_depth = 32;
constexpr int thread_count = 256; // 16 x 16: each thread 2 places and 4 columns
// Places up to which tiles would be mostly empty, and their few blocks leave the card idle.
constexpr int few_places = 16;
constexpr int warps = thread_count / 32;

// The last matrix that begins at or before the place. Empty matrices before it begin there too.
__device__ int matrix_of(const int32_t* offset, int matrices, int place) {
    int low = 0, high = matrices - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (offset[middle] <= place)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

struct tile_storage {
    float x[tile_depth][tile_places + 1];
    float w[2][tile_depth][tile_outputs + 1]; // the second: up, of gated products
    int32_t row[tile_places];
    float scale[tile_places];
};

// Row of the weight that column n of y takes as the gate (which = 0) or up (1), or just n.
__device__ __forceinline__ int64_t weight_row(const product_call& call, int which, int64_t n,
                                              int64_t width) {
    if (!call.gate.gates || call.gate.gate_layout == SLUICE_GATE_SPLIT) return n;
    return call.gate.gate_layout == SLUICE_GATE_CONCAT ? which * width + n : 2 * n + which;
}

// Fills the tiles of x and of the weights from column k_first on; what is outside is zero.
__device__ void load_tiles(const product_call& call, tile_storage& tiles, int matrix, int64_t width,
                           int64_t n_first, int64_t k_first) {
    const int64_t columns = call.weight.columns;
    for (int i = threadIdx.x; i < tile_depth * tile_places; i += thread_count) {
        const int p = i / tile_depth;
        const int64_t k = k_first + i % tile_depth;
        const int32_t row = tiles.row[p];
        float value = 0.0f;
        if (row >= 0 && k < columns)
            value = load_as_float(call.x, call.x_type, row * columns + k) * tiles.scale[p];
        tiles.x[i % tile_depth][p] = value;
    }
    const bool splits = call.gate.gates && call.gate.gate_layout == SLUICE_GATE_SPLIT;
    for (int which = 0; which < (call.gate.gates ? 2 : 1); ++which) {
        const weight_view& weight = which == 1 && splits ? call.up : call.weight;
        for (int i = threadIdx.x; i < tile_depth * tile_outputs; i += thread_count) {
            const int64_t n = n_first + i / tile_depth;
            const int64_t k = k_first + i % tile_depth;
            float value = 0.0f;
            if (n < width && k < columns)
                value = load_weight(weight, matrix, weight_row(call, which, n, width), k);
            tiles.w[which][i % tile_depth][i / tile_depth] = value;
        }
    }
}

__device__ float bias_of(const product_call& call, int which, int matrix, int64_t n,
                         int64_t width) {
    const bool is_up_operand = which == 1 && call.gate.gate_layout == SLUICE_GATE_SPLIT;
    const float* bias = is_up_operand ? call.up_bias : call.bias;
    if (bias == nullptr) return 0.0f;
    const int64_t rows = is_up_operand ? call.up.rows : call.weight.rows;
    return bias[matrix * rows + weight_row(call, which, n, width)];
}

__device__ __forceinline__ float with_bias_and_gate(const product_call& call, int matrix, int64_t n,
                                                    int64_t width, float sum, float up_sum) {
    const float value = sum + bias_of(call, 0, matrix, n, width);
    if (!call.gate.gates) return value;
    return gated_activate(call.gate.activation, call.gate.alpha, call.gate.clamp, value,
                          up_sum + bias_of(call, 1, matrix, n, width));
}

__global__ void __launch_bounds__(thread_count)
    product_plain_few_kernel(product_call call, int64_t width) {
    const int place = blockIdx.y, lane = threadIdx.x % 32;
    const int64_t n = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
    if (n >= width) return;
    const bool is_owned = call.offset == nullptr || place < call.offset[call.weight.matrices];
    const int matrix = call.offset != nullptr && is_owned
                           ? matrix_of(call.offset, call.weight.matrices, place)
                           : 0;
    const int64_t row = !is_owned ? -1 : (call.row != nullptr ? call.row[place] : place);
    float sums[2] = {0, 0};
    if (row >= 0) {
        const float scale = call.input_scale != nullptr ? call.input_scale[place] : 1.0f;
        const bool splits = call.gate.gates && call.gate.gate_layout == SLUICE_GATE_SPLIT;
        for (int which = 0; which < (call.gate.gates ? 2 : 1); ++which) {
            const weight_view& weight = which == 1 && splits ? call.up : call.weight;
            const int64_t from = weight_row(call, which, n, width);
#pragma unroll 4
            for (int64_t k = lane; k < weight.columns; k += 32)
                sums[which] += load_as_float(call.x, call.x_type, row * weight.columns + k) * scale
                               * load_weight(weight, matrix, from, k);
            sums[which] = reduce_warp(sums[which], add_numbers{});
        }
    }
    if (lane != 0) return;
    const float value =
        row >= 0 ? with_bias_and_gate(call, matrix, n, width, sums[0], sums[1]) : 0.0f;
    store_from_float(call.y, call.y_type, place * width + n, value);
}

__global__ void __launch_bounds__(thread_count)
    product_plain_kernel(product_call call, int64_t width) {
    __shared__ tile_storage tiles;
    const int first = blockIdx.y * tile_places;
    const int last = min(first + tile_places, call.places);
    const int64_t n_first = static_cast<int64_t>(blockIdx.x) * tile_outputs;
    const int across = threadIdx.x % 16, down = threadIdx.x / 16;
    const int owned =
        call.offset != nullptr ? min(call.offset[call.weight.matrices], call.places) : call.places;

    // Places of one matrix after another.
    int matrix = call.offset != nullptr && first < owned
                     ? matrix_of(call.offset, call.weight.matrices, first)
                     : 0;
    for (int begin = first; begin < min(last, owned); ++matrix) {
        const int end =
            call.offset != nullptr ? min(call.offset[matrix + 1], min(last, owned)) : last;
        if (end <= begin) continue;
        __syncthreads();
        if (threadIdx.x < tile_places) {
            const int place = first + threadIdx.x;
            const bool is_here = place >= begin && place < end;
            tiles.row[threadIdx.x] =
                !is_here ? -1 : (call.row != nullptr ? call.row[place] : place);
            tiles.scale[threadIdx.x] =
                is_here && call.input_scale != nullptr ? call.input_scale[place] : 1.0f;
        }
        float sums[2][2][4] = {};
        for (int64_t k_first = 0; k_first < call.weight.columns; k_first += tile_depth) {
            __syncthreads();
            load_tiles(call, tiles, matrix, width, n_first, k_first);
            __syncthreads();
            for (int which = 0; which < (call.gate.gates ? 2 : 1); ++which) {
#pragma unroll 4
                for (int k = 0; k < tile_depth; ++k) {
                    const float x[2] = {tiles.x[k][down], tiles.x[k][down + 16]};
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float w = tiles.w[which][k][across + 16 * i];
                        if (which == 0) {
                            sums[0][0][i] += x[0] * w;
                            sums[0][1][i] += x[1] * w;
                        } else {
                            sums[1][0][i] += x[0] * w;
                            sums[1][1][i] += x[1] * w;
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            const int place = first + down + 16 * p;
            if (place < begin || place >= end) continue;
            const bool has_row = tiles.row[down + 16 * p] >= 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int64_t n = n_first + across + 16 * i;
                if (n >= width) continue;
                const float value =
                    with_bias_and_gate(call, matrix, n, width, sums[0][p][i], sums[1][p][i]);
                store_from_float(call.y, call.y_type, place * width + n, has_row ? value : 0.0f);
            }
        }
        begin = end;
    }

    // Places that no matrix owns.
    for (int p = down; p < tile_places; p += 16) {
        const int place = first + p;
        if (place < owned || place >= last) continue;
        for (int64_t n = n_first + across; n < min(n_first + tile_outputs, width); n += 16)
            store_from_float(call.y, call.y_type, place * width + n, 0.0f);
    }
}

} // namespace

void launch_product_plain(const product_call& call, cudaStream_t stream) {
    const bool joins = call.gate.gates && call.gate.gate_layout != SLUICE_GATE_SPLIT;
    const int64_t width = joins ? call.weight.rows / 2 : call.weight.rows;
    if (call.places <= 0 || width <= 0) return;
    if (call.places <= few_places) {
        const dim3 grid(static_cast<unsigned>((width + warps - 1) / warps),
                        static_cast<unsigned>(call.places));
        product_plain_few_kernel<<<grid, thread_count, 0, stream>>>(call, width);
        return;
    }
    const dim3 grid(static_cast<unsigned>((width + tile_outputs - 1) / tile_outputs),
                    static_cast<unsigned>((call.places + tile_places - 1) / tile_places));
    product_plain_kernel<<<grid, thread_count, 0, stream>>>(call, width);
}

} // namespace sluice::cuda
