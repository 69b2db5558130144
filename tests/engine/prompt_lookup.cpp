#include "engine/prompt_lookup.hpp"

#include <doctest/doctest.h>

#include <random>

using namespace sluice;

namespace {

using tokens = std::vector<int32_t>;

tokens draft_of(prompt_lookup& source, const tokens& text, uint32_t count_max) {
    tokens draft;
    source.propose(text, count_max, draft);
    return draft;
}

tokens draft_of(const tokens& text, uint32_t count_max, uint32_t ngram_min, uint32_t ngram_max) {
    prompt_lookup source(ngram_min, ngram_max);
    return draft_of(source, text, count_max);
}

// The definition, by trying every place.
tokens draft_by_definition(const tokens& text, uint32_t count_max, uint32_t min, uint32_t max) {
    size_t best = 0;
    size_t longest = min - 1;
    for (size_t place = text.size() - 1; place >= 1; --place) {
        size_t length = 0;
        while (length < max && length < place
               && text[place - 1 - length] == text[text.size() - 1 - length]) {
            ++length;
        }
        if (length > longest) {
            longest = length;
            best = place;
        }
    }
    if (best == 0) return {};
    tokens whole = text;
    for (size_t i = 0; i < count_max; ++i) whole.push_back(whole[best + i]);
    return {whole.begin() + ptrdiff_t(text.size()), whole.end()};
}

} // namespace

TEST_CASE("what followed the newest tokens before is proposed") {
    const tokens text{1, 2, 3, 4, 5, 9, 2, 3};
    CHECK(draft_of(text, 3, 2, 4) == tokens{4, 5, 9});
    CHECK(draft_of(text, 1, 2, 4) == tokens{4});
    CHECK(draft_of(text, 0, 2, 4).empty());
    CHECK(draft_of(text, 3, 3, 4).empty()); // 9 2 3 is new
    CHECK(draft_of({7}, 3, 2, 4).empty());
    CHECK(draft_of({}, 3, 2, 4).empty());
    CHECK(draft_of({1, 2}, 3, 2, 2).empty());
}

TEST_CASE("the longest agreement counts, and of equals the newest") {
    //                  longest ------.             newest of two
    const tokens text{6, 1, 2, 3, 70, 5, 1, 2, 3, 80, 4, 2, 3, 90, 6, 1, 2, 3};
    CHECK(draft_of(text, 1, 2, 4) == tokens{70});
    CHECK(draft_of(text, 1, 2, 3) == tokens{80});
    CHECK(draft_of(text, 1, 2, 2) == tokens{90});
}

TEST_CASE("past the end the draft goes on with itself") {
    CHECK(draft_of({5, 5, 5}, 4, 2, 4) == tokens{5, 5, 5, 5});
    CHECK(draft_of({8, 1, 2, 1, 2}, 5, 2, 4) == tokens{1, 2, 1, 2, 1});
}

TEST_CASE("a growing text gives what it would give as a whole") {
    for (uint32_t seed = 0; seed < 20; ++seed) {
        std::mt19937 random(seed);
        const uint32_t min = 1 + uint32_t(random() % 3);
        const uint32_t max = min + uint32_t(random() % 3);
        prompt_lookup source(min, max);
        // Few enough places that none is passed over.
        tokens text;
        while (text.size() < 60) {
            const size_t added = 1 + random() % 3;
            for (size_t i = 0; i < added; ++i) text.push_back(int32_t(random() % 4));
            const tokens draft = draft_of(source, text, 6);
            const tokens expected = draft_by_definition(text, 6, min, max);
            // Only the newest occurrences are compared; with two tokens and more all of them are.
            if (min >= 2) CHECK(draft == expected);
            CHECK(draft.empty() == expected.empty());
        }
    }
}
