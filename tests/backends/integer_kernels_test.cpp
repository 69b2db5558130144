// The integer matrix kernels of backends/onednn: exact sums, and the bound of what rounding rows to
// int8 costs.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "kernel_fixture.hpp"

#include <doctest/doctest.h>

#include "integer_matmul.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace sluice::kernels;
using namespace sluice::kernels::test;

namespace {

constexpr std::int64_t run_k = 64;

struct weight_case {
    weight_storage storage;
    std::int64_t group_size; // 0: the whole row
    bool zero_points;
    scale_type scales;
};

const weight_case cases[] = {
    {weight_storage::int4, 64, false, scale_type::float16},
    {weight_storage::int4, 32, true, scale_type::float16},
    {weight_storage::int4, 128, false, scale_type::float32},
    {weight_storage::int4, 0, false, scale_type::float32},
    {weight_storage::int4, 6, true, scale_type::float32},
    {weight_storage::int8, 64, false, scale_type::float16},
    {weight_storage::int8, 96, true, scale_type::float32},
    {weight_storage::int8, 2, false, scale_type::float32},
    {weight_storage::int8, 0, true, scale_type::float32},
};

// `scale` for all groups, or random ones where it is 0.
weights make_weights(std::mt19937& random, const weight_case& c, std::int64_t n, std::int64_t k,
                     float scale) {
    weights w;
    const std::int64_t group = c.group_size == 0 ? k + k % 2 : c.group_size;
    w.layout = make_packed_layout(c.storage, n, k, group, c.zero_points, c.scales);
    w.packed = make_buffer(w.layout.total_bytes);
    const int top = c.storage == weight_storage::int4 ? 15 : 255;
    const auto read_row = [&](std::int64_t, std::uint8_t* codes, float* scales,
                              std::int16_t* zeros) {
        for (std::int64_t g = 0; g < w.layout.group_count; ++g) {
            scales[g] = scale != 0 ? scale : 0.01f + 0.01f * static_cast<float>(random() % 16);
            if (zeros != nullptr)
                zeros[g] = static_cast<std::int16_t>(random() % static_cast<unsigned>(top + 2));
        }
        // The ends of the range often: what could overflow would do so there.
        for (std::int64_t i = 0; i < k; ++i)
            codes[i] = static_cast<std::uint8_t>(
                random() % 4 == 0 ? top : random() % static_cast<unsigned>(top + 1));
    };
    pack_quantized_blocks(w.layout, read_row, 0, w.layout.block_count, w.packed.get());
    w.values.resize(static_cast<std::size_t>(n * k));
    for (std::int64_t row = 0; row < n; ++row) unpack_row(w.view(), row, w.values.data() + row * k);
    return w;
}

// First k of each run: runs of 64 within the groups.
std::vector<std::int64_t> run_begins(const packed_layout& layout) {
    std::vector<std::int64_t> begins;
    for (std::int64_t g = 0; g < layout.group_count; ++g)
        for (std::int64_t i = 0; i < layout.group_k(g); i += run_k)
            begins.push_back(g * layout.group_size + i);
    begins.push_back(layout.k);
    return begins;
}

std::vector<float> multiply(const integer_kernel_set& set, const weights& w,
                            const row_source& source, std::int64_t m, std::int64_t source_rows,
                            std::vector<float> y = {}, bool accumulate = false) {
    const auto layout = set.rows_layout(w.layout, m);
    const buffer quantized = make_buffer(source_rows * layout.row_bytes());
    const buffer tiles = make_buffer(layout.total_bytes);
    auto* rows = reinterpret_cast<std::uint32_t*>(quantized.get());
    set.quantize(w.layout, layout, {source.data, source.type, source.row_stride, nullptr}, 0,
                 source_rows, rows);
    set.gather(layout, rows, source.row_index, 0, layout.tile_count, tiles.get());
    y.resize(static_cast<std::size_t>(m * w.layout.n));
    set.multiply(w.view(), {layout, tiles.get()}, 0, w.layout.block_count, y.data(), w.layout.n,
                 accumulate);
    return y;
}

std::vector<float> multiply(const integer_kernel_set& set, const weights& w,
                            const std::vector<float>& x, std::int64_t m) {
    return multiply(set, w, {x.data(), float_type::float32, w.layout.k, nullptr}, m, m);
}

bool same_bits(const std::vector<float>& a, const float* b) {
    return std::memcmp(a.data(), b, a.size() * sizeof(float)) == 0;
}

std::vector<float> normal_values(std::mt19937& random, std::int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
}

} // namespace

// Whole numbers whose largest in each run is 127 are their own codes, and all sums fit 24 bits: the
// kernels must give the sums of the plain integers to the last bit.
TEST_CASE("sums of codes are exact in every set of instructions") {
    for (const auto set : sets_here(instruction_set::avx512)) {
        const integer_kernel_set kernels(set);
        for (const auto& c : cases) {
            std::mt19937 random(21);
            for (std::int64_t m = 1; m <= 27; ++m) {
                const std::int64_t k = 1 + static_cast<std::int64_t>(random() % 400);
                const std::int64_t n = 1 + static_cast<std::int64_t>(random() % 100);
                const weights w = make_weights(random, c, n, k, 1.0f);
                std::vector<float> x(static_cast<std::size_t>(m * k));
                for (float& value : x)
                    value = static_cast<float>(static_cast<int>(random() % 255) - 127);
                for (std::int64_t row = 0; row < m; ++row)
                    for (const std::int64_t begin : run_begins(w.layout))
                        if (begin < k)
                            x[static_cast<std::size_t>(row * k + begin)] =
                                random() % 2 == 0 ? 127.0f : -127.0f;
                const auto y = multiply(kernels, w, x, m);
                CAPTURE(std::string(name_of(set)));
                CAPTURE(c.group_size);
                CAPTURE(m);
                CAPTURE(n);
                CAPTURE(k);
                for (std::int64_t row = 0; row < m; ++row)
                    for (std::int64_t column = 0; column < n; ++column) {
                        std::int64_t sum = 0;
                        for (std::int64_t i = 0; i < k; ++i)
                            sum +=
                                static_cast<std::int64_t>(x[static_cast<std::size_t>(row * k + i)])
                                * static_cast<std::int64_t>(
                                    w.values[static_cast<std::size_t>(column * k + i)]);
                        REQUIRE(y[static_cast<std::size_t>(row * n + column)]
                                == static_cast<float>(sum));
                    }
            }
        }
    }
}

TEST_CASE("rounding rows to int8 costs at most half a step of each run") {
    for (const auto set : sets_here(instruction_set::avx512)) {
        const integer_kernel_set kernels(set);
        for (const auto& c : cases) {
            std::mt19937 random(22);
            for (const std::int64_t m : {1, 2, 5, 12, 13, 40}) {
                const std::int64_t k = 1 + static_cast<std::int64_t>(random() % 1500);
                const std::int64_t n = 1 + static_cast<std::int64_t>(random() % 80);
                const weights w = make_weights(random, c, n, k, 0);
                const auto x = normal_values(random, m * k);
                const std::vector<float> start(static_cast<std::size_t>(m * n), 0.25f);
                const auto y = multiply(kernels, w, {x.data(), float_type::float32, k, nullptr}, m,
                                        m, start, true);
                const auto begins = run_begins(w.layout);
                for (std::int64_t row = 0; row < m; ++row)
                    for (std::int64_t column = 0; column < n; ++column) {
                        double sum = 0.25, bound = 0, size = 1;
                        for (std::size_t run = 0; run + 1 < begins.size(); ++run) {
                            double largest = 0, weight = 0;
                            for (std::int64_t i = begins[run]; i < begins[run + 1]; ++i) {
                                const double a = x[static_cast<std::size_t>(row * k + i)];
                                const double b = w.values[static_cast<std::size_t>(column * k + i)];
                                sum += a * b;
                                size += std::abs(a * b);
                                largest = std::max(largest, std::abs(a));
                                weight += std::abs(b);
                            }
                            bound += largest / 254 * weight;
                        }
                        const double found = y[static_cast<std::size_t>(row * n + column)];
                        REQUIRE(std::abs(found - sum) <= 1.0001 * bound + 1e-5 * size);
                    }
            }
        }
    }
}

TEST_CASE("a row's bits depend neither on its company nor on the vectors' width") {
    std::mt19937 random(23);
    for (const auto& c : cases) {
        const weights w = make_weights(random, c, 70, 333, 0);
        const auto x = normal_values(random, 50 * 333);
        std::vector<float> widest;
        for (const auto set : sets_here(instruction_set::avx512)) {
            const integer_kernel_set kernels(set);
            const auto all = multiply(kernels, w, x, 50);
            for (const std::int64_t m : {1, 2, 3, 4, 7, 12, 13, 25})
                REQUIRE(same_bits(multiply(kernels, w, x, m), all.data()));
            // Portable code rounds a product before it is added, the others do not.
            if (set == instruction_set::plain) continue;
            if (!widest.empty()) REQUIRE(same_bits(all, widest.data()));
            widest = all;
        }
    }
}

TEST_CASE("quantized rows are gathered by index and read from bfloat16") {
    std::mt19937 random(24);
    constexpr std::int64_t k = 200;
    const weights w = make_weights(random, cases[0], 40, k, 0);
    const std::vector<std::int32_t> index = {3, 0, 3, 9, 1, 1, 7, 2, 5, 6, 8, 4, 9, 0};
    const auto m = static_cast<std::int64_t>(index.size());
    auto x = normal_values(random, 10 * k);
    std::vector<std::uint16_t> halves;
    for (float& value : x) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &value, sizeof bits);
        halves.push_back(static_cast<std::uint16_t>(bits >> 16));
        bits &= 0xffff0000u;
        std::memcpy(&value, &bits, sizeof bits);
    }
    std::vector<float> gathered;
    for (const std::int32_t row : index)
        gathered.insert(gathered.end(), x.begin() + row * k, x.begin() + (row + 1) * k);
    for (const auto set : sets_here(instruction_set::avx512)) {
        const integer_kernel_set kernels(set);
        const auto expected = multiply(kernels, w, gathered, m);
        CHECK(
            same_bits(multiply(kernels, w, {x.data(), float_type::float32, k, index.data()}, m, 10),
                      expected.data()));
        CHECK(same_bits(
            multiply(kernels, w, {halves.data(), float_type::bfloat16, k, index.data()}, m, 10),
            expected.data()));
    }
}

TEST_CASE("what is not finite is not lost, and zeros stay zeros") {
    std::mt19937 random(25);
    const weights w = make_weights(random, cases[0], 33, 100, 0);
    for (const auto set : sets_here(instruction_set::avx512)) {
        const integer_kernel_set kernels(set);
        for (const float special :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
            auto x = normal_values(random, 100);
            x[80] = special;
            for (const float value : multiply(kernels, w, x, 1)) CHECK(!std::isfinite(value));
        }
        for (const float value : multiply(kernels, w, std::vector<float>(100), 1))
            CHECK(value == 0.0f);
        for (const float value : multiply(kernels, w, std::vector<float>(100, 1e-40f), 1))
            CHECK(std::abs(value) < 1e-30f);
    }
}
