// GPTQ of rows of a matrix: each weight is rounded, and those that are still to come make up for
// what it lost.
#pragma once

#include "inverse_factor.hpp"

#include "../common/rounding.hpp"

#include <cstdint>
#include <span>

namespace sluice::quantizers {

struct row_target {
    uint8_t* codes; // [N, K]
    float* scales;  // [N, groups]
    uint8_t* zeros; // [N, groups], or NULL where zero is the middle of the codes
};

// Rows [begin, end) of `weights` [N, K], with groups of `group_columns` neighbours in the matrix's
// own order, whatever order they are rounded in. Grids are those of the weights as they came, the
// best where each squared error counts by its input's `importance` [K] (empty: all alike).
// Frantar et al. 2023: after column i, with e = (w_i - w'_i) / U_ii, w_j -= e U_ij for all j > i;
// done at once within `block` columns, and for the others when the block is done.
void quantize_rows(const float* weights, int64_t columns, int64_t begin, int64_t end,
                   int64_t group_columns, const inverse_factor& factor, const rounding& how,
                   std::span<const float> importance, const row_target& target);

} // namespace sluice::quantizers
