// Each component and option by itself, against what the reference gives.
#include "../base/error_check.hpp"
#include "test_data.hpp"
#include "tokenizer/tokenizer.hpp"

#include <doctest/doctest.h>

using namespace sluice;
using namespace sluice::test;
using nlohmann::json;

namespace {

json tokenizer_of(const json& data, const json& test_case) {
    json document = {{"version", "1.0"}, {"added_tokens", json::array()}, {"model", data["model"]}};
    for (const char* part :
         {"normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"}) {
        if (test_case.contains(part)) document[part] = test_case[part];
    }
    document["model"]["vocab"] = data["vocab"];
    json& vocabulary = document["model"]["vocab"];
    if (test_case.contains("model")) document["model"].update(test_case["model"]);
    if (test_case.contains("more_tokens")) vocabulary.update(test_case["more_tokens"]);
    for (const auto& token : test_case.value("fewer_tokens", json::array())) {
        vocabulary.erase(token.get<std::string>());
    }
    return document;
}

std::shared_ptr<const tokenizer> parse(const json& document) {
    return tokenizer::parse(document.dump(), "test.json");
}

} // namespace

TEST_CASE("components give what the reference gives") {
    const json data = read_json(tokenizer_data("components.json"));
    REQUIRE(data["cases"].size() > 400);
    for (const auto& test_case : data["cases"]) {
        const auto name = test_case["name"].get<std::string>();
        CAPTURE(name);
        std::shared_ptr<const tokenizer> loaded;
        REQUIRE_NOTHROW(loaded = parse(tokenizer_of(data, test_case)));
        for (std::size_t index = 0; index < data["texts"].size(); ++index) {
            const auto text = data["texts"][index].get<std::string>();
            CAPTURE(text);
            const auto ids = test_case["ids"][index].get<std::vector<int32_t>>();
            CHECK(loaded->encode(text, true) == ids);
            if (!test_case.contains("decoded")) continue;
            const auto decoded = test_case["decoded"][index].get<std::string>();
            CHECK(loaded->decode(ids, true) == decoded);
            token_stream_decoder stream(loaded, true);
            std::string joined;
            for (const int32_t id : ids) joined += stream.push(id);
            CHECK(joined + stream.finish() == decoded);
        }
    }
}

TEST_CASE("regular expressions that PCRE2 cannot match as Oniguruma does are refused") {
    for (const char* expression : {"(?i)stra\xc3\x9f"
                                   "e",
                                   "(?i:ff)",
                                   "(?i)[\xc3\x80-\xc3\xbf]",
                                   "\\X",
                                   "\\g<1>",
                                   "(?x)a b",
                                   "(?s).",
                                   "(?~a)",
                                   "\\p{NoSuchScript}",
                                   "(?<=a+)b",
                                   "\\p{L",
                                   "[a",
                                   "(a",
                                   "a)",
                                   "[]",
                                   "*a",
                                   "^*",
                                   "a{2,1}",
                                   "a{70000}",
                                   "[z-a]",
                                   "[\\w-z]",
                                   "[a-\\d]",
                                   "\\x{110000}",
                                   "\\u12",
                                   "\\8",
                                   "\\",
                                   "\\cA",
                                   "(?P<n>a)",
                                   "[[:graph:]]"}) {
        CAPTURE(expression);
        json document = small_tokenizer();
        document["pre_tokenizer"] = {{"type", "Split"},
                                     {"pattern", {{"Regex", expression}}},
                                     {"behavior", "Isolated"},
                                     {"invert", false}};
        check_error([&] { parse(document); }, SLUICE_UNSUPPORTED,
                    {"test.json: pre_tokenizer.pattern.Regex", "regular expression"});
    }
}

TEST_CASE("a regular expression that backtracks without end gives up with an error") {
    json document = small_tokenizer();
    document["pre_tokenizer"] = {{"type", "Split"},
                                 {"pattern", {{"Regex", "(?:a|aa|aaa)+$b|(a*)*c"}}},
                                 {"behavior", "Isolated"},
                                 {"invert", false}};
    const auto loaded = parse(document);
    CHECK(loaded->encode("aab", false) == std::vector<int32_t>{1, 3});
    check_error([&] { loaded->encode(std::string(5000, 'a'), false); }, SLUICE_EXHAUSTED,
                {"gave up on a text of 5000 bytes"});
}

TEST_CASE("ids of added tokens follow the reference, and a difference is reported") {
    json document = small_tokenizer();
    document["added_tokens"] = {{{"id", 40},
                                 {"content", "<x>"},
                                 {"single_word", false},
                                 {"lstrip", false},
                                 {"rstrip", false},
                                 {"normalized", false},
                                 {"special", true}}};
    const auto loaded = parse(document);
    CHECK(loaded->encode("a<x>b", false) == std::vector<int32_t>{1, 5, 2});
    REQUIRE(loaded->warnings().size() == 1);
    CHECK(loaded->warnings()[0].find("40") != std::string::npos);
    CHECK(loaded->vocabulary_size() == 6);
}

TEST_CASE("ids may have gaps") {
    json document = small_tokenizer();
    document["model"]["vocab"]["c"] = 900;
    const auto loaded = parse(document);
    CHECK(loaded->encode("abc", false) == std::vector<int32_t>{3, 900});
    CHECK(loaded->vocabulary_size() == 6);
    CHECK(loaded->id_end() == 901);
    CHECK(loaded->token_text(500).empty());
    CHECK(loaded->decode(std::vector<int32_t>{3, 500, 900}, false) == "ab c");
}

TEST_CASE("files without a model type, as GPT-2's, are told by their members") {
    json document = small_tokenizer();
    document["model"].erase("type");
    CHECK(parse(document)->encode("abab", false) == std::vector<int32_t>{4});
    document["model"] = {{"unk_token", "<unk>"},
                         {"continuing_subword_prefix", "##"},
                         {"max_input_chars_per_word", 3},
                         {"vocab", {{"<unk>", 0}, {"a", 1}, {"##b", 2}}}};
    CHECK(parse(document)->encode("abb", false) == std::vector<int32_t>{1, 2, 2});
    CHECK(parse(document)->encode("abbb", false) == std::vector<int32_t>{0});
}
