#include "inverse_factor.hpp"

#include <sluice/plugin/error.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

// LAPACK, as Fortran compilers call it: matrices by columns, every argument by address.
extern "C" {
void dpotrf_(const char* triangle, const int* size, double* matrix, const int* stride, int* info);
void dpotri_(const char* triangle, const int* size, double* matrix, const int* stride, int* info);
}

namespace sluice::quantizers {
namespace {

constexpr double damping_most = 1000.0;

std::vector<int32_t> order_of(const std::vector<double>& moments, int64_t size,
                              bool by_activation) {
    std::vector<int32_t> order(static_cast<size_t>(size));
    std::iota(order.begin(), order.end(), 0);
    if (by_activation)
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
            return moments[static_cast<size_t>(a * (size + 1))]
                   > moments[static_cast<size_t>(b * (size + 1))];
        });
    return order;
}

// The upper triangle by rows is what LAPACK calls the lower one by columns.
bool factor(std::vector<double>& matrix, int size) {
    int info = 0;
    dpotrf_("L", &size, matrix.data(), &size, &info);
    return info == 0;
}

// U of the matrix's inverse; false where it is not positive definite in double precision.
bool invert_and_factor(std::vector<double>& matrix, int size) {
    if (!factor(matrix, size)) return false;
    int info = 0;
    dpotri_("L", &size, matrix.data(), &size, &info);
    return info == 0 && factor(matrix, size);
}

} // namespace

inverse_factor factor_inverse(std::vector<double> second_moments, int64_t size,
                              const factor_options& options) {
    const auto at = [size](int64_t row, int64_t column) {
        return static_cast<size_t>(row * size + column);
    };
    if (!std::all_of(second_moments.begin(), second_moments.end(),
                     [](double value) { return std::isfinite(value); }))
        plugin::fail(SLUICE_INVALID, "the statistics of the inputs are not finite");
    double mean = 0;
    for (int64_t i = 0; i < size; ++i) mean += second_moments[at(i, i)];
    mean /= static_cast<double>(size);
    if (mean <= 0) mean = 1;
    inverse_factor result;
    result.size = size;
    result.order = order_of(second_moments, size, options.activation_order);
    std::vector<double> ordered(second_moments.size());
    for (int64_t i = 0; i < size; ++i)
        for (int64_t j = 0; j < size; ++j)
            ordered[at(i, j)] = second_moments[at(result.order[static_cast<size_t>(i)],
                                                  result.order[static_cast<size_t>(j)])];
    for (int64_t i = 0; i < size; ++i)
        if (ordered[at(i, i)] == 0) ordered[at(i, i)] = mean;
    for (result.damping = options.damping;; result.damping *= options.damping_growth) {
        if (result.damping > damping_most)
            plugin::fail(SLUICE_INVALID,
                         "the second moments of the inputs are not positive "
                         "definite, with any damping up to ",
                         damping_most, "; calibrate with other text");
        second_moments = ordered;
        for (int64_t i = 0; i < size; ++i) second_moments[at(i, i)] += result.damping * mean;
        if (invert_and_factor(second_moments, static_cast<int>(size))) break;
    }
    result.upper.resize(second_moments.size());
    for (int64_t i = 0; i < size; ++i)
        for (int64_t j = i; j < size; ++j)
            result.upper[at(i, j)] = static_cast<float>(second_moments[at(i, j)]);
    return result;
}

} // namespace sluice::quantizers
