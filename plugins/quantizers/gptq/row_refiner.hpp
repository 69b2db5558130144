// Makes a quantized row better where it is: scales by least squares, then codes one after another.
#pragma once

#include "../common/rounding.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace sluice::quantizers {

// A row [K] in groups of `group_columns`, its weights and what it became.
struct quantized_row {
    std::span<const float> weights;
    int64_t group_columns;
    uint8_t* codes; // [K]
    float* scales;  // [groups]
    uint8_t* zeros; // [groups], or NULL where zero is the middle of the codes
};

group_grid grid_of(const quantized_row& row, int64_t group, const rounding& how);

// Lowers (w - w') H (w - w')^T, which never grows. Each pass finds the scales that are best for the
// codes (all groups at once, rounded to binary16), and then for each column in turn the code that
// is best for all others (coordinate descent, as in QuantEase, Behdin et al. 2023). `moments` is H
// [K, K] in float32, symmetric with a positive diagonal. Returns how many passes changed something.
class row_refiner {
  public:
    row_refiner(std::span<const float> moments, int64_t columns)
        : moments_(moments), columns_(columns) {}

    int refine(const quantized_row& row, const rounding& how, int passes);

  private:
    void find_residual(const quantized_row& row, const rounding& how);
    double loss() const;
    bool refit_scales(const quantized_row& row, const rounding& how);
    bool improve_codes(const quantized_row& row, const rounding& how);
    const float* line(int64_t column) const { return moments_.data() + column * columns_; }

    std::span<const float> moments_;
    int64_t columns_;
    std::vector<float> residual_; // w - w'
    std::vector<float> slope_;    // H (w - w')
    std::vector<float> room_;     // [K]
};

} // namespace sluice::quantizers
