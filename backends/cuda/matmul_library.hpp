// Dense products of half-precision matrices by cuBLASLt.
#pragma once

#include "device.hpp"

#include <cublasLt.h>

#include <map>

namespace sluice::cuda {

// y [m, n] = x [m, k] W^T, W [n, k], row-major; x and W of one half type, y of that or float32.
struct library_product {
    int64_t m = 0, n = 0, k = 0;
    sluice_element_type type = 0;
    sluice_element_type y_type = 0;
    auto operator<=>(const library_product&) const = default;
};

// Thread-safe. Algorithms are looked up once for each shape.
class matmul_library {
  public:
    explicit matmul_library(const device& owner);
    ~matmul_library();
    matmul_library(const matmul_library&) = delete;
    matmul_library& operator=(const matmul_library&) = delete;

    static constexpr uint64_t workspace_bytes = uint64_t{32} << 20;

    static constexpr int algorithms_max = 6;

    // A shape's descriptors and algorithms, owned by the library.
    struct choice;
    // Throws SLUICE_UNSUPPORTED where cuBLASLt has none.
    const choice& choose(const library_product& shape);
    // At least one; the first is cuBLASLt's own choice.
    static int algorithm_count(const choice& chosen);
    // workspace: [workspace_bytes] on the device, for this launch alone.
    void launch(const choice& chosen, int algorithm, const void* x, const void* weight, void* y,
                void* workspace, cudaStream_t stream) const;

    // Operations a second of a large product, for `measure`.
    double peak(sluice_element_type type);

  private:
    const device& owner_;
    cublasLtHandle_t handle_ = nullptr;
    std::mutex mutex_;
    std::map<library_product, std::unique_ptr<choice>> choices_;
};

} // namespace sluice::cuda
