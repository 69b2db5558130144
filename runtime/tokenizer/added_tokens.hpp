// Tokens that are found in the text as they are, before the model sees it.
#pragma once

#include "base/json.hpp"
#include "tokenizer/normalizer.hpp"
#include "tokenizer/vocabulary.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace sluice::tokenization {

struct added_token {
    int32_t id = 0;
    std::string content;
    // What it is looked for as, and what it decodes to: the content, or if `normalized` what the
    // normalizer makes of it.
    std::string normalized_content;
    bool single_word = false; // only between characters that are not of words
    bool lstrip = false;      // takes the white space on its left
    bool rstrip = false;      // takes the white space on its right
    bool normalized = false;  // is looked for in the normalized text
    bool special = false;     // is left out when decoding without special tokens
};

struct added_token_span {
    std::size_t begin;
    std::size_t end;
    int32_t id; // -1 for text between added tokens
};

// Finds the tokens of one kind: at the leftmost place where one begins, the longest.
class added_token_matcher {
  public:
    void add(std::string_view text, const added_token* token);

    // Cuts `text` into tokens and what lies between; the spans cover it (a token that strips white
    // space may reach into the span before it).
    void find(std::string_view text, std::vector<added_token_span>& spans) const;

  private:
    const added_token* longest_at(std::string_view text, std::size_t position,
                                  std::size_t& length) const;

    // A tree over bytes: the token that ends at each node, or null. Node 0 is the root.
    std::vector<const added_token*> nodes_ = std::vector<const added_token*>(1, nullptr);
    std::unordered_map<uint64_t, uint32_t> children_; // node << 8 | byte to node
    bool first_bytes_[256] = {};
};

class added_tokens {
  public:
    // `nodes` is the member "added_tokens". An id in the file that differs from the
    // one that the reference gives is reported in `warnings`, and the reference's is used.
    added_tokens(const std::optional<json_view>& nodes, const vocabulary& model_tokens,
                 const normalizer* text_normalizer, std::vector<std::string>& warnings);
    added_tokens(const added_tokens&) = delete; // the matchers point into the tokens
    added_tokens& operator=(const added_tokens&) = delete;

    const added_token* find(std::string_view content) const;
    const added_token* find(int32_t id) const;
    bool is_special(std::string_view content) const { return special_.contains(content); }

    std::size_t size() const { return by_content_.size(); }
    int32_t id_end() const { return id_end_; } // one more than the largest id

    const added_token_matcher& plain_matcher() const { return plain_; }
    const added_token_matcher& normalized_matcher() const { return normalized_; }

  private:
    void add(added_token token, int32_t declared_id, const vocabulary& model_tokens,
             std::vector<std::string>& warnings, const std::string& origin);

    std::unordered_map<int32_t, added_token> by_id_;
    std::unordered_map<std::string, int32_t, text_hash, std::equal_to<>> by_content_;
    std::unordered_set<std::string, text_hash, std::equal_to<>> special_;
    added_token_matcher plain_;
    added_token_matcher normalized_;
    int32_t next_id_ = 0;
    int32_t id_end_ = 0;
};

} // namespace sluice::tokenization
