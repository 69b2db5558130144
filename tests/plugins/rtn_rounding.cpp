// Rounding of the quantizer "rtn", one group at a time.
#include "plugins/quantizers/common/half.hpp"
#include "plugins/quantizers/common/rounding.hpp"

#include "backend_checks/host_tensor.hpp"
#include "base/element_type.hpp"

#include <cmath>
#include <doctest/doctest.h>
#include <limits>

using namespace sluice;
using namespace sluice::quantizers;

namespace {

struct rounded {
    group_result result;
    std::vector<uint8_t> codes;
    float value(size_t i) const {
        return (static_cast<float>(codes[i]) - static_cast<float>(result.zero)) * result.scale;
    }
};

rounded round(const std::vector<float>& weights, const rounding& how) {
    rounded made{{}, std::vector<uint8_t>(weights.size())};
    made.result = round_group(weights, made.codes, how);
    return made;
}

} // namespace

TEST_CASE("scales are rounded to binary16 as the runtime rounds them") {
    std::mt19937_64 random(1);
    for (int i = 0; i < 20000; ++i) {
        const float value = std::ldexp(static_cast<float>(random() >> 40) * 0x1p-24F,
                                       static_cast<int>(random() % 40) - 25);
        if (value >= 65520.0F) continue;
        CHECK(round_to_half(value) == f16_to_f32(f32_to_f16(value)));
    }
    CHECK(round_to_half(0x1p-25F) == 0.0F); // a tie, to even
    CHECK(round_to_half(65504.0F) == half_max);
}

TEST_CASE("symmetric codes reach both ends") {
    const auto found = round({-7, 7, 0, 3.4F, -3.6F}, {4, true, false});
    CHECK(found.result.scale == 1);
    CHECK(found.result.zero == 8);
    CHECK(found.codes == std::vector<uint8_t>{1, 15, 8, 11, 4});
    CHECK(found.result.weight_squared == doctest::Approx(49 + 49 + 3.4 * 3.4 + 3.6 * 3.6));
    CHECK(found.result.error_squared == doctest::Approx(0.16 + 0.16).epsilon(1e-4));
}

TEST_CASE("ties go to the even code") {
    const auto found = round({7, 0.5F, 1.5F, 2.5F, -0.5F}, {4, true, false});
    CHECK(found.codes == std::vector<uint8_t>{15, 8, 10, 10, 8});
}

TEST_CASE("asymmetric codes follow the range, which always holds zero") {
    const auto found = round({0, 15, 7, 30}, {4, false, false});
    CHECK(found.result.zero == 0);
    CHECK(found.result.scale == 2);
    CHECK(found.codes == std::vector<uint8_t>{0, 8, 4, 15});
    const auto constant = round({5, 5, 5}, {8, false, false});
    for (size_t i = 0; i < 3; ++i) CHECK(constant.value(i) == doctest::Approx(5).epsilon(1e-3));
    const auto negative = round({-6, -3}, {4, false, false});
    CHECK(negative.result.zero == 15);
    CHECK(negative.value(0) == doctest::Approx(-6).epsilon(1e-3));
}

TEST_CASE("all zero, too small and too large for a binary16 scale") {
    const auto zero = round({0, 0, 0}, {4, true, true});
    CHECK(zero.result.scale == 1);
    CHECK(zero.codes == std::vector<uint8_t>{8, 8, 8});
    const auto tiny = round({1e-12F, -1e-12F}, {4, true, true});
    CHECK(tiny.result.scale == half_least);
    CHECK(tiny.value(0) == 0);
    const rounding how{4, true, true};
    const std::vector<float> fits{65504.0F * 7};
    const std::vector<float> large{65504.0F * 7.1F};
    const std::vector<float> infinite{1, std::numeric_limits<float>::infinity()};
    const std::vector<float> not_a_number{std::numeric_limits<float>::quiet_NaN()};
    CHECK(check_group(fits, how) == group_check::good);
    CHECK(check_group(large, how) == group_check::too_large);
    CHECK(check_group(infinite, how) == group_check::not_finite);
    CHECK(check_group(not_a_number, how) == group_check::not_finite);
}

TEST_CASE("searching scales is never worse and mostly better") {
    std::mt19937_64 random(7);
    double plain = 0;
    double searched = 0;
    for (int i = 0; i < 200; ++i) {
        const auto weights = checker::normal_numbers(random, 64, 0.02F);
        for (const bool symmetric : {true, false}) {
            const double without = round(weights, {4, symmetric, false}).result.error_squared;
            const double with = round(weights, {4, symmetric, true}).result.error_squared;
            CHECK(with <= without * (1 + 1e-4));
            plain += without;
            searched += with;
        }
    }
    CHECK(searched < 0.92 * plain);
}
