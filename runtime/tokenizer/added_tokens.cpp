#include "tokenizer/added_tokens.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "tokenizer/component_json.hpp"
#include "tokenizer/unicode.hpp"

#include <algorithm>
#include <utility>

namespace sluice::tokenization {

namespace {

constexpr std::size_t content_bytes_max = 4096;
constexpr std::size_t all_content_bytes_max = std::size_t{1} << 24;

bool ends_with_word(std::string_view text) {
    if (text.empty()) return false;
    std::size_t position = utf8_previous_start(text, text.size());
    return is_word_character(utf8_next(text, position));
}

bool starts_with_word(std::string_view text) {
    if (text.empty()) return false;
    std::size_t position = 0;
    return is_word_character(utf8_next(text, position));
}

std::size_t trailing_space_begin(std::string_view text) {
    std::size_t begin = text.size();
    while (begin > 0) {
        const std::size_t previous = utf8_previous_start(text, begin);
        std::size_t cursor = previous;
        if (!is_white_space(utf8_next(text, cursor))) break;
        begin = previous;
    }
    return begin;
}

std::size_t leading_space_end(std::string_view text) {
    std::size_t end = 0;
    while (end < text.size()) {
        std::size_t cursor = end;
        if (!is_white_space(utf8_next(text, cursor))) break;
        end = cursor;
    }
    return end;
}

uint64_t child_key(uint32_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
}

added_token read_added_token(const json_view& node, int32_t& declared_id) {
    added_token token;
    declared_id = read_token_id(node.at("id"));
    token.content = node.text("content");
    token.single_word = node.boolean("single_word");
    token.lstrip = node.boolean("lstrip");
    token.rstrip = node.boolean("rstrip");
    token.normalized = node.boolean("normalized");
    token.special = node.boolean("special");
    if (token.content.size() > content_bytes_max) {
        node.at("content").fail_expected(
            fmt::format("a text of at most {} bytes", content_bytes_max));
    }
    return token;
}

} // namespace

void added_token_matcher::add(std::string_view text, const added_token* token) {
    if (text.empty()) return; // would be found everywhere; the reference finds it nowhere
    uint32_t node = 0;
    for (const char byte : text) {
        const auto [child, is_new] =
            children_.try_emplace(child_key(node, byte), static_cast<uint32_t>(nodes_.size()));
        if (is_new) nodes_.push_back(nullptr);
        node = child->second;
    }
    first_bytes_[static_cast<unsigned char>(text[0])] = true;
    // Of two tokens that normalize to one text the higher id wins.
    if (nodes_[node] == nullptr || nodes_[node]->id < token->id) nodes_[node] = token;
}

const added_token* added_token_matcher::longest_at(std::string_view text, std::size_t position,
                                                   std::size_t& length) const {
    const added_token* longest = nullptr;
    uint32_t node = 0;
    for (std::size_t cursor = position; cursor < text.size(); ++cursor) {
        const auto child = children_.find(child_key(node, text[cursor]));
        if (child == children_.end()) break;
        node = child->second;
        if (nodes_[node] != nullptr) {
            longest = nodes_[node];
            length = cursor + 1 - position;
        }
    }
    return longest;
}

void added_token_matcher::find(std::string_view text, std::vector<added_token_span>& spans) const {
    spans.clear();
    std::size_t covered = 0; // up to here the spans reach
    for (std::size_t position = 0; nodes_.size() > 1 && position < text.size();) {
        std::size_t length = 0;
        const added_token* token = nullptr;
        if (first_bytes_[static_cast<unsigned char>(text[position])]) {
            token = longest_at(text, position, length);
        }
        if (token == nullptr) {
            ++position;
            continue;
        }
        std::size_t begin = position;
        std::size_t end = position + length;
        position = end; // also past one that does not count
        if (token->single_word
            && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
            continue;
        }
        if (token->lstrip) begin = std::max(trailing_space_begin(text.substr(0, begin)), covered);
        if (token->rstrip) end += leading_space_end(text.substr(end));
        if (covered < begin) spans.push_back({covered, begin, -1});
        spans.push_back({begin, end, token->id});
        covered = end;
    }
    if (covered != text.size()) spans.push_back({covered, text.size(), -1});
}

added_tokens::added_tokens(const std::optional<json_view>& nodes, const vocabulary& model_tokens,
                           const normalizer* text_normalizer, std::vector<std::string>& warnings) {
    next_id_ = static_cast<int32_t>(model_tokens.size());
    match_workspace workspace;
    std::size_t all_content_bytes = 0;
    if (!nodes) return;
    for (const json_view node : nodes->as_array()) {
        int32_t declared_id = 0;
        added_token token = read_added_token(node, declared_id);
        if (token.content.empty()) continue; // as in the reference
        token.normalized_content = token.content;
        if (token.normalized && text_normalizer != nullptr) {
            normalized_text text{token.content, true};
            text_normalizer->apply(text, workspace);
            token.normalized_content = std::move(text.text);
        }
        all_content_bytes += token.normalized_content.size();
        if (all_content_bytes > all_content_bytes_max) {
            node.fail_expected(
                fmt::format("added tokens of at most {} bytes in all", all_content_bytes_max));
        }
        add(std::move(token), declared_id, model_tokens, warnings, node.source());
    }
    for (const auto& [id, token] : by_id_) {
        added_token_matcher& matcher = token.normalized ? normalized_ : plain_;
        matcher.add(token.normalized_content, &token);
        id_end_ = std::max(id_end_, id + 1);
    }
}

void added_tokens::add(added_token token, int32_t declared_id, const vocabulary& model_tokens,
                       std::vector<std::string>& warnings, const std::string& origin) {
    int32_t id = model_tokens.find(token.content);
    if (const auto known = by_content_.find(token.content); known != by_content_.end()) {
        id = known->second;
    }
    if (id < 0) {
        id = next_id_++;
        if (id >= token_id_limit) fail(SLUICE_INVALID, "{}: more than {} tokens", origin, id);
    }
    if (id != declared_id) {
        warnings.push_back(fmt::format("{}: the added token {} has the id {} in the file, but gets "
                                       "the id {}, as in the reference implementation",
                                       origin, quote(token.content), declared_id, id));
    }
    token.id = id;
    by_content_.insert_or_assign(token.content, id);
    if (token.special) special_.insert(token.content);
    by_id_.insert_or_assign(id, std::move(token));
}

const added_token* added_tokens::find(std::string_view content) const {
    const auto found = by_content_.find(content);
    return found == by_content_.end() ? nullptr : find(found->second);
}

const added_token* added_tokens::find(int32_t id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &found->second;
}

} // namespace sluice::tokenization
