#include "row_refiner.hpp"

#include "../common/half.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sluice::quantizers {
namespace {

// Solves A x = b for a symmetric positive definite A [n, n] in place, by Cholesky. Returns false
// where there is no factor.
bool solve(std::vector<double>& a, std::vector<double>& b) {
    const size_t n = b.size();
    for (size_t j = 0; j < n; ++j) {
        for (size_t k = 0; k < j; ++k) {
            const double factor = a[j * n + k];
            for (size_t i = j; i < n; ++i) a[i * n + j] -= factor * a[i * n + k];
        }
        if (!(a[j * n + j] > 0)) return false;
        const double root = std::sqrt(a[j * n + j]);
        for (size_t i = j; i < n; ++i) a[i * n + j] /= root;
    }
    for (size_t i = 0; i < n; ++i) {
        for (size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
        b[i] /= a[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
        b[i] /= a[i * n + i];
    }
    return true;
}

} // namespace

group_grid grid_of(const quantized_row& row, int64_t group, const rounding& how) {
    const auto middle = static_cast<uint8_t>(1U << (how.bits - 1));
    return {row.scales[group], row.zeros != nullptr ? row.zeros[group] : middle};
}

void row_refiner::find_residual(const quantized_row& row, const rounding& how) {
    residual_.resize(static_cast<size_t>(columns_));
    slope_.assign(static_cast<size_t>(columns_), 0.0f);
    for (int64_t i = 0; i < columns_; ++i) {
        const float left = row.weights[static_cast<size_t>(i)]
                           - value_of(grid_of(row, i / row.group_columns, how), row.codes[i]);
        residual_[static_cast<size_t>(i)] = left;
        const float* h = line(i);
        for (int64_t j = 0; j < columns_; ++j) slope_[static_cast<size_t>(j)] += left * h[j];
    }
}

double row_refiner::loss() const {
    return std::inner_product(residual_.begin(), residual_.end(), slope_.begin(), 0.0);
}

// With L_g the levels (code - zero) of group g, and s the scales: the least squares of
// w = sum_g s_g L_g in the metric H, sum_h (L_g H L_h) s_h = L_g H w. Since w - w' is known, it is
// solved for the change of s.
bool row_refiner::refit_scales(const quantized_row& row, const rounding& how) {
    const int64_t groups = (columns_ + row.group_columns - 1) / row.group_columns;
    const auto n = static_cast<size_t>(groups);
    std::vector<double> products(n * n), change(n);
    std::vector<float> levels(static_cast<size_t>(columns_));
    for (int64_t i = 0; i < columns_; ++i)
        levels[static_cast<size_t>(i)] =
            static_cast<float>(row.codes[i])
            - static_cast<float>(grid_of(row, i / row.group_columns, how).zero);
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t begin = g * row.group_columns;
        const int64_t end = std::min(begin + row.group_columns, columns_);
        room_.assign(static_cast<size_t>(columns_), 0.0f);
        for (int64_t i = begin; i < end; ++i) {
            const float level = levels[static_cast<size_t>(i)];
            const float* h = line(i);
            for (int64_t j = 0; j < columns_; ++j) room_[static_cast<size_t>(j)] += level * h[j];
            change[static_cast<size_t>(g)] +=
                double{level} * double{slope_[static_cast<size_t>(i)]};
        }
        for (int64_t j = 0; j < columns_; ++j)
            products[static_cast<size_t>(g * groups + j / row.group_columns)] +=
                double{room_[static_cast<size_t>(j)]} * double{levels[static_cast<size_t>(j)]};
    }
    // A group of zeros alone has no best scale; and rounding must not stop the factor.
    for (size_t g = 0; g < n; ++g) products[g * n + g] = products[g * n + g] * (1 + 1e-6) + 1e-30;
    if (!solve(products, change)) return false;
    const double before = loss();
    const std::vector<float> kept(row.scales, row.scales + groups);
    for (int64_t g = 0; g < groups; ++g) {
        const double wanted = double{row.scales[g]} + change[static_cast<size_t>(g)];
        // A scale that turns round or runs away says that the group hardly matters.
        const double before_it = double{row.scales[g]};
        if (wanted > 0.5 * before_it && wanted < 2 * before_it && wanted < double{half_max})
            row.scales[g] = std::max(round_to_half(static_cast<float>(wanted)), half_least);
    }
    find_residual(row, how);
    if (loss() < before) return true;
    std::copy(kept.begin(), kept.end(), row.scales);
    find_residual(row, how);
    return false;
}

bool row_refiner::improve_codes(const quantized_row& row, const rounding& how) {
    bool changed = false;
    for (int64_t i = 0; i < columns_; ++i) {
        const group_grid grid = grid_of(row, i / row.group_columns, how);
        const float* h = line(i);
        const auto at = static_cast<size_t>(i);
        const float before = value_of(grid, row.codes[i]);
        const uint8_t code = code_on(grid, before + slope_[at] / h[i], how);
        if (code == row.codes[i]) continue;
        const float step = value_of(grid, code) - before;
        row.codes[i] = code;
        residual_[at] -= step;
        for (int64_t j = 0; j < columns_; ++j) slope_[static_cast<size_t>(j)] -= step * h[j];
        changed = true;
    }
    return changed;
}

int row_refiner::refine(const quantized_row& row, const rounding& how, int passes) {
    find_residual(row, how);
    for (int pass = 0; pass < passes; ++pass) {
        const bool scaled = refit_scales(row, how);
        if (!improve_codes(row, how) && !scaled) return pass;
    }
    return passes;
}

} // namespace sluice::quantizers
