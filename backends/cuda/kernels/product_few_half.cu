#include "product_few_kernel.cuh"

namespace sluice::cuda {

void launch_few_half(const few_arguments& arguments, dim3 grid, int warps, size_t shared_bytes,
                     int row_tiles_of_x, int streams, cudaStream_t stream) {
    launch_few<16>(arguments, grid, warps, shared_bytes, row_tiles_of_x, streams, stream);
}

} // namespace sluice::cuda
