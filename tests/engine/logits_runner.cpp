#include "engine/logits_runner.hpp"

#include "engine/fake_executor.hpp"

#include <doctest/doctest.h>

#include <map>
#include <random>

using namespace sluice;
using namespace sluice::test;

namespace {

constexpr uint32_t vocabulary = 50;

struct fixture {
    fake_executor* executor = nullptr;
    std::unique_ptr<logits_runner> runner;

    explicit fixture(scheduler_limits limits = {16, 4}, uint32_t blocks = 64) {
        const kv_pool_options pool{4, {{blocks, 0}}, true};
        auto owned = std::make_unique<fake_executor>(vocabulary, pool);
        executor = owned.get();
        runner = std::make_unique<logits_runner>(std::move(owned), pool, limits);
    }
};

std::vector<int32_t> random_tokens(uint32_t seed, size_t count) {
    std::mt19937 random(seed);
    std::vector<int32_t> tokens(count);
    for (int32_t& token : tokens) token = int32_t(random() % vocabulary);
    return tokens;
}

std::vector<float> expected_rows(const std::vector<int32_t>& tokens) {
    std::vector<float> rows;
    uint64_t hash = fake_executor::seed;
    for (const int32_t token : tokens) {
        hash = mix(hash, token);
        const auto row = fake_executor::logits_of(hash, vocabulary);
        rows.insert(rows.end(), row.begin(), row.end());
    }
    return rows;
}

} // namespace

TEST_CASE("all logits, whole, in chunks and one by one") {
    fixture made;
    const auto tokens = random_tokens(1, 45);
    const auto expected = expected_rows(tokens);
    CHECK(made.runner->forward(tokens) == expected);
    CHECK(made.runner->forward(tokens, 7) == expected);
    const uint64_t before = made.executor->steps;
    CHECK(made.runner->forward(tokens, 1) == expected);
    CHECK(made.executor->steps == before + 45);
}

TEST_CASE("sequences of different chunk sizes share steps") {
    fixture made({12, 4}, 32);
    std::vector<logits_request> requests;
    for (uint32_t i = 0; i < 9; ++i) {
        requests.push_back({random_tokens(i, 5 + i * 4), i % 3 == 0 ? 1u : 0u, false});
    }
    std::map<size_t, std::vector<float>> rows;
    std::map<size_t, uint32_t> next;
    made.runner->run(requests,
                     [&](size_t sequence, uint32_t position, std::span<const float> logits) {
                         CHECK(position == next[sequence]++);
                         rows[sequence].insert(rows[sequence].end(), logits.begin(), logits.end());
                     });
    for (size_t i = 0; i < requests.size(); ++i)
        CHECK(rows[i] == expected_rows(requests[i].tokens));
}

TEST_CASE("a reused prefix gives the rest of the rows") {
    fixture made;
    const auto tokens = random_tokens(4, 30);
    const auto expected = expected_rows(tokens);
    made.runner->forward(tokens);
    const logits_request again{tokens, 0, true};
    uint32_t first = UINT32_MAX;
    made.runner->run(std::span(&again, 1), [&](size_t, uint32_t position,
                                               std::span<const float> logits) {
        first = std::min(first, position);
        CHECK(std::equal(logits.begin(), logits.end(), expected.begin() + position * vocabulary));
    });
    CHECK(first == 28);
}

TEST_CASE("greedy continuations, and errors that leave the runner whole") {
    fixture made;
    const auto prompt = random_tokens(9, 20);
    CHECK(made.runner->greedy(prompt, 12) == fake_executor::expected(prompt, 12, vocabulary));
    made.executor->before_step = [](const step_plan&) { fail(SLUICE_INTERNAL, "broken"); };
    CHECK_THROWS_AS(made.runner->forward(prompt), error);
    CHECK_THROWS_AS(made.runner->greedy(prompt, 3), error);
    made.executor->before_step = {};
    CHECK(made.runner->forward(prompt) == expected_rows(prompt));
    CHECK_THROWS_AS(made.runner->forward(std::vector<int32_t>{1, vocabulary}), error);
    CHECK_THROWS_AS(made.runner->forward(std::vector<int32_t>{}), error);
    CHECK_THROWS_AS(made.runner->forward(random_tokens(1, 257)), error);
    CHECK(made.runner->forward(prompt) == expected_rows(prompt));
}
