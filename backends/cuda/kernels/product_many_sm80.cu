// The product for many rows with mma.sync: eight warps multiply 128 rows of weights by up to 128
// places, three stages deep. Runs on every device from compute capability 8.0 on.
#include "product_many.cuh"

namespace sluice::cuda::many {
namespace {

constexpr int threads = 256;
constexpr int widest = 128;
constexpr int weight_rows = 128;
constexpr int stages = 3;

template <weight_storage storage>
constexpr int shared_bytes = stages* stage_layout<storage, widest, weight_rows>::bytes + 1024;

// Warp w has slices 2 (w % 4) and 2 (w % 4) + 1 of the weights, and of the places every other
// sixteen, beginning with w / 4.
template <typename Half, weight_storage storage, bool gated>
__device__ __forceinline__ void
multiply_stage(const arguments& call, uint32_t stage, int lane, int weight_warp, int place_warp,
               int sixteens, const slice_address<storage, gated, widest, weight_rows>* at,
               float (&d)[2][8][4]) {
    using layout = stage_layout<storage, widest, weight_rows>;
    constexpr bool tiled = is_tiled(storage);
    using fragments_type =
        code_fragments<Half, tiled ? storage : weight_storage::int4, gated>; // unused if not tiled
    fragments_type fragments[tiled ? 2 : 1];
    if constexpr (tiled) {
        at[0].load(fragments[0], stage, call.scale_type);
        at[1].load(fragments[1], stage, call.scale_type);
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if constexpr (tiled) {
                fragments[i].fragment(step, a[i]);
            } else {
                // Matrices: rows 0 to 7 and 8 to 15 of the slice, then the same eight columns on.
                const int row = (weight_warp * 2 + i) * 16 + lane % 16;
                load_matrices(a[i], stage + layout::x_bytes + swizzled(row, step * 2 + lane / 16));
            }
        }
#pragma unroll
        for (int block = 0; block < 4; ++block) {
            const int sixteen = block * 2 + place_warp;
            if (sixteen < sixteens) {
                // Matrices: eight places, the same eight columns on, then the next eight places.
                const int place = sixteen * 16 + lane / 16 * 8 + lane % 8;
                uint32_t b[4];
                load_matrices(b, stage + swizzled(place, step * 2 + lane / 8 % 2));
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    multiply_16x8<Half>(d[i][2 * block], a[i], b[0], b[1]);
                    multiply_16x8<Half>(d[i][2 * block + 1], a[i], b[2], b[3]);
                }
            }
        }
    }
}

template <typename Half, bool gated>
__device__ __forceinline__ void write_tile(const arguments& call, const tile& at, int lane,
                                           int weight_warp, int place_warp, float (&d)[2][8][4]) {
    const int group = lane / 4, within = lane % 4;
    constexpr int features_of_slice = gated ? 8 : 16;
    const int feature = at.feature + weight_warp * 2 * features_of_slice;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        float bias[2];
        load_biases<gated>(call, at, feature + i * features_of_slice, lane, bias);
        if constexpr (gated)
            gate_all<8>(call.form, &d[i][0][0], bias);
        else
            add_biases<8>(&d[i][0][0], bias);
    }
    const int64_t width = call.width;
#pragma unroll
    for (int block = 0; block < 4; ++block) {
        const int place = (block * 2 + place_warp) * 16;
        if (place >= at.count) continue;
        if (call.y_is_float) {
            float* y = static_cast<float*>(call.y) + static_cast<int64_t>(at.place) * width;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
                for (int c = 0; c < 2; ++c) {
#pragma unroll
                    for (int j = 0; j < (gated ? 2 : 4); ++j) {
                        const int own_place = place + c * 8 + within * 2 + j % 2;
                        const int own = feature + i * features_of_slice + group + j / 2 * 8;
                        if (own_place < at.count && own < call.width)
                            y[own_place * width + own] = d[i][2 * block + c][j];
                    }
                }
            }
        } else {
            Half* y = static_cast<Half*>(call.y) + static_cast<int64_t>(at.place) * width;
            if constexpr (gated) {
                // Vector t of four lanes: eight features of slice t % 2 at a place of run t / 2.
                uint32_t word[4];
#pragma unroll
                for (int t = 0; t < 4; ++t) {
                    const float* value = d[t % 2][2 * block + t / 2];
                    word[t] = transposed_matrix(pack_pair<Half>(value[0], value[1]));
                }
                const uint4 vector = gather_vector(word, lane);
                const int own_place = place + within / 2 * 8 + group;
                const int own = feature + within % 2 * 8;
                if (own_place < at.count && own < call.width)
                    *reinterpret_cast<uint4*>(y + own_place * width + own) = vector;
            } else {
                // Vector t of four lanes: features 8 t to 8 t + 7 of the warp's 32.
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    uint32_t word[4];
#pragma unroll
                    for (int t = 0; t < 4; ++t) {
                        const float* value = d[t / 2][2 * block + c] + t % 2 * 2;
                        word[t] = transposed_matrix(pack_pair<Half>(value[0], value[1]));
                    }
                    const uint4 vector = gather_vector(word, lane);
                    const int own_place = place + c * 8 + group;
                    const int own = feature + within * 8;
                    if (own_place < at.count && own < call.width)
                        *reinterpret_cast<uint4*>(y + own_place * width + own) = vector;
                }
            }
        }
    }
}

template <typename Half, weight_storage storage, bool gated>
__global__ void __launch_bounds__(threads, is_tiled(storage) ? 2 : 1)
    product_kernel(const __grid_constant__ arguments call) {
    using layout = stage_layout<storage, widest, weight_rows>;
    extern __shared__ unsigned char memory[];
    __shared__ tile_list list;
    const uint32_t first_stage = (shared_address(memory) + 1023) / 1024 * 1024;
    constexpr int features = tile_features<gated, weight_rows>;
    const int blocks = (call.width + features - 1) / features;
    list.build<threads, widest>(call, blocks);

    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int weight_warp = warp % 4, place_warp = warp / 4;
    constexpr weight_storage tiles = is_tiled(storage) ? storage : weight_storage::int4;
    const slice_address<tiles, gated, widest, weight_rows> slices[2] = {
        {call, weight_warp * 2, lane}, {call, weight_warp * 2 + 1, lane}};
    stage_copier<Half, storage, gated, widest, weight_rows, threads> copier(call, thread);
    const int steps = call.columns / 64;

    tile at;
    int cursor = 0;
    for (int index = blockIdx.x; list.find(index, call.matrices, blocks, features, cursor, at);
         index += gridDim.x) {
        float d[2][8][4] = {};
        copier.begin(at);
#pragma unroll
        for (int step = 0; step < stages - 1; ++step) {
            if (step < steps) copier.copy(first_stage + step * layout::bytes, step);
            commit_copies();
        }
        const int sixteens = (at.count + 15) / 16;
        int slot = 0, next_slot = stages - 1;
        for (int step = 0; step < steps; ++step) {
            wait_copies<stages - 2>();
            __syncthreads();
            // The slot was read in the step before the barrier.
            if (step + stages - 1 < steps)
                copier.copy(first_stage + next_slot * layout::bytes, step + stages - 1);
            commit_copies();
            const uint32_t stage = first_stage + slot * layout::bytes;
            if constexpr (is_tiled(storage)) {
                multiply_stage<Half, storage, gated>(call, stage, lane, weight_warp, place_warp,
                                                     sixteens, slices, d);
            } else {
                multiply_stage<Half, storage, gated>(
                    call, stage, lane, weight_warp, place_warp, sixteens,
                    static_cast<const slice_address<storage, gated, widest, weight_rows>*>(nullptr),
                    d);
            }
            slot = slot + 1 == stages ? 0 : slot + 1;
            next_slot = next_slot + 1 == stages ? 0 : next_slot + 1;
        }
        __syncthreads();
        write_tile<Half, gated>(call, at, lane, weight_warp, place_warp, d);
    }
}

template <typename Half, weight_storage storage, bool gated>
void launch_kernel(const arguments& call, int multiprocessor_count, cudaStream_t stream) {
    const auto kernel = product_kernel<Half, storage, gated>;
    constexpr int bytes = shared_bytes<storage>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    int resident = 1;
    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, bytes)
            != cudaSuccess
        || resident < 1)
        resident = 1;
    kernel<<<multiprocessor_count * resident, threads, bytes, stream>>>(call);
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
void launch_storage(const arguments& call, weight_storage storage, bool gated,
                    int multiprocessor_count, cudaStream_t stream) {
    if (storage == weight_storage::int4)
        launch_gated<Half, weight_storage::int4>(call, gated, multiprocessor_count, stream);
    else if (storage == weight_storage::int8)
        launch_gated<Half, weight_storage::int8>(call, gated, multiprocessor_count, stream);
    else // row-major elements of type Half, whichever that is
        launch_gated<Half, weight_storage::bfloat16>(call, gated, multiprocessor_count, stream);
}

} // namespace

void launch_sm80(const arguments& call, weight_storage storage, bool is_bfloat, bool gated,
                 int multiprocessor_count, cudaStream_t stream) {
    if (is_bfloat)
        launch_storage<__nv_bfloat16>(call, storage, gated, multiprocessor_count, stream);
    else
        launch_storage<__half>(call, storage, gated, multiprocessor_count, stream);
}

} // namespace sluice::cuda::many
