// What the plugin's device.cpp does by an exception, for tests of kernels without the plugin.
#include "errors.hpp"

#include <cstdio>
#include <cstdlib>

namespace sluice::cuda {

void fail_with(cudaError_t error, std::string_view doing) {
    std::printf("FAIL %.*s: %s\n", static_cast<int>(doing.size()), doing.data(),
                cudaGetErrorString(error));
    std::exit(1);
}

} // namespace sluice::cuda
