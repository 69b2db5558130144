// The matrix kernels of backends/onednn against sums in double over the source values.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "kernel_fixture.hpp"

#include <doctest/doctest.h>

#include "bfloat16.hpp"
#include "float16.hpp"
#include "matmul.hpp"
#include "measure.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace sluice::kernels;
using namespace sluice::kernels::test;

namespace {

std::vector<float> random_values(std::mt19937& random, std::int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
}

weights make_float_weights(std::mt19937& random, weight_storage storage, std::int64_t n,
                           std::int64_t k) {
    weights w;
    w.layout = make_packed_layout(storage, n, k);
    w.values = random_values(random, n * k);
    w.packed = make_buffer(w.layout.total_bytes);
    pack_blocks(w.layout, {w.values.data(), float_type::float32, k}, 0, w.layout.block_count,
                w.packed.get());
    if (storage == weight_storage::bfloat16) {
        for (float& value : w.values) value = float_from_bfloat16(bfloat16_from_float(value));
    }
    return w;
}

weights make_quantized_weights(std::mt19937& random, weight_storage storage, std::int64_t n,
                               std::int64_t k, std::int64_t group_size, bool zero_points,
                               scale_type scales = scale_type::float32, float scale_min = 0.01f,
                               float scale_max = 0.02f) {
    weights w;
    w.layout = make_packed_layout(storage, n, k, group_size, zero_points, scales);
    w.values.resize(static_cast<std::size_t>(n * k));
    w.packed = make_buffer(w.layout.total_bytes);
    const bool four = storage == weight_storage::int4;
    std::uniform_int_distribution<int> code(0, four ? 15 : 255);
    std::uniform_int_distribution<int> zero(0, four ? 16 : 256);
    std::uniform_real_distribution<float> scale(scale_min, scale_max);
    const auto read_row = [&](std::int64_t row, std::uint8_t* codes, float* row_scales,
                              std::int16_t* zeros) {
        CHECK((zeros != nullptr) == zero_points);
        for (std::int64_t g = 0; g < w.layout.group_count; ++g) {
            row_scales[g] = scale(random);
            if (scales == scale_type::float16)
                row_scales[g] = float_from_float16(float16_from_float(row_scales[g]));
            if (zero_points) zeros[g] = static_cast<std::int16_t>(zero(random));
        }
        for (std::int64_t i = 0; i < k; ++i) {
            codes[i] = static_cast<std::uint8_t>(code(random));
            const int z = zero_points ? zeros[i / w.layout.group_size] : (four ? 8 : 128);
            w.values[static_cast<std::size_t>(row * k + i)] =
                static_cast<float>(codes[i] - z) * row_scales[i / w.layout.group_size];
        }
    };
    pack_quantized_blocks(w.layout, read_row, 0, w.layout.block_count, w.packed.get());
    return w;
}

constexpr float untouched = 12345.0f;

// y [M, stride], columns beyond N untouched.
std::vector<float> multiply(const kernel_set& kernels, const weights& w, const row_source& source,
                            std::int64_t m, std::int64_t block_begin, std::int64_t block_end,
                            std::vector<float> y, std::int64_t stride, bool accumulate) {
    const auto rows = kernels.rows_layout(w.layout.storage, m, w.layout.k);
    const buffer packed = make_buffer(rows.total_bytes);
    kernels.pack_rows(rows, source, 0, rows.tile_count, packed.get());
    const buffer scratch = make_buffer(kernels.scratch_bytes(w.layout));
    kernels.multiply(w.view(), {rows, packed.get()}, block_begin, block_end, y.data(), stride,
                     accumulate, scratch.get());
    return y;
}

std::vector<float> multiply(const kernel_set& kernels, const weights& w,
                            const std::vector<float>& x, std::int64_t m) {
    std::vector<float> y(static_cast<std::size_t>(m * w.layout.n), untouched);
    return multiply(kernels, w, {x.data(), float_type::float32, w.layout.k, nullptr}, m, 0,
                    w.layout.block_count, y, w.layout.n, false);
}

// The largest error over y [M, stride] as a share of the sum of the magnitudes of the products.
double largest_error(const weights& w, const std::vector<float>& x, std::int64_t m,
                     const std::vector<float>& y, std::int64_t stride, float start) {
    const std::int64_t n = w.layout.n;
    const std::int64_t k = w.layout.k;
    double largest = 0.0;
    for (std::int64_t row = 0; row < m; ++row) {
        for (std::int64_t column = 0; column < n; ++column) {
            double sum = start;
            double magnitude = std::abs(start) + 1e-30;
            for (std::int64_t i = 0; i < k; ++i) {
                const double product = static_cast<double>(x[static_cast<std::size_t>(row * k + i)])
                                       * w.values[static_cast<std::size_t>(column * k + i)];
                sum += product;
                magnitude += std::abs(product);
            }
            const double found = y[static_cast<std::size_t>(row * stride + column)];
            const double error = std::abs(found - sum) / magnitude;
            if (!(error <= largest)) largest = error; // keeps a NaN
        }
    }
    return largest;
}

bool same_bits(const float* a, const float* b, std::int64_t count) {
    return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

struct weight_case {
    const char* name;
    weight_storage storage;
    std::int64_t group_size;
    bool zero_points;
    scale_type scales = scale_type::float32;
};

const weight_case weight_cases[] = {
    {"float32", weight_storage::float32, 0, false},
    {"bfloat16", weight_storage::bfloat16, 0, false},
    {"int8", weight_storage::int8, 64, false},
    {"int8 with zero points", weight_storage::int8, 32, true},
    {"int4", weight_storage::int4, 64, false},
    {"int4 with zero points", weight_storage::int4, 6, true},
    {"int4 with float16 scales", weight_storage::int4, 128, false, scale_type::float16},
};

weights make_weights(std::mt19937& random, const weight_case& c, std::int64_t n, std::int64_t k) {
    if (c.group_size == 0) return make_float_weights(random, c.storage, n, k);
    return make_quantized_weights(random, c.storage, n, k, c.group_size, c.zero_points, c.scales);
}

constexpr double tolerance = 1e-6;

} // namespace

TEST_CASE("bfloat16 rounds to nearest even and keeps special values") {
    CHECK(bfloat16_from_float(1.0f) == 0x3f80);
    CHECK(bfloat16_from_float(std::bit_cast<float>(0x3f808000u)) == 0x3f80); // tie to even
    CHECK(bfloat16_from_float(std::bit_cast<float>(0x3f818000u)) == 0x3f82);
    CHECK(bfloat16_from_float(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
    CHECK(bfloat16_from_float(std::numeric_limits<float>::infinity()) == 0x7f80);
    CHECK(bfloat16_from_float(std::numeric_limits<float>::max()) == 0x7f80);
    CHECK(std::isnan(float_from_bfloat16(
        bfloat16_from_float(std::bit_cast<float>(0x7f800001u))))); // NaN only in the low bits
}

TEST_CASE("float16 rounds to nearest even and reads back") {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const float value = float_from_float16(static_cast<std::uint16_t>(bits));
        if (std::isnan(value)) {
            CHECK((bits & 0x7fffu) > 0x7c00u);
            CHECK(std::isnan(float_from_float16(float16_from_float(value))));
            continue;
        }
        REQUIRE(float16_from_float(value) == bits);
    }
    CHECK(float_from_float16(0x3c00) == 1.0f);
    CHECK(float_from_float16(0x0001) == 0x1p-24f);
    CHECK(float16_from_float(1.0f + 0x1p-11f) == 0x3c00); // tie to even
    CHECK(float16_from_float(1.0f + 0x3p-11f) == 0x3c02);
    CHECK(float16_from_float(0x1p-25f) == 0x0000);
    CHECK(float16_from_float(0x3p-25f) == 0x0002);
    CHECK(float16_from_float(65519.0f) == 0x7bff);
    CHECK(float16_from_float(65520.0f) == 0x7c00);
}

TEST_CASE("instruction sets have names and can be limited") {
    for (auto set : sets_here(instruction_set::avx512_bf16)) {
        CHECK(instruction_set_named(name_of(set)) == set);
        CHECK(kernel_set(set).set() == set);
        CHECK(highest_instruction_set(detect_cpu_features(), set) == set);
    }
    CHECK(!instruction_set_named("sse9"));
    CHECK(highest_instruction_set({}, instruction_set::avx512) == instruction_set::plain);
}

TEST_CASE("layouts refuse what they cannot hold") {
    CHECK_THROWS_AS(make_packed_layout(weight_storage::float32, 0, 4), std::invalid_argument);
    CHECK_THROWS_AS(make_packed_layout(weight_storage::float32, 4, -1), std::invalid_argument);
    CHECK_THROWS_AS(make_packed_layout(weight_storage::int4, 4, 4, 3), std::invalid_argument);
    CHECK_THROWS_AS(make_packed_layout(weight_storage::int8, 4, 4, 0), std::invalid_argument);
    CHECK_THROWS_AS(
        make_packed_layout(weight_storage::float32, std::int64_t{1} << 40, std::int64_t{1} << 40),
        std::invalid_argument);
    CHECK_THROWS_AS(
        make_packed_layout(weight_storage::bfloat16, 4, std::numeric_limits<std::int64_t>::max()),
        std::invalid_argument);
    CHECK_THROWS_AS(
        make_packed_layout(weight_storage::bfloat16, std::numeric_limits<std::int64_t>::max(), 4),
        std::invalid_argument);
    const auto layout = make_packed_layout(weight_storage::int8, 40, 10, 4);
    const buffer data = make_buffer(layout.total_bytes);
    const std::vector<float> row(400);
    CHECK_THROWS_AS(pack_blocks(layout, {row.data(), float_type::float32, 10}, 0, 1, data.get()),
                    std::invalid_argument);
    CHECK_THROWS_AS(pack_quantized_blocks(
                        layout, [](auto, auto*, auto*, auto*) {}, 0, 3, data.get()),
                    std::invalid_argument);
    CHECK(layout.block_count == 2);
    CHECK(layout.group_count == 3);
    CHECK(layout.total_bytes == 2 * layout.block_bytes);
    CHECK(layout.block_bytes % 64 == 0);
}

TEST_CASE("packed rows read back as they were") {
    std::mt19937 random(11);
    for (const auto& c : weight_cases) {
        CAPTURE(c.name);
        const weights w = make_weights(random, c, 45, 131);
        std::vector<float> row(131);
        for (std::int64_t n = 0; n < 45; ++n) {
            unpack_row(w.view(), n, row.data());
            REQUIRE(same_bits(row.data(), w.values.data() + n * 131, 131));
        }
    }
}

TEST_CASE("packing from a callback, from bfloat16 and in parts gives the same bytes") {
    std::mt19937 random(12);
    constexpr std::int64_t n = 100;
    constexpr std::int64_t k = 77;
    for (auto storage : {weight_storage::float32, weight_storage::bfloat16}) {
        const weights w = make_float_weights(random, weight_storage::bfloat16, n, k);
        std::vector<std::uint16_t> halves;
        for (float value : w.values) halves.push_back(bfloat16_from_float(value));
        const auto layout = make_packed_layout(storage, n, k);
        const buffer a = make_buffer(layout.total_bytes);
        const buffer b = make_buffer(layout.total_bytes);
        const buffer c = make_buffer(layout.total_bytes);
        pack_blocks(layout, {halves.data(), float_type::bfloat16, k}, 0, 4, a.get());
        const auto read_row = [&](std::int64_t row, float* out) {
            std::copy_n(w.values.data() + row * k, k, out);
        };
        pack_blocks(layout, float_row_reader(read_row), 2, 4, b.get());
        pack_blocks(layout, float_row_reader(read_row), 0, 2, b.get());
        pack_blocks(layout, {w.values.data(), float_type::float32, k}, 0, 4, c.get());
        const auto bytes = static_cast<std::size_t>(layout.total_bytes);
        CHECK(std::memcmp(a.get(), b.get(), bytes) == 0);
        CHECK(std::memcmp(a.get(), c.get(), bytes) == 0);
    }
}

TEST_CASE("products agree with double for every number of rows") {
    for (auto set : sets_here(instruction_set::avx512_bf16)) {
        const kernel_set kernels(set);
        for (const auto& c : weight_cases) {
            std::mt19937 random(13);
            for (std::int64_t m = 0; m <= 40; ++m) {
                const std::int64_t k = 1 + static_cast<std::int64_t>(random() % 150);
                const std::int64_t n = 1 + static_cast<std::int64_t>(random() % 100);
                const bool accumulate = random() % 2 == 0;
                const std::int64_t stride = n + 3;
                const weights w = make_weights(random, c, n, k);
                std::vector<float> x = random_values(random, m * k);
                const auto rows = kernels.rows_layout(c.storage, m, k);
                if (rows.element == float_type::bfloat16) {
                    for (float& value : x) value = float_from_bfloat16(bfloat16_from_float(value));
                }
                std::vector<float> y(static_cast<std::size_t>(m * stride), untouched);
                for (std::int64_t row = 0; row < m; ++row) {
                    std::fill_n(y.begin() + row * stride, n, 0.25f);
                }
                const row_source source = {x.data(), float_type::float32, k, nullptr};
                y = multiply(kernels, w, source, m, 0, w.layout.block_count, y, stride, accumulate);
                CAPTURE(std::string(name_of(set)));
                CAPTURE(c.name);
                CAPTURE(m);
                CAPTURE(n);
                CAPTURE(k);
                REQUIRE(largest_error(w, x, m, y, stride, accumulate ? 0.25f : 0.0f) < tolerance);
                for (std::int64_t row = 0; row < m; ++row) {
                    for (std::int64_t i = n; i < stride; ++i) {
                        REQUIRE(y[static_cast<std::size_t>(row * stride + i)] == untouched);
                    }
                }
            }
        }
    }
}

TEST_CASE("deep and tall products, cut in every direction, agree with double") {
    std::mt19937 random(14);
    for (auto set : sets_here(instruction_set::avx512_bf16)) {
        const kernel_set kernels(set);
        for (const auto& c : weight_cases) {
            CAPTURE(std::string(name_of(set)));
            CAPTURE(c.name);
            constexpr std::int64_t m = 131;
            constexpr std::int64_t k = 4499;
            const weights w = make_weights(random, c, 35, k);
            std::vector<float> x = random_values(random, m * k);
            if (kernels.rows_layout(c.storage, m, k).element == float_type::bfloat16) {
                for (float& value : x) value = float_from_bfloat16(bfloat16_from_float(value));
            }
            CHECK(largest_error(w, x, m, multiply(kernels, w, x, m), 35, 0.0f) < tolerance);
        }
    }
}

TEST_CASE("a row's bits depend neither on its company nor on the cut of the blocks") {
    std::mt19937 random(15);
    constexpr std::int64_t n = 90;
    for (auto set : sets_here(instruction_set::avx512_bf16)) {
        const kernel_set kernels(set);
        for (const auto& c : weight_cases) {
            for (std::int64_t k : {199, 4100}) {
                CAPTURE(std::string(name_of(set)));
                CAPTURE(c.name);
                CAPTURE(k);
                const weights w = make_weights(random, c, n, k);
                const std::int64_t m_max = 120;
                const std::vector<float> x = random_values(random, m_max * k);
                const std::vector<float> all = multiply(kernels, w, x, m_max);
                for (std::int64_t m : {1, 2, 3, 5, 8, 13, 14, 15, 27, 29, 64}) {
                    REQUIRE(same_bits(multiply(kernels, w, x, m).data(), all.data(), m * n));
                }
                std::vector<float> y(static_cast<std::size_t>(m_max * n), untouched);
                const row_source source = {x.data(), float_type::float32, k, nullptr};
                y = multiply(kernels, w, source, m_max, 2, 3, y, n, false);
                CHECK(y[0] == untouched);
                y = multiply(kernels, w, source, m_max, 0, 2, y, n, false);
                CHECK(same_bits(y.data(), all.data(), m_max * n));
            }
        }
    }
}

TEST_CASE("avx2 and avx512 give the same bits") {
    if (highest_instruction_set(detect_cpu_features()) < instruction_set::avx512) return;
    std::mt19937 random(16);
    for (const auto& c : weight_cases) {
        CAPTURE(c.name);
        const weights w = make_weights(random, c, 70, 333);
        const std::vector<float> x = random_values(random, 33 * 333);
        const auto a = multiply(kernel_set(instruction_set::avx2), w, x, 33);
        const auto b = multiply(kernel_set(instruction_set::avx512), w, x, 33);
        CHECK(same_bits(a.data(), b.data(), 33 * 70));
    }
}

TEST_CASE("rows are gathered by index and read as bfloat16") {
    std::mt19937 random(17);
    constexpr std::int64_t k = 83;
    const std::vector<std::int32_t> index = {7, 0, 7, 3, 19, 4, 4, 11, 18, 2, 1, 0, 9, 13, 15, 16};
    const auto m = static_cast<std::int64_t>(index.size());
    std::vector<float> x = random_values(random, 20 * k);
    std::vector<std::uint16_t> halves;
    for (float& value : x) {
        halves.push_back(bfloat16_from_float(value));
        value = float_from_bfloat16(halves.back());
    }
    std::vector<float> gathered;
    for (std::int32_t row : index) {
        gathered.insert(gathered.end(), x.begin() + row * k, x.begin() + (row + 1) * k);
    }
    for (auto set : sets_here(instruction_set::avx512_bf16)) {
        const kernel_set kernels(set);
        for (auto storage : {weight_storage::float32, weight_storage::bfloat16}) {
            const weights w = make_float_weights(random, storage, 40, k);
            const auto expected = multiply(kernels, w, gathered, m);
            for (auto type : {float_type::float32, float_type::bfloat16}) {
                const void* data = type == float_type::float32
                                       ? static_cast<const void*>(x.data())
                                       : static_cast<const void*>(halves.data());
                std::vector<float> y(static_cast<std::size_t>(m * 40));
                y = multiply(kernels, w, {data, type, k, index.data()}, m, 0, 2, y, 40, false);
                CHECK(same_bits(y.data(), expected.data(), m * 40));
            }
        }
    }
}

TEST_CASE("bfloat16 rows are the rounded activations") {
    if (highest_instruction_set(detect_cpu_features()) < instruction_set::avx512_bf16) return;
    std::mt19937 random(18);
    const kernel_set kernels(instruction_set::avx512_bf16);
    const weights w = make_float_weights(random, weight_storage::bfloat16, 64, 500);
    const std::vector<float> x = random_values(random, 20 * 500);
    std::vector<float> rounded = x;
    for (float& value : rounded) value = float_from_bfloat16(bfloat16_from_float(value));
    const auto a = multiply(kernels, w, x, 20);
    const auto b = multiply(kernels, w, rounded, 20);
    CHECK(same_bits(a.data(), b.data(), 20 * 64));
}

TEST_CASE("measurements are plausible") {
    for (auto set : {instruction_set::plain, instruction_set::avx2, instruction_set::avx512}) {
        if (set > highest_instruction_set(detect_cpu_features())) break;
        const double peak = peak_operations_per_second(operation_kind::float32, set);
        CHECK(peak > 1e8);
        CHECK(peak < 1e12);
    }
    CHECK(peak_operations_per_second(operation_kind::int8_dot, instruction_set::plain) == 0.0);
    CHECK(preferred_bfloat16_set(instruction_set::plain) == instruction_set::plain);
    CHECK(peak_bfloat16_matrix_operations_per_second(instruction_set::avx512_bf16) > 1e8);
    const buffer data = make_buffer(64 << 20);
    const double bandwidth = read_bandwidth_bytes_per_second(data.get(), 64 << 20);
    CHECK(bandwidth > 1e8);
    CHECK(bandwidth < 1e12);
}
