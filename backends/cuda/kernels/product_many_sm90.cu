// The product for many rows with wgmma: not there yet.
#include "product_many.cuh"

namespace sluice::cuda::many {
bool has_sm90() { return false; }
void launch_sm90(const arguments&, weight_storage, bool, bool, int, cudaStream_t) {}
} // namespace sluice::cuda::many
