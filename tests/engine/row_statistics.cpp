#include "engine/row_statistics.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

using namespace sluice;

TEST_CASE("the largest logit is the first of the largest finite ones, at every length") {
    std::mt19937 random{1};
    std::uniform_int_distribution<int> small(-9, 9); // so that ties are frequent
    for (size_t length = 1; length < 200; ++length) {
        std::vector<float> logits(length);
        for (auto& each : logits) each = float(small(random));
        logits[length / 2] = std::numeric_limits<float>::quiet_NaN();
        logits[length / 3] = std::numeric_limits<float>::infinity();
        logits[length - 1] = 3;
        size_t expected = length - 1;
        for (size_t i = length; i-- > 0;)
            if (std::isfinite(logits[i]) && logits[i] >= logits[expected]) expected = i;
        CAPTURE(length);
        CHECK(find_largest(logits).token == expected);
        CHECK(find_largest(logits).value == logits[expected]);
    }
    const std::vector<float> none(40, -std::numeric_limits<float>::infinity());
    CHECK(find_largest(none).value == -std::numeric_limits<float>::infinity());
}

TEST_CASE("the sum of exponentials is that of the C library") {
    std::mt19937 random{2};
    for (const float deviation : {0.01f, 1.0f, 8.0f, 60.0f, 1000.0f})
        for (const size_t length :
             {size_t{1}, size_t{15}, size_t{17}, size_t{5000}, size_t{151936}}) {
            std::normal_distribution<float> normal(3, deviation);
            std::vector<float> logits(length);
            for (auto& each : logits) each = normal(random);
            if (length > 20) logits[7] = std::numeric_limits<float>::quiet_NaN();
            const float largest = find_largest(logits).value;
            double expected = 0;
            for (const float each : logits)
                if (std::isfinite(each)) expected += std::exp(double(each) - double(largest));
            CAPTURE(deviation);
            CAPTURE(length);
            CHECK(sum_of_exponentials(logits, largest) == doctest::Approx(expected).epsilon(2e-6));
        }
}
