// What the two forms of the product for many rows share: the arguments of their kernels, the list
// of tiles that a persistent grid walks, and the copies of one stage into shared memory.
//
// Weights are operand A (features along M), rows of x operand B (places along N). A tile is
// `weight_rows` rows of weights by up to `widest` places. Where the product is gated, half of those
// rows are of the gate and half of up, eight by eight in turn: row r of the tile belongs to feature
// 8 (r / 16) + r % 8 and to up where r % 16 >= 8. A fragment of A has rows g and g + 8 in one lane,
// so that gate and up of a feature end in the same thread. A slice is 16 rows.
#pragma once

#include "activate_many.cuh"
#include "mma.cuh"

namespace sluice::cuda::many {

inline constexpr int most_matrices = 512;

struct arguments {
    const void* x;
    const int32_t* row;
    const int32_t* offset;
    void* y;
    // [0]: the gate, or all there is; [1]: up, moved to its first row where both are one weight.
    const void* data[2];
    const void* scales[2];
    const uint8_t* zeros[2];
    const float* bias[2];
    int32_t places;
    int32_t matrices;
    int32_t columns;         // K
    int32_t width;           // columns of y
    int32_t matrix_rows;     // rows of data[i] from one matrix to the next
    int32_t feature_step;    // rows from one feature to the next: 2 where gate and up alternate
    int32_t steps_per_group; // steps of 64 columns that share scales
    int32_t groups;
    uint32_t scale_type;
    bool y_is_float;
    operand_copies copies;
    gate_form form;
};

template <bool gated, int weight_rows>
inline constexpr int tile_features = gated ? weight_rows / 2 : weight_rows;

// ---- The list of tiles ----

// Tiles are equal within a matrix: its places are divided evenly. Matrices come in the order of
// falling tile size, so that tiles that run at the same time cost about the same and the grid may
// take them in turn, with no counter. Within a matrix the tiles that share weights are neighbours,
// in runs of `place_run`, so that one copy of the weights comes from memory and the others from L2.
inline constexpr int place_run = 8;

struct tile {
    int matrix;
    int feature; // first
    int place;   // first
    int count;   // places
    int size;    // `count` or more: of all tiles of this matrix but the last
};

// Tiles have a multiple of this many places.
inline constexpr int tile_granule = 16;

struct tile_list {
    int32_t begin[most_matrices + 1];  // first place of each matrix
    int32_t before[most_matrices + 1]; // tiles before those of the i-th matrix of `order`
    uint16_t order[most_matrices];
    uint16_t size[most_matrices]; // places of a tile, by matrix
    int32_t total_tiles[4];
    int32_t total_cost[4];

    static __device__ __forceinline__ int even_size(int count, int widest) {
        const int tiles = (count + widest - 1) / widest;
        if (tiles == 0) return 0;
        const int each = (count + tiles - 1) / tiles;
        return (each + tile_granule - 1) / tile_granule * tile_granule;
    }

    // By all threads of the CTA; ends with a barrier.
    template <int threads, int widest>
    __device__ void build(const arguments& call, int blocks) {
        // A narrower tile costs more a place, but may spread a short list better.
        constexpr int choices = 4;
        constexpr int limit[choices] = {widest, widest * 3 / 4, widest / 2, widest / 4};
        constexpr int overhead = 48; // of a tile, in places
        const int thread = threadIdx.x, matrices = call.matrices;
        for (int m = thread; m <= matrices; m += threads)
            begin[m] = call.offset != nullptr ? call.offset[m] : (m == 0 ? 0 : call.places);
        if (thread < choices) {
            total_tiles[thread] = 0;
            total_cost[thread] = 0;
        }
        __syncthreads();
        for (int m = thread; m < matrices; m += threads) {
            const int count = begin[m + 1] - begin[m];
            if (count <= 0) continue;
#pragma unroll
            for (int i = 0; i < choices; ++i) {
                const int each = even_size(count, limit[i]);
                const int tiles = (count + each - 1) / each;
                atomicAdd(&total_tiles[i], tiles);
                atomicAdd(&total_cost[i], tiles * (each + overhead));
            }
        }
        __syncthreads();
        int chosen = widest;
        float least = 0.0f;
#pragma unroll
        for (int i = 0; i < choices; ++i) {
            if (total_tiles[i] == 0) break;
            const float rounds = static_cast<float>(
                (static_cast<int64_t>(total_tiles[i]) * blocks + gridDim.x - 1) / gridDim.x);
            const float cost =
                rounds * static_cast<float>(total_cost[i]) / static_cast<float>(total_tiles[i]);
            if (i == 0 || cost < least) {
                least = cost;
                chosen = limit[i];
            }
        }
        for (int m = thread; m < matrices; m += threads)
            size[m] = static_cast<uint16_t>(even_size(begin[m + 1] - begin[m], chosen));
        __syncthreads();
        for (int m = thread; m < matrices; m += threads) {
            const int own = size[m];
            int rank = 0;
            for (int other = 0; other < matrices; ++other) {
                const int theirs = size[other];
                rank += theirs > own || (theirs == own && other < m);
            }
            order[rank] = static_cast<uint16_t>(m);
        }
        __syncthreads();
        if (thread < 32) {
            int sum = 0;
            for (int from = 0; from < matrices; from += 32) {
                const int at = from + thread;
                int tiles = 0;
                if (at < matrices) {
                    const int m = order[at], each = size[m];
                    if (each > 0) tiles = (begin[m + 1] - begin[m] + each - 1) / each * blocks;
                }
                int inclusive = tiles;
#pragma unroll
                for (int distance = 1; distance < 32; distance *= 2) {
                    const int value = __shfl_up_sync(0xFFFFFFFFu, inclusive, distance);
                    if (thread >= distance) inclusive += value;
                }
                if (at < matrices) before[at] = sum + inclusive - tiles;
                sum += __shfl_sync(0xFFFFFFFFu, inclusive, 31);
            }
            if (thread == 0) before[matrices] = sum;
        }
        __syncthreads();
    }

    // Tile `index`; false past the last one. `cursor` starts at 0 and moves along as indices rise.
    __device__ __forceinline__ bool find(int index, int matrices, int blocks, int features,
                                         int& cursor, tile& out) const {
        while (cursor < matrices && index >= before[cursor + 1]) ++cursor;
        if (cursor >= matrices) return false;
        const int m = order[cursor], each = size[m], count = begin[m + 1] - begin[m];
        const int tiles = (count + each - 1) / each;
        const int local = index - before[cursor];
        const int run = local / (place_run * blocks);
        const int in_run = min(place_run, tiles - run * place_run);
        const int rest = local - run * place_run * blocks;
        const int block = rest / in_run;
        const int from = (run * place_run + rest - block * in_run) * each;
        out.matrix = m;
        out.feature = block * features;
        out.place = begin[m] + from;
        out.count = min(each, count - from);
        out.size = each;
        return true;
    }
};

// ---- One stage: 64 columns of a tile ----

// In shared memory: the rows of x, swizzled; then rows of weights, swizzled, or a tile of codes a
// slice with its 16 scales and 16 zero points, of which either half of the tiles' begin at a
// multiple of 128 bytes.
template <weight_storage storage, int widest, int weight_rows>
struct stage_layout {
    static constexpr int slices = weight_rows / 16;
    static constexpr int x_bytes = widest * 128;
    static constexpr int weight_bytes =
        is_tiled(storage) ? slices * code_tile_bytes(storage) : weight_rows * 128;
    static constexpr int scales_at = x_bytes + weight_bytes;
    static constexpr int zeros_at = scales_at + slices * 16 * 4;
    static constexpr int zeros_bytes = 2 * 128;
    static constexpr int bytes =
        is_tiled(storage) ? (zeros_at + zeros_bytes + 1023) / 1024 * 1024 : scales_at;
    static_assert(slices / 2 * 16 <= 128 && bytes % 1024 == 0);

    __host__ __device__ static constexpr int zeros_of_slice(int slice) {
        return slice / (slices / 2) * 128 + slice % (slices / 2) * 16;
    }
};

// The tile of codes that slice `slice` of the stage holds: which weight, and which tile of rows.
template <bool gated, int weight_rows>
__device__ __forceinline__ int64_t slice_tile(const arguments& call, const tile& at, int slice,
                                              int& which) {
    const int64_t first = static_cast<int64_t>(at.matrix) * call.matrix_rows;
    const int step = call.feature_step;
    if (gated && step == 1) {
        // Tiles of the gate, then the same of up.
        constexpr int half = weight_rows / 32;
        which = slice / half;
        const int last = call.width / 16 - 1;
        return first / 16 + min(at.feature / 16 + slice % half, last);
    }
    which = 0;
    const int last = call.width * step / 16 - 1;
    return first / 16 + min(at.feature * step / 16 + slice, last);
}

// Copies stages with `threads` threads, 16 bytes at a time, by cp.async; the caller commits or
// tells a barrier.
template <typename Half, weight_storage storage, bool gated, int widest, int weight_rows,
          int threads>
struct stage_copier {
    using layout = stage_layout<storage, widest, weight_rows>;
    static constexpr bool tiled = is_tiled(storage);
    static constexpr int rows_at_once = threads / 8;
    static constexpr int x_copies = widest / rows_at_once;
    static constexpr int row_copies = weight_rows / rows_at_once;
    static_assert(rows_at_once % 16 == 0);
    static constexpr int warps = threads / 32;
    static constexpr int slices_of_warp = layout::slices / warps;

    const arguments& call;
    int thread;

    uint32_t x_at[x_copies]; // in pieces of 16 bytes
    uint32_t x_read;         // bit i: piece i is read, else zeros are written
    int x_used;              // pieces to copy

    const char* weights[tiled ? slices_of_warp : 1]; // where the next step's first piece is
    const char* scales;                              // of group 0; NULL: this thread copies none
    const uint8_t* zeros;
    int weight_used; // row-major: slices within the matrix

    __device__ __forceinline__ stage_copier(const arguments& arguments, int own_thread)
        : call(arguments), thread(own_thread) {}

    __device__ __forceinline__ int scale_bytes() const {
        return call.scale_type == SLUICE_F32 ? 4 : 2;
    }

    __device__ __forceinline__ void begin(const tile& at) {
        const int own_row = thread / 8, piece = thread % 8;
        const uint32_t pieces = static_cast<uint32_t>(call.columns) / 8;
        x_read = 0;
        x_used = (at.count + rows_at_once - 1) / rows_at_once;
#pragma unroll
        for (int i = 0; i < x_copies; ++i) {
            const int place = own_row + i * rows_at_once;
            int row = -1;
            if (place < at.count) {
                row = at.place + place;
                if (call.row != nullptr) row = call.row[row];
            }
            x_at[i] = row < 0 ? 0 : static_cast<uint32_t>(row) * pieces + piece;
            x_read |= (row < 0 ? 0u : 1u) << i;
        }
        const int64_t first = static_cast<int64_t>(at.matrix) * call.matrix_rows;
        if constexpr (!tiled) {
            const int in_slice = own_row % 16, slice = own_row / 16;
            int64_t weight_row;
            int which = 0;
            if constexpr (gated) {
                which = in_slice / 8;
                weight_row = first
                             + static_cast<int64_t>(at.feature + 8 * slice + in_slice % 8)
                                   * call.feature_step;
                weight_used = (call.width - at.feature) / 8;
            } else {
                weight_row = first + at.feature + own_row;
                weight_used = (call.width - at.feature) / 16;
            }
            weights[0] = static_cast<const char*>(call.data[which])
                         + (weight_row * call.columns + piece * 8) * 2;
        } else {
            constexpr int tile_bytes = code_tile_bytes(storage);
            const int warp = thread / 32, lane = thread % 32;
            const int64_t tiles_along = call.columns / tile_columns;
#pragma unroll
            for (int i = 0; i < slices_of_warp; ++i) {
                int which;
                const int64_t row_tile =
                    slice_tile<gated, weight_rows>(call, at, warp + i * warps, which);
                weights[i] = static_cast<const char*>(call.data[which])
                             + row_tile * tiles_along * tile_bytes + lane * 16;
            }
            scales = nullptr;
            zeros = nullptr;
            const int pieces_of_slice = scale_bytes(); // 16 scales are that many pieces
            if (thread < layout::slices * pieces_of_slice) {
                int which;
                const int64_t row_tile =
                    slice_tile<gated, weight_rows>(call, at, thread / pieces_of_slice, which);
                scales = static_cast<const char*>(call.scales[which])
                         + row_tile * call.groups * 16 * scale_bytes()
                         + thread % pieces_of_slice * 16;
            }
            // Another warp than the first, which has the scales.
            if (call.zeros[0] != nullptr && thread >= 64 && thread < 64 + layout::slices) {
                int which;
                const int64_t row_tile =
                    slice_tile<gated, weight_rows>(call, at, thread - 64, which);
                zeros = call.zeros[which] + row_tile * call.groups * 16;
            }
        }
    }

    // Starts the copies of step `step` (columns 64 step to 64 step + 63) into the stage at `stage`.
    // Steps come in order from 0.
    __device__ __forceinline__ void copy(uint32_t stage, int step) {
        copy_x(stage, step);
        copy_weights(stage, step);
    }

    __device__ __forceinline__ void copy_x(uint32_t stage, int step) {
        const int own_row = thread / 8, piece = thread % 8;
        const uint32_t target = stage + swizzled(own_row, piece);
        const char* source = static_cast<const char*>(call.x) + static_cast<int64_t>(step) * 128;
#pragma unroll
        for (int i = 0; i < x_copies; ++i) {
            if (i < x_used)
                copy_16(target + i * rows_at_once * 128,
                        source + static_cast<int64_t>(x_at[i]) * 16, x_read >> i & 1);
        }
    }

    __device__ __forceinline__ void copy_weights(uint32_t stage, int step) {
        const int own_row = thread / 8, piece = thread % 8;
        const uint32_t target = stage + swizzled(own_row, piece);
        if constexpr (!tiled) {
            // Rows of one thread are a whole number of slices apart.
            constexpr int slices_at_once = rows_at_once / 16;
            const int64_t distance =
                static_cast<int64_t>(rows_at_once) * call.columns * (gated ? call.feature_step : 2);
            const char* from = weights[0];
#pragma unroll
            for (int i = 0; i < row_copies; ++i) {
                if (i * slices_at_once + own_row / 16 < weight_used)
                    copy_16(target + layout::x_bytes + i * rows_at_once * 128, from);
                from += distance;
            }
            weights[0] += 128;
        } else {
            constexpr int tile_bytes = code_tile_bytes(storage);
            const int warp = thread / 32, lane = thread % 32;
#pragma unroll
            for (int i = 0; i < slices_of_warp; ++i) {
#pragma unroll
                for (int part = 0; part < tile_bytes; part += 512)
                    copy_16(stage + layout::x_bytes + (warp + i * warps) * tile_bytes + part
                                + lane * 16,
                            weights[i] + part);
                weights[i] += tile_bytes;
            }
            const int group = step / call.steps_per_group;
            if (scales != nullptr)
                copy_16(stage + layout::scales_at + thread * 16,
                        scales + static_cast<int64_t>(group) * 16 * scale_bytes());
            if (zeros != nullptr)
                copy_16(stage + layout::zeros_at + layout::zeros_of_slice(thread - 64),
                        zeros + static_cast<int64_t>(group) * 16);
        }
    }
};

// Where in a stage of tiles a lane finds slice `slice` of operand A, for code_fragments::load.
template <weight_storage storage, bool gated, int widest, int weight_rows>
struct slice_address {
    using layout = stage_layout<storage, widest, weight_rows>;
    uint32_t codes[2];
    uint32_t scales[2];
    uint32_t zeros[2];
    int half = 0;
    bool has_zeros;

    slice_address() = default;
    __device__ __forceinline__ slice_address(const arguments& call, int slice, int lane) {
        const int scale_bytes = call.scale_type == SLUICE_F32 ? 4 : 2;
        const int group = lane / 4, within = lane % 4;
        has_zeros = call.zeros[0] != nullptr;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int from = slice, row = group, row_half = i;
            if constexpr (gated) {
                if (call.feature_step == 1) {
                    // Features 8 slice to 8 slice + 7: half slice % 2 of tiles slice / 2.
                    from = slice / 2 + layout::slices / 2 * i;
                    row_half = slice % 2;
                } else {
                    // Gate and up of feature g of the slice are rows 2 g and 2 g + 1 of its tile.
                    row = (2 * group + i) % 8;
                    row_half = group / 4;
                }
                half = row_half;
            }
            codes[i] = layout::x_bytes + from * code_tile_bytes(storage) + (row * 4 + within) * 16;
            scales[i] = layout::scales_at + (from * 16 + row * 2 + row_half) * scale_bytes;
            zeros[i] = layout::zeros_at + layout::zeros_of_slice(from) + row * 2 + row_half;
        }
    }

    struct two_addresses {
        uint32_t at[2];
    };
    __device__ __forceinline__ two_addresses codes_in(uint32_t stage) const {
        return {{stage + codes[0], stage + codes[1]}};
    }

    template <typename Fragments>
    __device__ __forceinline__ void load_scales(Fragments& fragments, uint32_t stage,
                                                uint32_t scale_type) const {
        const uint32_t scale_at[2] = {stage + scales[0], stage + scales[1]};
        const uint32_t zero_at[2] = {stage + zeros[0], stage + zeros[1]};
        fragments.load_scales(scale_at, zero_at, has_zeros, scale_type);
    }

    template <typename Fragments>
    __device__ __forceinline__ void load(Fragments& fragments, uint32_t stage,
                                         uint32_t scale_type) const {
        fragments.load_codes(codes_in(stage).at);
        fragments.take_half(half);
        load_scales(fragments, stage, scale_type);
    }
};

// ---- After the product ----

// The biases of a lane's two rows of a slice whose first feature is `feature`: rows g and g + 8 of
// the weights, or gate and up of feature g.
template <bool gated>
__device__ __forceinline__ void load_biases(const arguments& call, const tile& at, int feature,
                                            int lane, float (&bias)[2]) {
    const int64_t first = static_cast<int64_t>(at.matrix) * call.matrix_rows;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        bias[i] = 0.0f;
        const int own = feature + lane / 4 + (gated ? 0 : 8 * i);
        if (call.bias[gated ? i : 0] != nullptr && own < call.width)
            bias[i] =
                call.bias[gated ? i : 0][first + static_cast<int64_t>(own) * call.feature_step];
    }
}

// Turns the accumulators of gate (d[4 c], d[4 c + 1]) and up (d[4 c + 2], d[4 c + 3]) into values,
// in the gate's place, for `columns` runs of eight places.
template <int columns>
__device__ __forceinline__ void gate_all(const gate_form& form, float* d, const float (&bias)[2]) {
    if (form.kind == gate_form::family::sigmoid) {
#pragma unroll
        for (int c = 0; c < columns; ++c) {
#pragma unroll
            for (int i = 0; i < 2; ++i)
                d[4 * c + i] =
                    gate_by_sigmoid(form, d[4 * c + i] + bias[0], d[4 * c + 2 + i] + bias[1]);
        }
    } else {
#pragma unroll
        for (int c = 0; c < columns; ++c) {
#pragma unroll
            for (int i = 0; i < 2; ++i)
                d[4 * c + i] =
                    gate_by_others(form, d[4 * c + i] + bias[0], d[4 * c + 2 + i] + bias[1]);
        }
    }
}

// Adds the biases of a lane's rows g and g + 8 to `columns` runs of eight places.
template <int columns>
__device__ __forceinline__ void add_biases(float* d, const float (&bias)[2]) {
#pragma unroll
    for (int i = 0; i < 4 * columns; ++i) d[i] += bias[i / 2 % 2];
}

// Launchers of the two forms.
void launch_sm80(const arguments& call, weight_storage storage, bool is_bfloat, bool gated,
                 int multiprocessor_count, cudaStream_t stream);
void launch_sm90(const arguments& call, weight_storage storage, bool is_bfloat, bool gated,
                 int multiprocessor_count, cudaStream_t stream);
void launch_sm90_f16(const arguments& call, weight_storage storage, bool gated,
                     int multiprocessor_count, cudaStream_t stream);

} // namespace sluice::cuda::many
