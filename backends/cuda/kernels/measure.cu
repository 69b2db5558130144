#include "measure.hpp"

namespace sluice::cuda {

namespace {

constexpr int read_threads = 512;
constexpr int reads_in_flight = 8;

__global__ void __launch_bounds__(read_threads)
    read_kernel(const uint4* data, int64_t count, float* sink) {
    uint32_t seen = 0;
    const int64_t stride = static_cast<int64_t>(gridDim.x) * read_threads;
    int64_t at = static_cast<int64_t>(blockIdx.x) * read_threads + threadIdx.x;
    for (; at + (reads_in_flight - 1) * stride < count; at += reads_in_flight * stride) {
        uint4 words[reads_in_flight];
#pragma unroll
        for (int i = 0; i < reads_in_flight; ++i) words[i] = __ldcs(data + at + i * stride);
#pragma unroll
        for (int i = 0; i < reads_in_flight; ++i)
            seen |= words[i].x ^ words[i].y ^ words[i].z ^ words[i].w;
    }
    for (; at < count; at += stride) seen |= data[at].x;
    if (seen == 0xdeadbeefu) *sink = 1.0f;
}

__global__ void __launch_bounds__(read_threads)
    read_kept_kernel(const uint4* data, int64_t count, float* sink) {
    uint32_t seen = 0;
    const int64_t stride = static_cast<int64_t>(gridDim.x) * read_threads;
    for (int64_t at = static_cast<int64_t>(blockIdx.x) * read_threads + threadIdx.x; at < count;
         at += stride)
        seen |= __ldcg(data + at).x;
    if (seen == 0xdeadbeefu) *sink = 1.0f;
}

constexpr int work_threads = 256;
constexpr int work_blocks = 8; // a multiprocessor
constexpr int work_chains = 16;
constexpr int work_rounds = 4096;

__global__ void __launch_bounds__(work_threads) f32_kernel(float* sink, float factor) {
    float chain[work_chains];
#pragma unroll
    for (int i = 0; i < work_chains; ++i) chain[i] = static_cast<float>(threadIdx.x + i);
    for (int round = 0; round < work_rounds; ++round)
#pragma unroll
        for (int i = 0; i < work_chains; ++i) chain[i] = fmaf(chain[i], factor, 1.0f);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < work_chains; ++i) sum += chain[i];
    if (sum == -1.0f) *sink = sum;
}

} // namespace

void launch_read(const void* data, int64_t size_bytes, int multiprocessor_count, float* sink,
                 cudaStream_t stream) {
    read_kernel<<<multiprocessor_count * 4, read_threads, 0, stream>>>(
        static_cast<const uint4*>(data), size_bytes / 16, sink);
}

void launch_read_kept(const void* data, int64_t size_bytes, int multiprocessor_count, float* sink,
                      cudaStream_t stream) {
    if (size_bytes < 16) return;
    read_kept_kernel<<<multiprocessor_count * 4, read_threads, 0, stream>>>(
        static_cast<const uint4*>(data), size_bytes / 16, sink);
}

int code_capability() {
    cudaFuncAttributes attributes{};
    if (cudaFuncGetAttributes(&attributes, f32_kernel) == cudaSuccess) return attributes.ptxVersion;
    cudaGetLastError(); // which would be found after a launch
    return 0;
}

double launch_f32_work(int multiprocessor_count, float* sink, cudaStream_t stream) {
    f32_kernel<<<multiprocessor_count * work_blocks, work_threads, 0, stream>>>(sink, 0.5f);
    return 2.0 * multiprocessor_count * work_blocks * work_threads * work_chains * work_rounds;
}

} // namespace sluice::cuda
