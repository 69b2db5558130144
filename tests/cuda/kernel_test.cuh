// What the tests of single kernels share.
#pragma once

#include <sluice/abi/tensor.h>

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

inline void check_cuda(cudaError_t status, const char* what, int line) {
    if (status == cudaSuccess) return;
    std::printf("FAIL line %d: %s: %s\n", line, what, cudaGetErrorString(status));
    std::exit(1);
}
#define CHECK_CUDA(expression) check_cuda(expression, #expression, __LINE__)

inline __host__ __device__ uint32_t hash(uint64_t value) {
    value ^= value >> 33;
    value *= 0xFF51AFD7ED558CCDull;
    value ^= value >> 33;
    value *= 0xC4CEB9FE1A85EC53ull;
    value ^= value >> 33;
    return static_cast<uint32_t>(value);
}

// Device memory of one case; released with it.
class device_pool {
  public:
    device_pool() = default;
    device_pool(const device_pool&) = delete;
    device_pool& operator=(const device_pool&) = delete;
    ~device_pool() {
        for (void* block : blocks_) cudaFree(block);
    }
    void* allocate(int64_t bytes) {
        void* block = nullptr;
        CHECK_CUDA(cudaMalloc(&block, static_cast<size_t>(std::max<int64_t>(bytes, 16))));
        blocks_.push_back(block);
        return block;
    }
    template <typename Element>
    Element* copied(const std::vector<Element>& values) {
        const size_t bytes = values.size() * sizeof(Element);
        auto* block = static_cast<Element*>(allocate(static_cast<int64_t>(bytes)));
        CHECK_CUDA(cudaMemcpy(block, values.data(), bytes, cudaMemcpyDefault));
        return block;
    }

    uint64_t seed = 1; // of what is filled by chance

  private:
    std::vector<void*> blocks_;
};

// Element `index` of a float type, read back from the device.
inline float value_of(const std::vector<uint8_t>& bytes, uint32_t type, int64_t index) {
    if (type == SLUICE_F32) {
        float value;
        std::memcpy(&value, bytes.data() + index * 4, 4);
        return value;
    }
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + index * 2, 2);
    if (type == SLUICE_BF16) {
        const uint32_t wide = static_cast<uint32_t>(bits) << 16;
        float value;
        std::memcpy(&value, &wide, 4);
        return value;
    }
    return __half2float(__ushort_as_half(bits));
}

// The middle one of `runs` launches, each timed by itself, after some that are not.
template <typename Launch>
double median_microseconds(Launch&& launch, int runs) {
    constexpr int untimed = 5;
    cudaEvent_t begin, end;
    CHECK_CUDA(cudaEventCreate(&begin));
    CHECK_CUDA(cudaEventCreate(&end));
    std::vector<float> times;
    for (int i = 0; i < untimed + runs; ++i) {
        CHECK_CUDA(cudaEventRecord(begin));
        launch();
        CHECK_CUDA(cudaEventRecord(end));
        CHECK_CUDA(cudaEventSynchronize(end));
        float milliseconds = 0.0f;
        CHECK_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
        if (i >= untimed) times.push_back(milliseconds);
    }
    CHECK_CUDA(cudaGetLastError());
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
    return times[runs / 2] * 1e3;
}
