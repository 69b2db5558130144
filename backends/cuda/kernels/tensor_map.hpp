// Descriptors of tensor copies, from compute capability 9.0 on.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace sluice::cuda {

// The driver's cuTensorMapEncodeTiled, found without linking the driver; NULL if it has none.
inline decltype(&cuTensorMapEncodeTiled) tensor_map_encoder() {
    static const auto found = [] {
        void* function = nullptr;
        cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
        const cudaError_t status = cudaGetDriverEntryPointByVersion(
            "cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
#else
        const cudaError_t status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function,
                                                           cudaEnableDefault, &result);
#endif
        if (status != cudaSuccess || result != cudaDriverEntryPointSuccess) function = nullptr;
        return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
    }();
    return found;
}

} // namespace sluice::cuda
