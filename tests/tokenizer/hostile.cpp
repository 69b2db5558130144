// Malformed and malicious files: each ends in an error that says where and what, none in a crash or
// in a large allocation.
#include "../base/error_check.hpp"
#include "test_data.hpp"
#include "tokenizer/tokenizer.hpp"

#include <doctest/doctest.h>

#include <functional>

using namespace sluice;
using namespace sluice::test;
using nlohmann::json;

namespace {

void check_refused(const json& document, sluice_status status,
                   std::vector<std::string> message_parts) {
    message_parts.insert(message_parts.begin(), "test.json");
    check_error([&] { tokenizer::parse(document.dump(), "test.json"); }, status, message_parts);
}

// The small tokenizer after a change, which must be refused.
void check_change(const std::function<void(json&)>& change, sluice_status status,
                  std::vector<std::string> message_parts) {
    json document = small_tokenizer();
    change(document);
    CAPTURE(document.dump());
    check_refused(document, status, std::move(message_parts));
}

json added_token(int64_t id, const std::string& content) {
    return {{"id", id},        {"content", content}, {"single_word", false}, {"lstrip", false},
            {"rstrip", false}, {"normalized", true}, {"special", false}};
}

} // namespace

TEST_CASE("every truncation of a file is refused") {
    const std::string text = small_tokenizer().dump();
    REQUIRE_NOTHROW(tokenizer::parse(text, "test.json"));
    for (std::size_t size = 0; size < text.size(); ++size) {
        check_error([&] { tokenizer::parse(text.substr(0, size), "test.json"); }, SLUICE_INVALID,
                    {"test.json", "JSON"});
    }
}

TEST_CASE("what is not JSON, not an object, or too deep is refused") {
    for (const char* text : {"null", "[]", "3", "\"x\"", "true"}) {
        check_error([&] { tokenizer::parse(text, "test.json"); }, SLUICE_INVALID, {"test.json"});
    }
    const std::string deep = "{\"model\":" + std::string(1'000'000, '[');
    check_error([&] { tokenizer::parse(deep, "test.json"); }, SLUICE_INVALID, {"nested"});
    std::string deep_normalizer;
    for (int level = 0; level < 1000; ++level) {
        deep_normalizer += R"({"type":"Sequence","normalizers":[)";
    }
    check_error([&] { tokenizer::parse("{\"normalizer\":" + deep_normalizer, "test.json"); },
                SLUICE_INVALID, {"nested"});
    check_error([&] { tokenizer::parse("{\"a\":\"\xff\"}", "test.json"); }, SLUICE_INVALID,
                {"test.json"});
}

TEST_CASE("missing members are named") {
    for (const char* key : {"vocab", "merges"}) {
        check_change([&](json& d) { d["model"].erase(key); }, SLUICE_INVALID, {key, "model"});
    }
    check_change([](json& d) { d.erase("model"); }, SLUICE_INVALID, {"model"});
    check_change(
        [](json& d) {
            d["model"] = {{"vocab", json::object()}};
        },
        SLUICE_INVALID, {"model", "type"});
    check_change([](json& d) { d["normalizer"] = json::object(); }, SLUICE_INVALID,
                 {"normalizer", "type"});
    check_change(
        [](json& d) {
            d["normalizer"] = {{"type", "Replace"}, {"content", ""}};
        },
        SLUICE_INVALID, {"normalizer", "pattern"});
    check_change(
        [](json& d) {
            d["added_tokens"] = {{{"id", 3}}};
        },
        SLUICE_INVALID, {"added_tokens[0]", "content"});
    check_change(
        [](json& d) {
            d["post_processor"] = {{"type", "TemplateProcessing"},
                                   {"single", {{{"SpecialToken", {{"id", "x"}, {"type_id", 0}}}}}},
                                   {"special_tokens", json::object()}};
        },
        SLUICE_INVALID, {"post_processor.special_tokens", "\"x\""});
}

TEST_CASE("members of the wrong type are named with what was found") {
    for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder", "model"}) {
        for (const json& value : {json(3), json("x"), json::array(), json(true), json(1.5)}) {
            check_change([&](json& d) { d[key] = value; }, SLUICE_INVALID, {key, "expected"});
        }
    }
    for (const json& value : {json(3), json("x"), json::object(), json(true)}) {
        check_change([&](json& d) { d["added_tokens"] = value; }, SLUICE_INVALID,
                     {"added_tokens", "expected an array"});
        check_change([&](json& d) { d["model"]["merges"] = value; }, SLUICE_INVALID,
                     {"model.merges", "expected an array"});
    }
    for (const json& value : {json(3), json("x"), json::array(), json(true), json::object()}) {
        check_change([&](json& d) { d["model"]["vocab"] = value; }, SLUICE_INVALID,
                     {"model.vocab", "expected"});
    }
    for (const json& value : {json(-1), json(1.0), json("1"), json(nullptr), json::array(),
                              json(int64_t{1} << 40), json(1e300), json(UINT64_MAX)}) {
        check_change([&](json& d) { d["model"]["vocab"]["zz"] = value; }, SLUICE_INVALID,
                     {"model.vocab.zz", "expected an integer"});
    }
    check_change([](json& d) { d["model"]["fuse_unk"] = "yes"; }, SLUICE_INVALID,
                 {"model.fuse_unk", "true or false"});
    check_change([](json& d) { d["model"]["type"] = 4; }, SLUICE_INVALID, {"model.type"});
}

TEST_CASE("merges that make no sense are named") {
    check_change(
        [](json& d) {
            d["model"]["merges"].push_back({"a", "missing"});
        },
        SLUICE_INVALID, {"model.merges[2]", "\"missing\""});
    check_change(
        [](json& d) {
            d["model"]["merges"].push_back({"b", "a"});
        },
        SLUICE_INVALID, {"model.merges[2]", "\"ba\" is not"});
    for (const json& merge : {json("a"), json("a b c"), json(""), json(3), json({"a"}),
                              json({"a", "b", "ab"}), json::object(), json(nullptr)}) {
        check_change([&](json& d) { d["model"]["merges"].push_back(merge); }, SLUICE_INVALID,
                     {"model.merges[2]"});
    }
    check_change(
        [](json& d) {
            d["model"]["merges"].push_back({"a", 3});
        },
        SLUICE_INVALID, {"model.merges[2][1]"});
    check_change([](json& d) { d["model"]["continuing_subword_prefix"] = "##"; }, SLUICE_INVALID,
                 {"model.merges[0]", "\"##\""});
}

TEST_CASE("ids that clash or are out of range are named") {
    check_change([](json& d) { d["model"]["vocab"]["x"] = 1; }, SLUICE_INVALID,
                 {"model.vocab", "both have the id 1"});
    check_change([](json& d) { d["model"]["vocab"]["x"] = 4'194'304; }, SLUICE_INVALID,
                 {"model.vocab.x"});
    check_change([](json& d) { d["added_tokens"] = {added_token(int64_t{1} << 33, "x")}; },
                 SLUICE_INVALID, {"added_tokens[0].id"});
    check_change(
        [](json& d) {
            d["post_processor"] = {
                {"type", "BertProcessing"}, {"cls", {"x", -3}}, {"sep", {"y", 2}}};
        },
        SLUICE_INVALID, {"post_processor.cls[1]"});
    // Twice the same key: readers disagree about which counts.
    check_error(
        [] {
            tokenizer::parse(R"({"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}})",
                             "test.json");
        },
        SLUICE_INVALID, {"there twice"});
}

TEST_CASE("components that are not offered are named") {
    const auto typed = [](const char* type) { return json{{"type", type}}; };
    check_change([&](json& d) { d["model"]["type"] = "Unigram"; }, SLUICE_UNSUPPORTED,
                 {"model", "\"Unigram\"", "BPE and WordPiece"});
    check_change([&](json& d) { d["normalizer"] = typed("Precompiled"); }, SLUICE_UNSUPPORTED,
                 {"normalizer", "\"Precompiled\"", "NFC"});
    check_change([&](json& d) { d["pre_tokenizer"] = typed("UnicodeScripts"); }, SLUICE_UNSUPPORTED,
                 {"pre_tokenizer", "\"UnicodeScripts\"", "Split"});
    check_change([&](json& d) { d["post_processor"] = typed("Other"); }, SLUICE_UNSUPPORTED,
                 {"post_processor", "\"Other\""});
    check_change([&](json& d) { d["decoder"] = typed("CTC"); }, SLUICE_UNSUPPORTED,
                 {"decoder", "\"CTC\""});
    check_change([](json& d) { d["model"]["dropout"] = 0.1; }, SLUICE_UNSUPPORTED,
                 {"model.dropout"});
    check_change([](json& d) { d["version"] = "2.0"; }, SLUICE_UNSUPPORTED, {"version", "2.0"});
}

TEST_CASE("components that blow up a text are stopped") {
    json document = small_tokenizer();
    const json doubling = {
        {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaa"}};
    document["normalizer"] = {{"type", "Sequence"}, {"normalizers", json(60, doubling)}};
    CHECK_NOTHROW(tokenizer::parse(document.dump(), "test.json"));
    const auto normalizing = tokenizer::parse(document.dump(), "test.json");
    check_error([&] { normalizing->encode("a", false); }, SLUICE_EXHAUSTED, {"normalizer"});

    document = small_tokenizer();
    document["decoder"] = {{"type", "Sequence"}, {"decoders", json(60, doubling)}};
    const auto decoding = tokenizer::parse(document.dump(), "test.json");
    check_error([&] { decoding->decode(std::vector<int32_t>{1}, false); }, SLUICE_EXHAUSTED,
                {"decoder"});

    document = small_tokenizer();
    const json byte_level = {{"type", "ByteLevel"},
                             {"add_prefix_space", true},
                             {"trim_offsets", true},
                             {"use_regex", false}};
    document["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", json(60, byte_level)}};
    const auto splitting = tokenizer::parse(document.dump(), "test.json");
    check_error([&] { splitting->encode("\xc3\xa9", false); }, SLUICE_EXHAUSTED, {"pre-tokenizer"});
}

TEST_CASE("text that is not UTF-8 is refused with its place") {
    const auto loaded = tokenizer::parse(small_tokenizer().dump(), "test.json");
    for (const std::string text : {"ab\xff", "ab\xc3", "ab\xc0\x80", "ab\xed\xa0\x80",
                                   "ab\xf4\x90\x80\x80", "ab\x80", "ab\xe4\xb8"}) {
        check_error([&] { loaded->encode(text, false); }, SLUICE_INVALID, {"UTF-8", "offset 2"});
    }
}

TEST_CASE("a missing unknown token is an error when it is needed") {
    json document = small_tokenizer();
    document["model"]["unk_token"] = "<none>";
    const auto loaded = tokenizer::parse(document.dump(), "test.json");
    CHECK(loaded->encode("ab", false) == std::vector<int32_t>{3});
    check_error([&] { loaded->encode("z", false); }, SLUICE_INVALID, {"\"<none>\""});
}

TEST_CASE("files that are not there or not right are named") {
    check_error([] { tokenizer::load("/no/such/folder"); }, SLUICE_UNAVAILABLE,
                {"/no/such/folder"});
    check_error([] { tokenizer::load(tokenizer_data("golden")); }, SLUICE_UNAVAILABLE, {"golden"});
    check_error([] { tokenizer::load(tokenizer_data("gpt2") / "golden.json"); }, SLUICE_INVALID,
                {"golden.json", "expected an object"});
}
