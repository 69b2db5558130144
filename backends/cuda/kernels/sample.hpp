// The next token of each row of logits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sluice::cuda {

struct sample_call {
    const void* logits = nullptr; // [rows, width]
    uint32_t logits_type = 0;     // of the float types
    int64_t rows = 0;
    int64_t width = 0;
    int32_t* token = nullptr;         // [rows]
    float* log_probability = nullptr; // [rows], or NULL
    void* scratch = nullptr;          // sample_scratch_bytes()
};

uint64_t sample_scratch_bytes(int64_t rows, int64_t width);

// token: the largest finite logit, the lowest of several; log_probability: its logarithm among all
// finite ones. A row without a finite logit gives -1 and 0.
void launch_sample(const sample_call& call, cudaStream_t stream);

} // namespace sluice::cuda
