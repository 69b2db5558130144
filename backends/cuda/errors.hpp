// Errors of the CUDA runtime in words. Light enough for kernels' files.
#pragma once

#include <cuda_runtime_api.h>

#include <string_view>

namespace sluice::cuda {

// Throws the driver's own words with what was being done. Classes: exhausted, device lost,
// unavailable, internal.
[[noreturn]] void fail_with(cudaError_t error, std::string_view doing);

inline void check(cudaError_t error, std::string_view doing) {
    if (error != cudaSuccess) fail_with(error, doing);
}

} // namespace sluice::cuda
