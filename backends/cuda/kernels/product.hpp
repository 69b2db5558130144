// y = x W^T for one matrix or a stack of them, rows grouped by matrix: the products behind linear,
// grouped_linear, gated_mlp and moe_ffn. Three forms of the same function: plain (any types and
// sizes, the one that the others are held to), few rows (bound by reading the weights) and many
// rows (bound by the matrix units).
#pragma once

#include "view.hpp"

#include <cuda_runtime_api.h>

namespace sluice::cuda {

// How gate and up become one: as sluice_activation_attributes says. SPLIT takes `weight` as the
// gate and `up` as the up matrix; the other layouts take both from `weight`, whose rows are then
// twice the columns of y.
struct gating {
    bool gates = false;
    uint32_t activation = 0;  // SLUICE_ACTIVATION_*
    uint32_t gate_layout = 0; // SLUICE_GATE_*
    float alpha = 0;
    float clamp = 0;
};

// How the products for many rows bring their operands to a multiprocessor with wgmma. Copies: all
// threads of a warpgroup, 16 bytes each. Mixed: x so, weights by tensor copies. Tensor: all by
// tensor copies; rows of x must be consecutive. (Bringing them together before costs more than it
// saves: eight copies of x are written to memory and read again.)
enum class operand_copies : int32_t { automatic, copies, mixed, tensor };

struct product_call {
    const void* x = nullptr; // [..., columns], row-major
    uint32_t x_type = 0;     // F32, BF16 or F16
    // Place p multiplies row row[p] of x (NULL: row p). A row of -1 is no row.
    const int32_t* row = nullptr;
    // [matrices + 1]: matrix m owns places offset[m] to offset[m + 1] - 1; NULL: all places are of
    // matrix 0.
    const int32_t* offset = nullptr;
    int32_t places = 0; // rows of y; a bound where `offset` is given
    weight_view weight;
    weight_view up;
    const float* bias = nullptr;    // [matrices, rows of weight], float32
    const float* up_bias = nullptr; // [matrices, rows of up]
    gating gate;
    const float* input_scale = nullptr; // [places]: multiplies x's row of that place
    void* y = nullptr;                  // [places, rows] (or the gated width), row-major
    uint32_t y_type = 0;
    operand_copies copies = operand_copies::automatic;
};

// Any types, any sizes. Places from offset[matrices] on become zeros.
void launch_product_plain(const product_call& call, cudaStream_t stream);

// ---- Many rows ----

// Whether the form below can run it: x and y of one half type (y may be float32), weights of the
// same type or tiles, columns a multiple of 64, rows a multiple of 64, no input_scale.
bool fits_product_many(const product_call& call);
// `is_hopper`: may use wgmma (sm_90a); otherwise mma.sync (sm_80). Places that no matrix owns are
// not written.
void launch_product_many(const product_call& call, bool is_hopper, int multiprocessor_count,
                         cudaStream_t stream);

} // namespace sluice::cuda
