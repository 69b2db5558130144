// A tokenizer of single letters, so that tests can say what a text looks like token by token: ids 0
// to 25 are a to z, 26 the space, 27 the end token, 28 and 29 the two bytes of a character.
#pragma once

#include "tokenizer/tokenizer.hpp"

#include <memory>
#include <string>
#include <vector>

namespace sluice::test {

inline constexpr int32_t letter_space = 26;
inline constexpr int32_t letter_end = 27;
inline constexpr int32_t letter_first_byte = 28;  // 0xC3
inline constexpr int32_t letter_second_byte = 29; // 0xA9: together U+00E9
inline constexpr uint32_t letter_count = 30;

inline std::shared_ptr<const tokenizer> letter_tokenizer() {
    std::string vocabulary;
    for (int i = 0; i < 26; ++i) {
        vocabulary += std::string("\"") + char('a' + i) + "\": " + std::to_string(i) + ", ";
    }
    // The byte-level alphabet writes a space as U+0120 and bytes from 0xAE on as themselves.
    vocabulary += R"("\u0120": 26, "<end>": 27, "\u00c3": 28, "\u00a9": 29)";
    return tokenizer::parse(R"({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 27, "content": "<end>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                          "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": {)" + vocabulary
                                + R"(}, "merges": []}})",
                            "letters");
}

} // namespace sluice::test
