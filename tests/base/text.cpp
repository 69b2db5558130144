#include "base/text.hpp"

#include <doctest/doctest.h>

#include <chrono>

using namespace sluice;

TEST_CASE("nearest names find slips of the pen and nothing else") {
    std::vector<std::string> keys = {"hidden_size", "num_attention_heads", "num_key_value_heads",
                                     "vocab_size", "rms_norm_eps"};
    CHECK(nearest_names("hiden_size", keys) == std::vector<std::string>{"hidden_size"});
    CHECK(nearest_names("HIDDEN_SIZE", keys).front() == "hidden_size");
    CHECK(nearest_names("num_attention_head", keys).front() == "num_attention_heads");
    CHECK(nearest_names("zzz", keys).empty());
    CHECK(nearest_names("", keys).empty());
    CHECK(nearest_names("hiden_size", {}).empty());
    CHECK(nearest_names(std::string(100000, 'a'), keys).empty());
    CHECK(did_you_mean("vocab_sise", keys) == "; did you mean \"vocab_size\"?");
    CHECK(did_you_mean("zzz", keys).empty());
}

TEST_CASE("nearest names come nearest first, ties in order") {
    std::vector<std::string> names = {"layer_c", "layer_abx", "layer_b", "layer_ab"};
    CHECK(nearest_names("layer_a", names)
          == std::vector<std::string>{"layer_c", "layer_b", "layer_ab"});
    CHECK(nearest_names("layer_ab", names, 1) == std::vector<std::string>{"layer_ab"});
}

TEST_CASE("a hundred thousand tensor names are searched in time") {
    std::vector<std::string> names;
    for (int layer = 0; layer < 100; ++layer) {
        for (int expert = 0; expert < 1000; ++expert) {
            names.push_back("model.layers." + std::to_string(layer) + ".mlp.experts."
                            + std::to_string(expert) + ".gate_proj.weight");
        }
    }
    auto start = std::chrono::steady_clock::now();
    auto found = nearest_names("model.layers.7.mlp.experts.1000.gate_proj.weight", names);
    CHECK(found.front() == "model.layers.7.mlp.experts.100.gate_proj.weight");
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20)); // sanitizers too
}

TEST_CASE("quote makes hostile text safe to print") {
    CHECK(quote("plain") == "\"plain\"");
    CHECK(quote("a\"b\\c") == "\"a\\\"b\\\\c\"");
    CHECK(quote(std::string_view("\x1b[2J\n\0", 6)) == "\"\\x1b[2J\\n\\x00\"");
    CHECK(quote("\xc3\xa9") == "\"\xc3\xa9\"");
    CHECK(quote("\xc3") == "\"\\xc3\"");
    CHECK(quote("\xed\xa0\x80") == "\"\\xed\\xa0\\x80\"");
    CHECK(quote("abcdef", 3) == "\"abc...\"");
    CHECK(quote("ab\xc3\xa9", 3) == "\"ab...\""); // never half a character
    CHECK(quote(std::string(1000000, 'x')).size() == 85);
}

TEST_CASE("sizes, counts and durations") {
    CHECK(bytes_text(0) == "0 B");
    CHECK(bytes_text(1023) == "1023 B");
    CHECK(bytes_text(1024) == "1.0 KiB");
    CHECK(bytes_text(1536) == "1.5 KiB");
    CHECK(bytes_text((uint64_t(1) << 20) - 1) == "1.0 MiB");
    CHECK(bytes_text(uint64_t(20) << 30) == "20.0 GiB");
    CHECK(bytes_text(UINT64_MAX) == "16.0 EiB");
    CHECK(count_text(999) == "999");
    CHECK(count_text(12345) == "12.3 k");
    CHECK(count_text(6'900'000'000) == "6.9 G");
    CHECK(duration_text(0.81) == "0.8 s");
    CHECK(duration_text(42.2) == "42 s");
    CHECK(duration_text(187) == "3 min 07 s");
    CHECK(duration_text(7500) == "2 h 05 min");
    CHECK(duration_text(-1) == "unknown");
    CHECK(duration_text(1e300) == "unknown");
}

TEST_CASE("small helpers") {
    CHECK(join(std::vector<std::string>{"a", "b", "c"}, ", ") == "a, b, c");
    CHECK(join({}, ", ").empty());
    CHECK(shape_text(std::vector<int64_t>{2, 3}) == "[2, 3]");
    CHECK(shape_text({}) == "[]");
    CHECK(trim(" \t a b\n") == "a b");
    CHECK(trim(" \n ").empty());
    CHECK(split("a,,b", ',') == std::vector<std::string>{"a", "", "b"});
    CHECK(split("", ',') == std::vector<std::string>{""});
    CHECK(lower_ascii("BF16-\xc3\x89") == "bf16-\xc3\x89");
    CHECK(parse_integer("-42") == -42);
    CHECK(!parse_integer("42 "));
    CHECK(!parse_integer(""));
    CHECK(!parse_integer("9223372036854775808"));
    CHECK(is_utf8("a\xc3\xa9\xf0\x9f\x98\x80"));
    CHECK(!is_utf8("\xc0\x80"));
    CHECK(!is_utf8("\xf4\x90\x80\x80"));
    CHECK(!is_utf8("\xe2\x82"));
}
