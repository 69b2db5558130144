#include "product_few_kernel.cuh"

namespace sluice::cuda {

void launch_few_int8(const few_arguments& arguments, dim3 grid, int warps, size_t shared_bytes,
                     int row_tiles_of_x, int streams, cudaStream_t stream) {
    launch_few<8>(arguments, grid, warps, shared_bytes, row_tiles_of_x, streams, stream);
}

} // namespace sluice::cuda
