// The product for many rows with wgmma: bf16, and whether there is such a form at all.
#include "product_many_sm90.cuh"

namespace sluice::cuda::many {

bool has_sm90() {
    static const bool has = [] {
        cudaFuncAttributes attributes{};
        return cudaFuncGetAttributes(&attributes,
                                     product_kernel<__nv_bfloat16, weight_storage::bfloat16, false>)
                   == cudaSuccess
               && attributes.maxThreadsPerBlock >= threads;
    }();
    return has;
}

void launch_sm90(const arguments& call, weight_storage storage, bool is_bfloat, bool gated,
                 int multiprocessor_count, cudaStream_t stream) {
    if (is_bfloat)
        launch_sm90_half<__nv_bfloat16>(call, storage, gated, multiprocessor_count, stream);
    else
        launch_sm90_f16(call, storage, gated, multiprocessor_count, stream);
}

} // namespace sluice::cuda::many
