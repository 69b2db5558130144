// GPTQ's factored form against the method that it is derived from.
#include "plugins/quantizers/gptq/row_quantizer.hpp"
#include "plugins/quantizers/gptq/row_refiner.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <random>

using namespace sluice::quantizers;

namespace {

struct problem {
    int64_t rows, columns;
    std::vector<float> weights;
    std::vector<double> moments; // of inputs that depend on each other
};

problem draw(int64_t rows, int64_t columns, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    problem made{rows, columns, {}, std::vector<double>(size_t(columns * columns))};
    for (int64_t i = 0; i < rows * columns; ++i)
        made.weights.push_back(float(0.05 * normal(random)));
    constexpr int factors = 6, samples = 400;
    std::vector<double> mixing(size_t(columns * factors));
    for (double& each : mixing) each = normal(random);
    for (int s = 0; s < samples; ++s) {
        std::vector<double> hidden(factors), x(size_t(columns), 0.0);
        for (double& each : hidden) each = normal(random);
        for (int64_t c = 0; c < columns; ++c) {
            for (int f = 0; f < factors; ++f)
                x[size_t(c)] += mixing[size_t(c * factors + f)] * hidden[size_t(f)];
            x[size_t(c)] += 0.3 * normal(random);
        }
        for (int64_t i = 0; i < columns; ++i)
            for (int64_t j = 0; j < columns; ++j)
                made.moments[size_t(i * columns + j)] += x[size_t(i)] * x[size_t(j)];
    }
    return made;
}

struct quantized {
    std::vector<uint8_t> codes, zeros;
    std::vector<float> scales;
};

quantized run(const problem& given, int64_t group, const inverse_factor& factor,
              const rounding& how) {
    const int64_t groups = (given.columns + group - 1) / group;
    quantized made;
    made.codes.resize(size_t(given.rows * given.columns));
    made.scales.resize(size_t(given.rows * groups));
    made.zeros.resize(made.scales.size());
    quantize_rows(given.weights.data(), given.columns, 0, given.rows, group, factor, how, {},
                  {made.codes.data(), made.scales.data(), made.zeros.data()});
    return made;
}

// Optimal brain quantization in a fixed order (Frantar et al. 2023, section 3): the inverse of what
// is left is found anew after every column, by Gaussian elimination.
std::vector<uint8_t> by_elimination(const problem& given, int64_t group,
                                    const inverse_factor& factor, const rounding& how) {
    const auto n = size_t(given.columns);
    std::vector<double> inverse(n * n, 0.0); // of the damped matrix, in the factor's order
    for (size_t i = 0; i < n; ++i)
        for (size_t j = 0; j < n; ++j)
            for (size_t k = 0; k <= std::min(i, j); ++k)
                inverse[i * n + j] +=
                    double(factor.upper[k * n + i]) * double(factor.upper[k * n + j]);
    std::vector<uint8_t> codes(size_t(given.rows) * n);
    for (int64_t r = 0; r < given.rows; ++r) {
        std::vector<double> left(n), h = inverse;
        const float* weights = given.weights.data() + r * given.columns;
        for (size_t i = 0; i < n; ++i) left[i] = weights[factor.order[i]];
        for (size_t i = 0; i < n; ++i) {
            const int64_t column = factor.order[i], from = column / group * group;
            const auto width = size_t(std::min(group, given.columns - from));
            const group_grid grid = find_grid({weights + from, width}, how);
            const uint8_t code = code_on(grid, float(left[i]), how);
            codes[size_t(r) * n + size_t(column)] = code;
            const double error = (left[i] - double(value_of(grid, code))) / h[i * n + i];
            for (size_t j = i + 1; j < n; ++j) left[j] -= error * h[i * n + j];
            for (size_t j = i + 1; j < n; ++j)
                for (size_t k = i + 1; k < n; ++k)
                    h[j * n + k] -= h[j * n + i] * h[i * n + k] / h[i * n + i];
        }
    }
    return codes;
}

// tr((W - W') H (W - W')^T)
double output_error(const problem& given, int64_t group, const quantized& made) {
    const int64_t groups = (given.columns + group - 1) / group;
    double total = 0;
    for (int64_t r = 0; r < given.rows; ++r) {
        std::vector<double> lost;
        for (int64_t c = 0; c < given.columns; ++c) {
            const auto g = size_t(r * groups + c / group), at = size_t(r * given.columns + c);
            lost.push_back(double(given.weights[at])
                           - double(value_of({made.scales[g], made.zeros[g]}, made.codes[at])));
        }
        for (int64_t i = 0; i < given.columns; ++i)
            for (int64_t j = 0; j < given.columns; ++j)
                total += lost[size_t(i)] * lost[size_t(j)]
                         * given.moments[size_t(i * given.columns + j)];
    }
    return total;
}

} // namespace

TEST_CASE("the inverse's factor multiplied out and by the matrix is the identity") {
    const problem given = draw(1, 70, 1);
    for (const bool ordered : {false, true}) {
        const auto factor = factor_inverse(given.moments, 70, {.activation_order = ordered});
        CHECK(factor.damping == 0.01);
        double mean = 0;
        for (int64_t i = 0; i < 70; ++i) mean += given.moments[size_t(i * 71)] / 70;
        double worst = 0;
        for (int64_t i = 0; i < 70; ++i)
            for (int64_t j = 0; j < 70; ++j) {
                double sum = 0;
                for (int64_t k = 0; k < 70; ++k) {
                    double inverse = 0;
                    for (int64_t m = 0; m <= std::min(i, k); ++m)
                        inverse += double(factor.upper[size_t(m * 70 + i)])
                                   * double(factor.upper[size_t(m * 70 + k)]);
                    const int64_t from = factor.order[size_t(k)], to = factor.order[size_t(j)];
                    sum +=
                        inverse
                        * (given.moments[size_t(from * 70 + to)] + (from == to ? 0.01 * mean : 0));
                }
                worst = std::max(worst, std::abs(sum - (i == j ? 1 : 0)));
            }
        CHECK(worst < 1e-3);
        for (int64_t i = 1; ordered && i < 70; ++i)
            CHECK(given.moments[size_t(factor.order[size_t(i)] * 71)]
                  <= given.moments[size_t(factor.order[size_t(i - 1)] * 71)]);
    }
}

TEST_CASE("damping grows until a matrix that is not positive definite has a factor") {
    std::vector<double> moments{1, 3, 3, 1};
    const auto factor = factor_inverse(moments, 2, {});
    CHECK(factor.damping == doctest::Approx(10));
    moments[1] = std::nan("");
    CHECK_THROWS(factor_inverse(moments, 2, {}));
    // An input that is always zero.
    CHECK(factor_inverse({4, 0, 0, 0}, 2, {}).damping == 0.01);
}

TEST_CASE("rows are quantized as by elimination, column after column") {
    for (const int64_t columns : {5, 64, 150})
        for (const bool ordered : {false, true})
            for (const bool symmetric : {false, true}) {
                CAPTURE(columns);
                CAPTURE(ordered);
                const problem given = draw(19, columns, uint32_t(columns));
                const rounding how{4, symmetric, true};
                const auto factor =
                    factor_inverse(given.moments, columns, {.activation_order = ordered});
                const auto made = run(given, 32, factor, how);
                const auto expected = by_elimination(given, 32, factor, how);
                int differing = 0;
                for (size_t i = 0; i < expected.size(); ++i)
                    differing += made.codes[i] != expected[i] ? 1 : 0;
                // One that lies between two codes takes others along.
                CHECK(differing <= int(expected.size()) / 100);
            }
}

TEST_CASE("outputs change less than by rounding to nearest") {
    const problem given = draw(32, 128, 7);
    const rounding how{4, true, true};
    const auto factor = factor_inverse(given.moments, 128, {});
    inverse_factor none = factor;
    std::fill(none.upper.begin(), none.upper.end(), 0.0F);
    for (int64_t i = 0; i < 128; ++i) none.upper[size_t(i * 129)] = 1.0F;
    const double nearest = output_error(given, 64, run(given, 64, none, how));
    const double found = output_error(given, 64, run(given, 64, factor, how));
    MESSAGE("share of the error of rounding to nearest: " << found / nearest);
    CHECK(found < 0.3 * nearest);
}

TEST_CASE("refinement lowers what the outputs lose, and never raises it") {
    const int64_t columns = 96, group = 32;
    for (const bool symmetric : {true, false}) {
        CAPTURE(symmetric);
        const problem given = draw(24, columns, 11);
        const rounding how{4, symmetric, true};
        quantized made = run(given, group, factor_inverse(given.moments, columns, {}), how);
        const std::vector<float> moments(given.moments.begin(), given.moments.end());
        row_refiner refiner(moments, columns);
        const auto refine = [&](int passes) {
            for (int64_t row = 0; row < given.rows; ++row)
                refiner.refine({std::span(given.weights).subspan(size_t(row * columns), columns),
                                group, made.codes.data() + row * columns,
                                made.scales.data() + row * 3, made.zeros.data() + row * 3},
                               how, passes);
            return output_error(given, group, made);
        };
        const double before = output_error(given, group, made);
        CHECK(refine(0) == before);
        double last = before;
        for (int pass = 0; pass < 4; ++pass) {
            const double found = refine(1);
            CHECK(found <= last * (1 + 1e-6));
            last = found;
        }
        MESSAGE("share of the error before refinement: " << last / before);
        CHECK(last < 0.9 * before);
        for (const float scale : made.scales) CHECK(scale > 0);
    }
}

TEST_CASE("the search for a scale counts errors by importance") {
    const std::vector<float> weights{0.31F, -0.27F, 0.12F, 4.0F};
    const rounding how{4, true, true};
    const group_grid alike = find_grid(weights, how);
    const std::vector<float> small_ones{1e3F, 1e3F, 1e3F, 1e-3F};
    const group_grid weighted = find_grid(weights, how, small_ones);
    CHECK(weighted.scale < 0.7F * alike.scale); // the large weight is clipped
}
