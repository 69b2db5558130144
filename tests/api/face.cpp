// The C++ face of the C API.
#include <sluice/sluice.hpp>

#include "api/api_fixture.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace api_test;
namespace embed = sluice::embed;

TEST_CASE("a request as a loop, as a callback and in one piece") {
    auto runtime = embed::runtime::from_text(toml_for("qwen3", "onednn"));
    const auto asked = request_for(prompt(4));
    std::vector<int32_t> by_loop;
    bool ended = false;
    for (const auto& event : runtime.submit(asked)) {
        CHECK_FALSE(ended);
        by_loop.insert(by_loop.end(), event.token_ids.begin(), event.token_ids.end());
        CHECK(event.log_probabilities.size() == event.token_ids.size());
        ended = event.finished();
    }
    CHECK(ended);
    CHECK(by_loop.size() == 12);

    std::vector<int32_t> by_callback;
    auto called = runtime.submit(asked, [&](const embed::event& event) {
        by_callback.insert(by_callback.end(), event.token_ids.begin(), event.token_ids.end());
    });
    called.wait();
    CHECK(called.finished());
    CHECK(by_callback == by_loop);

    const embed::event whole = runtime.generate(asked);
    CHECK(whole.token_ids == by_loop);
    CHECK(whole.finish == SLUICE_FINISH_TOKENS_MAX);
    CHECK(whole.usage.completion_tokens == 12);
    CHECK(whole.usage.prompt_tokens == 10);
    CHECK(whole.usage.prompt_tokens_reused == 8);
}

TEST_CASE("the same seed gives the same text, another one another") {
    auto runtime = embed::runtime::from_text(toml_for("qwen3_moe", "onednn"));
    auto asked = request_for(prompt(7));
    asked.temperature = 1.0;
    asked.tokens_max = 30;
    asked.seed = 5;
    const auto first = runtime.generate(asked).token_ids;
    // Once more, in the company of others.
    auto company = request_for(prompt(90, 40));
    company.temperature = 1.0;
    company.tokens_max = 60;
    auto beside = runtime.submit(company);
    CHECK(runtime.generate(asked).token_ids == first);
    asked.seed = 6;
    CHECK(runtime.generate(asked).token_ids != first);
}

TEST_CASE("guesses of speculation are counted, and the tokens are those without") {
    // Single tokens are looked up, and a penalty below 1 draws the text back to what was said.
    auto asked = request_for(prompt(4));
    asked.repetition_penalty = 0.5;
    asked.tokens_max = 40;
    auto plain = embed::runtime::from_text(toml_for("qwen3_moe", "reference"));
    auto drafted = embed::runtime::from_text(
        toml_for("qwen3_moe", "reference",
                 "[speculation]\nmethod = \"prompt_lookup\"\nngram_min = 1\nrow_cost = 0.1\n"));
    const embed::event expected = plain.generate(asked);
    const embed::event found = drafted.generate(asked);
    CHECK(found.token_ids == expected.token_ids);
    CHECK(expected.usage.draft_tokens == 0);
    CHECK(found.usage.draft_tokens_accepted > 0);
    CHECK(found.usage.draft_tokens >= found.usage.draft_tokens_accepted);
}

TEST_CASE("what a callback throws ends the request and comes out of wait") {
    auto runtime = embed::runtime::from_text(toml_for("llama", "onednn"));
    auto asked = request_for(prompt(4));
    int calls = 0;
    auto generation = runtime.submit(asked, [&](const embed::event&) {
        ++calls;
        throw std::runtime_error("enough");
    });
    CHECK_THROWS_WITH_AS(generation.wait(), "enough", std::runtime_error);
    CHECK(calls == 1);
    generation.wait(); // thrown once
    CHECK(runtime.generate(asked).token_ids.size() == 12);
}

TEST_CASE("cancelling, and destroying what still runs") {
    auto runtime = embed::runtime::from_text(toml_for("deepseek_v2", "reference"));
    auto asked = request_for(prompt(4));
    asked.tokens_max = 240;
    auto generation = runtime.submit(asked);
    REQUIRE(generation.next().has_value());
    generation.cancel();
    std::optional<embed::event> last;
    while (auto event = generation.next()) last = event;
    REQUIRE(last.has_value());
    CHECK(last->finish == SLUICE_FINISH_CANCELLED);
    CHECK(last->usage.completion_tokens < 240);
    {
        std::string context = "goes before the text would end";
        auto dropped = runtime.submit(asked, [&](const embed::event&) { context += "."; });
    }
    asked.timeout = std::chrono::milliseconds(1);
    CHECK(runtime.generate(asked).finish == SLUICE_FINISH_DEADLINE);
}

TEST_CASE("errors are exceptions with the message and status of the C API") {
    CHECK_THROWS_AS(embed::runtime::from_file("/no/such.toml"), embed::error);
    try {
        embed::runtime::from_text("backnd = 1");
        FAIL("accepted");
    } catch (const embed::error& caught) {
        CHECK(caught.status() == SLUICE_INVALID);
        CHECK(std::string(caught.what()).find("backnd") != std::string::npos);
    }
    auto runtime = embed::runtime::from_text(toml_for("llama", "reference"));
    CHECK_THROWS_AS(runtime.submit(embed::request("no tokenizer here")), embed::error);
    CHECK_THROWS_AS(runtime.tokenize("nor here"), embed::error);
    const embed::model_info info = runtime.info();
    CHECK(info.model_type == "llama");
    CHECK(info.expert_count == 0);
    CHECK(info.vocabulary_size == 512);
    CHECK(info.context_tokens_max == 256);
    CHECK_FALSE(info.has_tokenizer);
    CHECK(info.backend == "reference");
    CHECK(info.parameter_count > 0);
    CHECK(info.active_parameter_count <= info.parameter_count);
    CHECK(info.fingerprint.size() == 64);
    CHECK(embed::version() == sluice_version());
}

TEST_CASE("runtimes and generations move") {
    auto first = embed::runtime::from_text(toml_for("llama", "reference"));
    embed::runtime second = std::move(first);
    std::vector<int32_t> tokens;
    auto generation = second.submit(request_for(prompt(2)), [&](const embed::event& event) {
        tokens.insert(tokens.end(), event.token_ids.begin(), event.token_ids.end());
    });
    embed::generation moved = std::move(generation);
    moved.wait();
    CHECK(tokens.size() == 12);
    moved = second.submit(request_for(prompt(3)));
    CHECK(moved.next().has_value());
}
