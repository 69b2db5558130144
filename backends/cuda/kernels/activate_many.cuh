// The gated activations of sluice_activation_attributes for kernels that hold many values in
// registers: no calls, no branches within a family, few registers.
#pragma once

#include "product.hpp"

#include <sluice/abi/operations.h>

#include <cmath>
#include <limits>

namespace sluice::cuda {

// SILU, GELU_TANH and SWIGLU_OAI are one family, as (1 + tanh z) / 2 = 1 / (1 + exp(-2 z)):
//     g = min(gate, limit), u = clip(up, -limit, limit) + shift
//     y = g / (1 + exp(-g (linear + cubic g^2))) * u
// The others differ in what they make of the gate.
struct gate_form {
    enum class family : int32_t { sigmoid, relu, relu_squared, error_function };
    family kind = family::sigmoid;
    float linear = 1.0f;
    float cubic = 0.0f;
    float limit = std::numeric_limits<float>::infinity();
    float shift = 0.0f;
};

inline gate_form gate_form_of(const gating& gate) {
    gate_form form;
    switch (gate.activation) {
    case SLUICE_ACTIVATION_GELU_ERF:
        form.kind = gate_form::family::error_function;
        break;
    case SLUICE_ACTIVATION_GELU_TANH:
        form.linear = 1.5957691216057308f; // 2 sqrt(2 / pi)
        form.cubic = 0.07135481282553f;    // the same * 0.044715
        break;
    case SLUICE_ACTIVATION_RELU:
        form.kind = gate_form::family::relu;
        break;
    case SLUICE_ACTIVATION_RELU_SQUARED:
        form.kind = gate_form::family::relu_squared;
        break;
    case SLUICE_ACTIVATION_SWIGLU_OAI:
        form.linear = gate.alpha;
        form.shift = 1.0f;
        if (gate.clamp > 0.0f) form.limit = gate.clamp;
        break;
    default:
        break;
    }
    return form;
}

// exp(-z) overflows to infinity for z < -88, which makes the quotient the right 0; __fdividef gives
// 0 for divisors over 2^126 (CUDA C++ Programming Guide, intrinsic functions), where 0 is right
// too.
__device__ __forceinline__ float gate_by_sigmoid(const gate_form& form, float gate, float up) {
    const float g = fminf(gate, form.limit);
    const float u = fminf(fmaxf(up, -form.limit), form.limit) + form.shift;
    const float z = g * fmaf(form.cubic, g * g, form.linear);
    return __fdividef(g, 1.0f + __expf(-z)) * u;
}

__device__ __forceinline__ float gate_by_others(const gate_form& form, float gate, float up) {
    const float positive = fmaxf(gate, 0.0f);
    float value = form.kind == gate_form::family::relu ? positive : positive * positive;
    if (form.kind == gate_form::family::error_function) {
        // x/2 (1 + erf(x / sqrt 2)) with erfc(|z|) = P(1 / (1 + p |z|)) exp(-z^2) (Abramowitz and
        // Stegun 7.1.26, off by at most 1.5e-7).
        const float z = fabsf(gate) * 0.70710678118654752f;
        const float t = __fdividef(1.0f, fmaf(0.3275911f, z, 1.0f));
        float series = fmaf(1.061405429f, t, -1.453152027f);
        series = fmaf(series, t, 1.421413741f);
        series = fmaf(series, t, -0.284496736f);
        series = fmaf(series, t, 0.254829592f);
        const float tail = 0.5f * series * t * __expf(-z * z);
        value = gate * (gate < 0.0f ? tail : 1.0f - tail);
    }
    return value * up;
}

} // namespace sluice::cuda
