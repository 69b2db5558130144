#include "engine/stop_matcher.hpp"

#include "base/error.hpp"

#include <doctest/doctest.h>

#include <random>

using namespace sluice;

TEST_CASE("nothing of a stop string is ever shown") {
    stop_matcher matcher({"END"});
    CHECK(matcher.push("one E") == "one ");
    CHECK(matcher.push("N") == "");
    CHECK(matcher.push("x") == "ENx");
    CHECK(matcher.push("tail EN") == "tail ");
    CHECK(matcher.push("D more") == "");
    CHECK(matcher.matched());
    CHECK(matcher.matched_stop() == "END");
    CHECK(matcher.push("later") == "");
    CHECK(matcher.flush() == "");
}

TEST_CASE("what was held back comes at the end") {
    stop_matcher matcher({"\n\n", "###"});
    CHECK(matcher.push("text\n") == "text");
    CHECK(matcher.flush() == "\n");
    CHECK_FALSE(matcher.matched());
}

TEST_CASE("overlapping beginnings") {
    stop_matcher matcher({"aab"});
    CHECK(matcher.push("aaa") == "a");
    CHECK(matcher.push("b") == "");
    CHECK(matcher.matched());
    stop_matcher both({"abcd", "bc"});
    CHECK(both.push("abcd") == "a"); // "bc" ends first
    CHECK(both.matched_stop() == "bc");
    stop_matcher longest({"c", "bc"});
    CHECK(longest.push("abc") == "a");
    CHECK(longest.matched_stop() == "bc");
}

TEST_CASE("no stop strings pass everything at once; an empty one is refused") {
    stop_matcher matcher({});
    CHECK(matcher.push("abc") == "abc");
    CHECK_THROWS_AS(stop_matcher({"a", ""}), error);
}

TEST_CASE("the result does not depend on how the text is cut") {
    std::mt19937 random(3);
    for (int round = 0; round < 3000; ++round) {
        std::vector<std::string> stops;
        for (size_t i = random() % 3 + 1; i-- > 0;) {
            std::string stop;
            for (size_t j = random() % 4 + 1; j-- > 0;) stop += char('a' + random() % 2);
            stops.push_back(stop);
        }
        std::string text;
        for (size_t i = random() % 20; i-- > 0;) text += char('a' + random() % 3);

        // The definition: the shortest beginning of the text that ends with a stop string.
        std::string expected = text;
        bool expected_match = false;
        for (size_t end = 1; end <= text.size() && !expected_match; ++end) {
            size_t longest = 0;
            for (const std::string& stop : stops) {
                if (std::string_view(text).substr(0, end).ends_with(stop)) {
                    longest = std::max(longest, stop.size());
                }
            }
            if (longest > 0) {
                expected = text.substr(0, end - longest);
                expected_match = true;
            }
        }
        stop_matcher matcher(stops);
        std::string shown;
        for (size_t at = 0; at < text.size();) {
            const size_t size = 1 + random() % 4;
            shown += matcher.push(std::string_view(text).substr(at, size));
            at += size;
            REQUIRE(expected.starts_with(shown));
        }
        shown += matcher.flush();
        CHECK(shown == expected);
        CHECK(matcher.matched() == expected_match);
    }
}
