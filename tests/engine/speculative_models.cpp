// Drafts with real models and backends: whole configurations with and without [speculation].
#include "engine/engine.hpp"

#include "engine/logits_runner.hpp"
#include "engine/model_fixture.hpp"

#include <doctest/doctest.h>

using namespace sluice;
using namespace sluice::test;

namespace {

// Tokens come back again and again, so that there is something to look up.
std::vector<std::vector<int32_t>> repeating_prompts(const golden_file& golden) {
    std::vector<std::vector<int32_t>> prompts;
    for (const std::vector<int32_t>& tokens : golden.tokens) {
        for (const size_t length : {3u, 7u, 12u}) {
            std::vector<int32_t> prompt;
            for (size_t i = 0; i < 30; ++i) prompt.push_back(tokens[i % length]);
            prompts.push_back(prompt);
        }
    }
    return prompts;
}

generation_request request_for(const std::vector<int32_t>& prompt, size_t number) {
    generation_request request;
    request.token_ids = prompt;
    request.parameters.tokens_max = 60;
    request.parameters.end_tokens_stop = false;
    // Random weights repeat little by themselves; a penalty below 1 draws them back.
    if (number % 3 == 1) {
        request.parameters.sampling = {
            .temperature = 0.3, .min_p = 0.05, .repetition_penalty = 0.6, .seed = number};
    }
    if (number % 3 == 2) request.parameters.sampling.repetition_penalty = 0.6;
    return request;
}

std::vector<int32_t> tokens_of(generation& stream) {
    std::vector<int32_t> tokens;
    while (const auto event = stream.wait()) {
        tokens.insert(tokens.end(), event->token_ids.begin(), event->token_ids.end());
        if (event->finished) CHECK(event->reason == finish_reason::tokens_max);
    }
    return tokens;
}

struct run_result {
    std::vector<std::vector<int32_t>> texts;
    engine_statistics statistics;
};

run_result generate(const loaded_golden& loaded, const configuration& settings, bool together) {
    const auto made = engine::create(loaded.model, settings, *loaded.plugins);
    const auto prompts = repeating_prompts(read_golden("qwen3_moe"));
    run_result result;
    std::vector<std::shared_ptr<generation>> streams;
    for (size_t i = 0; i < prompts.size(); ++i) {
        streams.push_back(made->submit(request_for(prompts[i], i)));
        if (!together) streams.back()->join();
    }
    for (const auto& stream : streams) result.texts.push_back(tokens_of(*stream));
    result.statistics = made->statistics();
    return result;
}

const std::vector<std::string> with_drafts{"speculation.method=prompt_lookup",
                                           "speculation.ngram_min=1", "speculation.row_cost=0.05"};

} // namespace

TEST_CASE("on a batch-invariant backend texts are the same with drafts, alone and together") {
    for (const std::string& family : {std::string("qwen3_moe"), std::string("deepseek_v3")}) {
        CAPTURE(family);
        const loaded_golden loaded(golden_configuration(family, "reference"));
        auto properties = SLUICE_INIT(sluice_backend_properties);
        plugin_call call = loaded.model->backend().call("properties");
        call = loaded.model->backend().backend().properties(loaded.model->backend().handle(),
                                                            &properties, call.error());
        REQUIRE(properties.batch_invariant == 1);
        const run_result plain = generate(loaded, loaded.settings, false);
        CHECK(plain.statistics.draft_tokens == 0);
        for (const bool together : {false, true}) {
            CAPTURE(together);
            const run_result drafted =
                generate(loaded, golden_configuration(family, "reference", with_drafts), together);
            CHECK(drafted.texts == plain.texts);
            CHECK(drafted.statistics.draft_tokens_accepted > 30);
            CHECK(drafted.statistics.draft_tokens > drafted.statistics.draft_tokens_accepted);
        }
    }
}

// Sums of another order may decide between near ties, and only between these.
TEST_CASE("where rows of a step matter, greedy texts with drafts part only at near ties") {
    uint64_t accepted = 0;
    for (const std::string& family : golden_families) {
        CAPTURE(family);
        const loaded_golden loaded(golden_configuration(family, "onednn"));
        const run_result plain = generate(loaded, loaded.settings, false);
        const run_result drafted =
            generate(loaded, golden_configuration(family, "onednn", with_drafts), false);
        accepted += drafted.statistics.draft_tokens_accepted;
        const auto prompts = repeating_prompts(read_golden("qwen3_moe"));
        logits_runner runner(loaded.model);
        for (size_t i = 0; i < prompts.size(); i += 3) { // the greedy ones
            CAPTURE(i);
            const auto& left = plain.texts[i];
            const auto& right = drafted.texts[i];
            const auto parts = std::mismatch(left.begin(), left.end(), right.begin(), right.end());
            if (parts.first == left.end()) continue;
            std::vector<int32_t> known = prompts[i];
            known.insert(known.end(), left.begin(), parts.first);
            const std::vector<float> logits = runner.forward(known);
            const auto row = std::span(logits).last(runner.vocabulary_size());
            CHECK(std::fabs(row[size_t(*parts.first)] - row[size_t(*parts.second)]) < 1e-3f);
        }
    }
    CHECK(accepted > 100);
}

TEST_CASE("steps with drafts are warmed with the others") {
    const loaded_golden loaded(golden_configuration("qwen3_moe", "onednn"));
    model_runner runner(loaded.model);
    // One sequence: 1, 2, 4, 8 rows; two: 2 to 16; four (the most): 4 to 32; and a prompt's 64.
    CHECK(runner.warm(warm_sizes::decode, 7) == 4 + 4 + 4 + 1);
    CHECK(runner.prepared_count() == 13);
}
