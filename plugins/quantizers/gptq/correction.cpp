#include "correction.hpp"

// BLAS and LAPACK, as Fortran compilers call them: matrices by columns, arguments by address.
extern "C" {
void dgemm_(const char* turn_a, const char* turn_b, const int* m, const int* n, const int* k,
            const double* alpha, const double* a, const int* stride_a, const double* b,
            const int* stride_b, const double* beta, double* c, const int* stride_c);
void dpotrf_(const char* triangle, const int* size, double* matrix, const int* stride, int* info);
void dpotrs_(const char* triangle, const int* size, const int* count, const double* factor,
             const int* stride_factor, double* right, const int* stride_right, int* info);
}

namespace sluice::quantizers {

std::vector<float> correct_weights(std::span<const float> weights, std::vector<double> drift,
                                   std::vector<double> moments, int64_t columns) {
    const int size = static_cast<int>(columns);
    const int count = static_cast<int>(static_cast<int64_t>(weights.size()) / columns);
    const std::vector<double> given(weights.begin(), weights.end());
    std::vector<double> change(given.size());
    const double one = 1, none = 0;
    // A matrix by rows is its transpose by columns: (W D)^T = D^T W^T.
    dgemm_("N", "N", &size, &count, &size, &one, drift.data(), &size, given.data(), &size, &none,
           change.data(), &size);
    int info = 0;
    dpotrf_("L", &size, moments.data(), &size, &info);
    std::vector<float> corrected(weights.begin(), weights.end());
    if (info != 0) return corrected;
    dpotrs_("L", &size, &count, moments.data(), &size, change.data(), &size, &info);
    for (size_t i = 0; i < corrected.size(); ++i)
        corrected[i] = static_cast<float>(given[i] + change[i]);
    return corrected;
}

} // namespace sluice::quantizers
