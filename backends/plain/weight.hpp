// Weights of the plain kernels: every format decoded to plain float32.
#pragma once

#include <sluice/plugin/backend.hpp>

namespace sluice::plain {

namespace plugin = sluice::plugin;

// [matrix_count, row_count, column_count] in float32, row-major.
struct float_weight final : sluice_weight {
    plugin::memory values;
    int64_t matrix_count = 0;
    int64_t row_count = 0;
    int64_t column_count = 0;

    const float* matrix(int64_t index) const {
        return values.as<float>() + index * row_count * column_count;
    }
    std::string describe() const override { return "f32 row-major"; }
};

// Bytes that `decode` will take.
uint64_t decoded_size(const sluice_weight_source& source);

// Decodes by the formula at the top of abi/weight.h. Throws where the source contradicts itself.
std::unique_ptr<float_weight> decode(const plugin::host& host, const sluice_weight_source& source);

} // namespace sluice::plain
