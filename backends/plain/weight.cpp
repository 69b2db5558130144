#include "weight.hpp"

#include "stored_matrix.hpp"

namespace sluice::plain {

uint64_t decoded_size(const sluice_weight_source& source) {
    return sizeof(float) * static_cast<uint64_t>(source.matrix_count)
           * static_cast<uint64_t>(source.row_count) * static_cast<uint64_t>(source.column_count);
}

std::unique_ptr<float_weight> decode(const plugin::host& host, const sluice_weight_source& source) {
    const source_rows rows(source);
    auto result = std::make_unique<float_weight>();
    result->matrix_count = source.matrix_count;
    result->row_count = source.row_count;
    result->column_count = source.column_count;
    result->values = plugin::memory(host, decoded_size(source));
    host.run([&](const plugin::worker& self) {
        const auto range = self.share(source.matrix_count * source.row_count);
        for (int64_t row = range.begin; row < range.end; ++row)
            rows.read(row, result->values.as<float>() + row * source.column_count);
    });
    return result;
}

} // namespace sluice::plain
