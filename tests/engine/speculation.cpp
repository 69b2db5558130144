#include "engine/speculation.hpp"

#include <doctest/doctest.h>

using namespace sluice;

namespace {

using tokens = std::vector<int32_t>;

// Always the same token, as often as asked for.
class constant_source final : public draft_source {
  public:
    void propose(std::span<const int32_t>, uint32_t count_max, tokens& draft) override {
        draft.assign(count_max, 7);
    }
};

speculator make(double row_cost, uint32_t draft_tokens_max = 15, uint32_t rows_max = 512) {
    return speculator(
        {[] { return std::make_unique<constant_source>(); }, draft_tokens_max, row_cost}, rows_max);
}

const tokens text{1, 2, 3};

std::vector<decoding_sequence> sequences(size_t count, uint32_t draft_tokens_max = 100) {
    std::vector<decoding_sequence> made;
    for (size_t i = 0; i < count; ++i) made.push_back({i + 1, text, draft_tokens_max});
    return made;
}

size_t rows_of(std::span<const tokens> drafts) {
    size_t rows = 0;
    for (const tokens& each : drafts) rows += each.size();
    return rows;
}

} // namespace

TEST_CASE("drafts grow while guesses are right, and end when they are wrong") {
    speculator guesses = make(0.4);
    const auto one = sequences(1);
    const size_t first = guesses.draft(one)[0].size();
    CHECK(first >= 1);
    CHECK(first <= 3);
    for (int i = 0; i < 10; ++i) guesses.note(1, uint32_t(guesses.draft(one)[0].size()), false);
    CHECK(guesses.draft(one)[0].size() >= 7);
    CHECK(guesses.draft(one)[0].size() <= 15);
    for (int i = 0; i < 20; ++i) guesses.note(1, 0, true);
    CHECK(guesses.draft(one)[0].empty());
}

TEST_CASE("a sequence whose guesses are always wrong is tried now and then, at little cost") {
    speculator guesses = make(0.4);
    int tried = 0;
    size_t rows = 0;
    for (int step = 0; step < 1000; ++step) {
        const auto draft = guesses.draft(sequences(1))[0];
        if (draft.empty()) continue;
        ++tried;
        rows += draft.size();
        guesses.note(1, 0, true);
    }
    CHECK(tried >= 10);
    CHECK(rows <= 80);
}

TEST_CASE("the dearer a row, the fewer guesses; free ones are all taken") {
    size_t before = 100;
    for (const double cost : {0.0, 0.1, 0.3, 0.5, 1.0}) {
        speculator guesses = make(cost);
        const size_t rows = guesses.draft(sequences(1))[0].size();
        CHECK(rows <= before);
        before = rows;
        if (cost == 0.0) CHECK(rows == 15);
    }
    CHECK(before == 0);
    // Many sequences leave less to gain where time goes by rows.
    CHECK(rows_of(make(0.4).draft(sequences(1))) > 0);
    CHECK(rows_of(make(0.4).draft(sequences(16))) == 0);
    CHECK(rows_of(make(0.02).draft(sequences(16))) > 0);
    // Five pay for eight in any case.
    CHECK(rows_of(make(0.4).draft(sequences(5))) == 3);
}

TEST_CASE("rows go to the sequences whose guesses have been right") {
    speculator guesses = make(0.1, 15, 12);
    for (int i = 0; i < 20; ++i) {
        guesses.note(1, 0, true);
        guesses.note(2, 3, false);
    }
    const auto drafts = guesses.draft(sequences(3));
    CHECK(drafts[0].empty());
    CHECK(drafts[1].size() > drafts[2].size());
    CHECK(rows_of(drafts) + 3 <= 12); // rows of a step
    // A sequence that comes anew under a number is a new one.
    CHECK(guesses.draft(sequences(1))[0].empty());
    guesses.forget(1);
    CHECK_FALSE(guesses.draft(sequences(1))[0].empty());
    guesses.forget(99);
}

TEST_CASE("drafts are no longer than a sequence has use for") {
    speculator guesses = make(0.0, 6);
    CHECK(guesses.draft(sequences(1))[0].size() == 6);
    CHECK(guesses.draft(sequences(1, 2))[0].size() == 2);
    CHECK(guesses.draft(sequences(1, 0))[0].empty());
    CHECK(guesses.draft({}).empty());
}
