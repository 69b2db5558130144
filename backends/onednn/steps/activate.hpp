// Gated activations of float32 rows, shared by the dense and the expert layers.
#pragma once

#include "step.hpp"

#include <algorithm>
#include <cmath>

namespace sluice::onednn {

// y = activation(gate) * up over [count]; alpha and clamp as in abi/operations.h.
inline void gated_activate(const kernels::row_kernels& rows, uint32_t activation, float alpha,
                           float clamp, const float* gate, const float* up, int64_t count,
                           float* y) {
    switch (activation) {
    case SLUICE_ACTIVATION_SILU:
        rows.silu_multiply(gate, up, count, y);
        return;
    case SLUICE_ACTIVATION_SWIGLU_OAI:
        for (int64_t i = 0; i < count; ++i) {
            const float g = clamp > 0 ? std::min(gate[i], clamp) : gate[i];
            const float u = clamp > 0 ? std::clamp(up[i], -clamp, clamp) : up[i];
            y[i] = g / (1.0f + std::exp(-alpha * g)) * (u + 1.0f);
        }
        return;
    case SLUICE_ACTIVATION_GELU_ERF:
        for (int64_t i = 0; i < count; ++i)
            y[i] = 0.5f * gate[i] * (1.0f + std::erf(gate[i] * 0.70710678f)) * up[i];
        return;
    case SLUICE_ACTIVATION_GELU_TANH:
        for (int64_t i = 0; i < count; ++i) {
            const float g = gate[i];
            y[i] = 0.5f * g * (1.0f + std::tanh(0.79788456f * (g + 0.044715f * g * g * g))) * up[i];
        }
        return;
    case SLUICE_ACTIVATION_RELU:
        for (int64_t i = 0; i < count; ++i) y[i] = std::max(gate[i], 0.0f) * up[i];
        return;
    default: // SLUICE_ACTIVATION_RELU_SQUARED: claims refuse the rest
        for (int64_t i = 0; i < count; ++i) {
            const float g = std::max(gate[i], 0.0f);
            y[i] = g * g * up[i];
        }
    }
}

inline bool knows_gated_activation(uint32_t activation) {
    return activation <= SLUICE_ACTIVATION_SWIGLU_OAI;
}

} // namespace sluice::onednn
