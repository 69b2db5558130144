// Multi-head latent attention in the absorbed form by the matrix units: all heads share the
// latents, which are the keys' first part and the values too, so that a block takes several heads
// (and tokens) as its rows and reads the cache once for them.
//
// A tile of 32 places lies in shared memory while the next one arrives. For the scores the warps
// divide rows and places among them, for the outputs rows and columns; maxima and weights go
// through shared memory in between. The running softmax is that of Milakov and Gimelshein 2018.
#include "attention.cuh"
#include "attention_matrix.cuh"
#include "launch.cuh"
#include "mla_attention.hpp"
#include "reduce.cuh"

#include <algorithm>

namespace sluice::cuda {

namespace {

constexpr int latent = 512;
constexpr int rope = 64;
constexpr int width = latent + rope; // of a key
constexpr int pitch = width * 2;     // bytes; a multiple of 128
constexpr int chunks = width / 8;    // of 16 bytes
constexpr int tile_places = 32;
constexpr int tile_bytes = tile_places * pitch;
constexpr int weight_pitch = tile_places * 2 + 16; // so that 8 rows meet no bank twice
constexpr int split_places_min = 2 * tile_places;
constexpr int splits_max = 96;
constexpr int group_columns = 128; // of the output, for one warp

// Chunk c of a row lies at place c ^ (row % 8) of its eight.
__device__ __forceinline__ int offset_of(int row, int chunk) {
    return row * pitch + (chunk >> 3) * 128 + (((chunk & 7) ^ (row & 7)) << 4);
}

struct mla_arguments {
    mla_attention_call call;
    attention_decode_plan plan;
    void* latent_rows; // [rows, heads, latent]: q', then the result
    float* partial;
    int32_t chunk_heads; // heads of a block
    int32_t head_chunks;
    int32_t tile_tokens; // rows of the step of a block's tile
    int32_t tiles;       // at most
};

// 16 rows with 4 warps, or 64 with 8.
template <int row_tiles>
struct mla_shape {
    static constexpr int rows = 16 * row_tiles;
    static constexpr int warps = row_tiles == 1 ? 4 : 8;
    static constexpr int threads = warps * 32;
    // For the scores: each warp has one row tile and so many tiles of 8 places.
    static constexpr int place_groups = warps / row_tiles;
    static constexpr int score_tiles = tile_places / 8 / place_groups;
    // For the outputs: each warp has so many row tiles and group_columns columns.
    static constexpr int column_groups = latent / group_columns;
    static constexpr int output_row_tiles = row_tiles * column_groups / warps;

    static constexpr int query_bytes = rows * pitch;
    static constexpr int shared_bytes = query_bytes + 2 * tile_bytes + rows * weight_pitch;
    static_assert(place_groups * row_tiles == warps);
    static_assert(output_row_tiles * warps == row_tiles * column_groups);
};

template <int row_tiles>
struct mla_room {
    using shape = mla_shape<row_tiles>;
    tile_of_rows tile;
    int32_t any_begin, any_end; // places that any of the rows attends to
    int32_t slots[2][tile_places];
    place_range row_places[shape::rows];
    float maximum[shape::place_groups][shape::rows]; // of the tile's scores
    float sum[shape::place_groups][shape::rows];     // of the weights, at the end
    float correction[shape::rows];                   // of the outputs so far
    float row_maximum[shape::rows];                  // at the end
};

// How many splits the places [0, end) of a decoding row have, and the places of one.
struct row_splits {
    int places;
    int count;
};
__device__ __forceinline__ row_splits splits_of(int32_t end, int splits_at_most) {
    const int places = places_of_split(end, splits_at_most, tile_places, split_places_min);
    return {places, (end + places - 1) / places};
}

// Grid: for decoding splits, head chunks, rows; otherwise head chunks * tiles.
template <typename Element, int row_tiles, bool is_decoding>
__global__ void __launch_bounds__(mla_shape<row_tiles>::threads)
    mla_attention_kernel(const __grid_constant__ mla_arguments a) {
    using shape = mla_shape<row_tiles>;
    constexpr int threads = shape::threads;
    extern __shared__ __align__(128) unsigned char mla_attention_room[];
    unsigned char* queries = mla_attention_room;
    unsigned char* tiles = queries + shape::query_bytes; // two
    unsigned char* weights = tiles + 2 * tile_bytes;
    __shared__ mla_room<row_tiles> room;

    const mla_attention_call& call = a.call;
    if (call.expanded.begin != nullptr && __ldg(call.expanded.rows_left) == 0) return;
    const attended_rows& rows = call.rows;
    auto* latent_rows = static_cast<Element*>(a.latent_rows);
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int g = lane / 4, t = lane % 4;
    const int head_chunk = static_cast<int>(is_decoding ? blockIdx.y : blockIdx.x % a.head_chunks);
    const int first_head = head_chunk * a.chunk_heads;
    const int heads = min(a.chunk_heads, call.heads - first_head);

    // ---- The block's rows: row m is token m / heads, head m % heads. ----

    // Of the step's own inputs a decoding block finds out its places while the grid before it may
    // still run.
    start_next_grid();
    int32_t first_row, sequence;
    int row_count = heads;
    const auto clear = [&](int64_t row) { // of this chunk's heads
        wait_for_grids_before();
        for (int i = thread; i < heads * latent; i += threads)
            latent_rows[(row * call.heads + first_head) * latent + i] = from_float<Element>(0.0f);
    };
    if constexpr (is_decoding) {
        const attended_row found =
            decoding_row(rows, static_cast<int32_t>(blockIdx.z), a.plan.takes_all_rows);
        first_row = found.row;
        sequence = found.sequence;
        if (sequence < 0) {
            if (a.plan.takes_all_rows && blockIdx.x == 0) clear(first_row);
            return;
        }
    } else {
        const int tile_number = a.tiles - 1 - static_cast<int>(blockIdx.x) / a.head_chunks;
        for (int32_t row = __ldg(rows.query_start + rows.sequences) + tile_number; row < rows.rows;
             row += a.tiles)
            clear(row);
        if (thread == 0) room.tile = {-1, 0, 0};
        __syncthreads();
        find_tile(rows, a.plan.rows, a.tile_tokens, tile_number, threads, room.tile);
        __syncthreads();
        sequence = room.tile.sequence;
        first_row = room.tile.begin;
        row_count = (room.tile.end - first_row) * heads;
        if (sequence < 0) return;
        if (call.expanded.begin != nullptr && __ldg(call.expanded.begin + sequence) >= 0) return;
    }
    const int32_t length = __ldg(rows.kv_length + sequence);
    const int32_t* table = rows.block_table + static_cast<int64_t>(sequence) * rows.block_columns;
    const auto head_row = [&](int m) {
        return static_cast<int64_t>(first_row + m / heads) * call.heads + first_head + m % heads;
    };

    // ---- Its places ----

    int32_t begin, end;
    int splits = 1;
    if constexpr (is_decoding) {
        const place_range places = places_of(rows, __ldg(rows.position + first_row), length);
        if (places.end <= 0) {
            if (blockIdx.x == 0) clear(first_row);
            return;
        }
        const row_splits found = splits_of(places.end, static_cast<int>(gridDim.x));
        splits = found.count;
        if (static_cast<int>(blockIdx.x) >= splits) return;
        begin = static_cast<int32_t>(blockIdx.x) * found.places;
        end = min(begin + found.places, places.end);
        if (thread < shape::rows)
            room.row_places[thread] =
                thread < row_count ? place_range{begin, end} : place_range{0, 0};
    } else {
        if (thread == 0) {
            room.any_begin = INT32_MAX;
            room.any_end = 0;
        }
        __syncthreads();
        if (thread < shape::rows) {
            place_range places = {0, 0};
            if (thread < row_count)
                places = places_of(rows, __ldg(rows.position + first_row + thread / heads), length);
            if (places.begin < places.end) {
                atomicMin(&room.any_begin, places.begin);
                atomicMax(&room.any_end, places.end);
            }
            room.row_places[thread] = places;
        }
        __syncthreads();
        end = room.any_end;
        begin = min(room.any_begin, end);
    }

    const auto write_slots = [&](int32_t from, int which) {
        if (thread < tile_places) {
            const int32_t place = from + thread;
            room.slots[which][thread] = place < end ? slot_of(rows, table, place) : -1;
        }
    };
    write_slots(begin, 0);
    write_slots(begin + tile_places, 1);
    wait_for_grids_before();
    for (int i = thread; i < shape::rows * chunks; i += threads) {
        const int m = i / chunks, c = i % chunks;
        const bool is_there = m < row_count;
        const int64_t at = head_row(is_there ? m : 0);
        const Element* from =
            c < latent / 8 ? latent_rows + at * latent + 8 * c
                           : static_cast<const Element*>(call.q_pe) + at * rope + 8 * c - latent;
        copy_async(queries + offset_of(m, c), from, is_there);
    }
    const auto copy_tile = [&](int which) {
        unsigned char* to = tiles + which * tile_bytes;
#pragma unroll 3
        for (int i = thread; i < tile_places * chunks; i += threads) {
            const int place = i / chunks, c = i % chunks;
            const int64_t slot = max(room.slots[which][place], 0);
            const Element* from =
                c < latent / 8
                    ? static_cast<const Element*>(call.latents) + slot * latent + 8 * c
                    : static_cast<const Element*>(call.rope_keys) + slot * rope + 8 * c - latent;
            copy_async(to + offset_of(place, c), from, room.slots[which][place] >= 0);
        }
        copy_commit();
    };

    // ---- The warps' parts ----

    const int score_row = warp % row_tiles * 16;
    const int place_group = warp / row_tiles;
    const int first_score_tile = place_group * shape::score_tiles;
    const int column_group = warp % shape::column_groups;
    const int output_row = warp / shape::column_groups * shape::output_row_tiles * 16;
    const float factor = call.scale * log2_e; // makes powers of two of scores
    // Of rows g and g + 8 of the score tile. sum: of the lane's own columns.
    float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    float o[shape::output_row_tiles][group_columns / 8][4] = {};

    __syncthreads(); // the slots of the first two tiles are here
    if (begin < end) copy_tile(0);
    for (int32_t first = begin, turn = 0; first < end; first += tile_places, turn ^= 1) {
        copy_wait<0>();
        __syncthreads(); // this tile is here; the one before is used up, and its weights
        if (first + tile_places < end) copy_tile(turn ^ 1);
        write_slots(first + 2 * tile_places, turn);
        const unsigned char* tile = tiles + turn * tile_bytes;

        // Scores, in two sums of alternate steps, so that they need not wait for each other.
        float score[shape::score_tiles][2][4] = {};
#pragma unroll
        for (int k = 0; k < width / 16; k += 2) {
            uint32_t q[2][4];
            load_matrices(q[0], queries + offset_of(score_row + lane % 16, 2 * k + lane / 16));
            load_matrices(q[1], queries + offset_of(score_row + lane % 16, 2 * k + 2 + lane / 16));
#pragma unroll
            for (int n = 0; n < shape::score_tiles; ++n) {
                uint32_t key[4]; // of two steps
                load_matrices(
                    key, tile + offset_of((first_score_tile + n) * 8 + lane % 8, 2 * k + lane / 8));
                multiply_add<Element>(score[n][0], q[0][0], q[0][1], q[0][2], q[0][3], key[0],
                                      key[1]);
                multiply_add<Element>(score[n][1], q[1][0], q[1][1], q[1][2], q[1][3], key[2],
                                      key[3]);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const place_range seen = room.row_places[score_row + 8 * half + g];
            float found = -INFINITY;
#pragma unroll
            for (int n = 0; n < shape::score_tiles; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int32_t place = first + (first_score_tile + n) * 8 + 2 * t + i;
                    float& z = score[n][0][2 * half + i];
                    z = place >= seen.begin && place < seen.end
                            ? (z + score[n][1][2 * half + i]) * factor
                            : -INFINITY;
                    found = fmaxf(found, z);
                }
            found = maximum_in_group(found);
            if (t == 0) room.maximum[place_group][score_row + 8 * half + g] = found;
        }
        __syncthreads(); // the tile's maxima are here
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = score_row + 8 * half + g;
            float now = maximum[half];
#pragma unroll
            for (int p = 0; p < shape::place_groups; ++p) now = fmaxf(now, room.maximum[p][row]);
            // A row that has seen no place yet has no maximum.
            const float base = now == -INFINITY ? 0.0f : now;
            const float correction = power_of_2(maximum[half] - base);
            maximum[half] = now;
            if (place_group == 0 && t == 0) room.correction[row] = correction;
            sum[half] *= correction;
#pragma unroll
            for (int n = 0; n < shape::score_tiles; ++n) {
                const float weight0 = power_of_2(score[n][0][2 * half] - base);
                const float weight1 = power_of_2(score[n][0][2 * half + 1] - base);
                sum[half] += weight0 + weight1;
                *reinterpret_cast<uint32_t*>(weights + row * weight_pitch
                                             + (first_score_tile + n) * 16 + 4 * t) =
                    pack<Element>(weight0, weight1);
            }
        }
        __syncthreads(); // the weights are here
#pragma unroll
        for (int m = 0; m < shape::output_row_tiles; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float correction = room.correction[output_row + 16 * m + 8 * half + g];
#pragma unroll
                for (int n = 0; n < group_columns / 8; ++n) {
                    o[m][n][2 * half] *= correction;
                    o[m][n][2 * half + 1] *= correction;
                }
            }
#pragma unroll
        for (int k = 0; k < tile_places / 16; ++k) {
            uint32_t weight[shape::output_row_tiles][4];
#pragma unroll
            for (int m = 0; m < shape::output_row_tiles; ++m)
                load_matrices(weight[m], weights + (output_row + 16 * m + lane % 16) * weight_pitch
                                             + k * 32 + lane / 16 * 16);
#pragma unroll
            for (int n = 0; n < group_columns / 8; n += 2) {
                uint32_t value[4];
                load_matrices_transposed(
                    value, tile
                               + offset_of(16 * k + lane % 16,
                                           column_group * (group_columns / 8) + n + lane / 16));
#pragma unroll
                for (int m = 0; m < shape::output_row_tiles; ++m) {
                    multiply_add<Element>(o[m][n], weight[m][0], weight[m][1], weight[m][2],
                                          weight[m][3], value[0], value[1]);
                    multiply_add<Element>(o[m][n + 1], weight[m][0], weight[m][1], weight[m][2],
                                          weight[m][3], value[2], value[3]);
                }
            }
        }
    }
    copy_commit(); // the queries, where there was no place
    copy_wait<0>();

    // ---- The result ----

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = score_row + 8 * half + g;
        const float whole = sum_in_group(sum[half]);
        if (t == 0) {
            room.sum[place_group][row] = whole;
            if (place_group == 0) room.row_maximum[row] = maximum[half];
        }
    }
    __syncthreads();
    const auto whole_sum = [&](int row) {
        float whole = 0;
#pragma unroll
        for (int p = 0; p < shape::place_groups; ++p) whole += room.sum[p][row];
        return whole;
    };
    // Calls store(row, column, first, second) for the lane's pairs.
    const auto each_pair = [&](auto&& store) {
#pragma unroll
        for (int m = 0; m < shape::output_row_tiles; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = output_row + 16 * m + 8 * half + g;
                if (row >= row_count) continue;
                const float whole = whole_sum(row);
#pragma unroll
                for (int n = 0; n < group_columns / 8; ++n)
                    store(row, column_group * group_columns + 8 * n + 2 * t, o[m][n][2 * half],
                          o[m][n][2 * half + 1], whole);
            }
    };
    if (splits == 1) {
        each_pair([&](int row, int column, float first, float second, float whole) {
            const float scale = whole > 0 ? 1.0f / whole : 0.0f;
            *reinterpret_cast<uint32_t*>(latent_rows + head_row(row) * latent + column) =
                pack<Element>(first * scale, second * scale);
        });
        return;
    }
    if constexpr (is_decoding) {
        // For combine_kernel.
        constexpr int size = split_floats<shape::rows, latent>;
        const int64_t unit = static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y;
        float* partials = a.partial + unit * gridDim.x * size;
        float* partial = partials + static_cast<int64_t>(blockIdx.x) * size;
        each_pair([&](int row, int column, float first, float second, float) {
            *reinterpret_cast<float2*>(partial + row * latent + column) = float2{first, second};
        });
        if (thread < row_count) {
            partial[shape::rows * latent + thread] = room.row_maximum[thread];
            partial[shape::rows * (latent + 1) + thread] = whole_sum(thread);
        }
    }
}

// Adds up what the splits of a decoding row left. A warp takes every fourth split, for four columns
// a lane. Grid: column groups, heads, rows.
constexpr int combine_warps = 4;
constexpr int combined_at_once = 16; // splits of a warp that are on their way together

template <typename Element>
__global__ void __launch_bounds__(combine_warps * 32)
    combine_kernel(const __grid_constant__ mla_arguments a, int chunk_rows) {
    __shared__ float split_weight[splits_max];
    __shared__ float4 warp_sum[combine_warps][32];
    __shared__ float warp_maximum[combine_warps], warp_weight[combine_warps];
    start_next_grid();
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int column = static_cast<int>(blockIdx.x) * group_columns + 4 * lane;
    const int head = static_cast<int>(blockIdx.y), chunk_row = head % chunk_rows;
    const attended_rows& rows = a.call.rows;
    const attended_row own =
        decoding_row(rows, static_cast<int32_t>(blockIdx.z), a.plan.takes_all_rows);
    int splits = 1;
    if (own.sequence >= 0) {
        const place_range places =
            places_of(rows, __ldg(rows.position + own.row), __ldg(rows.kv_length + own.sequence));
        if (places.end > 0) splits = splits_of(places.end, a.plan.splits).count;
    }
    wait_for_grids_before();
    if (splits == 1) return; // there is nothing, or the result itself

    const int64_t size = int64_t{chunk_rows} * (latent + 2); // floats of a split
    const int64_t unit = int64_t{blockIdx.z} * a.plan.head_chunks + head / chunk_rows;
    const float* partials = a.partial + unit * a.plan.splits * size;
    const float* from = partials + chunk_row * latent + column;
    const float* maxima = partials + int64_t{chunk_rows} * latent + chunk_row;
    float4 part[combined_at_once];
    const auto load_parts = [&](int first) {
#pragma unroll
        for (int i = 0; i < combined_at_once; ++i) {
            const int split = first + i * combine_warps + warp;
            part[i] = split < splits ? *reinterpret_cast<const float4*>(from + split * size)
                                     : float4{0, 0, 0, 0};
        }
    };
    load_parts(0);
    const float maximum = thread < splits ? maxima[thread * size] : -INFINITY;
    const float sum = thread < splits ? maxima[thread * size + chunk_rows] : 0.0f;
    const float of_warp = reduce_warp(maximum, larger_number{});
    if (lane == 0) warp_maximum[warp] = of_warp;
    __syncthreads();
    float whole = warp_maximum[0];
#pragma unroll
    for (int i = 1; i < combine_warps; ++i) whole = fmaxf(whole, warp_maximum[i]);
    const float weight = power_of_2(maximum - whole);
    if (thread < splits) split_weight[thread] = weight;
    const float weight_of_warp = reduce_warp(weight * sum, add_numbers{});
    if (lane == 0) warp_weight[warp] = weight_of_warp;
    __syncthreads();
    float4 o{0, 0, 0, 0};
    for (int first = 0; first < splits; first += combined_at_once * combine_warps) {
        if (first > 0) load_parts(first);
#pragma unroll
        for (int i = 0; i < combined_at_once; ++i) {
            const int split = first + i * combine_warps + warp;
            if (split >= splits) break;
            const float factor = split_weight[split];
            o.x += factor * part[i].x;
            o.y += factor * part[i].y;
            o.z += factor * part[i].z;
            o.w += factor * part[i].w;
        }
    }
    warp_sum[warp][lane] = o;
    __syncthreads();
    if (warp > 0) return;
    float weights = warp_weight[0];
#pragma unroll
    for (int i = 1; i < combine_warps; ++i) {
        const float4 other = warp_sum[i][lane];
        weights += warp_weight[i];
        o.x += other.x;
        o.y += other.y;
        o.z += other.z;
        o.w += other.w;
    }
    const float scale = 1.0f / weights;
    auto* to = static_cast<Element*>(a.latent_rows)
               + (int64_t{own.row} * a.call.heads + head) * latent + column;
    *reinterpret_cast<uint2*>(to) = make_uint2(pack<Element>(o.x * scale, o.y * scale),
                                               pack<Element>(o.z * scale, o.w * scale));
}

// Row tiles of a decoding block: of as many heads as there are, up to 64.
int decode_row_tiles(const mla_attention_call& call) { return call.heads <= 16 ? 1 : 4; }

template <typename Element, int row_tiles, bool is_decoding>
void launch(mla_arguments a, cudaStream_t stream) {
    using shape = mla_shape<row_tiles>;
    a.chunk_heads = std::min(a.call.heads, shape::rows);
    a.head_chunks = (a.call.heads + shape::rows - 1) / shape::rows;
    a.tile_tokens = is_decoding ? 1 : shape::rows / a.chunk_heads;
    a.tiles = tiles_at_most(a.call.rows.rows, a.call.rows.sequences, a.tile_tokens);
    dim3 grid(static_cast<unsigned>(a.head_chunks * a.tiles));
    if (is_decoding)
        grid = dim3(static_cast<unsigned>(a.plan.splits), static_cast<unsigned>(a.plan.head_chunks),
                    static_cast<unsigned>(a.plan.rows));
    launch_grid(mla_attention_kernel<Element, row_tiles, is_decoding>, grid, shape::threads,
                shape::shared_bytes, stream, is_decoding && a.call.programmatic, a);
    check(cudaGetLastError(), "launching mla_attention");
    if (!is_decoding || a.plan.splits == 1) return;
    launch_grid(combine_kernel<Element>,
                dim3(latent / group_columns, static_cast<unsigned>(a.call.heads),
                     static_cast<unsigned>(a.plan.rows)),
                combine_warps * 32, 0, stream, a.call.programmatic, a, shape::rows);
    check(cudaGetLastError(), "combining the splits of mla_attention");
}

template <typename Element>
void launch_for(const mla_arguments& a, cudaStream_t stream) {
    if (a.plan.rows > 0) {
        if (decode_row_tiles(a.call) == 1)
            launch<Element, 1, true>(a, stream);
        else
            launch<Element, 4, true>(a, stream);
    }
    if (!a.plan.takes_all_rows) launch<Element, 4, false>(a, stream);
}

bool fits_matrices(const weight_view& view, uint32_t type) {
    const auto storage = type == SLUICE_BF16 ? weight_storage::bfloat16 : weight_storage::float16;
    return view.storage == storage && is_aligned(view.data);
}

} // namespace

bool fits_mla_attention_matrix(const mla_attention_call& call) {
    const uint32_t type = call.q_nope_type;
    return (type == SLUICE_BF16 || type == SLUICE_F16) && call.q_pe_type == type
           && call.latent_type == type && call.rope_key_type == type
           && fits_matrices(call.key_up, type) && fits_matrices(call.value_up, type)
           && is_aligned(call.q_nope) && is_aligned(call.q_pe) && is_aligned(call.latents)
           && is_aligned(call.rope_keys) && is_aligned(call.o) && call.latent == latent
           && call.rope == rope && call.nope % 64 == 0 && call.value_width % 64 == 0
           && (call.heads <= 64 || call.heads % 64 == 0) && call.scale > 0;
}

mla_attention_plan plan_mla_attention(const mla_attention_call& call, int64_t context_max,
                                      int multiprocessor_count) {
    mla_attention_plan plan;
    attention_decode_plan& decode = plan.decode;
    decode.takes_all_rows = call.rows.rows <= call.rows.sequences;
    decode.rows = std::min(call.rows.rows, call.rows.sequences);
    const int rows = 16 * decode_row_tiles(call);
    decode.head_chunks = (call.heads + rows - 1) / rows;
    const int64_t units = std::max<int64_t>(int64_t{decode.rows} * decode.head_chunks, 1);
    // Blocks that run at the same time: two a multiprocessor of those with 16 rows, or one.
    const int64_t blocks = int64_t{multiprocessor_count} * (rows == 16 ? 2 : 1);
    const int64_t useful = (context_max + split_places_min - 1) / split_places_min;
    decode.splits = static_cast<int32_t>(
        std::clamp<int64_t>(std::min((blocks + units - 1) / units, useful), 1, splits_max));
    if (decode.splits > 1)
        decode.partial_floats = static_cast<uint64_t>(units) * static_cast<uint64_t>(decode.splits)
                                * static_cast<uint64_t>(rows * (latent + 2));
    plan.latent_rows_bytes =
        static_cast<uint64_t>(call.rows.rows) * static_cast<uint64_t>(call.heads) * latent * 2;
    return plan;
}

void launch_mla_attention_matrix(const mla_attention_call& call, const mla_attention_plan& plan,
                                 void* latent_rows, float* partial, cudaStream_t stream) {
    if (call.rows.rows == 0) return;
    head_product_call product;
    product.x = call.q_nope;
    product.w = call.key_up.data;
    product.y = latent_rows;
    product.x_type = call.q_nope_type;
    product.y_type = call.q_nope_type;
    product.rows = call.rows.rows;
    product.heads = call.heads;
    product.inner = call.nope;
    product.outer = latent;
    product.is_transposed = true;
    product.sequence_of_row = call.rows.sequence_of_row;
    product.expanded = call.expanded;
    product.programmatic = call.programmatic;
    launch_head_product(product, stream);

    const mla_arguments arguments{call, plan.decode, latent_rows, partial, 0, 0, 0, 0};
    if (call.q_nope_type == SLUICE_BF16)
        launch_for<__nv_bfloat16>(arguments, stream);
    else
        launch_for<__half>(arguments, stream);

    product.x = latent_rows;
    product.w = call.value_up.data;
    product.y = call.o;
    product.y_type = call.o_type;
    product.inner = latent;
    product.outer = call.value_width;
    product.is_transposed = false;
    launch_head_product(product, stream);
}

} // namespace sluice::cuda
