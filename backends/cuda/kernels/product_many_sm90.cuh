// The product for many rows with wgmma (sm_90a): one warpgroup has stages copied, two multiply,
// each 64 rows of weights by up to 256 places. Row-major weights are read from shared memory, codes
// become operand A in registers while the products of the stage before run.
#pragma once

#include "product_many.cuh"
#include "wgmma.cuh"

namespace sluice::cuda::many {

// How tensor copies see the operands. x: boxes of 64 columns of `x_box_rows` rows (`x`) or of
// `x_part_rows` (`x_part`), in the 128-byte swizzle. Row-major weights: likewise, by feature, gate
// and up apart, `weight_box_rows` of them. Tiles: a row of the matrix is a row of tiles, and a box
// four such rows of one tile, of its scales or of its zero points.
struct tensor_maps {
    CUtensorMap x, x_part;
    CUtensorMap weights[2], scales[2], zeros[2];
};
inline constexpr int x_box_rows = 64;
inline constexpr int x_part_rows = 16;
template <bool gated>
inline constexpr int weight_box_rows = gated ? 8 : 64;
inline constexpr int tile_box_rows = 4;

// Fills what `call.copies` needs, having settled what that is; brings rows of x together where that
// is asked for.
void prepare_sm90(arguments& call, tensor_maps& maps, weight_storage storage, bool gated,
                  cudaStream_t stream);

namespace {

constexpr int warpgroup = 128;
constexpr int threads = 3 * warpgroup;
constexpr int consumer_warps = 8;
constexpr int widest = 256;
constexpr int granule = 32;
// Of the 168 registers a thread that 384 threads can have.
constexpr int producer_registers = 56;
constexpr int consumer_registers = 224;
static_assert(producer_registers + 2 * consumer_registers <= 3 * 168);
// A warp's part of y on its way from the order of the accumulators to that of memory.
constexpr int turn_bytes = 1024;

template <weight_storage storage>
constexpr int stages = is_tiled(storage) ? 5 : 4;

template <weight_storage storage>
constexpr int shared_bytes = 1024 + stages<storage>* stage_layout<storage, widest>::bytes
                             + consumer_warps* turn_bytes + 2 * stages<storage> * 8;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr int most_threads = threads;
#else
// What a device without these instructions gets is empty, and is known by this bound.
constexpr int most_threads = 32;
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The slots of stages in order, and how often they were gone through (as the barriers' parity).
template <int count>
struct ring {
    int slot = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void advance() {
        if (++slot == count) {
            slot = 0;
            parity ^= 1;
        }
    }
};

// Writes the accumulators of a warp's slice: see wgmma.cuh for which thread has what.
template <typename Half, bool gated, int places>
__device__ __forceinline__ void write_slice(const arguments& call, const tile& at, int slice,
                                            int lane, uint32_t turn, float (&d)[places / 2]) {
    const int group = lane / 4, within = lane % 4;
    const int feature = at.feature + slice * (gated ? 8 : 16);
    // A slice is inside the matrix or outside: the width is a multiple of 16 (of 8 where gated).
    if (feature >= call.width) return;
    float bias[2];
    load_biases<gated>(call, at, feature, lane, bias);
    if constexpr (gated) {
        gate_all<places / 8>(call.form, d, bias);
    } else {
#pragma unroll
        for (int c = 0; c < places / 8; ++c) {
            d[4 * c] += bias[0];
            d[4 * c + 1] += bias[0];
            d[4 * c + 2] += bias[1];
            d[4 * c + 3] += bias[1];
        }
    }
    const int64_t width = call.width;
    const int64_t origin = at.place * width + feature;
    if (call.y_is_float) {
        float* y = static_cast<float*>(call.y) + origin + group;
#pragma unroll
        for (int c = 0; c < places / 8; ++c) {
#pragma unroll
            for (int j = 0; j < (gated ? 2 : 4); ++j) {
                const int place = c * 8 + within * 2 + j % 2;
                if (place < at.count) y[place * width + j / 2 * 8] = d[4 * c + j];
            }
        }
        return;
    }
    Half* y = static_cast<Half*>(call.y) + origin;
#pragma unroll
    for (int from = 0; from < places; from += 32) {
        // The last 16 places of an odd number of them: what is past them is not written.
        float part[16];
#pragma unroll
        for (int i = 0; i < 16; ++i)
            part[i] =
                from + i * 2 < places ? d[from / 2 + i < places / 2 ? from / 2 + i : 0] : 0.0f;
        if constexpr (gated) {
            // 32 places of 16 bytes: matrix m is places 8 m to 8 m + 7.
            uint32_t word[4];
#pragma unroll
            for (int m = 0; m < 4; ++m) word[m] = pack_pair<Half>(part[4 * m], part[4 * m + 1]);
            store_transposed(turn + lane * 16, word);
            __syncwarp();
            const uint4 vector = load_shared_16(turn + lane * 16);
            if (from + lane < at.count)
                *reinterpret_cast<uint4*>(y + (from + lane) * width) = vector;
        } else {
            // 32 places of two pieces of 16 bytes; every other four places have their pieces
            // exchanged, so that eight rows of a matrix lie in different banks. Matrix m of a store
            // is eight places of piece m % 2.
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                uint32_t word[4];
#pragma unroll
                for (int m = 0; m < 4; ++m) {
                    const int at_value = 8 * i + m / 2 * 4 + m % 2 * 2;
                    word[m] = pack_pair<Half>(part[at_value], part[at_value + 1]);
                }
                const int place = i * 16 + lane / 16 * 8 + lane % 8, piece = lane / 8 % 2;
                store_transposed(turn + place * 32 + ((piece ^ (place / 4 & 1)) * 16), word);
            }
            __syncwarp();
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int place = i * 16 + lane / 2, piece = lane % 2;
                const uint4 vector =
                    load_shared_16(turn + place * 32 + ((piece ^ (place / 4 & 1)) * 16));
                if (from + place < at.count)
                    *reinterpret_cast<uint4*>(y + (from + place) * width + piece * 8) = vector;
            }
        }
        __syncwarp();
    }
}

// Has stages copied by tensor copies, which one lane of each of the four warps starts.
template <weight_storage storage, bool gated>
struct tensor_copier {
    using layout = stage_layout<storage, widest>;
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
            stage_bytes = row_slices
                          * (code_tile_bytes(storage) + 16 * (call.scale_type == SLUICE_F32 ? 4 : 2)
                             + (call.zeros[0] != nullptr ? 16 : 0));
        } else {
            weight_row = at.matrix * (call.matrix_rows / call.feature_step) + at.feature;
            stage_bytes = tile_weight_rows * 128;
        }
        x_first = at.place;
        x_rows = with_x ? (at.count + x_part_rows - 1) / x_part_rows * x_part_rows : 0;
        stage_bytes += x_rows * 128;
    }

    // Four rows of tiles, or of what goes with them, then four more: of up, or the next.
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
            constexpr int half = row_slices / 2;
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
                copy_tiles(stage + layout::zeros_at, zeros_of_slice(half), maps.zeros, group * 16,
                           barrier);
            }
        } else if constexpr (gated) {
            // Eight features of the gate, the same of up, and so on.
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int slice = warp * 2 + i;
#pragma unroll
                for (int which = 0; which < 2; ++which)
                    copy_box(stage + layout::x_bytes + slice * 2048 + which * 1024,
                             maps.weights[which], step * 64, weight_row + slice * 8, barrier);
            }
        } else if (warp >= 2) {
            copy_box(stage + layout::x_bytes + (warp - 2) * 8192, maps.weights[0], step * 64,
                     weight_row + (warp - 2) * 64, barrier);
        }
    }
};

template <typename Half, weight_storage storage, bool gated>
struct consumer {
    using layout = stage_layout<storage, widest>;
    static constexpr bool tiled = is_tiled(storage);
    static constexpr int count = stages<storage>;
    using fragments = code_fragments<Half, tiled ? storage : weight_storage::int4, gated>;
    using addresses = slice_address<tiled ? storage : weight_storage::int4, gated, widest>;

    const arguments& call;
    uint32_t first_stage, full, empty, turn;
    int lane, slice;
    bool copies_threads; // some of a stage was written by cp.async
    ring<count> at;
    addresses slice_at;

    __device__ __forceinline__ consumer(const arguments& arguments, uint32_t stages_at,
                                        uint32_t full_at, uint32_t empty_at, uint32_t turn_at,
                                        int own_lane, int own_slice)
        : call(arguments), first_stage(stages_at), full(full_at), empty(empty_at), turn(turn_at),
          lane(own_lane), slice(own_slice),
          copies_threads(arguments.copies == operand_copies::copies
                         || arguments.copies == operand_copies::mixed),
          slice_at(arguments, own_slice, own_lane) {}

    __device__ __forceinline__ void release(int slot) {
        __syncwarp();
        if (lane == 0) arrive(empty + slot * 8);
    }

    // Starts the products of the stage at `at`; with codes `a` must be free.
    template <int places>
    __device__ __forceinline__ void start(float (&d)[places / 2], uint32_t (&a)[16]) {
        const uint32_t stage = first_stage + at.slot * layout::bytes;
        wait_for_phase(full + at.slot * 8, at.parity);
        if (copies_threads) fence_for_async_proxy();
        const uint64_t b = tile_descriptor(stage);
        if constexpr (tiled) {
            fragments codes;
            slice_at.load(codes, stage, call.scale_type);
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
#pragma unroll
            for (int step = 0; step < 4; ++step)
                warpgroup_product<places>::template add<Half>(d, a + 4 * step, b + 2 * step);
        } else {
            const uint64_t weights = tile_descriptor(stage + layout::x_bytes + slice / 4 * 8192);
            fence_registers();
#pragma unroll
            for (int step = 0; step < 4; ++step)
                warpgroup_product<places>::template add<Half>(d, weights + 2 * step, b + 2 * step);
        }
        commit_products();
    }

    // Starts one more stage while that in slot `before` is being multiplied, then gives up its
    // slot.
    template <int places>
    __device__ __forceinline__ void follow(float (&d)[places / 2], uint32_t (&a)[16], int& before) {
        start<places>(d, a);
        wait_products<1>();
        release(before);
        before = at.slot;
        at.advance();
    }

    template <int places>
    __device__ __forceinline__ void run(const tile& tile) {
        float d[places / 2];
#pragma unroll
        for (int i = 0; i < places / 2; ++i) d[i] = 0.0f;
        // Two sets of registers for operand A: one is read by the products of the stage before.
        uint32_t even[16], odd[16];
        const int steps = call.columns / 64;
        int before = at.slot;
        start<places>(d, even);
        at.advance();
        int step = 1;
        for (; step + 1 < steps; step += 2) {
            follow<places>(d, odd, before);
            follow<places>(d, even, before);
        }
        if (step < steps) follow<places>(d, odd, before);
        wait_products<0>();
        release(before);
        write_slice<Half, gated, places>(call, tile, slice, lane, turn, d);
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
__device__ __forceinline__ void run_size(Consumer& own, tile_walk& walk) {
    while (walk.more && walk.at.size == places) {
        own.template run<places>(walk.at);
        walk.advance();
    }
}

#endif

template <typename Half, weight_storage storage, bool gated>
__global__ void __launch_bounds__(most_threads, 1)
    product_kernel([[maybe_unused]] const __grid_constant__ arguments call,
                   [[maybe_unused]] const __grid_constant__ tensor_maps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using layout = stage_layout<storage, widest>;
    constexpr int count = stages<storage>;
    extern __shared__ unsigned char memory[];
    __shared__ tile_list list;
    const uint32_t first_stage = (shared_address(memory) + 1023) / 1024 * 1024;
    const uint32_t turns = first_stage + count * layout::bytes;
    const uint32_t full = turns + consumer_warps * turn_bytes;
    const uint32_t empty = full + count * 8;
    constexpr int features = tile_features<gated>;
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
    list.build<threads, widest, granule>(call, blocks); // ends with a barrier

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
            stage_copier<Half, storage, gated, widest, warpgroup> copier(call, thread);
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
            stage_copier<Half, storage, gated, widest, warpgroup> copier(call, thread);
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
        consumer<Half, storage, gated> own(call, first_stage, full, empty,
                                           turns + warp * turn_bytes, thread % 32, warp);
        run_size<256>(own, walk);
        run_size<224>(own, walk);
        run_size<192>(own, walk);
        run_size<160>(own, walk);
        run_size<144>(own, walk);
        run_size<128>(own, walk);
        run_size<96>(own, walk);
        run_size<64>(own, walk);
        run_size<32>(own, walk);
    }
#endif
}

template <typename Half, weight_storage storage, bool gated>
void launch_kernel(arguments call, int multiprocessor_count, cudaStream_t stream) {
    tensor_maps maps{};
    prepare_sm90(call, maps, storage, gated, stream);
    const auto kernel = product_kernel<Half, storage, gated>;
    constexpr int bytes = shared_bytes<storage>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<multiprocessor_count, threads, bytes, stream>>>(call, maps);
}

template <typename Half, weight_storage storage>
void launch_gated(const arguments& call, bool gated, int multiprocessor_count,
                  cudaStream_t stream) {
    if (gated)
        launch_kernel<Half, storage, true>(call, multiprocessor_count, stream);
    else
        launch_kernel<Half, storage, false>(call, multiprocessor_count, stream);
}

template <typename Half>
void launch_sm90_half(const arguments& call, weight_storage storage, bool gated,
                      int multiprocessor_count, cudaStream_t stream) {
    if (storage == weight_storage::int4)
        launch_gated<Half, weight_storage::int4>(call, gated, multiprocessor_count, stream);
    else if (storage == weight_storage::int8)
        launch_gated<Half, weight_storage::int8>(call, gated, multiprocessor_count, stream);
    else // row-major elements of type Half, whichever that is
        launch_gated<Half, weight_storage::bfloat16>(call, gated, multiprocessor_count, stream);
}

} // namespace
} // namespace sluice::cuda::many
