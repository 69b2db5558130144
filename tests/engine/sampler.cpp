#include "engine/sampler.hpp"

#include "base/error.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

using namespace sluice;

namespace {

const token_set nothing(64);

std::vector<float> random_logits(uint32_t seed, size_t count, double spread = 2.0) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, float(spread));
    std::vector<float> logits(count);
    for (float& logit : logits) logit = normal(random);
    return logits;
}

// The filters again, written the slow and obvious way: everything sorted, nothing skipped.
std::vector<double> plain_distribution(std::vector<double> logits,
                                       const sampling_parameters& parameters,
                                       const std::vector<int32_t>& occurred) {
    for (const int32_t token : occurred) {
        double& logit = logits[size_t(token)];
        logit = logit > 0 ? logit / parameters.repetition_penalty
                          : logit * parameters.repetition_penalty;
    }
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t left, size_t right) { return logits[left] > logits[right]; });
    if (parameters.top_k > 0) order.resize(std::min<size_t>(order.size(), parameters.top_k));
    std::vector<double> weights(logits.size(), 0.0);
    double total = 0;
    for (const size_t i : order) {
        weights[i] = std::exp(logits[i] / parameters.temperature);
        total += weights[i];
    }
    double sum = 0;
    size_t kept = 0;
    if (parameters.top_p == 1.0) kept = order.size();
    while (kept < order.size() && (kept == 0 || sum < parameters.top_p * total)) {
        sum += weights[order[kept++]];
    }
    for (size_t i = kept; i < order.size(); ++i) weights[order[i]] = 0;
    const double largest = weights[order[0]];
    for (double& weight : weights) {
        if (weight < parameters.min_p * largest) weight = 0;
    }
    total = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (double& weight : weights) weight /= total;
    return weights;
}

// Pearson's statistic over the tokens with an expected count of at least 5, the rest pooled.
struct chi_square {
    double statistic = 0;
    double degrees = -1;

    // The Wilson-Hilferty approximation: standard normal deviate of the statistic.
    double deviate() const {
        const double ninth = 2.0 / (9.0 * degrees);
        return (std::cbrt(statistic / degrees) - (1 - ninth)) / std::sqrt(ninth);
    }
};

chi_square compare(const std::vector<double>& expected, const std::vector<uint64_t>& counts,
                   uint64_t draws) {
    chi_square result;
    double pooled_expected = 0, pooled_count = 0;
    const auto add = [&](double want, double have) {
        result.statistic += (have - want) * (have - want) / want;
        result.degrees += 1;
    };
    for (size_t i = 0; i < expected.size(); ++i) {
        const double want = expected[i] * double(draws);
        if (want >= 5) {
            add(want, double(counts[i]));
        } else {
            pooled_expected += want;
            pooled_count += double(counts[i]);
        }
    }
    if (pooled_expected > 0) add(std::max(pooled_expected, 1e-9), pooled_count);
    return result;
}

} // namespace

TEST_CASE("philox gives the known answers of its authors") {
    using words = std::array<uint32_t, 4>;
    CHECK(philox4x32({0, 0, 0, 0}, {0, 0})
          == words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    const uint32_t ones = 0xffffffff;
    CHECK(philox4x32({ones, ones, ones, ones}, {ones, ones})
          == words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0})
          == words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform numbers are uniform, over positions and over seeds") {
    for (const bool over_seeds : {false, true}) {
        std::vector<uint64_t> counts(64, 0);
        const uint64_t draws = 64000;
        for (uint64_t i = 0; i < draws; ++i) {
            const double value = over_seeds ? uniform_at(i, 7) : uniform_at(7, i);
            REQUIRE(value >= 0);
            REQUIRE(value < 1);
            ++counts[size_t(value * 64)];
        }
        CHECK(std::abs(compare(std::vector<double>(64, 1.0 / 64), counts, draws).deviate()) < 4);
    }
}

TEST_CASE("greedy takes the largest logit, ties to the lower token") {
    sampler chooser;
    CHECK(chooser.sample(std::vector<float>{1, 5, 3}, {}, nothing, 0).token == 1);
    CHECK(chooser.sample(std::vector<float>{1, 5, 5, 5}, {}, nothing, 0).token == 1);
    CHECK(chooser.sample(std::vector<float>{-0.0f, 0.0f}, {}, nothing, 0).token == 0);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    CHECK(chooser.sample(std::vector<float>{nan, -3, -2, -infinity}, {}, nothing, 0).token == 2);
    CHECK(chooser.sample(std::vector<float>{infinity, -3, -2}, {}, nothing, 0).token == 2);
}

TEST_CASE("rows without a finite logit are an error, not a token") {
    sampler chooser;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_AS(chooser.sample(std::vector<float>{nan, nan}, {}, nothing, 0), error);
    CHECK_THROWS_AS(chooser.sample({}, {}, nothing, 0), error);
}

TEST_CASE("the log-probability is the model's own") {
    sampler chooser;
    const std::vector<float> logits{1.0f, 2.0f, 0.5f};
    const double sum = std::exp(1.0) + std::exp(2.0) + std::exp(0.5);
    CHECK(chooser.sample(logits, {}, nothing, 0).log_probability
          == doctest::Approx(2.0 - std::log(sum)));
    sampling_parameters sharp;
    sharp.temperature = 0.1;
    sharp.top_k = 1;
    CHECK(chooser.sample(logits, sharp, nothing, 0).log_probability
          == doctest::Approx(2.0 - std::log(sum)));
}

TEST_CASE("filters give exactly the distribution they are defined by") {
    sampler chooser;
    std::mt19937 random(1);
    for (int round = 0; round < 400; ++round) {
        const size_t vocabulary = 2 + random() % 400;
        auto logits = random_logits(uint32_t(round), vocabulary, 3.0);
        // Ties at the border of top-k and top-p.
        for (float& logit : logits) {
            if (round % 3 == 0) logit = std::round(logit * 2) / 2;
        }
        sampling_parameters parameters;
        parameters.temperature = 0.1 + double(random() % 30) / 10;
        parameters.top_k = random() % 2 == 0 ? 0 : uint32_t(random() % (vocabulary + 5));
        parameters.top_p = random() % 2 == 0 ? 1.0 : double(1 + random() % 100) / 100;
        parameters.min_p = random() % 2 == 0 ? 0.0 : double(random() % 50) / 100;
        parameters.repetition_penalty = random() % 2 == 0 ? 1.0 : 1.25;
        token_set occurred{uint32_t(vocabulary)};
        for (int i = 0; i < 10; ++i) occurred.add(int32_t(random() % vocabulary));
        const std::vector<double> found = chooser.distribution(logits, parameters, occurred);
        const std::vector<int32_t> list(occurred.tokens().begin(), occurred.tokens().end());
        // The same values the sampler sees: the penalty is computed in float32.
        std::vector<double> exact;
        sampling_parameters rest = parameters;
        rest.repetition_penalty = 1.0;
        for (size_t i = 0; i < vocabulary; ++i) {
            const bool seen = std::count(list.begin(), list.end(), int32_t(i)) > 0;
            float logit = logits[i];
            if (seen && parameters.repetition_penalty != 1.0) {
                logit = logit > 0 ? logit / 1.25f : logit * 1.25f;
            }
            exact.push_back(double(logit));
        }
        const std::vector<double> expected = plain_distribution(exact, rest, {});
        for (size_t i = 0; i < vocabulary; ++i) {
            REQUIRE(found[i] == doctest::Approx(expected[i]).epsilon(1e-9));
            // Which of the last crumbs of probability top-p keeps is a matter of rounding.
            if (expected[i] > 1e-9) REQUIRE(found[i] > 0);
        }
    }
}

TEST_CASE("draws follow the distribution") {
    sampler chooser;
    const auto logits = random_logits(5, 64, 1.5);
    std::vector<sampling_parameters> cases(6);
    for (auto& each : cases) each.temperature = 1.0;
    cases[1].temperature = 0.6;
    cases[2].top_k = 7;
    cases[3].top_p = 0.8;
    cases[4].min_p = 0.1;
    cases[5] = {.temperature = 1.4,
                .top_k = 30,
                .top_p = 0.9,
                .min_p = 0.02,
                .repetition_penalty = 1.3,
                .seed = 0};
    token_set occurred(64);
    occurred.add(std::vector<int32_t>{3, 9, 9, 40});
    for (size_t number = 0; number < cases.size(); ++number) {
        CAPTURE(number);
        const auto expected = chooser.distribution(logits, cases[number], occurred);
        std::vector<uint64_t> counts(64, 0);
        const uint64_t draws = 40000;
        for (uint64_t i = 0; i < draws; ++i) {
            // Over positions of one text, and over texts with different seeds.
            cases[number].seed = number % 2 == 0 ? 11 : i;
            const uint64_t position = number % 2 == 0 ? i : 3;
            const int32_t token = chooser.sample(logits, cases[number], occurred, position).token;
            REQUIRE(expected[size_t(token)] > 0);
            ++counts[size_t(token)];
        }
        CHECK(std::abs(compare(expected, counts, draws).deviate()) < 4);
    }
}

TEST_CASE("neighbouring positions and seeds draw independently") {
    sampler chooser;
    const std::vector<float> logits(8, 0.0f);
    sampling_parameters parameters;
    parameters.temperature = 1;
    std::vector<uint64_t> pairs(64, 0), diagonals(64, 0);
    for (uint64_t i = 0; i < 20000; ++i) {
        parameters.seed = 3;
        const int32_t here = chooser.sample(logits, parameters, nothing, i).token;
        const int32_t next = chooser.sample(logits, parameters, nothing, i + 1).token;
        parameters.seed = 4;
        const int32_t beside = chooser.sample(logits, parameters, nothing, i).token;
        ++pairs[size_t(here * 8 + next)];
        ++diagonals[size_t(here * 8 + beside)];
    }
    CHECK(std::abs(compare(std::vector<double>(64, 1.0 / 64), pairs, 20000).deviate()) < 4);
    CHECK(std::abs(compare(std::vector<double>(64, 1.0 / 64), diagonals, 20000).deviate()) < 4);
}

TEST_CASE("a draw depends on seed and position alone") {
    sampler first, second;
    sampling_parameters parameters;
    parameters.temperature = 1.0;
    parameters.seed = 42;
    const auto logits = random_logits(6, 1000);
    std::vector<int32_t> tokens;
    for (uint64_t i = 0; i < 50; ++i) {
        tokens.push_back(first.sample(logits, parameters, nothing, i).token);
    }
    for (uint64_t i = 50; i-- > 0;) {
        second.sample(random_logits(uint32_t(i), 30), {}, nothing, 0);
        CHECK(second.sample(logits, parameters, nothing, i).token == tokens[i]);
    }
}

TEST_CASE("parameters out of range are refused by name") {
    const auto message = [](sampling_parameters parameters) -> std::string {
        try {
            check_sampling_parameters(parameters);
        } catch (const error& caught) {
            CHECK(caught.status() == SLUICE_INVALID);
            return caught.what();
        }
        return "";
    };
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK(message({}) == "");
    CHECK(message({.temperature = -1}).find("temperature") != std::string::npos);
    CHECK(message({.temperature = nan}).find("temperature") != std::string::npos);
    CHECK(message({.top_p = 0}).find("top_p") != std::string::npos);
    CHECK(message({.top_p = 1.5}).find("top_p") != std::string::npos);
    CHECK(message({.min_p = 2}).find("min_p") != std::string::npos);
    CHECK(message({.repetition_penalty = 0}).find("repetition_penalty") != std::string::npos);
}
