// The attention kernels of backends/onednn against sums in double over the source values.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "attend_kernels.hpp"
#include "bfloat16.hpp"
#include "kernel_fixture.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

using namespace sluice::kernels;

namespace {

// Vectors as a cache holds them: of one head among others, in shuffled slots.
struct vectors_case {
    std::int64_t count;
    std::int64_t width;
    std::vector<float> values; // [count, width], exactly what is stored
    std::vector<std::byte> memory;
    std::vector<std::int32_t> index;
    cached_vectors vectors;

    vectors_case(std::mt19937& random, cached_type type, std::int64_t count_, std::int64_t width_)
        : count(count_), width(width_), index(static_cast<std::size_t>(count_)) {
        constexpr std::int64_t heads = 3, head = 1;
        const std::int64_t bytes = type == cached_type::float32 ? 4
                                   : type == cached_type::int8  ? 1
                                                                : 2;
        const std::int64_t scales = heads * width * bytes;
        const std::int64_t stride = scales + (type == cached_type::int8 ? heads * 4 : 0);
        std::iota(index.begin(), index.end(), 0);
        std::shuffle(index.begin(), index.end(), random);
        // NaN patterns in between, so that a read of a neighbour shows.
        memory.assign(static_cast<std::size_t>(count * stride), std::byte{0xff});
        for (const std::int32_t slot : index) {
            std::byte* vector = memory.data() + slot * stride;
            put(random, type, vector + head * width * bytes, vector + scales + head * 4);
        }
        vectors = {memory.data() + head * width * bytes, type, stride, index.data(),
                   memory.data() + scales + head * 4};
    }
    float at(std::int64_t j, std::int64_t c) const {
        return values[static_cast<std::size_t>(j * width + c)];
    }

  private:
    void put(std::mt19937& random, cached_type type, std::byte* to, std::byte* scale_at) {
        std::normal_distribution<float> normal;
        const float scale = 0.01f + std::abs(normal(random));
        if (type == cached_type::int8) std::memcpy(scale_at, &scale, sizeof scale);
        for (std::int64_t c = 0; c < width; ++c) {
            const float value = normal(random);
            const auto half = bfloat16_from_float(value);
            const auto code = static_cast<std::int8_t>(random() % 255 - 127);
            switch (type) {
            case cached_type::float32:
                std::memcpy(to + c * 4, &value, 4);
                values.push_back(value);
                break;
            case cached_type::bfloat16:
                std::memcpy(to + c * 2, &half, 2);
                values.push_back(float_from_bfloat16(half));
                break;
            default:
                std::memcpy(to + c, &code, 1);
                values.push_back(scale * static_cast<float>(code));
            }
        }
    }
};

template <typename Check>
void for_each_case(Check&& check) {
    std::mt19937 random(7);
    for (const auto set : test::sets_here(instruction_set::avx512))
        for (const auto type : {cached_type::float32, cached_type::bfloat16, cached_type::int8})
            for (const std::int64_t width : {1, 8, 17, 64, 66, 128, 130, 256, 272})
                for (const std::int64_t count : {1, 3, 16, 31, 32, 70}) {
                    CAPTURE(name_of(set));
                    CAPTURE(static_cast<int>(type));
                    CAPTURE(width);
                    CAPTURE(count);
                    check(attend_kernels_of(set), vectors_case(random, type, count, width), random);
                }
}

std::vector<float> numbers(std::mt19937& random, std::int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> made(static_cast<std::size_t>(count));
    for (float& value : made) value = normal(random);
    return made;
}

float rounded_for(weight_storage storage, float value) {
    return storage == weight_storage::bfloat16 ? float_from_bfloat16(bfloat16_from_float(value))
                                               : value;
}

// NaN patterns, so that what is not written shows.
std::vector<std::byte> packed_memory(const packed_layout& layout) {
    return std::vector<std::byte>(static_cast<std::size_t>(layout.total_bytes), std::byte{0xff});
}

} // namespace

TEST_CASE("dot products of a row with cached vectors") {
    for_each_case([](const attend_kernels& kernels, const vectors_case& v, std::mt19937& random) {
        const auto q = numbers(random, v.width);
        std::vector<float> scores(static_cast<std::size_t>(v.count) + 1, -7.0f);
        std::vector<float> arranged(q.size());
        kernels.arrange(v.vectors.type, q.data(), v.width, arranged.data());
        kernels.dot_each(arranged.data(), v.vectors, v.count, v.width, scores.data());
        for (std::int64_t j = 0; j < v.count; ++j) {
            double expected = 0, size = 0;
            for (std::int64_t c = 0; c < v.width; ++c) {
                const double term = double{q[static_cast<std::size_t>(c)]} * v.at(j, c);
                expected += term;
                size += std::abs(term);
            }
            REQUIRE(std::abs(scores[static_cast<std::size_t>(j)] - expected) <= 1e-6 * size);
        }
        REQUIRE(scores.back() == -7.0f);
    });
}

TEST_CASE("weighted sums of cached vectors") {
    for_each_case([](const attend_kernels& kernels, const vectors_case& v, std::mt19937& random) {
        const auto weights = numbers(random, v.count);
        const auto before = numbers(random, v.width + 1);
        auto arranged = before;
        kernels.arrange(v.vectors.type, before.data(), v.width, arranged.data());
        kernels.add_each(weights.data(), v.vectors, v.count, v.width, arranged.data());
        auto sum = arranged;
        kernels.restore(v.vectors.type, arranged.data(), v.width, sum.data());
        for (std::int64_t c = 0; c < v.width; ++c) {
            double expected = before[static_cast<std::size_t>(c)];
            double size = std::abs(expected);
            for (std::int64_t j = 0; j < v.count; ++j) {
                const double term = double{weights[static_cast<std::size_t>(j)]} * v.at(j, c);
                expected += term;
                size += std::abs(term);
            }
            REQUIRE(std::abs(sum[static_cast<std::size_t>(c)] - expected) <= 1e-6 * size);
        }
        REQUIRE(sum.back() == before.back());
    });
}

TEST_CASE("keys and values become the rows and columns of weights") {
    for_each_case([](const attend_kernels& kernels, const vectors_case& v, std::mt19937&) {
        for (const auto storage : {weight_storage::float32, weight_storage::bfloat16}) {
            CAPTURE(static_cast<int>(storage));
            const auto keys = make_packed_layout(storage, v.count, v.width);
            auto key_memory = packed_memory(keys);
            // In two parts, where there are enough.
            const std::int64_t part = v.count > 16 ? 16 : v.count;
            cached_vectors rest = v.vectors;
            rest.index += part;
            kernels.pack_keys(v.vectors, 0, part, v.width, keys, 0, key_memory.data());
            kernels.pack_keys(rest, part, v.count - part, v.width, keys, 0, key_memory.data());
            std::vector<float> row(static_cast<std::size_t>(v.width));
            for (std::int64_t j = 0; j < v.count; ++j) {
                unpack_row({keys, key_memory.data()}, j, row.data());
                for (std::int64_t c = 0; c < v.width; ++c)
                    REQUIRE(row[static_cast<std::size_t>(c)] == rounded_for(storage, v.at(j, c)));
            }
            // With room for more, as the places of a run that is not full.
            const std::int64_t room = (v.count + 15) / 16 * 16;
            const auto values = make_packed_layout(storage, v.width, room);
            auto value_memory = packed_memory(values);
            kernels.pack_values(rest, part, v.count - part, v.width, values, 0,
                                value_memory.data());
            kernels.pack_values(v.vectors, 0, part, v.width, values, 0, value_memory.data());
            std::vector<float> column(static_cast<std::size_t>(room));
            for (std::int64_t c = 0; c < v.width; ++c) {
                unpack_row({values, value_memory.data()}, c, column.data());
                for (std::int64_t j = 0; j < room; ++j)
                    REQUIRE(column[static_cast<std::size_t>(j)]
                            == (j < v.count ? rounded_for(storage, v.at(j, c)) : 0.0f));
            }
        }
    });
}

TEST_CASE("keys of two parts stand behind each other, and the padding of K is zero") {
    std::mt19937 random(3);
    for (const auto set : test::sets_here(instruction_set::avx512))
        for (const auto storage : {weight_storage::float32, weight_storage::bfloat16})
            for (const std::int64_t second : {2, 5, 33, 64}) {
                CAPTURE(name_of(set));
                CAPTURE(second);
                constexpr std::int64_t first = 48, count = 37;
                const vectors_case left(random, cached_type::bfloat16, count, first);
                const vectors_case right(random, cached_type::float32, count, second);
                const auto& kernels = attend_kernels_of(set);
                const auto layout = make_packed_layout(storage, count, first + second);
                auto memory = packed_memory(layout);
                kernels.pack_keys(right.vectors, 0, count, second, layout, first, memory.data());
                kernels.pack_keys(left.vectors, 0, count, first, layout, 0, memory.data());
                std::vector<float> row(static_cast<std::size_t>(first + second));
                for (std::int64_t j = 0; j < count; ++j) {
                    unpack_row({layout, memory.data()}, j, row.data());
                    for (std::int64_t c = 0; c < first; ++c)
                        REQUIRE(row[static_cast<std::size_t>(c)] == left.at(j, c));
                    for (std::int64_t c = 0; c < second; ++c)
                        REQUIRE(row[static_cast<std::size_t>(first + c)]
                                == rounded_for(storage, right.at(j, c)));
                }
                if (layout.k_padded == layout.k) continue;
                for (std::int64_t j = 0; j < count; ++j) {
                    const std::byte* block = memory.data() + j / block_width * layout.block_bytes;
                    const std::int64_t lane = j % block_width;
                    std::uint32_t bits = 1;
                    if (storage == weight_storage::float32)
                        std::memcpy(&bits, block + (layout.k * block_width + lane) * 4, 4);
                    else
                        std::memcpy(&bits, block + (layout.k / 2 * block_width + lane) * 4, 4);
                    REQUIRE((storage == weight_storage::float32 ? bits : bits >> 16) == 0);
                }
            }
}

TEST_CASE("values of two groups stand below each other") {
    std::mt19937 random(4);
    for (const auto set : test::sets_here(instruction_set::avx512))
        for (const auto storage : {weight_storage::float32, weight_storage::bfloat16})
            for (const std::int64_t second : {32, 40}) {
                CAPTURE(name_of(set));
                constexpr std::int64_t first = 64, count = 19;
                const vectors_case top(random, cached_type::int8, count, first);
                const vectors_case bottom(random, cached_type::int8, count, second);
                const auto& kernels = attend_kernels_of(set);
                const auto layout = make_packed_layout(storage, first + second, 32);
                auto memory = packed_memory(layout);
                kernels.pack_values(bottom.vectors, 0, count, second, layout, first, memory.data());
                kernels.pack_values(top.vectors, 0, count, first, layout, 0, memory.data());
                std::vector<float> column(32);
                for (std::int64_t c = 0; c < first + second; ++c) {
                    unpack_row({layout, memory.data()}, c, column.data());
                    for (std::int64_t j = 0; j < count; ++j)
                        REQUIRE(column[static_cast<std::size_t>(j)]
                                == rounded_for(storage,
                                               c < first ? top.at(j, c) : bottom.at(j, c - first)));
                }
            }
}

TEST_CASE("vectors are read as floats, stride apart") {
    for_each_case([](const attend_kernels& kernels, const vectors_case& v, std::mt19937&) {
        const std::int64_t stride = v.width + 3;
        std::vector<float> rows(static_cast<std::size_t>(v.count * stride), -7.0f);
        kernels.read(v.vectors, v.count, v.width, rows.data(), stride);
        for (std::int64_t j = 0; j < v.count; ++j)
            for (std::int64_t c = 0; c < stride; ++c)
                REQUIRE(rows[static_cast<std::size_t>(j * stride + c)]
                        == (c < v.width ? v.at(j, c) : -7.0f));
    });
}

TEST_CASE("whole numbers and their scale are those of the rule") {
    std::mt19937 random(6);
    for (const auto set : test::sets_here(instruction_set::avx512))
        for (const std::int64_t count : {1, 7, 16, 64, 100, 128}) {
            CAPTURE(name_of(set));
            CAPTURE(count);
            auto x = numbers(random, count);
            if (count == 7) std::fill(x.begin(), x.end(), 0.0f);
            if (count == 16)
                x = {127, -127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 63.5f, 0, 1, 2, 3, 4, 5, 6, 126.5f};
            std::vector<std::int8_t> codes(static_cast<std::size_t>(count), 99);
            const float scale = attend_kernels_of(set).quantize(x.data(), count, codes.data());
            float greatest = 0;
            for (const float value : x) greatest = std::max(greatest, std::abs(value));
            REQUIRE(scale == greatest / 127.0f);
            const float inverse = greatest > 0 ? 127.0f / greatest : 0.0f;
            for (std::size_t i = 0; i < x.size(); ++i) {
                REQUIRE(codes[i] == static_cast<std::int8_t>(std::nearbyint(x[i] * inverse)));
                // Half a step, and what float32 loses on the way.
                REQUIRE(std::abs(static_cast<float>(codes[i]) * scale - x[i])
                        <= 0.5f * scale * 1.0001f);
            }
        }
}

TEST_CASE("scores become weights, and what was seen before is scaled to them") {
    std::mt19937 random(5);
    for (const auto set : test::sets_here(instruction_set::avx512)) {
        const auto& kernels = attend_kernels_of(set);
        score_sum so_far{-std::numeric_limits<float>::infinity(), 0};
        std::vector<double> seen; // scaled scores of all calls
        double weighted = 0;      // sum of weights times 1, 2, 3 ..., rescaled as the caller does
        for (const std::int64_t count : {1, 16, 40, 128}) {
            const auto scores = numbers(random, count);
            const std::int64_t begin = count / 5, end = count - count / 7;
            auto weights = scores;
            const float factor = kernels.soften(weights.data(), begin, end, count, 1.7f, so_far);
            weighted *= factor;
            for (std::int64_t i = 0; i < count; ++i) {
                const auto at = static_cast<std::size_t>(i);
                if (i < begin || i >= end) {
                    REQUIRE(weights[at] == 0.0f);
                    continue;
                }
                seen.push_back(1.7 * scores[at]);
                weighted += weights[at] * static_cast<double>(seen.size());
            }
            const double maximum = *std::max_element(seen.begin(), seen.end());
            double sum = 0, expected = 0;
            for (std::size_t i = 0; i < seen.size(); ++i) {
                sum += std::exp(seen[i] - maximum);
                expected += std::exp(seen[i] - maximum) * static_cast<double>(i + 1);
            }
            CAPTURE(name_of(set));
            CAPTURE(count);
            REQUIRE(so_far.maximum == doctest::Approx(maximum));
            REQUIRE(so_far.sum == doctest::Approx(sum).epsilon(1e-5));
            REQUIRE(weighted == doctest::Approx(expected).epsilon(1e-5));
        }
        std::vector<float> nothing(20, 3.0f);
        const auto before = so_far;
        CHECK(kernels.soften(nothing.data(), 9, 9, 20, 1, so_far) == 1.0f);
        CHECK(std::count(nothing.begin(), nothing.end(), 0.0f) == 20);
        CHECK(so_far.sum == before.sum);
    }
}
