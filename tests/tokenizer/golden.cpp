// Every family of the reference data: encoding, decoding at once and decoding token by token.
#include "test_data.hpp"
#include "tokenizer/tokenizer.hpp"
#include "tokenizer/unicode.hpp"

#include <doctest/doctest.h>

#include <thread>

using namespace sluice;
using namespace sluice::test;

namespace {

using id_list = std::vector<int32_t>;

const char* const families[] = {"bert_wordpiece", "deepseek", "gpt2", "llama2_sp", "llama3"};

// What the stream decoder returns, joined; each part must be whole characters.
std::string decode_as_stream(const std::shared_ptr<const tokenizer>& source, const id_list& ids,
                             bool skip_special_tokens) {
    token_stream_decoder stream(source, skip_special_tokens);
    std::string joined;
    const auto add = [&](const std::string& part) {
        CHECK_FALSE(tokenization::utf8_error_offset(part).has_value());
        joined += part;
    };
    for (const int32_t id : ids) add(stream.push(id));
    add(stream.finish());
    return joined;
}

} // namespace

TEST_CASE("the reference data encode and decode exactly") {
    for (const char* family : families) {
        CAPTURE(family);
        const auto loaded = tokenizer::load(tokenizer_data(family));
        CHECK(loaded->warnings().empty());
        const auto golden = read_json(tokenizer_data(family) / "golden.json");
        REQUIRE(golden.size() == 236);
        for (const auto& entry : golden) {
            const auto text = entry["text"].get<std::string>();
            CAPTURE(text);
            const auto ids = entry["ids"].get<id_list>();
            const auto ids_special = entry["ids_special"].get<id_list>();
            const auto decoded = entry["decoded"].get<std::string>();
            CHECK(loaded->encode(text, false) == ids);
            CHECK(loaded->encode(text, true) == ids_special);
            CHECK(loaded->decode(ids, false) == decoded);
            CHECK(decode_as_stream(loaded, ids, false) == decoded);
            CHECK(decode_as_stream(loaded, ids_special, true) == loaded->decode(ids_special, true));
        }
    }
}

TEST_CASE("a stream of arbitrary tokens decodes as the whole does") {
    for (const char* family : families) {
        CAPTURE(family);
        const auto loaded = tokenizer::load(tokenizer_data(family));
        uint32_t random = 1;
        for (int round = 0; round < 200; ++round) {
            id_list ids;
            for (int count = 0; count < 40; ++count) {
                random = random * 1664525 + 1013904223; // Numerical Recipes
                // The first 300 ids hold most of the tokens that are parts of characters. Some ids
                // are no tokens.
                const auto end = static_cast<uint32_t>(loaded->id_end()) + 5;
                ids.push_back(static_cast<int32_t>((random >> 8) % (round % 2 == 0 ? 300 : end)));
            }
            CHECK(decode_as_stream(loaded, ids, false) == loaded->decode(ids, false));
            CHECK(decode_as_stream(loaded, ids, true) == loaded->decode(ids, true));
        }
    }
}

TEST_CASE("a stream gives text as soon as it is certain") {
    const auto loaded = tokenizer::load(tokenizer_data("gpt2"));
    // U+9F98, byte by byte, as GPT-2's alphabet writes the bytes e9 be 98.
    const auto id_of = [&](const char* token) { return loaded->token_id(token).value(); };
    token_stream_decoder stream(loaded, true);
    CHECK(stream.push(id_of("a")) == "a");
    CHECK(stream.push(id_of("\xc3\xa9")).empty());
    CHECK(stream.push(id_of("\xc2\xbe")).empty());
    CHECK(stream.push(id_of("\xc4\xba")) == "\xe9\xbe\x98");
    CHECK(stream.push(id_of("!")) == "!");
    CHECK(stream.finish().empty());
    // As new: the first two bytes of a character, then something else, then its first byte alone.
    CHECK(stream.push(id_of("\xc3\xa9")).empty());
    CHECK(stream.push(id_of("\xc2\xbe")).empty());
    CHECK(stream.push(id_of("a"))
          == "\xef\xbf\xbd"
             "a");
    CHECK(stream.push(id_of("\xc3\xa9")).empty());
    CHECK(stream.finish() == "\xef\xbf\xbd");
}

TEST_CASE("tokens, ids and the configuration beside the file") {
    const auto loaded = tokenizer::load(tokenizer_data("deepseek") / "tokenizer.json");
    CHECK(loaded->vocabulary_size() == 8192);
    CHECK(loaded->id_end() == 8192);
    CHECK(loaded->token_id("<|end_of_sentence|>") == 1);
    CHECK(loaded->token_text(1) == "<|end_of_sentence|>");
    CHECK(loaded->is_special(1));
    CHECK_FALSE(loaded->is_special(100));
    CHECK_FALSE(loaded->token_id("no such token").has_value());
    CHECK(loaded->token_text(-1).empty());
    CHECK(loaded->token_text(8192).empty());
    CHECK(loaded->decode(id_list{-5, 8192, 1 << 30}, false).empty());
    for (int32_t id = 0; id < loaded->id_end(); ++id) {
        CHECK(loaded->token_id(loaded->token_text(id)) == id);
    }
    CHECK(loaded->configuration().end_of_text_token == "<|end_of_sentence|>");
    CHECK(loaded->configuration().adds_beginning_of_text == true);
    CHECK(loaded->configuration().chat_template.has_value());
    CHECK_FALSE(loaded->configuration().unknown_token.has_value());
}

TEST_CASE("one tokenizer serves several threads") {
    for (const char* family : families) {
        const auto loaded = tokenizer::load(tokenizer_data(family));
        const auto golden = read_json(tokenizer_data(family) / "golden.json");
        std::vector<int> mismatches(4, 0);
        std::vector<std::thread> threads;
        for (int& count : mismatches) {
            threads.emplace_back([&golden, &loaded, &count] {
                for (const auto& entry : golden) {
                    const auto ids = loaded->encode(entry["text"].get<std::string>(), true);
                    if (ids != entry["ids_special"].get<id_list>()) ++count;
                    if (loaded->decode(ids, false).empty() != ids.empty() && ids.size() > 4) {
                        ++count;
                    }
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
        CHECK(mismatches == std::vector<int>(4, 0));
    }
}

TEST_CASE("long texts without a place to cut take no quadratic time") {
    // At n squared, half a million characters would take hours.
    for (const char* family : families) {
        CAPTURE(family);
        const auto loaded = tokenizer::load(tokenizer_data(family));
        for (const char* unit : {"a", " ", "\n", "ab1", "\xc3\xa9", "!"}) {
            std::string text;
            while (text.size() < 500'000) text += unit;
            const id_list ids = loaded->encode(text, false);
            if (std::string(family) != "bert_wordpiece") CHECK(loaded->decode(ids, false) == text);
        }
    }
}
