#include "engine/result_store.hpp"

#include "base/error.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <set>

using namespace sluice;

namespace {

const stored_result sample{"text with \"quotes\"\n and \xC3\xA9",
                           {1, 2, 300000},
                           {-0.5f, -1e-9f, -80},
                           finish_reason::stop_text,
                           "\n\n"};

} // namespace

TEST_CASE("stored results come back as they were") {
    const stored_result read = parse_stored_result(stored_result_text(sample));
    CHECK(read.text == sample.text);
    CHECK(read.token_ids == sample.token_ids);
    CHECK(read.log_probabilities == sample.log_probabilities);
    CHECK(read.reason == sample.reason);
    CHECK(read.stop == sample.stop);
}

TEST_CASE("what is no stored result is refused") {
    const std::string good = stored_result_text(sample);
    CHECK_THROWS_AS(parse_stored_result(""), error);
    CHECK_THROWS_AS(parse_stored_result("[]"), error);
    for (size_t size = 0; size < good.size(); size += 3) {
        CHECK_THROWS_AS(parse_stored_result(good.substr(0, size)), error);
    }
    const auto changed = [&](const std::string& from, const std::string& to) {
        std::string text = good;
        return text.replace(text.find(from), from.size(), to);
    };
    CHECK_THROWS_AS(parse_stored_result(changed("\"version\":1", "\"version\":2")), error);
    CHECK_THROWS_AS(parse_stored_result(changed("stop_text", "failed")), error);
    CHECK_THROWS_AS(parse_stored_result(changed("[1,", "[-1,")), error);
    CHECK_THROWS_AS(parse_stored_result(changed("[1,", "[")), error); // one token fewer
}

TEST_CASE("keys tell apart everything that the answer depends on") {
    const std::vector<int32_t> prompt{1, 2, 3};
    generation_parameters base;
    base.sampling.temperature = 0.5;
    base.stop = {"a", "b"};
    std::set<std::string> keys{result_store::key_of(prompt, base, "")};
    size_t expected = 1;
    const auto differs = [&](auto&& change) {
        generation_parameters changed = base;
        change(changed);
        keys.insert(result_store::key_of(prompt, changed, ""));
        CHECK(keys.size() == ++expected);
    };
    differs([](auto& p) { p.tokens_max = 7; });
    differs([](auto& p) { p.end_tokens_stop = false; });
    differs([](auto& p) { p.sampling.temperature = 0.6; });
    differs([](auto& p) { p.sampling.temperature = 0; });
    differs([](auto& p) { p.sampling.top_k = 4; });
    differs([](auto& p) { p.sampling.top_p = 0.5; });
    differs([](auto& p) { p.sampling.min_p = 0.1; });
    differs([](auto& p) { p.sampling.repetition_penalty = 1.1; });
    differs([](auto& p) { p.sampling.seed = 1; });
    differs([](auto& p) { p.stop = {"a"}; });
    differs([](auto& p) { p.stop = {"ab"}; });
    keys.insert(result_store::key_of(prompt, base, "tenant"));
    keys.insert(result_store::key_of(std::vector<int32_t>{1, 2}, base, ""));
    CHECK(keys.size() == expected + 2);

    generation_parameters reordered = base;
    reordered.stop = {"b", "a"};
    CHECK(result_store::key_of(prompt, reordered, "") == result_store::key_of(prompt, base, ""));
    generation_parameters greedy = base, greedy_seeded = base;
    greedy.sampling.temperature = greedy_seeded.sampling.temperature = 0;
    greedy_seeded.sampling.seed = 9;
    CHECK(result_store::key_of(prompt, greedy, "")
          == result_store::key_of(prompt, greedy_seeded, ""));
}
