// Embeddings, activations and the sum of experts' rows. Float types are F32, BF16 and F16, each
// operand its own. Wherever addresses and sizes allow, eight elements are read and written at once.
#pragma once

#include "view.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

// ---- Embeddings ----

struct embed_call {
    const int32_t* ids = nullptr; // [rows]
    int64_t rows = 0;
    weight_view weight; // of one matrix
    float scale = 1;
    void* x = nullptr; // [rows, columns of the weight]
    uint32_t x_type = 0;
};
void launch_embed(const embed_call& call, cudaStream_t stream);

// ---- Activations ----

struct activation_call {
    const void* x = nullptr; // [count]
    uint32_t x_type = 0;
    void* y = nullptr; // [count]
    uint32_t y_type = 0;
    int64_t count = 0;
    uint32_t activation = 0; // SLUICE_ACTIVATION_*
};
void launch_activation(const activation_call& call, cudaStream_t stream);

struct gated_activation_call {
    const void* gate = nullptr; // [rows, width]; both of them [rows, 2 * width] where not SPLIT
    uint32_t gate_type = 0;
    const void* up = nullptr; // [rows, width] where SPLIT
    uint32_t up_type = 0;
    void* y = nullptr; // [rows, width]
    uint32_t y_type = 0;
    int64_t rows = 0;
    int64_t width = 0;
    uint32_t activation = 0;  // SLUICE_ACTIVATION_*
    uint32_t gate_layout = 0; // SLUICE_GATE_*
    float alpha = 0;
    float clamp = 0;
};
void launch_gated_activation(const gated_activation_call& call, cudaStream_t stream);

// ---- Experts ----

// o[t] = addend[t] + sum over j in rising order of weight[t, j] * y[place[t, j]], and for identity
// experts, of an index of identity_from or more, x[t] times the sum of their weights.
struct combine_rows_call {
    const void* y = nullptr; // [places, width]
    uint32_t y_type = 0;
    int64_t places = 0;
    const int32_t* place = nullptr; // [rows, choices]; outside of 0 .. places - 1: adds nothing
    const float* weight = nullptr;  // [rows, choices], or NULL: all 1
    const void* addend = nullptr;   // [rows, width], or NULL
    uint32_t addend_type = 0;
    void* o = nullptr; // [rows, width]
    uint32_t o_type = 0;
    int64_t rows = 0;
    int64_t choices = 0;
    int64_t width = 0;
    int32_t identity_from = 0;              // 0: there are no identity experts, else
    const int32_t* index = nullptr;         // [rows, choices]
    const float* identity_weight = nullptr; // [rows, choices]
    const void* x = nullptr;                // [rows, width]
    uint32_t x_type = 0;
};
void launch_combine_rows(const combine_rows_call& call, cudaStream_t stream);

} // namespace sluice::cuda
