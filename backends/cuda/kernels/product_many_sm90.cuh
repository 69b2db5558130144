// The product for many rows with wgmma (sm_90a): one warpgroup copies stages, two multiply, each 64
// rows of weights by up to 256 places. Row-major weights are read from shared memory, codes become
// operand A in registers while the products of the stage before run.
#pragma once

#include "product_many.cuh"
#include "wgmma.cuh"

namespace sluice::cuda::many {
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
        const float* part = d + from / 2;
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
                    const float* value = part + 8 * i + m / 2 * 4 + m % 2 * 2;
                    word[m] = pack_pair<Half>(value[0], value[1]);
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
    ring<count> at;
    addresses slice_at;

    __device__ __forceinline__ consumer(const arguments& arguments, uint32_t stages_at,
                                        uint32_t full_at, uint32_t empty_at, uint32_t turn_at,
                                        int own_lane, int own_slice)
        : call(arguments), first_stage(stages_at), full(full_at), empty(empty_at), turn(turn_at),
          lane(own_lane), slice(own_slice), slice_at(arguments, own_slice, own_lane) {}

    __device__ __forceinline__ void release(int slot) {
        __syncwarp();
        if (lane == 0) arrive(empty + slot * 8);
    }

    // Starts the products of the stage at `at`; with codes `a` must be free.
    template <int places>
    __device__ __forceinline__ void start(float (&d)[places / 2], uint32_t (&a)[16]) {
        const uint32_t stage = first_stage + at.slot * layout::bytes;
        wait_for_phase(full + at.slot * 8, at.parity);
        fence_for_async_proxy();
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

#endif

template <typename Half, weight_storage storage, bool gated>
__global__ void __launch_bounds__(most_threads, 1)
    product_kernel([[maybe_unused]] const __grid_constant__ arguments call) {
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
        for (int i = 0; i < count; ++i) {
            start_barrier(full + i * 8, warpgroup);
            start_barrier(empty + i * 8, consumer_warps);
        }
    }
    list.build<threads, widest, granule>(call, blocks); // ends with a barrier

    // The warpgroup's number, as something that the compiler knows to be the same in a warp.
    const int role = __shfl_sync(0xFFFFFFFFu, thread / warpgroup, 0);
    tile at;
    int cursor = 0;
    if (role == 0) {
        give_registers<producer_registers>();
        stage_copier<Half, storage, gated, widest, warpgroup> copier(call, thread);
        const int steps = call.columns / 64;
        ring<count> next;
        for (int index = blockIdx.x; list.find(index, call.matrices, blocks, features, cursor, at);
             index += gridDim.x) {
            copier.begin(at);
            for (int step = 0; step < steps; ++step) {
                wait_for_phase(empty + next.slot * 8, next.parity ^ 1);
                copier.copy(first_stage + next.slot * layout::bytes, step);
                arrive_after_copies(full + next.slot * 8);
                next.advance();
            }
        }
        commit_copies();
        wait_copies<0>();
    } else {
        take_registers<consumer_registers>();
        const int warp = __shfl_sync(0xFFFFFFFFu, (thread - warpgroup) / 32, 0);
        consumer<Half, storage, gated> own(call, first_stage, full, empty,
                                           turns + warp * turn_bytes, thread % 32, warp);
        int index = blockIdx.x;
        bool more = list.find(index, call.matrices, blocks, features, cursor, at);
        // Tiles come by falling size, so that one loop a size does for all.
        auto run_size = [&]<int places>() {
            while (more && at.size == places) {
                own.template run<places>(at);
                index += gridDim.x;
                more = list.find(index, call.matrices, blocks, features, cursor, at);
            }
        };
        run_size.template operator()<256>();
        run_size.template operator()<224>();
        run_size.template operator()<192>();
        run_size.template operator()<160>();
        run_size.template operator()<128>();
        run_size.template operator()<96>();
        run_size.template operator()<64>();
        run_size.template operator()<32>();
    }
#endif
}

template <typename Half, weight_storage storage, bool gated>
void launch_kernel(const arguments& call, int multiprocessor_count, cudaStream_t stream) {
    const auto kernel = product_kernel<Half, storage, gated>;
    constexpr int bytes = shared_bytes<storage>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<multiprocessor_count, threads, bytes, stream>>>(call);
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
