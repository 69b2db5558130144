// Random weights in a stored format, with the real values that the format's formula gives them.
#pragma once

#include "host_tensor.hpp"

#include <sluice/abi/weight.h>

#include <deque>
#include <memory>
#include <string_view>

namespace sluice::checker {

struct named_format {
    std::string_view name; // "int4_g64_gptq"
    sluice_weight_format format;
    // 1: every backend must take it; 0: one may refuse it as unsupported.
    bool required;
};

// The plain types first, then the quantized ones.
const std::vector<named_format>& weight_formats();
const named_format& weight_format_named(std::string_view name);

// A stack of matrices with everything a sluice_weight_source points to.
class weight_case {
  public:
    // Numbers of about `scale` in size. Every matrix lies at an offset within a larger stored one,
    // so that slices are exercised. rank is that of the value: 1 is a vector of `rows`.
    weight_case(std::mt19937_64& random, const sluice_weight_format& format, int64_t matrices,
                int64_t rows, int64_t columns, float scale);
    // Given values in float32 [matrices, rows, columns].
    weight_case(std::vector<float> values, int64_t matrices, int64_t rows, int64_t columns);

    const sluice_weight_format& format() const { return storage_->format; }
    const std::vector<float>& real() const { return storage_->real; }
    const sluice_weight_source* source() const { return &storage_->source; }
    // The same values stored in float32: what an oracle is given.
    weight_case plain() const;
    uint64_t stored_bytes() const;

  private:
    struct matrix_parts;
    struct storage {
        sluice_weight_format format{};
        int64_t matrices = 0, rows = 0, columns = 0;
        std::vector<float> real;
        std::deque<host_tensor> tensors;
        std::deque<sluice_tensor> views;
        std::deque<sluice_weight_slice> slices;
        std::vector<const sluice_weight_slice*> slice_pointers;
        std::vector<int64_t> slice_rows;
        sluice_weight_source source{};
    };
    const sluice_tensor* keep(host_tensor tensor);
    void add_slice(const matrix_parts& parts, int64_t row_begin);
    void finish();

    std::shared_ptr<storage> storage_ = std::make_shared<storage>();
};

} // namespace sluice::checker
