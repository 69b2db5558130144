// Kernels that do nothing but keep one resource busy, to measure what the card can do.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sluice::cuda {

// Reads `size_bytes` (a multiple of 16) once. `sink` is written only if the data says so, which
// keeps the reads from being left out.
void launch_read(const void* data, int64_t size_bytes, int multiprocessor_count, float* sink,
                 cudaStream_t stream);

// The same in the ordinary way: the L2 cache then holds what was read last, in place of what it
// held.
void launch_read_kept(const void* data, int64_t size_bytes, int multiprocessor_count, float* sink,
                      cudaStream_t stream);

// float32 multiply-adds on all cores; returns how many operations one launch does.
double launch_f32_work(int multiprocessor_count, float* sink, cudaStream_t stream);

// The compute capability (80, 90) of the code that the card in use runs: of the PTX from which the
// driver compiled it, where the library holds no code for the card itself. 0: neither is there.
int code_capability();

} // namespace sluice::cuda
