#include "device.hpp"

#include "kernels/measure.hpp"

#include <cstring>

namespace sluice::cuda {

namespace {

sluice_status status_of(cudaError_t error) {
    switch (error) {
    case cudaErrorMemoryAllocation:
        return SLUICE_EXHAUSTED;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
    case cudaErrorDevicesUnavailable:
    case cudaErrorNoKernelImageForDevice:
        return SLUICE_UNAVAILABLE;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorAssert:
        return SLUICE_DEVICE_LOST;
    default:
        return SLUICE_INTERNAL;
    }
}

std::string bytes_text(uint64_t bytes) {
    char text[48];
    std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / 1048576.0);
    return text;
}

} // namespace

void fail_with(cudaError_t error, std::string_view doing) {
    cudaGetLastError(); // told here: the next launch is not to find it again
    plugin::fail(status_of(error), doing, ": ", cudaGetErrorString(error), " (",
                 cudaGetErrorName(error), ")");
}

device::device(int ordinal) {
    cudaDeviceProp found{};
    check(cudaGetDeviceProperties(&found, ordinal), "reading the properties of the device");
    properties_.ordinal = ordinal;
    properties_.name = found.name;
    properties_.compute_capability = found.major * 10 + found.minor;
    properties_.multiprocessor_count = found.multiProcessorCount;
    properties_.shared_bytes_per_block = static_cast<int>(found.sharedMemPerBlockOptin);
    properties_.l2_bytes = found.l2CacheSize;
    properties_.memory_bytes = found.totalGlobalMem;
    if (properties_.compute_capability < 80)
        plugin::fail(SLUICE_UNAVAILABLE, "device ", ordinal, " (", properties_.name,
                     ") has compute capability ", found.major, ".", found.minor,
                     "; 8.0 or later is needed");
    use();
    properties_.code_capability = code_capability();
    if (properties_.code_capability == 0)
        plugin::fail(SLUICE_UNAVAILABLE, "the backend holds no kernels for device ", ordinal, " (",
                     properties_.name, ", compute capability ", found.major, ".", found.minor,
                     "); build it with SLUICE_CUDA_TARGETS that include it");
    check(cudaStreamCreateWithFlags(&setup_stream_, cudaStreamNonBlocking), "creating a stream");
}

device::~device() { cudaStreamDestroy(setup_stream_); }

uint64_t device::memory_bytes_free() const {
    use();
    size_t free_bytes = 0, total_bytes = 0;
    check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
    return free_bytes;
}

device_memory::device_memory(const device& owner, uint64_t size_bytes, std::string_view purpose)
    : owned_memory(size_bytes) {
    if (size_bytes == 0) return;
    owner.use();
    const cudaError_t error = cudaMalloc(&data_, size_bytes);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError(); // told here: the next launch is not to find it again
        plugin::fail(SLUICE_EXHAUSTED, purpose, " needs ", bytes_text(size_bytes), " on ",
                     owner.properties().name, ", where ", bytes_text(owner.memory_bytes_free()),
                     " of ", bytes_text(owner.properties().memory_bytes),
                     " are free; lower engine.cache_tokens or engine.tokens_per_step_max, use a "
                     "checkpoint of fewer bits, or place experts in host memory ([placement])");
    }
    check(error, "allocating device memory");
}

pinned_memory::pinned_memory(const device& owner, uint64_t size_bytes) : owned_memory(size_bytes) {
    if (size_bytes == 0) return;
    owner.use();
    check(cudaHostAlloc(&data_, size_bytes, cudaHostAllocDefault), "allocating pinned memory");
    std::memset(data_, 0, size_bytes);
}

} // namespace sluice::cuda
