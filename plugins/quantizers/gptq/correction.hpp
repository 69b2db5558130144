// Weights that make up for what earlier quantized layers did to a matrix's inputs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sluice::quantizers {

// With x' the inputs of the original model and x those of the quantized one, the matrix W* for
// which sum |W x' - W* x|^2 is least: W* = W + W (sum x' x^T - sum x x^T) H^-1 (Li et al. 2025,
// GPTAQ). weights [N, K]; drift [K, K]: sum x' x^T - sum x x^T; moments: H [K, K], symmetric and
// positive definite, in the same unit. Where H has no factor, the weights as they are.
std::vector<float> correct_weights(std::span<const float> weights, std::vector<double> drift,
                                   std::vector<double> moments, int64_t columns);

} // namespace sluice::quantizers
