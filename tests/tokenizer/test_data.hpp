#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace sluice::test {

inline std::filesystem::path tokenizer_data(const std::string& name) {
    return std::filesystem::path(SLUICE_TEST_DATA_DIR) / "tokenizers" / name;
}

inline std::string read_text(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path.string());
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
    return nlohmann::json::parse(read_text(path));
}

// A byte-fallback BPE tokenizer of a few tokens, to be changed by a test.
inline nlohmann::json small_tokenizer() {
    return nlohmann::json::parse(R"({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "unk_token": "<unk>",
                  "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "abab": 4},
                  "merges": [["a", "b"], ["ab", "ab"]]}})");
}

} // namespace sluice::test
