// The router's product for few rows with the routing behind it.
#include "product_few_kernel.cuh"
#include "route.cuh"

#include <algorithm>

namespace sluice::cuda {

namespace {

template <typename Half, bool norms>
__global__ void __maxnreg__(96)
    router_kernel(const __grid_constant__ few_arguments given,
                  const __grid_constant__ route_call route, int32_t* ticket) {
    extern __shared__ uint4 shared_vectors[];
    __shared__ bool is_last;
    multiply_few<16, Half, 1, 1, false, norms>(given, shared_vectors);
    __threadfence(); // this thread's logits are there for all before the ticket is drawn
    __syncthreads();
    if (threadIdx.x == 0) is_last = atomicAdd(ticket, 1) == static_cast<int32_t>(gridDim.x) - 1;
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    if (threadIdx.x == 0) *ticket = 0;
    route_rows(route, route.count != nullptr ? counting::in_block : counting::none, true,
               reinterpret_cast<float*>(shared_vectors), 0, 1);
}

size_t route_bytes(const route_call& route, int warps) {
    return (row_floats(route.routing) * static_cast<size_t>(warps) + route.routing.expert_count)
           * sizeof(float);
}

} // namespace

bool fits_router_few(const few_call& few, const route_call& route) {
    return fits_product_few(few) && few.product.places <= few_norm_rows
           && few.product.weight.storage != weight_storage::int4
           && few.product.weight.storage != weight_storage::int8 && !few.product.gate.gates
           && few.index == nullptr && few.product.offset == nullptr
           && few.product.y_type == SLUICE_F32 && route.logits == few.product.y
           && route.rows == few.product.places && !(route.routing.capacity_factor > 0.0f)
           && route.routing.expert_count <= 512;
}

void launch_router_few(const few_call& few, const route_call& route, int32_t* ticket,
                       cudaStream_t stream) {
    if (few.product.places <= 0) return;
    const few_plan plan = plan_few(few);
    const size_t shared_bytes = std::max(plan.shared_bytes, route_bytes(route, plan.warps));
    const bool is_bfloat = few.product.x_type == SLUICE_BF16;
    const bool norms = few.norm.residual != nullptr;
    auto* kernel = is_bfloat ? router_kernel<__nv_bfloat16, false> : router_kernel<__half, false>;
    if (norms)
        kernel = is_bfloat ? router_kernel<__nv_bfloat16, true> : router_kernel<__half, true>;
    launch_grid(kernel, plan.grid, static_cast<unsigned>(plan.warps) * 32, shared_bytes, stream,
                few.programmatic, plan.arguments, route, ticket);
}

} // namespace sluice::cuda
