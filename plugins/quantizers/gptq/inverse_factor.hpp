// What GPTQ needs of the inputs' second moments: a triangular factor of their inverse.
#pragma once

#include <cstdint>
#include <vector>

namespace sluice::quantizers {

struct factor_options {
    double damping = 0.01;        // added to the diagonal, as a share of its mean
    double damping_growth = 10.0; // while the matrix is not positive definite
    bool activation_order = true; // columns by falling diagonal, else as they come
};

// U, upper triangular, with (H + d I)^-1 = U^T U over the columns in `order` (Frantar et al. 2023,
// algorithm 1).
struct inverse_factor {
    int64_t size = 0;           // K
    std::vector<float> upper;   // [K, K]; 0 under the diagonal
    std::vector<int32_t> order; // [K]: the column that comes i-th
    double damping = 0;         // the share that it took
};

// `second_moments`: [K, K], symmetric; of H, only ratios matter. Inputs that are always zero get
// the mean of the diagonal, so that their weights are rounded like any others. Fails with
// SLUICE_INVALID for a matrix that is not finite or that no damping up to 1000 mends.
inverse_factor factor_inverse(std::vector<double> second_moments, int64_t size,
                              const factor_options& options);

} // namespace sluice::quantizers
