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
    std::vector<float> gram; // [K, K], the sum of x x^T; empty: no rows
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
    moment_collector(std::shared_ptr<plugin_instance> backend,
                     std::shared_ptr<const checkpoint> weights, uint32_t rows_max);

    // Of `rows`, numbers in `x` (f32). factor, if not empty: of each row.
    second_moments of_rows(const row_array& x, std::span<const uint32_t> rows,
                           std::span<const float> factor = {});
    // Of what the inner layer makes of them; a factor is of its results.
    second_moments of_inner(const inner_layer& layer, const row_array& x,
                            std::span<const uint32_t> rows, std::span<const float> factor = {});

  private:
    second_moments run(part_runner& runner, int64_t width, const row_array& x,
                       std::span<const uint32_t> rows, std::span<const float> factor) const;

    std::shared_ptr<plugin_instance> backend_;
    std::shared_ptr<const checkpoint> weights_;
    uint32_t rows_max_;
    std::map<int64_t, std::unique_ptr<part_runner>> by_width_;
};

} // namespace sluice
