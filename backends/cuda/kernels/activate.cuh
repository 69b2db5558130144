// The activations of abi/operations.h on float32, shared by the row kernels and the products.
#pragma once

#include <sluice/abi/operations.h>

namespace sluice::cuda {

// Of one number; SWIGLU_OAI is gated only.
__device__ __forceinline__ float activate(uint32_t activation, float x) {
    switch (activation) {
    case SLUICE_ACTIVATION_SILU:
        return x / (1.0f + expf(-x));
    case SLUICE_ACTIVATION_GELU_ERF:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case SLUICE_ACTIVATION_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case SLUICE_ACTIVATION_RELU:
        return fmaxf(x, 0.0f);
    default: { // SLUICE_ACTIVATION_RELU_SQUARED
        const float positive = fmaxf(x, 0.0f);
        return positive * positive;
    }
    }
}

__device__ __forceinline__ float gated_activate(uint32_t activation, float alpha, float clamp,
                                                float gate, float up) {
    if (activation != SLUICE_ACTIVATION_SWIGLU_OAI) return activate(activation, gate) * up;
    if (clamp > 0.0f) {
        gate = fminf(gate, clamp);
        up = fminf(fmaxf(up, -clamp), clamp);
    }
    return gate / (1.0f + expf(-alpha * gate)) * (up + 1.0f);
}

} // namespace sluice::cuda
