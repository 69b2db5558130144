// However a sequence is cut into steps, and whichever operations are expanded, the logits are the
// same to 1e-4 in float32, and the golden ones to 1e-3.
#include "engine/logits_runner.hpp"

#include "base/error.hpp"
#include "engine/model_fixture.hpp"
#include "program/operation_table.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>

using namespace sluice;
using namespace sluice::test;

namespace {

constexpr float golden_tolerance = 1e-3f;
constexpr float equivalence_tolerance = 1e-4f;
// Of logits of the golden models; measured: MEASURED.
constexpr float int8_cache_tolerance = 0.1f;

const std::vector<std::string> backends{"reference", "onednn"};

// Of logits: where a router nearly ties, a small change makes another expert of some rows.
float median_difference(std::span<const float> left, std::span<const float> right) {
    REQUIRE(left.size() == right.size());
    std::vector<float> differences;
    for (size_t i = 0; i < left.size(); ++i) differences.push_back(std::abs(left[i] - right[i]));
    const auto middle = differences.begin() + static_cast<ptrdiff_t>(differences.size() / 2);
    std::nth_element(differences.begin(), middle, differences.end());
    return *middle;
}

// Rows of several requests run together, by sequence.
std::map<size_t, std::vector<float>> run_all(logits_runner& runner,
                                             const std::vector<logits_request>& requests) {
    std::map<size_t, std::vector<float>> rows;
    runner.run(requests, [&](size_t sequence, uint32_t, std::span<const float> logits) {
        rows[sequence].insert(rows[sequence].end(), logits.begin(), logits.end());
    });
    return rows;
}

} // namespace

TEST_CASE("whole, in chunks, one by one, mixed and with a reused prefix") {
    for (const std::string& backend : backends) {
        for (const std::string& family : golden_families) {
            CAPTURE(backend);
            CAPTURE(family);
            const loaded_golden loaded(golden_configuration(family, backend));
            const golden_file golden = read_golden(family);
            logits_runner runner(loaded.model);
            const std::vector<int32_t>& first = golden.tokens[0];
            const std::vector<int32_t>& second = golden.tokens[1];

            const std::vector<float> whole = runner.forward(first);
            const std::vector<float> other = runner.forward(second);
            CHECK(largest_difference(whole, golden.logits[0]) < golden_tolerance);
            CHECK(largest_difference(other, golden.logits[1]) < golden_tolerance);

            CHECK(largest_difference(runner.forward(first, 7), whole) < equivalence_tolerance);
            CHECK(largest_difference(runner.forward(first, 1), whole) < equivalence_tolerance);

            // One decodes while the other's prompt comes in chunks, and a third waits for room.
            auto mixed = run_all(runner, {{first, 1, false},
                                          {second, 5, false},
                                          {first, 0, false},
                                          {second, 1, false},
                                          {first, 11, false}});
            CHECK(largest_difference(mixed[0], whole) < equivalence_tolerance);
            CHECK(largest_difference(mixed[1], other) < equivalence_tolerance);
            CHECK(largest_difference(mixed[2], whole) < equivalence_tolerance);
            CHECK(largest_difference(mixed[3], other) < equivalence_tolerance);
            CHECK(largest_difference(mixed[4], whole) < equivalence_tolerance);

            const uint64_t reused_before = runner.pool().statistics().prefix_tokens_reused;
            auto reused = run_all(runner, {{first, 0, true}});
            CHECK(runner.pool().statistics().prefix_tokens_reused == reused_before + 32);
            const size_t width = runner.vocabulary_size();
            CHECK(largest_difference(reused[0], std::span(whole).subspan(32 * width))
                  < equivalence_tolerance);
        }
    }
}

TEST_CASE("a cache in int8 changes logits little, and the same in every backend") {
    for (const std::string& family : golden_families) {
        CAPTURE(family);
        const golden_file golden = read_golden(family);
        std::vector<std::vector<float>> whole;
        for (const std::string& backend : backends) {
            CAPTURE(backend);
            const loaded_golden loaded(
                golden_configuration(family, backend, {"model.cache_type=int8"}));
            logits_runner runner(loaded.model);
            whole.push_back(runner.forward(golden.tokens[0]));
            const float change = median_difference(whole.back(), golden.logits[0]);
            CHECK(change > 1e-5f); // it is in use
            MESSAGE(change);
            CHECK(change < int8_cache_tolerance);
            // Keys that differ in their last bits may become neighbouring whole numbers.
            CHECK(median_difference(runner.forward(golden.tokens[0], 1), whole.back())
                  < int8_cache_tolerance / 10);
        }
        CHECK(median_difference(whole[0], whole[1]) < int8_cache_tolerance / 10);
    }
}

TEST_CASE("greedy continuations are the golden ones where nothing nearly ties") {
    for (const std::string& backend : backends) {
        for (const std::string& family : golden_families) {
            CAPTURE(backend);
            CAPTURE(family);
            const loaded_golden loaded(golden_configuration(family, backend));
            const golden_file golden = read_golden(family);
            logits_runner runner(loaded.model);
            std::vector<int32_t> tokens = golden.tokens[0];
            tokens.insert(tokens.end(), golden.greedy.begin(), golden.greedy.end());
            const std::vector<float> logits = runner.forward(tokens);
            const size_t width = runner.vocabulary_size();
            const auto found = runner.greedy(golden.tokens[0], uint32_t(golden.greedy.size()));
            for (size_t i = 0; i < golden.greedy.size(); ++i) {
                if (found[i] == golden.greedy[i]) continue;
                const auto row =
                    std::span(logits).subspan((golden.tokens[0].size() + i - 1) * width, width);
                const float margin =
                    std::fabs(row[size_t(found[i])] - row[size_t(golden.greedy[i])]);
                CHECK(margin < 0.01f);
                break; // what follows another token may differ
            }
        }
    }
}

TEST_CASE("composites and their expansions compute the same") {
    for (const std::string& family : golden_families) {
        CAPTURE(family);
        const loaded_golden claimed(golden_configuration(family, "onednn"));
        const golden_file golden = read_golden(family);
        const std::vector<float> expected = logits_runner(claimed.model).forward(golden.tokens[0]);
        // Each kind alone, then all of them.
        std::vector<uint32_t> kinds;
        for (const program_operation& operation : claimed.model->model().step.operations()) {
            if (is_composite(operation.kind)
                && std::find(kinds.begin(), kinds.end(), operation.kind) == kinds.end()) {
                kinds.push_back(operation.kind);
            }
        }
        REQUIRE_FALSE(kinds.empty());
        kinds.push_back(SLUICE_OP_COUNT);
        for (const uint32_t kind : kinds) {
            CAPTURE(operation_name(kind));
            model_load_options options;
            options.expand = [kind](const program_operation& operation) {
                return kind == SLUICE_OP_COUNT || operation.kind == kind;
            };
            const loaded_golden expanded(golden_configuration(family, "onednn"), options);
            CHECK_FALSE(expanded.model->report().expansions.empty());
            CHECK(expanded.model->report().operations.size()
                  == expanded.model->step_program().operations().size());
            CHECK(largest_difference(logits_runner(expanded.model).forward(golden.tokens[0]),
                                     expected)
                  < equivalence_tolerance);
        }
    }
}

TEST_CASE("what the backend samples is what the host finds in the logits") {
    for (const std::string& backend : backends) {
        for (const bool expanded : {false, true}) {
            CAPTURE(backend);
            CAPTURE(expanded);
            model_load_options options;
            options.expand = [&](const program_operation& operation) {
                return expanded && operation.kind == SLUICE_OP_SAMPLE;
            };
            const loaded_golden loaded(golden_configuration("qwen3_moe", backend), options);
            CHECK(loaded.model->report().host_sampling.empty());
            model_runner runner(loaded.model);
            kv_pool pool(runner.pool_options());
            scheduler plans({64, 4}, pool);
            scheduled_request request;
            request.tokens = read_golden("qwen3_moe").tokens[0];
            request.tokens_max = uint32_t(request.tokens.size());
            request.logits = logits_wanted::all;
            plans.add(1, request);
            runner.run(plans.plan());
            const auto logits = runner.logits();
            const auto greedy = runner.greedy();
            REQUIRE(greedy.size() == request.tokens.size());
            for (size_t row = 0; row < greedy.size(); ++row) {
                const size_t width = runner.vocabulary_size();
                const sampled_token expected =
                    sampler().sample(logits.subspan(row * width, width), {}, token_set(), 0);
                CHECK(greedy[row].token == expected.token);
                CHECK(std::fabs(greedy[row].log_probability - expected.log_probability) < 1e-5f);
            }
            plans.complete();
        }
    }
}

TEST_CASE("sizes that are warmed are there when a step needs them") {
    const loaded_golden loaded(golden_configuration("qwen3_moe", "onednn"));
    const auto sizes = [&](warm_sizes which) {
        model_runner runner(loaded.model);
        const size_t count = runner.warm(which);
        CHECK(count == runner.prepared_count());
        return count;
    };
    // Up to 4 sequences and 64 rows; contexts have one size.
    CHECK(sizes(warm_sizes::none) == 0);
    CHECK(sizes(warm_sizes::decode) == 3 + 1);
    CHECK(sizes(warm_sizes::all) == 3 + 7);

    model_runner runner(loaded.model);
    runner.warm(warm_sizes::decode);
    check_continuation(runner, "qwen3_moe");
    CHECK(runner.prepared_count() == 4 + 1); // and the prompt's own
}

TEST_CASE("latent attention absorbed and expanded computes the same") {
    for (const std::string& backend : backends) {
        for (const std::string& family : {std::string("deepseek_v2"), std::string("deepseek_v3")}) {
            CAPTURE(backend);
            CAPTURE(family);
            const golden_file golden = read_golden(family);
            std::vector<std::vector<float>> found;
            for (const uint32_t form : {SLUICE_MLA_FORM_EXPANDED, SLUICE_MLA_FORM_ABSORBED}) {
                model_load_options options;
                options.mla_form = form;
                const loaded_golden loaded(golden_configuration(family, backend), options);
                found.push_back(logits_runner(loaded.model).forward(golden.tokens[0]));
                found.push_back(logits_runner(loaded.model).forward(golden.tokens[0], 1));
            }
            for (size_t i = 1; i < found.size(); ++i) {
                CHECK(largest_difference(found[i], found[0]) < equivalence_tolerance);
            }
        }
    }
}

TEST_CASE("a sub-program router computes what the specification does") {
    for (const std::string& family : {std::string("mixtral"), std::string("deepseek_v3")}) {
        CAPTURE(family);
        const golden_file golden = read_golden(family);
        const loaded_golden loaded(
            golden_configuration(family, "onednn", {"router=\"subprogram\""}));
        CHECK(loaded.model->report().router == "subprogram");
        CHECK(largest_difference(logits_runner(loaded.model).forward(golden.tokens[0]),
                                 golden.logits[0])
              < golden_tolerance);
    }
}

TEST_CASE("two runners of one model do not see each other's caches") {
    const loaded_golden loaded(golden_configuration("mixtral", "onednn"));
    const golden_file golden = read_golden("mixtral");
    logits_runner left(loaded.model), right(loaded.model);
    const auto expected = left.forward(golden.tokens[0]);
    const auto other = right.forward(golden.tokens[1]);
    CHECK(largest_difference(left.forward(golden.tokens[1]), other) < equivalence_tolerance);
    CHECK(largest_difference(right.forward(golden.tokens[0]), expected) < equivalence_tolerance);
}

TEST_CASE("what the model cannot do is said when it is loaded") {
    const auto message = [](const std::vector<std::string>& overrides) -> std::string {
        try {
            const loaded_golden loaded(golden_configuration("mixtral", "reference", overrides));
        } catch (const error& caught) {
            return caught.what();
        }
        return "loaded";
    };
    const auto has = [](const std::string& text, const std::string& part) {
        CAPTURE(text);
        return text.find(part) != std::string::npos;
    };
    CHECK(has(message({"model.path=/no/such/model"}), "model.path"));
    CHECK(has(message({"engine.context_tokens_max=5000"}), "engine.cache_tokens"));
    CHECK(
        has(message({"engine.cache_tokens=4", "engine.context_tokens_max=4"}), "tokens_per_block"));
    CHECK(has(message({"router=nobody"}), "nobody"));
    CHECK(has(message({"backend=nobody"}), "nobody"));
}

TEST_CASE("the report names a kernel for every operation and a layout for every weight") {
    const loaded_golden loaded(golden_configuration("deepseek_v3", "onednn"));
    const explain_report& report = loaded.model->report();
    CHECK(report.backend == "onednn");
    CHECK(report.operations.size() == loaded.model->step_program().operations().size());
    for (const operation_report& each : report.operations) CHECK_FALSE(each.kernel.empty());
    CHECK(report.weights.size() == loaded.model->model().weights.size());
    for (const weight_report& each : report.weights) {
        CAPTURE(each.name);
        CHECK_FALSE(each.stored.empty());
        CHECK_FALSE(each.prepared.empty());
        CHECK(each.stored_bytes > 0);
        CHECK((each.prepared_bytes > 0 || each.source_kept));
    }
    CHECK(loaded.model->fingerprint().size() == 64);
    const loaded_golden again(golden_configuration("deepseek_v3", "onednn"));
    CHECK(again.model->fingerprint() == loaded.model->fingerprint());
    const loaded_golden elsewhere(golden_configuration("deepseek_v3", "reference"));
    CHECK(elsewhere.model->fingerprint() != loaded.model->fingerprint());
}
