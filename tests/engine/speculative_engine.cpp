// Drafts in the engine: whatever is guessed, the texts are those without.
#include "engine/engine_fixture.hpp"
#include "engine/plan_check.hpp"
#include "engine/prompt_lookup.hpp"

#include "base/error.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <random>

using namespace sluice;
using namespace sluice::test;
using namespace std::chrono_literals;

namespace {

// Guesses what the fake model will say, save for a share of wrong tokens.
class knowing_source final : public draft_source {
  public:
    knowing_source(sampling_parameters parameters, double wrong_share)
        : parameters_(parameters), wrong_share_(wrong_share) {}

    void propose(std::span<const int32_t> known, uint32_t count_max,
                 std::vector<int32_t>& draft) override {
        draft = fake_executor::expected({known.begin(), known.end()}, count_max, letter_count,
                                        parameters_);
        for (int32_t& token : draft) {
            if (double(random_() % 1000) < 1000 * wrong_share_) token = (token + 1) % letter_count;
        }
    }

  private:
    sampling_parameters parameters_;
    double wrong_share_;
    std::mt19937 random_{3};
};

// row_cost 0: every guess is checked, right or not.
speculation_options knowing(double wrong_share, const sampling_parameters& parameters = {},
                            uint32_t draft_tokens_max = 6) {
    return {[=] { return std::make_unique<knowing_source>(parameters, wrong_share); },
            draft_tokens_max, 0.0};
}

sampling_parameters drawing(uint64_t seed) {
    return {.temperature = 0.9,
            .top_k = 20,
            .top_p = 0.95,
            .min_p = 0.02,
            .repetition_penalty = 1.2,
            .seed = seed};
}

} // namespace

TEST_CASE("with any draft, tokens, text and log-probabilities are those without") {
    for (const double wrong_share : {0.0, 0.3, 1.0}) {
        for (uint64_t seed = 0; seed < 12; ++seed) {
            CAPTURE(wrong_share);
            CAPTURE(seed);
            // Greedy, greedy with a penalty, and drawn.
            sampling_parameters sampling = drawing(seed);
            if (seed % 3 == 0) sampling = {};
            if (seed % 3 == 1) sampling = {.repetition_penalty = 1.5};
            const std::vector<int32_t> prompt{int32_t(seed), 4, 11};
            generation_request request = request_for(prompt, 50);
            request.parameters.sampling = sampling;
            engine_fixture plain;
            engine_fixture drafted(64, {16, 4}, {}, nullptr, knowing(wrong_share, sampling));
            plain.executor->samples = drafted.executor->samples = seed % 2 == 0;
            const answer expected = read_all(*plain->submit(request));
            const answer found = read_all(*drafted->submit(request));
            CHECK(found.tokens == fake_executor::expected(prompt, 50, letter_count, sampling));
            CHECK(found.tokens == expected.tokens);
            CHECK(found.text == expected.text);
            CHECK(found.log_probabilities == expected.log_probabilities);
            CHECK(found.last.reason == finish_reason::tokens_max);
            const generation_usage& usage = found.last.usage;
            CHECK(usage.completion_tokens == 50);
            CHECK(usage.draft_tokens > 0);
            CHECK(drafted->statistics().draft_tokens == usage.draft_tokens);
            CHECK(drafted->statistics().draft_tokens_accepted == usage.draft_tokens_accepted);
            // Each guess that is right spares a step.
            CHECK(drafted.executor->steps == 50 - usage.draft_tokens_accepted);
            if (wrong_share == 0.0) {
                CHECK(usage.draft_tokens_accepted == usage.draft_tokens);
                CHECK(drafted.executor->steps == 8);
            }
            if (wrong_share == 1.0) CHECK(usage.draft_tokens_accepted == 0);
            CHECK(expected.last.usage.draft_tokens == 0);
        }
    }
}

TEST_CASE(
    "texts that run together with drafts are those they get alone, and nothing stale is kept") {
    std::mt19937 random(8);
    uint64_t accepted = 0, preemptions = 0;
    // Pools that are too small for all, and one that is not; tenants share what is cached.
    for (const uint32_t blocks : {16u, 24u, 64u}) {
        const scheduler_limits limits{12, 5};
        engine_fixture engine(
            blocks, limits, [&](const step_plan& plan) { check_plan(plan, limits, 4); }, nullptr,
            knowing(0.25));
        std::vector<std::vector<int32_t>> expected;
        std::vector<std::shared_ptr<generation>> streams;
        // Most prompts begin with an earlier text and go on otherwise than that did, which is where
        // a block of wrong guesses would be found.
        std::vector<std::vector<int32_t>> texts{{1, 2, 3}};
        for (int i = 0; i < 60; ++i) {
            std::vector<int32_t> prompt = texts[random() % texts.size()];
            prompt.resize(std::min<size_t>(prompt.size(), 1 + random() % 24));
            prompt.push_back(int32_t(random() % letter_count));
            generation_request request = request_for(prompt, 1 + uint32_t(random() % 30));
            // Greedy ones are guessed right, drawn ones now and then.
            if (i % 3 == 0) request.parameters.sampling = drawing(uint64_t(i));
            expected.push_back(fake_executor::expected(prompt, request.parameters.tokens_max,
                                                       letter_count, request.parameters.sampling));
            prompt.insert(prompt.end(), expected.back().begin(), expected.back().end());
            texts.push_back(prompt);
            streams.push_back(engine->submit(request));
            if (i % 8 == 7) streams.back()->join();
        }
        for (size_t i = 0; i < streams.size(); ++i) {
            CAPTURE(i);
            CHECK(read_all(*streams[i]).tokens == expected[i]);
        }
        const engine_statistics statistics = engine->statistics();
        CHECK(statistics.requests_failed == 0);
        CHECK(statistics.prompt_tokens_reused > 0);
        CHECK(statistics.draft_tokens > statistics.draft_tokens_accepted);
        accepted += statistics.draft_tokens_accepted;
        preemptions += statistics.preemptions;
    }
    CHECK(accepted > 100);
    CHECK(preemptions > 0);
}

TEST_CASE("prompt lookup finds what is there to find") {
    // A penalty below 1 draws the text back to what it has said.
    sampling_parameters sampling{.temperature = 0.1, .repetition_penalty = 0.2};
    engine_fixture engine(64, {16, 4}, {}, nullptr,
                          {[] { return std::make_unique<prompt_lookup>(1, 3); }, 7, 0.1});
    const std::vector<int32_t> prompt{5, 6};
    uint32_t accepted = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
        sampling.seed = seed;
        generation_request request = request_for(prompt, 60);
        request.parameters.sampling = sampling;
        const answer found = read_all(*engine->submit(request));
        CHECK(found.tokens == fake_executor::expected(prompt, 60, letter_count, sampling));
        accepted += found.last.usage.draft_tokens_accepted;
    }
    CHECK(accepted > 20);
}

TEST_CASE("stop strings and end tokens within an accepted draft end the text where they stand") {
    engine_fixture plain;
    engine_fixture drafted(64, {16, 4}, {}, nullptr, knowing(0.0));
    int stopped = 0, ended = 0;
    for (int32_t first = 0; first < 26; ++first) {
        const std::string text = letters(fake_executor::expected({first}, 40, letter_count));
        for (size_t place = 3; place < 12; ++place) {
            generation_request request = request_for({first}, 40);
            request.parameters.end_tokens_stop = true;
            request.parameters.stop = {"never-in-the-text", text.substr(place, 2)};
            const answer expected = read_all(*plain->submit(request));
            const answer found = read_all(*drafted->submit(request));
            CHECK(found.text == expected.text);
            CHECK(found.tokens == expected.tokens);
            CHECK(found.last.reason == expected.last.reason);
            CHECK(found.last.stop == expected.last.stop);
            stopped += found.last.reason == finish_reason::stop_text;
            ended += found.last.reason == finish_reason::end_token;
        }
    }
    CHECK(stopped > 100);
    CHECK(ended > 0);
}

TEST_CASE("no draft goes past the tokens asked for, nor past the context") {
    for (uint32_t count = 1; count <= 20; ++count) {
        CAPTURE(count);
        uint32_t last_position = 0;
        engine_fixture engine(
            4, {16, 4}, // 16 tokens
            [&](const step_plan& plan) {
                for (const int32_t position : plan.position)
                    last_position = std::max(last_position, uint32_t(position));
            },
            nullptr, knowing(0.0, {}, 15));
        const answer found = read_all(*engine->submit(request_for({1, 2, 3}, count)));
        const uint32_t fitting = std::min(count, 13u);
        CHECK(found.tokens == fake_executor::expected({1, 2, 3}, fitting, letter_count));
        CHECK(found.last.reason
              == (count <= 13 ? finish_reason::tokens_max : finish_reason::context_full));
        // The last token is sampled and never computed.
        CHECK(last_position == 3 + fitting - 2);
        CHECK(found.last.usage.draft_tokens == (fitting > 2 ? fitting - 2 : 0));
    }
}

TEST_CASE("cancelling and failing steps, with drafts on their way") {
    std::atomic<bool> fails{false};
    engine_fixture engine(
        256, {16, 4},
        [&](const step_plan&) {
            std::this_thread::sleep_for(1ms);
            if (fails.exchange(false)) fail(SLUICE_DEVICE_LOST, "the test's device failed");
        },
        nullptr, knowing(0.5));
    const auto endless = engine->submit(request_for({1, 2}, 1000));
    const auto other = engine->submit(request_for({1, 3}, 60));
    REQUIRE(endless->wait(10s).has_value());
    endless->cancel();
    const answer cut = read_all(*endless);
    CHECK(cut.last.reason == finish_reason::cancelled);
    const auto told = uint32_t(cut.tokens.size()) + 1; // one was waited for
    CHECK(cut.last.usage.completion_tokens >= told);
    CHECK(read_all(*other).tokens == fake_executor::expected({1, 3}, 60, letter_count));

    const auto lost = engine->submit(request_for({1, 2}, 1000));
    REQUIRE(lost->wait(10s).has_value());
    fails = true;
    CHECK(read_all(*lost).last.reason == finish_reason::failed);
    CHECK(read_all(*engine->submit(request_for({1, 2}, 60))).tokens
          == fake_executor::expected({1, 2}, 60, letter_count));
}

TEST_CASE("decode steps are counted with drafts as without") {
    engine_fixture engine(64, {16, 4}, {}, nullptr, knowing(0.0));
    read_all(*engine->submit(request_for({7, 4, 11, 11, 14}, 50)));
    // Of eight steps the first is the prompt's, and the next does not follow one that decodes.
    CHECK(engine->statistics().decode_steps == 6);
}

// Where the model itself decides, every text of three tokens must come as often as its probability
// says, whatever is guessed: here always the likeliest token, which is right too often to be fair.
TEST_CASE("drawn tokens have the model's distribution") {
    constexpr uint32_t size = 4;
    constexpr uint64_t count = 6000;
    const std::vector<int32_t> prompt{1};
    sampling_parameters sampling{.temperature = 1.3, .repetition_penalty = 1.2};

    class likeliest_source final : public draft_source {
      public:
        void propose(std::span<const int32_t> known, uint32_t count_max,
                     std::vector<int32_t>& draft) override {
            draft =
                fake_executor::expected({known.begin(), known.end()}, count_max, size); // greedy
        }
    };
    engine_options options;
    options.pool = {4, {{64, 0}}, true};
    options.limits = {16, 4};
    options.context = {nullptr, {}, size, 64};
    options.speculation = {[] { return std::make_unique<likeliest_source>(); }, 4, 0.0};
    engine drafted(std::make_unique<fake_executor>(size, options.pool), options);

    std::array<double, size * size * size> found{};
    uint64_t accepted = 0;
    for (uint64_t seed = 0; seed < count; ++seed) {
        generation_request request = request_for(prompt, 3);
        request.parameters.sampling = sampling;
        request.parameters.sampling.seed = seed;
        const answer each = read_all(*drafted.submit(request));
        REQUIRE(each.tokens.size() == 3);
        ++found[size_t((each.tokens[0] * int32_t(size) + each.tokens[1]) * int32_t(size)
                       + each.tokens[2])];
        accepted += each.last.usage.draft_tokens_accepted;
    }
    CHECK(accepted > count / 10);

    sampler chooser;
    double statistic = 0;
    for (size_t cell = 0; cell < found.size(); ++cell) {
        uint64_t hash = mix(fake_executor::seed, prompt[0]);
        token_set occurred(size);
        occurred.add(prompt);
        double probability = 1;
        for (const size_t token : {cell / (size * size), cell / size % size, cell % size}) {
            const auto logits = fake_executor::logits_of(hash, size);
            probability *= chooser.distribution(logits, sampling, occurred)[token];
            occurred.add(int32_t(token));
            hash = mix(hash, int32_t(token));
        }
        const double expected = probability * double(count);
        statistic += (found[cell] - expected) * (found[cell] - expected) / expected;
    }
    // Chi-square with 63 degrees of freedom is over 113 once in 10,000 times; the seeds are fixed.
    CHECK(statistic < 113);
}
