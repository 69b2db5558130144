// The router's product for few rows with the routing behind it.
#include "product_few_norm.cuh"
#include "route.cuh"

#include <algorithm>

namespace sluice::cuda {

namespace {

constexpr int router_warps = 8;
constexpr int cluster_blocks = 16;
constexpr int cluster_experts = 128; // that so many blocks have, and a lane of the routing four of
constexpr int lane_vectors = 8; // of a row of the weight that a lane takes, all on the way at once
static_assert(few_norm_rows <= router_warps);
static_assert(few_norm_columns <= 8 * 32 * lane_vectors * router_warps);

template <typename Half>
__device__ __forceinline__ float2 widen_pair(uint32_t word) {
    if constexpr (std::is_same_v<Half, __nv_bfloat16>)
        return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
    else
        return __half22float2(*reinterpret_cast<const __half2*>(&word));
}

// Puts rows of x in shared memory; 1 << shift warps share a row. All threads of the block.
template <typename Half, bool norms>
__device__ __forceinline__ void stage_rows(const few_call& few, uint4* staged, int vectors,
                                           const eight_elements& own_weight, int n, int first,
                                           int step, int shift) {
    __shared__ float squares[router_warps];
    const int rows = few.product.places;
    const int64_t begin = static_cast<int64_t>(n) * few.product.weight.columns;
    if constexpr (!norms) {
        const auto* x = static_cast<const uint16_t*>(few.product.x);
        if (n < rows)
            for (int v = first; v < vectors; v += step)
                staged[n * vectors + v] = load_now(x + begin + v * 8);
    } else {
        const few_norm& norm = few.norm;
        float square = 0.0f;
        float own[8]; // of vector `first`
        if (n < rows) {
#pragma unroll 2
            for (int v = first; v < vectors; v += step) {
                float u[8];
                load_normed_input(u, norm, begin + v * 8);
#pragma unroll
                for (int i = 0; i < 8; ++i) square += u[i] * u[i];
                if (v != first) continue;
#pragma unroll
                for (int i = 0; i < 8; ++i) own[i] = u[i];
            }
        }
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2)
            square += __shfl_xor_sync(all_lanes, square, distance);
        if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32] = square;
        __syncthreads();
        if (n < rows) {
            square = 0.0f;
            for (int w = 0; w < 1 << shift; ++w) square += squares[(n << shift) + w];
            const float share =
                1.0f
                / sqrtf(square / static_cast<float>(few.product.weight.columns) + norm.epsilon);
#pragma unroll 2
            for (int v = first; v < vectors; v += step) {
                float u[8];
                if (v == first) {
#pragma unroll
                    for (int i = 0; i < 8; ++i) u[i] = own[i];
                } else {
                    load_normed_input(u, norm, begin + v * 8);
                }
                const uint4 packed = normed_eight<Half>(
                    norm, u, share,
                    v == first ? own_weight : load_eight(norm.weight, SLUICE_F32, v * 8));
                staged[n * vectors + v] = packed;
                if (blockIdx.x == 0) write_normed(norm, u, packed, begin + v * 8);
            }
        }
    }
    __syncthreads();
}

// Blocks of a cluster reach each other's shared memory and wait for each other, from compute
// capability 9.0 on.
__device__ __forceinline__ void wait_for_cluster() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#endif
}
__device__ __forceinline__ void store_in_first_block(float* shared, float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    uint32_t address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, 0;"
                 : "=r"(address)
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
#endif
}

// 1 << part_shift warps take the columns of one expert's row. One block routes: where the grid is
// one cluster its first, to which the others hand their logits, else the one that ends last.
template <typename Half, bool norms, bool is_cluster>
__global__ void __launch_bounds__(router_warps * 32)
    router_kernel(const __grid_constant__ few_call few, const __grid_constant__ route_call route,
                  int32_t* ticket, int part_shift) {
    extern __shared__ uint4 shared_vectors[];
    __shared__ float dots[router_warps][few_norm_rows];
    __shared__ bool is_last;
    __shared__ float all_logits[is_cluster ? few_norm_rows * cluster_experts : 1];
    const product_call& product = few.product;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int rows = product.places;
    const int vectors = static_cast<int>(product.weight.columns / 8);
    const int parts = 1 << part_shift;
    const int block_experts = router_warps >> part_shift;
    const int first_expert = static_cast<int>(blockIdx.x) * block_experts;
    const auto vector_of = [&](int i) { return (i * parts + warp % parts) * 32 + lane; };

    // What no kernel writes.
    const char* weight = static_cast<const char*>(product.weight.data)
                         + (first_expert + (warp >> part_shift)) * (product.weight.columns * 2);
    uint4 own[lane_vectors];
#pragma unroll
    for (int i = 0; i < lane_vectors; ++i) {
        own[i] = make_uint4(0, 0, 0, 0);
        if (vector_of(i) < vectors) own[i] = load_stream(weight + vector_of(i) * 16);
    }
    const int row_shift = rows == 1 ? 3 : (rows == 2 ? 2 : (rows <= 4 ? 1 : 0));
    const int staged_row = warp >> row_shift;
    const int first = (warp & ((1 << row_shift) - 1)) * 32 + lane;
    eight_elements own_weight{};
    if (norms && first < vectors) own_weight = load_eight(few.norm.weight, SLUICE_F32, first * 8);

    wait_for_grids_before();
    start_next_grid();
    stage_rows<Half, norms>(few, shared_vectors, vectors, own_weight, staged_row, first,
                            32 << row_shift, row_shift);

    for (int n = 0; n < rows; ++n) {
        const uint4* x = shared_vectors + n * vectors;
        float low = 0.0f, high = 0.0f;
#pragma unroll
        for (int i = 0; i < lane_vectors; ++i) {
            if (vector_of(i) >= vectors) continue;
            const uint4 other = x[vector_of(i)];
            const uint32_t w_words[4] = {own[i].x, own[i].y, own[i].z, own[i].w};
            const uint32_t x_words[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const float2 a = widen_pair<Half>(w_words[k]), b = widen_pair<Half>(x_words[k]);
                low += a.x * b.x;
                high += a.y * b.y;
            }
        }
        float sum = low + high;
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2)
            sum += __shfl_xor_sync(all_lanes, sum, distance);
        if (lane == 0) dots[warp][n] = sum;
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < block_experts * rows) {
        const int e = static_cast<int>(threadIdx.x) % block_experts;
        const int n = static_cast<int>(threadIdx.x) / block_experts;
        const int64_t expert = first_expert + e;
        float sum = 0.0f;
        for (int part = 0; part < parts; ++part) sum += dots[e * parts + part][n];
        if (product.bias != nullptr) sum += product.bias[expert];
        static_cast<float*>(product.y)[n * product.weight.rows + expert] = sum;
        if constexpr (is_cluster)
            store_in_first_block(all_logits + n * product.weight.rows + expert, sum);
    }
    route_call own_route = route;
    if constexpr (is_cluster) {
        wait_for_cluster();
        if (blockIdx.x != 0) return;
        own_route.logits = all_logits;
    } else {
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence(); // the block's logits are there for all before the ticket is drawn
            is_last = atomicAdd(ticket, 1) == static_cast<int32_t>(gridDim.x) - 1;
        }
        __syncthreads();
        if (!is_last) return;
        __threadfence();
        if (threadIdx.x == 0) *ticket = 0;
    }
    const counting counts = route.count != nullptr ? counting::in_block : counting::none;
    auto* shared = reinterpret_cast<float*>(shared_vectors);
    const int per_lane = experts_per_lane(route);
    if (per_lane == 0)
        route_rows<0>(own_route, counts, true, shared, 0, 1);
    else if (is_cluster || per_lane == 4)
        route_rows<4>(own_route, counts, true, shared, 0, 1);
    else if (per_lane == 8)
        route_rows<8>(own_route, counts, true, shared, 0, 1);
    else
        route_rows<16>(own_route, counts, true, shared, 0, 1);
}

// Whether the card can have such a cluster at once; parts of a card may not.
template <typename Kernel>
bool fits_cluster(Kernel* kernel, unsigned blocks, size_t shared_bytes) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(router_warps * 32);
    config.dynamicSmemBytes = shared_bytes;
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = blocks;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    config.attrs = &cluster;
    config.numAttrs = 1;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    int clusters = 0;
    const bool is_known = cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess;
    if (!is_known) cudaGetLastError(); // forgotten
    return is_known && clusters > 0;
}

} // namespace

bool fits_router_few(const few_call& few, const route_call& route) {
    return fits_product_few(few) && few.product.places <= few_norm_rows
           && few.product.weight.columns <= few_norm_columns
           && few.product.weight.storage != weight_storage::int4
           && few.product.weight.storage != weight_storage::int8 && !few.product.gate.gates
           && few.index == nullptr && few.product.offset == nullptr && few.product.row == nullptr
           && few.product.input_scale == nullptr && few.product.y_type == SLUICE_F32
           && route.logits == few.product.y && route.rows == few.product.places
           && !(route.routing.capacity_factor > 0.0f) && route.routing.expert_count <= 512;
}

void launch_router_few(const few_call& few, const route_call& route, int32_t* ticket,
                       cudaStream_t stream) {
    if (few.product.places <= 0) return;
    const int64_t columns = few.product.weight.columns;
    int part_shift = 0;
    while (columns > int64_t{8 * 32 * lane_vectors} << part_shift) ++part_shift;
    const int64_t blocks = (few.product.weight.rows << part_shift) / router_warps;
    const counting counts = route.count != nullptr ? counting::in_block : counting::none;
    const size_t shared_bytes = std::max(static_cast<size_t>(few.product.places * columns) * 2,
                                         route_floats(route, counts, router_warps) * sizeof(float));
    const bool is_bfloat = few.product.x_type == SLUICE_BF16;
    const bool norms = few.norm.residual != nullptr;
    const auto pick = [&](auto half, auto in_cluster) {
        using half_type = decltype(half);
        return norms ? router_kernel<half_type, true, decltype(in_cluster)::value>
                     : router_kernel<half_type, false, decltype(in_cluster)::value>;
    };
    const auto pick_type = [&](auto in_cluster) {
        return is_bfloat ? pick(__nv_bfloat16{}, in_cluster) : pick(__half{}, in_cluster);
    };
    auto* kernel = pick_type(std::true_type{});
    const bool is_cluster = few.clusters && blocks > 1 && blocks <= cluster_blocks
                            && few.product.weight.rows <= cluster_experts
                            && fits_cluster(kernel, static_cast<unsigned>(blocks), shared_bytes);
    if (!is_cluster) kernel = pick_type(std::false_type{});
    launch_clusters(kernel, dim3(static_cast<unsigned>(blocks)), router_warps * 32, shared_bytes,
                    stream, few.programmatic, is_cluster ? static_cast<unsigned>(blocks) : 1u, few,
                    route, ticket, part_shift);
}

} // namespace sluice::cuda
