// Second moments of what a matrix multiplies, computed on a backend from rows in memory.
#pragma once

#include "engine/part_runner.hpp"

#include <sluice/abi/quantizer.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace sluice {

// Values of a program with a row for each token.
struct row_array {
    sluice_element_type type = SLUICE_F32;
    int64_t width = 0; // elements of a row
    std::vector<std::byte> bytes;

    size_t row_bytes() const;
    size_t row_count() const { return width == 0 ? 0 : bytes.size() / row_bytes(); }
    const std::byte* row(size_t number) const { return bytes.data() + number * row_bytes(); }
};

struct second_moments {
    std::vector<float> gram;  // [K, K], the sum of x x^T; empty: no rows
    std::vector<float> cross; // [K, K], the sum of x' x^T; empty: there is no x'
    double row_count = 0;
};

// A feed-forward layer up to its down projection.
struct inner_layer {
    const weight_request* gate = nullptr;
    const weight_request* up = nullptr; // nullptr: gate holds both
    sluice_activation_attributes activation{};
};

// Not for several threads at once.
class moment_collector {
  public:
    // rows_max: of a step on the backend.
    moment_collector(std::shared_ptr<plugin_instance> backend, uint32_t rows_max);

    // Of `rows`, numbers in `x` (f32) and in `original`, if given: the x' of the same width.
    // factor, if not empty: of each row.
    second_moments of_rows(const row_array& x, const row_array* original,
                           std::span<const uint32_t> rows, std::span<const float> factor = {});

    // What the inner layer, with the matrices of `weights`, makes of those rows: a row for each.
    row_array rows_of_inner(const std::shared_ptr<const checkpoint>& weights,
                            const inner_layer& layer, const row_array& x,
                            std::span<const uint32_t> rows) const;

  private:
    std::shared_ptr<plugin_instance> backend_;
    uint32_t rows_max_;
    std::map<int64_t, std::unique_ptr<part_runner>> by_width_;
};

} // namespace sluice
