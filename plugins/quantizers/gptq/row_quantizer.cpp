#include "row_quantizer.hpp"

#include <algorithm>

namespace sluice::quantizers {
namespace {

constexpr int64_t block = 128;
constexpr int64_t rows_at_once = 16; // that share what is read of U

struct grids {
    std::vector<group_grid> by_row; // [rows, groups]
    int64_t groups;
    const group_grid& of(int64_t row, int64_t group) const {
        return by_row[static_cast<size_t>(row * groups + group)];
    }
};

} // namespace

void quantize_rows(const float* weights, int64_t columns, int64_t begin, int64_t end,
                   int64_t group_columns, const inverse_factor& factor, const rounding& how,
                   std::span<const float> importance, const row_target& target) {
    const int64_t groups = (columns + group_columns - 1) / group_columns;
    std::vector<float> left(static_cast<size_t>(rows_at_once * columns)); // in the factor's order
    std::vector<float> errors(static_cast<size_t>(rows_at_once * block));
    const auto* upper = factor.upper.data();
    for (int64_t first = begin; first < end; first += rows_at_once) {
        const int64_t rows = std::min(rows_at_once, end - first);
        grids found{{}, groups};
        for (int64_t r = 0; r < rows; ++r) {
            const float* from = weights + (first + r) * columns;
            for (int64_t g = 0; g < groups; ++g) {
                const int64_t at = g * group_columns;
                const auto width = static_cast<size_t>(std::min(group_columns, columns - at));
                const auto counts = importance.empty()
                                        ? importance
                                        : importance.subspan(static_cast<size_t>(at), width);
                found.by_row.push_back(find_grid({from + at, width}, how, counts));
                const auto to = static_cast<size_t>((first + r) * groups + g);
                target.scales[to] = found.by_row.back().scale;
                if (target.zeros != nullptr) target.zeros[to] = found.by_row.back().zero;
            }
            for (int64_t i = 0; i < columns; ++i)
                left[static_cast<size_t>(r * columns + i)] =
                    from[factor.order[static_cast<size_t>(i)]];
        }
        for (int64_t from = 0; from < columns; from += block) {
            const int64_t to = std::min(from + block, columns);
            for (int64_t i = from; i < to; ++i) {
                const float* u = upper + i * columns;
                const int64_t column = factor.order[static_cast<size_t>(i)];
                for (int64_t r = 0; r < rows; ++r) {
                    float* row = left.data() + r * columns;
                    const group_grid& grid = found.of(r, column / group_columns);
                    const uint8_t code = code_on(grid, row[i], how);
                    target.codes[static_cast<size_t>((first + r) * columns + column)] = code;
                    const float error = (row[i] - value_of(grid, code)) / u[i];
                    errors[static_cast<size_t>(r * block + i - from)] = error;
                    for (int64_t j = i + 1; j < to; ++j) row[j] -= error * u[j];
                }
            }
            for (int64_t i = from; i < to; ++i) {
                const float* u = upper + i * columns;
                for (int64_t r = 0; r < rows; ++r) {
                    float* row = left.data() + r * columns;
                    const float error = errors[static_cast<size_t>(r * block + i - from)];
                    for (int64_t j = to; j < columns; ++j) row[j] -= error * u[j];
                }
            }
        }
    }
}

} // namespace sluice::quantizers
