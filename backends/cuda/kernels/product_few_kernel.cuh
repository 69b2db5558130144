// The kernel of launch_product_few and its launch, for one form of weights; a file for each form
// instantiates it.
#pragma once

#include "activate.cuh"
#include "product_few.hpp"
#include "product_few_norm.cuh"
#include "product_few_unit.cuh"

namespace sluice::cuda {

struct few_arguments {
    few_call call;
    unit_shape shape;
    int32_t row_tiles;                  // of y, and behind them those of `more`: tiles of 16 rows
    int32_t more_begin[few_parts_more]; // the first tile of each of `more`
    int32_t matrix_tiles;               // of one matrix of `weight`
    int32_t up_tile;                    // CONCAT: what to add to a tile of gate for that of up
    int32_t slots;                      // rows of x that a block takes at once
    int32_t chunk_units;                // units of x that a warp keeps in shared memory
    int32_t area_bytes;                 // of a warp in shared memory
    int64_t width;                      // columns of y
};

// The product that a tile belongs to, and the tile's number in it.
struct tile_owner {
    const void* data;
    const void* scales;
    const uint8_t* zeros;
    const float* bias;
    void* y;
    uint32_t y_type;
    int64_t width;
    int tile;
};
__device__ __forceinline__ tile_owner owner_of(const few_arguments& given, int tile) {
    static_assert(few_parts_more == 2);
    const product_call& product = given.call.product;
    tile_owner owner{product.weight.data, product.weight.scales, product.weight.zeros, product.bias,
                     product.y,           product.y_type,        given.width,          tile};
    // By comparison: numbers of arguments that are not known when compiled would be slow to read.
#pragma unroll
    for (int i = 0; i < few_parts_more; ++i) {
        const few_part& part = given.call.more[i];
        if (tile < given.more_begin[i]) continue;
        owner = {part.weight.data, part.weight.scales, part.weight.zeros,         part.bias, part.y,
                 part.y_type,      part.weight.rows,   tile - given.more_begin[i]};
    }
    return owner;
}

// How a call is cut into blocks.
struct few_plan {
    few_arguments arguments;
    dim3 grid;
    int warps;
    size_t shared_bytes;
    int bits;
    int tiles; // of eight rows of x
    int streams;
};
few_plan plan_few(const few_call& call);

// Launches; defined where the kernel for that form is instantiated.
void launch_few_int4(const few_arguments& arguments, dim3 grid, int warps, size_t shared_bytes,
                     int row_tiles_of_x, int streams, cudaStream_t stream);
void launch_few_int8(const few_arguments& arguments, dim3 grid, int warps, size_t shared_bytes,
                     int row_tiles_of_x, int streams, cudaStream_t stream);
void launch_few_half(const few_arguments& arguments, dim3 grid, int warps, size_t shared_bytes,
                     int row_tiles_of_x, int streams, cudaStream_t stream);

inline constexpr int few_pitch = 20; // floats between columns of partial sums: lanes in all banks
inline constexpr int few_warps_max = 16;

// Units in flight of each stream: 64 bytes a lane, and of float weights 128, for there a warp has
// few others to keep memory busy with.
constexpr int few_depth(int bits, int tiles, int streams) {
    if (bits == 16) return tiles == 1 && streams == 1 ? 2 : 1;
    return 16 / bits / streams > 0 ? 16 / bits / streams : 1;
}

// Registers that a kernel may have: for 24 warps on a multiprocessor where they do, else for 20
// or 16.
constexpr int few_registers(int bits, int tiles, bool has_zeros) {
    if (tiles > 1) return 128;
    return has_zeros || bits == 16 ? 96 : 80;
}

// The number of the a-th matrix that owns a place; -1 where there are not so many. The whole warp.
__device__ __forceinline__ int active_matrix(const int32_t* offset, int matrices, int a, int lane) {
    for (int first = 0; first < matrices; first += 32) {
        const int m = first + lane;
        const bool is_active = m < matrices && offset[m + 1] > offset[m];
        unsigned active = __ballot_sync(0xffffffffu, is_active);
        const int count = __popc(active);
        if (a < count) {
            for (; a > 0; --a) active &= active - 1;
            return first + __ffs(static_cast<int>(active)) - 1;
        }
        a -= count;
    }
    return -1;
}

// A block takes tiles of 16 rows of a weight, one after another, for up to tiles * 8 rows of x; its
// warps share the columns. Each warp keeps its columns of x, and has the next units of its weights
// on the way: across the tiles of a block, and before x is there.
template <int bits, typename Half, int tiles, int streams, bool has_zeros, bool norms>
__device__ __forceinline__ void multiply_few(const few_arguments& given, uint4* shared_vectors) {
    constexpr int depth = few_depth(bits, tiles, streams);
    constexpr bool has_more = norms && streams == 1;
    const few_call& call = given.call;
    const product_call& product = call.product;
    unit_shape shape = given.shape;
    if constexpr (!has_zeros) shape.has_zeros = false;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warps = blockDim.x / 32;
    const int unit_begin = shape.units * warp / warps;
    const int unit_end = shape.units * (warp + 1) / warps;

    // Which matrix and which places. A dense weight is known from the beginning.
    int matrix = 0, first_place = 0, place_end = product.places;
    const bool is_dense = call.index == nullptr && product.offset == nullptr;
    if (is_dense) {
        first_place = blockIdx.y * given.slots;
        place_end = min(first_place + given.slots, product.places);
    } else {
        wait_for_grids_before();
        start_next_grid();
        if (call.index != nullptr) {
            first_place = blockIdx.y;
            place_end = first_place + 1;
            matrix = matrix_of_choice(call.index[first_place], call.map, call.map_size,
                                      product.weight.matrices);
        } else {
            matrix = active_matrix(product.offset, product.weight.matrices, blockIdx.y, lane);
            if (matrix >= 0) {
                first_place = product.offset[matrix];
                place_end = min(product.offset[matrix + 1], product.places);
            }
        }
        if (matrix < 0) return;
    }

    char* area = reinterpret_cast<char*>(shared_vectors) + warp * given.area_bytes;
    char* zeros = area;
    char* x_area = area + 16;
    auto* sums_area = reinterpret_cast<float*>(reinterpret_cast<char*>(shared_vectors)
                                               + warps * given.area_bytes);
    const int pitch = x_pitch<bits>(given.chunk_units);
    if (lane == 0) *reinterpret_cast<uint4*>(zeros) = make_uint4(0, 0, 0, 0);

    const int64_t first_tile = static_cast<int64_t>(matrix) * given.matrix_tiles;
    const bool up_is_operand = product.gate.gate_layout == SLUICE_GATE_SPLIT;
    bool has_waited = !is_dense || call.reads_earlier;
    int turn = 0; // which half of sums_area

    for (; first_place < place_end; first_place += given.slots) {
        const int rows = min(given.slots, place_end - first_place);

        // The next round of loads: of tile load_tile, units from load_unit on.
        weight_unit<bits> units[depth][streams];
        int load_tile = blockIdx.x;
        int load_unit_first = unit_begin;
        unit_cursor cursor[streams];
        weight_view aimed; // has_more: the weight of load_tile
        const auto aim = [&] {
            if (load_tile >= given.row_tiles) return;
            if constexpr (has_more) {
                const tile_owner owner = owner_of(given, load_tile);
                aimed.data = owner.data;
                aimed.scales = owner.scales;
                aimed.zeros = owner.zeros;
                cursor[0] = cursor_of<bits>(aimed, shape, owner.tile, lane);
                return;
            }
            cursor[0] = cursor_of<bits>(product.weight, shape, first_tile + load_tile, lane);
            if constexpr (streams == 2)
                cursor[1] = cursor_of<bits>(up_is_operand ? product.up : product.weight, shape,
                                            first_tile + load_tile + given.up_tile, lane);
        };
        const auto load = [&](int d) {
            const int unit = load_unit_first + d;
            if (load_tile < given.row_tiles && unit < unit_end) {
                if constexpr (has_more) {
                    load_unit<bits>(units[d][0], cursor[0], aimed, shape, unit);
                } else {
#pragma unroll
                    for (int s = 0; s < streams; ++s)
                        load_unit<bits>(units[d][s], cursor[s],
                                        s == 1 && up_is_operand ? product.up : product.weight,
                                        shape, unit);
                }
            }
        };
        const auto next_round = [&] {
            load_unit_first += depth;
            if (load_unit_first >= unit_end) {
                load_unit_first = unit_begin;
                load_tile += gridDim.x;
                aim();
            }
        };
        aim();
#pragma unroll
        for (int d = 0; d < depth; ++d) load(d);
        next_round();

        if (!has_waited) {
            wait_for_grids_before();
            start_next_grid();
            has_waited = true;
        }

        const int first_row = call.index != nullptr ? first_place / call.choice_count : first_place;
        const auto row_of = [&](int n) -> int {
            return product.row != nullptr ? product.row[first_place + n] : first_row + n;
        };
        const auto scale_of = [&](int n) { return product.input_scale[first_place + n]; };
        x_cursor x[tiles];
#pragma unroll
        for (int i = 0; i < tiles; ++i)
            x[i] = x_cursor_of<bits>(x_area + 8 * i * pitch, zeros, pitch, rows - 8 * i, lane);
        int chunk_begin = unit_begin, chunk_end = unit_begin; // the units that x_area has

        if constexpr (norms) {
            // In the half of sums_area that the first tile does not use.
            norm_rows<Half>(call.norm, x_area, pitch,
                            sums_area + warps * (streams * given.slots * few_pitch),
                            product.weight.columns, unit_begin, unit_end, rows, blockIdx.x == 0);
            chunk_end = unit_end;
        }

        for (int tile = blockIdx.x; tile < given.row_tiles; tile += gridDim.x) {
            float sums[streams][tiles][4] = {};
            for (int unit_first = unit_begin; unit_first < unit_end; unit_first += depth) {
                if (unit_first < chunk_begin || min(unit_first + depth, unit_end) > chunk_end) {
                    chunk_begin = unit_first;
                    chunk_end = min(unit_first + given.chunk_units, unit_end);
                    __syncwarp(); // lanes may still read the chunk before
                    copy_rows<streams == 2 ? 2 : 4, Half>(
                        x_area, pitch, product.x, product.weight.columns, chunk_begin, chunk_end,
                        rows, lane, row_of, product.input_scale != nullptr, scale_of);
                    __syncwarp();
                }
#pragma unroll
                for (int d = 0; d < depth; ++d) {
                    if (unit_first + d < unit_end) {
#pragma unroll
                        for (int s = 0; s < streams; ++s)
                            multiply_unit<bits, Half, tiles>(sums[s], units[d][s], shape, x,
                                                             unit_first - chunk_begin + d);
                    }
                    load(d);
                }
                next_round();
            }

            // The warps' sums, added in the order of the warps.
            float* own = sums_area + (turn * warps + warp) * (streams * given.slots * few_pitch);
            const int g = lane / 4, t = lane % 4;
#pragma unroll
            for (int s = 0; s < streams; ++s) {
#pragma unroll
                for (int i = 0; i < tiles; ++i) {
                    float* to = own + (s * given.slots + 8 * i + 2 * t) * few_pitch + g;
                    if (8 * i + 2 * t < rows) {
                        to[0] = sums[s][i][0];
                        to[8] = sums[s][i][2];
                    }
                    if (8 * i + 2 * t + 1 < rows) {
                        to[few_pitch] = sums[s][i][1];
                        to[few_pitch + 8] = sums[s][i][3];
                    }
                }
            }
            __syncthreads();
            const float* all = sums_area + turn * warps * (streams * given.slots * few_pitch);
            turn ^= 1;
            const auto sum_of = [&](int s, int n, int row) {
                float sum = 0.0f;
#pragma unroll 4
                for (int w = 0; w < warps; ++w)
                    sum += all[((w * streams + s) * given.slots + n) * few_pitch + row];
                return sum;
            };
            const bool interleaves =
                product.gate.gates && product.gate.gate_layout == SLUICE_GATE_INTERLEAVED;
            const int outputs = interleaves ? 8 : 16;
            if constexpr (has_more) {
                if (!interleaves) {
                    const tile_owner owner = owner_of(given, tile);
                    for (int i = threadIdx.x; i < rows * 16; i += blockDim.x) {
                        const int n = i / 16, row = i % 16;
                        const int column = owner.tile * 16 + row;
                        float value = sum_of(0, n, row);
                        if (owner.bias != nullptr) value += owner.bias[column];
                        store_from_float(owner.y, owner.y_type,
                                         (first_place + n) * owner.width + column, value);
                    }
                    continue;
                }
            }
            for (int i = threadIdx.x; i < rows * outputs; i += blockDim.x) {
                const int n = i / outputs, row = i % outputs;
                const int64_t column = static_cast<int64_t>(tile) * outputs + row;
                const int gate_step = interleaves ? 2 : 1;
                float value = sum_of(0, n, gate_step * row);
                if (product.bias != nullptr)
                    value += product.bias[matrix * product.weight.rows + gate_step * column];
                if (streams == 2 || interleaves) {
                    float up = streams == 2 ? sum_of(1, n, row) : sum_of(0, n, 2 * row + 1);
                    const float* bias = product.bias;
                    int64_t up_column = interleaves ? 2 * column + 1 : given.width + column;
                    if (streams == 2 && up_is_operand) {
                        bias = product.up_bias; // the matrices have equally many rows
                        up_column = column;
                    }
                    if (bias != nullptr) up += bias[matrix * product.weight.rows + up_column];
                    value = gated_activate(product.gate.activation, product.gate.alpha,
                                           product.gate.clamp, value, up);
                }
                store_from_float(product.y, product.y_type,
                                 (first_place + n) * given.width + column, value);
            }
        }
    }
}

template <int bits, typename Half, int tiles, int streams, bool has_zeros, bool norms>
__global__ void __maxnreg__(few_registers(bits, tiles, has_zeros))
    few_kernel(const __grid_constant__ few_arguments given) {
    extern __shared__ uint4 shared_vectors[];
    if (given.call.reads_earlier) start_next_grid();
    multiply_few<bits, Half, tiles, streams, has_zeros, norms>(given, shared_vectors);
    // Where nobody has waited yet: this grid does not end before the one before it has. One block
    // is enough.
    if (blockIdx.x == 0 && blockIdx.y == 0) wait_for_grids_before();
}

template <int bits, typename Half, int tiles, int streams>
void launch_few_kernel(const few_arguments& given, dim3 grid, int warps, size_t shared_bytes,
                       cudaStream_t stream) {
    auto* kernel = few_kernel<bits, Half, tiles, streams, bits == 8, false>;
    // Kernels of int8 look for zero points themselves; those of int4 with one tile have no register
    // to spare.
    if constexpr (bits == 4)
        if (given.shape.has_zeros) kernel = few_kernel<bits, Half, tiles, streams, true, false>;
    if constexpr (tiles == 1)
        if (given.call.norm.residual != nullptr) {
            kernel = few_kernel<bits, Half, tiles, streams, bits == 8, true>;
            if constexpr (bits == 4)
                if (given.shape.has_zeros)
                    kernel = few_kernel<bits, Half, tiles, streams, true, true>;
        }
    launch_grid(kernel, grid, static_cast<unsigned>(warps) * 32, shared_bytes, stream,
                given.call.programmatic, given);
}

template <int bits, typename Half, int streams>
void launch_few_tiles(const few_arguments& given, dim3 grid, int warps, size_t shared_bytes,
                      int tiles, cudaStream_t stream) {
    if (tiles == 1)
        launch_few_kernel<bits, Half, 1, streams>(given, grid, warps, shared_bytes, stream);
    else if (tiles == 2)
        launch_few_kernel<bits, Half, 2, streams>(given, grid, warps, shared_bytes, stream);
    else
        launch_few_kernel<bits, Half, 4, streams>(given, grid, warps, shared_bytes, stream);
}

template <int bits>
void launch_few(const few_arguments& given, dim3 grid, int warps, size_t shared_bytes, int tiles,
                int streams, cudaStream_t stream) {
    const bool is_bfloat = given.call.product.x_type == SLUICE_BF16;
    if (is_bfloat && streams == 1)
        launch_few_tiles<bits, __nv_bfloat16, 1>(given, grid, warps, shared_bytes, tiles, stream);
    else if (is_bfloat)
        launch_few_tiles<bits, __nv_bfloat16, 2>(given, grid, warps, shared_bytes, tiles, stream);
    else if (streams == 1)
        launch_few_tiles<bits, __half, 1>(given, grid, warps, shared_bytes, tiles, stream);
    else
        launch_few_tiles<bits, __half, 2>(given, grid, warps, shared_bytes, tiles, stream);
}

} // namespace sluice::cuda
