// The product for many rows with wgmma: f16.
#include "product_many_sm90.cuh"

namespace sluice::cuda::many {

void launch_sm90_f16(const arguments& call, weight_storage storage, bool gated,
                     int multiprocessor_count, cudaStream_t stream) {
    launch_sm90_half<__half>(call, storage, gated, multiprocessor_count, stream);
}

} // namespace sluice::cuda::many
