// Attention of many rows of a sequence by the matrix units, tile by tile of places, with a running
// softmax (FlashAttention-2; Dao 2023).
//
// A block has a tile of query rows for the heads of one kv head: its row m is token m / group, head
// m % group, so that keys and values are read once for the group, and sequences with few rows fill
// tiles too. Keys and values of 64 places at a time are gathered from their blocks to shared
// memory, while the matrix units work on what came before: values travel during the scores, the
// next keys during the weights.
#include "attention.cuh"
#include "attention_matrix.cuh"

#include "../errors.hpp"

namespace sluice::cuda {

namespace {

constexpr int warps = 4;
constexpr int prefill_threads = warps * 32;
constexpr int tile_places = 64;

// row_tiles: of 16 rows, a warp.
template <int width, int row_tiles>
struct prefill_shape {
    static constexpr int rows = warps * 16 * row_tiles;
    static constexpr int chunks = width / 8; // of 16 bytes, in a vector
    // Chunk c of a vector lies at place c ^ (row % 8), so that 8 rows' chunks c meet no bank twice.
    static constexpr int pitch = (chunks + 7) / 8 * 128;
    static constexpr int query_bytes = rows * pitch;
    static constexpr int tile_bytes = tile_places * pitch;
    static constexpr int shared_bytes = query_bytes + 2 * tile_bytes;

    static __device__ __forceinline__ int offset(int row, int chunk) {
        return row * pitch + ((chunk ^ (row & 7)) << 4);
    }
};

struct prefill_arguments {
    attention_call call;
    int32_t decode_rows;
    int32_t tile_tokens; // of a block's tile
    int32_t tiles;       // at most
};

struct prefill_room {
    tile_of_rows tile;
    // Places that any of the rows attends to, and those that all do.
    int32_t any_begin, any_end;
    int32_t all_begin, all_end;
};

template <typename Element, int width, int row_tiles>
__global__ void __launch_bounds__(prefill_threads)
    attention_prefill_kernel(const __grid_constant__ prefill_arguments a) {
    using shape = prefill_shape<width, row_tiles>;
    constexpr int chunks = shape::chunks;
    constexpr int score_tiles = tile_places / 8, output_tiles = width / 8;
    extern __shared__ __align__(128) unsigned char attention_prefill_room[];
    unsigned char* queries = attention_prefill_room;
    unsigned char* keys = queries + shape::query_bytes;
    unsigned char* values = keys + shape::tile_bytes;
    __shared__ prefill_room room;
    __shared__ int32_t slots[2][tile_places];
    __shared__ place_range row_places[shape::rows];

    const attention_call& call = a.call;
    const attended_rows& rows = call.rows;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int g = lane / 4, t = lane % 4;
    const int group = call.heads / call.kv_heads;
    const int kv_head = static_cast<int>(blockIdx.x) % call.kv_heads;
    // The last tiles of a sequence have the most places, so that they should begin first.
    const int tile = a.tiles - 1 - static_cast<int>(blockIdx.x) / call.kv_heads;

    // Rows of padding become zeros.
    for (int32_t row = __ldg(rows.query_start + rows.sequences) + static_cast<int32_t>(blockIdx.x);
         row < rows.rows; row += static_cast<int32_t>(gridDim.x))
        for (int i = thread; i < call.heads * width; i += prefill_threads)
            store_from_float(call.o, call.o_type,
                             static_cast<int64_t>(row) * call.heads * width + i, 0.0f);

    if (thread == 0) room = {{-1, 0, 0}, INT32_MAX, 0, 0, INT32_MAX};
    __syncthreads();
    find_tile(rows, a.decode_rows, a.tile_tokens, tile, prefill_threads, room.tile);
    __syncthreads();
    if (room.tile.sequence < 0) return;
    const int32_t first_row = room.tile.begin;
    const int row_count = (room.tile.end - room.tile.begin) * group; // of the block's tile
    const int32_t length = __ldg(rows.kv_length + room.tile.sequence);
    const int32_t* table =
        rows.block_table + static_cast<int64_t>(room.tile.sequence) * rows.block_columns;
    if (thread < shape::rows) {
        place_range places = {0, 0};
        if (thread < row_count) {
            places = places_of(rows, __ldg(rows.position + first_row + thread / group), length);
            if (places.begin < places.end) {
                atomicMin(&room.any_begin, places.begin);
                atomicMax(&room.any_end, places.end);
            }
            atomicMax(&room.all_begin, places.begin);
            atomicMin(&room.all_end, places.end);
        }
        row_places[thread] = places;
    }
    // Row m of the tile among the heads of all rows of the step.
    const int64_t tile_first = static_cast<int64_t>(first_row) * call.heads + kv_head * group;
    const auto head_row = [&](int m) {
        return tile_first + static_cast<int64_t>(m / group) * call.heads + m % group;
    };
    for (int i = thread; i < shape::rows * chunks; i += prefill_threads) {
        const int m = i / chunks, c = i % chunks;
        const bool is_there = m < row_count;
        copy_async(queries + shape::offset(m, c),
                   static_cast<const Element*>(call.q) + head_row(is_there ? m : 0) * width + 8 * c,
                   is_there);
    }
    __syncthreads();
    const int32_t all_begin = room.all_begin, all_end = room.all_end, any_end = room.any_end;
    int32_t first = min(room.any_begin, any_end); // of the tile of places

    const int64_t slot_stride = static_cast<int64_t>(call.kv_heads) * width;
    const auto write_slots = [&](int32_t from, int which) {
        if (thread < tile_places) {
            const int32_t place = from + thread;
            slots[which][thread] = place < any_end ? slot_of(rows, table, place) : -1;
        }
    };
    const auto copy_tile = [&](unsigned char* to, const void* part, int which) {
        const auto* from = static_cast<const Element*>(part) + kv_head * width;
        const auto copy_chunk = [&](int place, int c) {
            const int32_t slot = slots[which][place];
            copy_async(to + shape::offset(place, c), from + max(slot, 0) * slot_stride + 8 * c,
                       slot >= 0);
        };
        // Not unrolled further, for want of registers.
        if constexpr (prefill_threads % chunks == 0) {
#pragma unroll 4
            for (int i = 0; i < tile_places * chunks / prefill_threads; ++i)
                copy_chunk(thread / chunks + i * (prefill_threads / chunks), thread % chunks);
        } else {
#pragma unroll 2
            for (int i = thread; i < tile_places * chunks; i += prefill_threads)
                copy_chunk(i / chunks, i % chunks);
        }
        copy_commit();
    };

    // Of rows g and g + 8 of each row tile. maximum: of the scores before they are multiplied by
    // `factor`, which makes powers of two of them; sum: of the lane's own columns.
    float maximum[row_tiles][2], sum[row_tiles][2];
    float o[row_tiles][output_tiles][4] = {};
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) {
        maximum[m][0] = maximum[m][1] = -INFINITY;
        sum[m][0] = sum[m][1] = 0;
    }
    const float factor = call.softcap > 0 ? log2_e : call.scale * log2_e;
    const int warp_row = warp * 16 * row_tiles;
    // Where the lane's addresses for load_matrices begin. Later chunks differ in bits that the
    // exclusive or leaves apart, later rows by multiples of 8.
    const int query_at = shape::offset(warp_row + lane % 16, lane / 16);
    const int key_at = shape::offset(lane / 16 * 8 + lane % 8, lane / 8 % 2);
    const int value_at = shape::offset(lane % 16, lane / 16);

    if (first < any_end) {
        write_slots(first, 0);
        __syncthreads();
        copy_tile(keys, call.keys, 0);
    } else { // the queries' memory is written again below
        copy_commit();
        copy_wait<0>();
        __syncthreads();
    }
    for (int turn = 0; first < any_end; first += tile_places, turn ^= 1) {
        copy_wait<0>();
        __syncthreads(); // keys are here; the values before are used up
        copy_tile(values, call.values, turn);
        write_slots(first + tile_places, turn ^ 1);

        float score[row_tiles][score_tiles][4] = {};
#pragma unroll
        for (int k = 0; k < width / 16; ++k) {
            uint32_t q[row_tiles][4];
#pragma unroll
            for (int m = 0; m < row_tiles; ++m)
                load_matrices(q[m], queries + toggled(query_at, 32 * k) + 16 * m * shape::pitch);
#pragma unroll
            for (int n = 0; n < score_tiles; n += 2) {
                uint32_t key[4];
                load_matrices(key, keys + toggled(key_at, 32 * k) + 8 * n * shape::pitch);
#pragma unroll
                for (int m = 0; m < row_tiles; ++m) {
                    multiply_add<Element>(score[m][n], q[m][0], q[m][1], q[m][2], q[m][3], key[0],
                                          key[1]);
                    multiply_add<Element>(score[m][n + 1], q[m][0], q[m][1], q[m][2], q[m][3],
                                          key[2], key[3]);
                }
            }
        }
        copy_wait<0>();
        __syncthreads(); // values are here; the keys are used up
        if (first + tile_places < any_end) copy_tile(keys, call.keys, turn ^ 1);

        if (call.softcap > 0) {
#pragma unroll
            for (int m = 0; m < row_tiles; ++m)
#pragma unroll
                for (int n = 0; n < score_tiles; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        score[m][n][i] = score_of(score[m][n][i], call.scale, call.softcap);
        }
        if (first < all_begin || first + tile_places > all_end) {
#pragma unroll
            for (int m = 0; m < row_tiles; ++m)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const place_range seen = row_places[warp_row + 16 * m + 8 * half + g];
#pragma unroll
                    for (int n = 0; n < score_tiles; ++n)
#pragma unroll
                        for (int i = 0; i < 2; ++i) {
                            const int32_t place = first + 8 * n + 2 * t + i;
                            if (place < seen.begin || place >= seen.end)
                                score[m][n][2 * half + i] = -INFINITY;
                        }
                }
        }
#pragma unroll
        for (int m = 0; m < row_tiles; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float found = -INFINITY;
#pragma unroll
                for (int n = 0; n < score_tiles; ++n)
                    found = fmaxf(found, fmaxf(score[m][n][2 * half], score[m][n][2 * half + 1]));
                const float now = fmaxf(maximum[m][half], maximum_in_group(found));
                // A row that has seen no place yet has no maximum.
                const float base = now == -INFINITY ? 0.0f : now * factor;
                const float correction = power_of_2(maximum[m][half] * factor - base);
                maximum[m][half] = now;
                float added = 0;
#pragma unroll
                for (int n = 0; n < score_tiles; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        float& weight = score[m][n][2 * half + i];
                        weight = power_of_2(weight * factor - base);
                        added += weight;
                    }
                sum[m][half] = sum[m][half] * correction + added;
#pragma unroll
                for (int n = 0; n < output_tiles; ++n) {
                    o[m][n][2 * half] *= correction;
                    o[m][n][2 * half + 1] *= correction;
                }
            }
#pragma unroll
        for (int k = 0; k < tile_places / 16; ++k) {
            uint32_t weight[row_tiles][4];
#pragma unroll
            for (int m = 0; m < row_tiles; ++m) {
                weight[m][0] = pack<Element>(score[m][2 * k][0], score[m][2 * k][1]);
                weight[m][1] = pack<Element>(score[m][2 * k][2], score[m][2 * k][3]);
                weight[m][2] = pack<Element>(score[m][2 * k + 1][0], score[m][2 * k + 1][1]);
                weight[m][3] = pack<Element>(score[m][2 * k + 1][2], score[m][2 * k + 1][3]);
            }
#pragma unroll
            for (int n = 0; n < output_tiles; n += 2) {
                uint32_t value[4];
                load_matrices_transposed(value, values + toggled(value_at, 16 * n)
                                                    + 16 * k * shape::pitch);
#pragma unroll
                for (int m = 0; m < row_tiles; ++m) {
                    multiply_add<Element>(o[m][n], weight[m][0], weight[m][1], weight[m][2],
                                          weight[m][3], value[0], value[1]);
                    multiply_add<Element>(o[m][n + 1], weight[m][0], weight[m][1], weight[m][2],
                                          weight[m][3], value[2], value[3]);
                }
            }
        }
    }
    constexpr bool is_bfloat16 = std::is_same_v<Element, __nv_bfloat16>;
    const bool is_same_type = call.o_type == (is_bfloat16 ? SLUICE_BF16 : SLUICE_F16);
#pragma unroll
    for (int m = 0; m < row_tiles; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = warp_row + 16 * m + 8 * half + g;
            float whole = sum_in_group(sum[m][half]), scale = 1;
            if (call.sinks != nullptr && whole > 0) {
                const float sink =
                    log2_e
                    * load_as_float(call.sinks, call.sinks_type, kv_head * group + row % group);
                const float now = fmaxf(maximum[m][half] * factor, sink);
                scale = power_of_2(maximum[m][half] * factor - now);
                whole = whole * scale + power_of_2(sink - now);
            }
            scale = whole > 0 ? scale / whole : 0.0f;
            if (is_same_type) {
                // Through the warp's own rows of the queries' memory, for stores of whole vectors.
#pragma unroll
                for (int n = 0; n < output_tiles; ++n)
                    *reinterpret_cast<uint32_t*>(queries + shape::offset(row, n) + 4 * t) =
                        pack<Element>(o[m][n][2 * half] * scale, o[m][n][2 * half + 1] * scale);
            } else if (row < row_count) {
                float* to = static_cast<float*>(call.o) + head_row(row) * width + 2 * t;
#pragma unroll
                for (int n = 0; n < output_tiles; ++n)
                    *reinterpret_cast<float2*>(to + 8 * n) =
                        float2{o[m][n][2 * half] * scale, o[m][n][2 * half + 1] * scale};
            }
        }
    if (!is_same_type) return;
    __syncwarp();
    for (int i = lane; i < 16 * row_tiles * chunks; i += 32) {
        const int row = warp_row + i / chunks, c = i % chunks;
        if (row < row_count)
            *reinterpret_cast<uint4*>(static_cast<Element*>(call.o) + head_row(row) * width
                                      + 8 * c) =
                *reinterpret_cast<const uint4*>(queries + shape::offset(row, c));
    }
}

template <typename Element, int width, int row_tiles>
void launch(const attention_call& call, int32_t decode_rows, cudaStream_t stream) {
    using shape = prefill_shape<width, row_tiles>;
    prefill_arguments a{call, decode_rows, 0, 0};
    a.tile_tokens = shape::rows / (call.heads / call.kv_heads);
    a.tiles = tiles_at_most(call.rows.rows, call.rows.sequences, a.tile_tokens);
    const auto kernel = attention_prefill_kernel<Element, width, row_tiles>;
    constexpr int shared = shape::shared_bytes;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
          "preparing attention of many rows");
    const auto blocks = static_cast<unsigned>(a.tiles * call.kv_heads);
    kernel<<<blocks, prefill_threads, shared, stream>>>(a);
    check(cudaGetLastError(), "launching attention of many rows");
}

template <typename Element>
void launch_for(const attention_call& call, int32_t decode_rows, cudaStream_t stream) {
    switch (call.key_width) {
    case 32:
        return launch<Element, 32, 2>(call, decode_rows, stream);
    case 64:
        return launch<Element, 64, 2>(call, decode_rows, stream);
    case 96:
        return launch<Element, 96, 2>(call, decode_rows, stream);
    case 128:
        return launch<Element, 128, 2>(call, decode_rows, stream);
    default:
        return launch<Element, 256, 1>(call, decode_rows, stream);
    }
}

} // namespace

void launch_attention_prefill(const attention_call& call, int32_t decode_rows,
                              cudaStream_t stream) {
    if (call.rows.rows == 0) return;
    if (call.q_type == SLUICE_BF16)
        launch_for<__nv_bfloat16>(call, decode_rows, stream);
    else
        launch_for<__half>(call, decode_rows, stream);
}

} // namespace sluice::cuda
