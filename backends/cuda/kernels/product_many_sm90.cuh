// The product for many rows with wgmma (sm_90a): one warpgroup has stages copied, two multiply,
// each 128 rows of weights by up to 144 places, in two blocks of 64 rows. Row-major weights are
// read from shared memory, codes become operand A in registers while earlier products run.
#pragma once

#include "product_many.cuh"
#include "wgmma.cuh"

namespace sluice::cuda::many {

// How tensor copies see the operands. x: boxes of 64 columns of `x_box_rows` rows (`x`) or of
// `x_part_rows` (`x_part`), in the 128-byte swizzle. Row-major weights: likewise, by feature, gate
// and up apart, `weight_box_rows` of them. Tiles: a row of the matrix is a row of tiles, and a box
// eight such rows of one tile, of its scales or of its zero points.
struct tensor_maps {
    CUtensorMap x, x_part;
    CUtensorMap weights[2], scales[2], zeros[2];
};
inline constexpr int x_box_rows = 64;
inline constexpr int x_part_rows = 16;
template <bool gated>
inline constexpr int weight_box_rows = gated ? 8 : 64;
inline constexpr int tile_box_rows = 8;

// Settles what `call.copies` is and fills what it needs.
void prepare_sm90(arguments& call, tensor_maps& maps, weight_storage storage, bool gated);

namespace {

constexpr int warpgroup = 128;
constexpr int threads = 3 * warpgroup;
constexpr int consumer_warps = 8;
constexpr int weight_rows = 256;
constexpr int widest = 144;
constexpr int blocks = 2; // of 64 rows, of each of two warpgroups
// Of the 168 registers a thread that 384 threads can have.
constexpr int producer_registers = 56;
constexpr int consumer_registers = 224;
static_assert(producer_registers + 2 * consumer_registers <= 3 * 168);
// A warp's part of y on its way from the order of the accumulators to that of memory: 32 places.
template <weight_storage storage, bool gated>
constexpr int turn_bytes = 32 * (gated ? 1 : 2) * (is_tiled(storage) ? blocks : 1) * 16;

template <weight_storage storage>
using layout_of = stage_layout<storage, widest, weight_rows>;

template <weight_storage storage>
constexpr int stages = storage == weight_storage::int4   ? 7
                       : storage == weight_storage::int8 ? 5
                                                         : 4;

template <weight_storage storage>
constexpr int shared_bytes = 1024 + stages<storage>* layout_of<storage>::bytes
                             + consumer_warps* turn_bytes<storage, false> + 2 * stages<storage> * 8;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr int most_threads = threads;
#else
// What a device without these instructions gets is empty, and is known by this bound.
constexpr int most_threads = 32;
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Keeps the compiler from computing all addresses beforehand, for which there are no registers.
template <typename Element>
__device__ __forceinline__ void pin_pointer(Element*& pointer) {
    asm volatile("" : "+l"(pointer));
}

// Writes the accumulators of a warp's slices, of neighbouring features: see wgmma.cuh for which
// thread has what.
template <typename Half, bool gated, int places, int blocks>
__device__ __forceinline__ void write_slices(const arguments& call, const tile& at, int slice,
                                             int lane, uint32_t turn,
                                             float (&d)[blocks][places / 2]) {
    constexpr int features = gated ? 8 : 16; // of a slice
    const int group = lane / 4, within = lane % 4;
    const int feature = at.feature + slice * features;
    // Slices are inside the matrix or outside, all of them: the width is a multiple of 64, or of 32
    // where gated.
    if (feature >= call.width) return;
    const int64_t width = call.width;
    const int64_t origin = at.place * width + feature;
    float bias[blocks][2];
#pragma unroll
    for (int block = 0; block < blocks; ++block)
        load_biases<gated>(call, at, feature + block * features, lane, bias[block]);
    // A few columns at a time: the compiler would not have the registers for all of them.
    const auto finish = [&](auto columns, int first) {
#pragma unroll
        for (int block = 0; block < blocks; ++block) {
            if constexpr (gated)
                gate_all<columns()>(call.form, d[block] + 4 * first, bias[block]);
            else
                add_biases<columns()>(d[block] + 4 * first, bias[block]);
        }
    };
    using std::integral_constant;
    if (call.y_is_float) {
        float* target = static_cast<float*>(call.y) + origin + group + within * 2 * width;
#pragma unroll
        for (int c = 0; c < places / 8; ++c) {
            finish(integral_constant<int, 1>{}, c);
#pragma unroll
            for (int i = 0; i < blocks * (gated ? 2 : 4); ++i) {
                const int block = i / (gated ? 2 : 4), j = i % (gated ? 2 : 4);
                if (c * 8 + within * 2 + j % 2 < at.count)
                    target[j % 2 * width + block * features + j / 2 * 8] = d[block][4 * c + j];
            }
            target += 8 * width;
            pin_pointer(target);
        }
        return;
    }
    // Pieces are 16 bytes, eight features of a place: the rows g and g + 8 of a slice, or gated
    // slices. Words of 32 places turn in shared memory, all pieces of a place side by side in its
    // order of bytes; pieces are exchanged from one place to another so that what is stored or
    // loaded at a time lies in different banks.
    constexpr int pieces = blocks * features / 8;
    constexpr int row_bytes = pieces * 16;
    constexpr int places_at_once = 32 / pieces; // of a load by the warp
    const auto turned = [&](int place, int piece) {
        return turn + place * row_bytes + (piece ^ place * pieces / 8 % pieces) * 16;
    };
    const int own_place = lane / pieces, own_piece = lane % pieces;
    const int64_t distance = places_at_once * width * static_cast<int64_t>(sizeof(Half));
    char* target = reinterpret_cast<char*>(static_cast<Half*>(call.y) + origin + own_place * width
                                           + own_piece * 8);
#pragma unroll
    for (int from = 0; from < places; from += 32) {
        if (from + 32 <= places)
            finish(integral_constant<int, 4>{}, from / 8);
        else
            finish(integral_constant<int, places % 32 / 8>{}, from / 8);
#pragma unroll
        for (int first = 0; first < 4 * pieces; first += 4) {
            // Matrix m of this store: eight places of one piece.
            uint32_t word[4];
#pragma unroll
            for (int m = 0; m < 4; ++m) {
                const int eight = (first + m) / pieces, piece = (first + m) % pieces;
                // What is past the last place is not written.
                const int at_value = from + 8 * eight < places ? from / 2 + 4 * eight : 0;
                const float* value =
                    gated ? d[piece] + at_value : d[piece / 2] + at_value + piece % 2 * 2;
                word[m] = pack_pair<Half>(value[0], value[1]);
            }
            const int matrix = first + lane / 8;
            store_transposed(turned(matrix / pieces * 8 + lane % 8, matrix % pieces), word);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < pieces && from + i * places_at_once < places; ++i) {
            const int place = i * places_at_once + own_place;
            const uint4 vector = load_shared_16(turned(place, own_piece));
            if (from + place < at.count) *reinterpret_cast<uint4*>(target) = vector;
            target += distance;
            pin_pointer(target);
        }
        __syncwarp();
    }
}

// Has stages copied by tensor copies, which one lane of each of the four warps starts.
template <weight_storage storage, bool gated>
struct tensor_copier {
    using layout = layout_of<storage>;
    static constexpr bool tiled = is_tiled(storage);

    const arguments& call;
    const tensor_maps& maps;
    int warp;
    int x_first, x_rows; // rows to copy from `x_first` on
    int weight_row;      // of the first box; with tiles: row of tiles
    uint32_t stage_bytes;

    __device__ __forceinline__ tensor_copier(const arguments& arguments, const tensor_maps& tensors,
                                             int own_warp)
        : call(arguments), maps(tensors), warp(own_warp) {}

    __device__ __forceinline__ void begin(const tile& at, bool with_x) {
        if constexpr (tiled) {
            weight_row = at.matrix * (call.matrix_rows / 16) + at.feature * call.feature_step / 16;
            stage_bytes = layout::slices
                          * (code_tile_bytes(storage) + 16 * (call.scale_type == SLUICE_F32 ? 4 : 2)
                             + (call.zeros[0] != nullptr ? 16 : 0));
        } else {
            weight_row = at.matrix * (call.matrix_rows / call.feature_step) + at.feature;
            stage_bytes = weight_rows * 128;
        }
        x_first = at.place;
        x_rows = with_x ? (at.count + x_part_rows - 1) / x_part_rows * x_part_rows : 0;
        stage_bytes += x_rows * 128;
    }

    // Eight rows of tiles, or of what goes with them, then eight more: of up, or the next.
    __device__ __forceinline__ void copy_tiles(uint32_t target, uint32_t distance,
                                               const CUtensorMap (&map)[2], int column,
                                               uint32_t barrier) {
        copy_box(target, map[0], column, weight_row, barrier);
        if (gated && call.feature_step == 1)
            copy_box(target + distance, map[1], column, weight_row, barrier);
        else
            copy_box(target + distance, map[0], column, weight_row + tile_box_rows, barrier);
    }

    // By one lane of each warp. A copy may be done before its bytes are expected: an arrival is
    // outstanding.
    __device__ __forceinline__ void copy(uint32_t stage, uint32_t barrier, int step) {
        if (warp == 0) arrive_expecting(barrier, stage_bytes);
        const int from = warp * x_box_rows, rows = x_rows - from;
        if (rows >= x_box_rows) {
            copy_box(stage + from * 128, maps.x, step * 64, x_first + from, barrier);
        } else {
            for (int part = 0; part < rows; part += x_part_rows)
                copy_box(stage + (from + part) * 128, maps.x_part, step * 64, x_first + from + part,
                         barrier);
        }
        if constexpr (tiled) {
            constexpr int half = layout::slices / 2;
            static_assert(half == tile_box_rows);
            const int group = step / call.steps_per_group;
            if (warp == 3) {
                constexpr int bytes = code_tile_bytes(storage);
                copy_tiles(stage + layout::x_bytes, half * bytes, maps.weights, step * 256,
                           barrier);
            } else if (warp == 2) {
                copy_tiles(stage + layout::scales_at,
                           half * 16 * (call.scale_type == SLUICE_F32 ? 4 : 2), maps.scales,
                           group * 16, barrier);
            } else if (warp == 1 && call.zeros[0] != nullptr) {
                copy_tiles(stage + layout::zeros_at, layout::zeros_of_slice(half), maps.zeros,
                           group * 16, barrier);
            }
        } else if constexpr (gated) {
            // Eight features of the gate, the same of up, and so on.
#pragma unroll
            for (int i = 0; i < layout::slices / 4; ++i) {
                const int slice = warp * layout::slices / 4 + i;
#pragma unroll
                for (int which = 0; which < 2; ++which)
                    copy_box(stage + layout::x_bytes + slice * 2048 + which * 1024,
                             maps.weights[which], step * 64, weight_row + slice * 8, barrier);
            }
        } else {
            copy_box(stage + layout::x_bytes + warp * 8192, maps.weights[0], step * 64,
                     weight_row + warp * 64, barrier);
        }
    }
};

template <typename Half, weight_storage storage, bool gated, bool own_scales>
struct consumer {
    using layout = layout_of<storage>;
    static constexpr bool tiled = is_tiled(storage);
    static constexpr int count = stages<storage>;
    static constexpr weight_storage tiles = tiled ? storage : weight_storage::int4;
    using fragments = code_fragments<Half, tiles, gated, own_scales>;
    using addresses = slice_address<tiles, gated, widest, weight_rows>;

    const arguments& call;
    uint32_t first_stage, full, empty, turn;
    int lane, slice;     // the first of `blocks`
    bool copies_threads; // some of a stage was written by cp.async
    ring<count> at;
    addresses slice_at[blocks]; // of tiles

    __device__ __forceinline__ consumer(const arguments& arguments, uint32_t stages_at,
                                        uint32_t full_at, uint32_t empty_at, uint32_t turn_at,
                                        int own_lane, int own_warp)
        : call(arguments), first_stage(stages_at), full(full_at), empty(empty_at), turn(turn_at),
          lane(own_lane),
          // Tiles: neighbours; rows: warp w of a warpgroup has rows 16 w on of each block.
          slice(tiled ? own_warp * 2 : own_warp / 4 * 8 + own_warp % 4),
          copies_threads(arguments.copies == operand_copies::copies
                         || arguments.copies == operand_copies::mixed),
          slice_at{} {
        if constexpr (tiled) {
#pragma unroll
            for (int block = 0; block < blocks; ++block)
                slice_at[block] = addresses(arguments, slice + block, lane);
        }
    }

    // Waits for the stage at `at` and says where it is.
    __device__ __forceinline__ uint32_t await_stage() const {
        wait_for_phase(full + at.slot * 8, at.parity);
        if (copies_threads) fence_for_async_proxy();
        return first_stage + at.slot * layout::bytes;
    }

    __device__ __forceinline__ void release(int slot) {
        __syncwarp();
        if (lane == 0) arrive(empty + slot * 8);
    }

    // What both slices need of a stage.
    __device__ __forceinline__ void load_codes(fragments (&codes)[blocks], uint32_t stage) const {
        if (gated && call.feature_step == 1) {
            // Halves of the same tiles.
            codes[0].load_codes(slice_at[0].codes_in(stage).at);
#pragma unroll
            for (int i = 0; i < fragments::tiles; ++i) {
#pragma unroll
                for (int word = 0; word < fragments::words; ++word)
                    codes[1].code[i][word] = codes[0].code[i][word];
            }
            codes[1].take_half(1);
        } else {
#pragma unroll
            for (int block = 0; block < blocks; ++block) {
                codes[block].load_codes(slice_at[block].codes_in(stage).at);
                codes[block].take_half(slice_at[block].half);
            }
        }
#pragma unroll
        for (int block = 0; block < blocks; ++block)
            slice_at[block].load_scales(codes[block], stage, call.scale_type);
    }

    // d += the stage's product with codes, for which `a` must be free.
    template <int places>
    __device__ __forceinline__ void multiply_codes(float (&d)[places / 2], uint32_t (&a)[16],
                                                   const fragments& codes, uint32_t stage,
                                                   int keep) {
#pragma unroll
        for (int step = 0; step < 4; ++step) {
            uint32_t part[4];
            codes.fragment(step, part);
#pragma unroll
            for (int i = 0; i < 4; ++i) a[4 * step + i] = part[i];
        }
        // Else their making could sink between the products, which then could not overlap.
#pragma unroll
        for (int i = 0; i < 16; ++i) pin_register(a[i]);
        fence_registers();
        const uint64_t b = tile_descriptor(stage);
#pragma unroll
        for (int step = 0; step < 4; ++step)
            warpgroup_product<places>::template add<Half>(d, a + 4 * step, b + 2 * step,
                                                          step > 0 ? 1 : keep);
        commit_products();
        // Directly behind, or ptxas gives up on their running at the same time as anything else.
        wait_products<1>();
    }

    // The loop over the stages of a tile with codes: the fragments of one block are made while the
    // products of the other run.
    template <int places>
    __device__ __forceinline__ void add_codes(float (&d)[blocks][places / 2]) {
        uint32_t a[blocks][16];
        const int steps = call.columns / 64;
        int before = at.slot;
        for (int step = 0; step < steps; ++step) {
            const uint32_t stage = await_stage();
            fragments codes[blocks];
            load_codes(codes, stage);
            multiply_codes<places>(d[0], a[0], codes[0], stage, step);
            if (step > 0) release(before); // whose last products are done
            multiply_codes<places>(d[1], a[1], codes[1], stage, step);
            before = at.slot;
            at.advance();
        }
        wait_products<0>();
        release(before);
    }

    // The same with rows of weights in shared memory.
    template <int places>
    __device__ __forceinline__ void add_rows(float (&d)[blocks][places / 2]) {
        const int steps = call.columns / 64;
        int before = at.slot;
        for (int step = 0; step < steps; ++step) {
            const uint32_t stage = await_stage();
            const uint64_t weights = tile_descriptor(stage + layout::x_bytes + slice / 4 * 8192);
            const uint64_t b = tile_descriptor(stage);
            fence_registers();
#pragma unroll
            for (int part = 0; part < 4; ++part) {
#pragma unroll
                for (int block = 0; block < blocks; ++block)
                    warpgroup_product<places>::template add<Half>(
                        d[block], weights + block * (8192 / 16) + 2 * part, b + 2 * part,
                        part > 0 ? 1 : step);
            }
            commit_products();
            if (step > 0) {
                wait_products<1>();
                release(before);
            }
            before = at.slot;
            at.advance();
        }
        wait_products<0>();
        release(before);
    }

    template <int places>
    __device__ __forceinline__ void run(const tile& tile) {
        float d[blocks][places / 2]; // not read before the first products wrote it
        if constexpr (tiled) {
            add_codes<places>(d);
            write_slices<Half, gated, places>(call, tile, slice, lane, turn, d);
        } else {
            add_rows<places>(d);
#pragma unroll
            for (int block = 0; block < blocks; ++block)
                write_slices<Half, gated, places, 1>(
                    call, tile, slice + 4 * block, lane, turn,
                    reinterpret_cast<float(&)[1][places / 2]>(d[block]));
        }
    }
};

// The tiles of a CTA in order.
struct tile_walk {
    const tile_list& list;
    int matrices, blocks, features;
    int index, cursor = 0;
    bool more = false;
    tile at;

    __device__ __forceinline__ tile_walk(const tile_list& tiles, int own_matrices, int own_blocks,
                                         int own_features)
        : list(tiles), matrices(own_matrices), blocks(own_blocks), features(own_features),
          index(blockIdx.x) {
        more = list.find(index, matrices, blocks, features, cursor, at);
    }
    __device__ __forceinline__ void advance() {
        index += gridDim.x;
        more = list.find(index, matrices, blocks, features, cursor, at);
    }
};

// Tiles come by falling size, so that one loop a size does for all.
template <int places, typename Consumer>
__device__ __forceinline__ void run_sizes(Consumer& own, tile_walk& walk) {
    while (walk.more && walk.at.size == places) {
        own.template run<places>(walk.at);
        walk.advance();
    }
    if constexpr (places > tile_granule) run_sizes<places - tile_granule>(own, walk);
}

#endif

// Own scales: those of int4 are of type Half, which spares a quarter of what codes cost.
template <typename Half, weight_storage storage, bool gated, bool own_scales>
__global__ void __launch_bounds__(most_threads, 1)
    product_kernel([[maybe_unused]] const __grid_constant__ arguments call,
                   [[maybe_unused]] const __grid_constant__ tensor_maps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using layout = layout_of<storage>;
    constexpr int count = stages<storage>;
    extern __shared__ unsigned char memory[];
    __shared__ tile_list list;
    const uint32_t first_stage = (shared_address(memory) + 1023) / 1024 * 1024;
    const uint32_t turns = first_stage + count * layout::bytes;
    const uint32_t full = turns + consumer_warps * turn_bytes<storage, gated>;
    const uint32_t empty = full + count * 8;
    constexpr int features = tile_features<gated, weight_rows>;
    const int blocks = (call.width + features - 1) / features;

    const int thread = threadIdx.x;
    if (thread == 0) {
        // Threads that copy by cp.async arrive each, what is copied in bulk has one arrival.
        const int arrivals = call.copies == operand_copies::copies  ? warpgroup
                             : call.copies == operand_copies::mixed ? warpgroup + 1
                                                                    : 1;
        for (int i = 0; i < count; ++i) {
            start_barrier(full + i * 8, arrivals);
            start_barrier(empty + i * 8, consumer_warps);
        }
        fence_started_barriers();
    }
    list.build<threads, widest>(call, blocks); // ends with a barrier

    // The warpgroup's number, as something that the compiler knows to be the same in a warp.
    const int role = __shfl_sync(0xFFFFFFFFu, thread / warpgroup, 0);
    tile_walk walk(list, call.matrices, blocks, features);
    if (role == 0) {
        give_registers<producer_registers>();
        const int steps = call.columns / 64;
        ring<count> next;
        const int warp = __shfl_sync(0xFFFFFFFFu, thread / 32, 0);
        if (call.copies == operand_copies::tensor) {
            tensor_copier<storage, gated> copier(call, maps, warp);
            for (; walk.more; walk.advance()) {
                copier.begin(walk.at, true);
                for (int step = 0; step < steps; ++step) {
                    wait_for_phase(empty + next.slot * 8, next.parity ^ 1);
                    if (elect_lane())
                        copier.copy(first_stage + next.slot * layout::bytes, full + next.slot * 8,
                                    step);
                    __syncwarp();
                    next.advance();
                }
            }
        } else if (call.copies == operand_copies::mixed) {
            stage_copier<Half, storage, gated, widest, weight_rows, warpgroup> copier(call, thread);
            tensor_copier<storage, gated> weights(call, maps, warp);
            for (; walk.more; walk.advance()) {
                copier.begin(walk.at);
                weights.begin(walk.at, false);
                for (int step = 0; step < steps; ++step) {
                    wait_for_phase(empty + next.slot * 8, next.parity ^ 1);
                    const uint32_t stage = first_stage + next.slot * layout::bytes;
                    if (elect_lane()) weights.copy(stage, full + next.slot * 8, step);
                    __syncwarp();
                    copier.copy_x(stage, step);
                    arrive_after_copies(full + next.slot * 8);
                    next.advance();
                }
            }
        } else {
            stage_copier<Half, storage, gated, widest, weight_rows, warpgroup> copier(call, thread);
            for (; walk.more; walk.advance()) {
                copier.begin(walk.at);
                for (int step = 0; step < steps; ++step) {
                    wait_for_phase(empty + next.slot * 8, next.parity ^ 1);
                    copier.copy(first_stage + next.slot * layout::bytes, step);
                    arrive_after_copies(full + next.slot * 8);
                    next.advance();
                }
            }
        }
        if (call.copies != operand_copies::tensor) {
            commit_copies();
            wait_copies<0>();
        }
    } else {
        take_registers<consumer_registers>();
        const int warp = __shfl_sync(0xFFFFFFFFu, (thread - warpgroup) / 32, 0);
        consumer<Half, storage, gated, own_scales> own(call, first_stage, full, empty,
                                                       turns + warp * turn_bytes<storage, gated>,
                                                       thread % 32, warp);
        run_sizes<widest>(own, walk);
    }
#endif
}

template <typename Half, weight_storage storage, bool gated, bool own_scales>
void launch_kernel(arguments call, int multiprocessor_count, cudaStream_t stream) {
    tensor_maps maps{};
    prepare_sm90(call, maps, storage, gated);
    const auto kernel = product_kernel<Half, storage, gated, own_scales>;
    constexpr int bytes = shared_bytes<storage>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<multiprocessor_count, threads, bytes, stream>>>(call, maps);
}

template <typename Half, weight_storage storage, bool own_scales = false>
void launch_gated(const arguments& call, bool gated, int multiprocessor_count,
                  cudaStream_t stream) {
    if (gated)
        launch_kernel<Half, storage, true, own_scales>(call, multiprocessor_count, stream);
    else
        launch_kernel<Half, storage, false, own_scales>(call, multiprocessor_count, stream);
}

template <typename Half>
void launch_sm90_half(const arguments& call, weight_storage storage, bool gated,
                      int multiprocessor_count, cudaStream_t stream) {
    constexpr uint32_t own_type = is_bfloat16<Half> ? SLUICE_BF16 : SLUICE_F16;
    if (storage == weight_storage::int4 && call.scale_type == own_type)
        launch_gated<Half, weight_storage::int4, true>(call, gated, multiprocessor_count, stream);
    else if (storage == weight_storage::int4)
        launch_gated<Half, weight_storage::int4>(call, gated, multiprocessor_count, stream);
    else if (storage == weight_storage::int8)
        launch_gated<Half, weight_storage::int8>(call, gated, multiprocessor_count, stream);
    else // row-major elements of type Half, whichever that is
        launch_gated<Half, weight_storage::bfloat16>(call, gated, multiprocessor_count, stream);
}

} // namespace
} // namespace sluice::cuda::many
