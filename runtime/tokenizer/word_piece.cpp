#include "tokenizer/word_piece.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "tokenizer/unicode.hpp"

#include <algorithm>
#include <limits>

namespace sluice::tokenization {

namespace {

constexpr std::size_t continuing_prefix_bytes_max = 256;

struct word_piece_workspace final : model_workspace {
    std::string candidate;
};

} // namespace

word_piece_model::word_piece_model(const json_view& node)
    : tokens_(node.at("vocab")), unknown_token_(node.text("unk_token")),
      continuing_prefix_(node.text("continuing_subword_prefix")),
      word_characters_max_(static_cast<std::size_t>(
          node.integer("max_input_chars_per_word", 0, std::numeric_limits<uint32_t>::max()))) {
    if (continuing_prefix_.size() > continuing_prefix_bytes_max) {
        node.at("continuing_subword_prefix")
            .fail_expected(fmt::format("a text of at most {} bytes", continuing_prefix_bytes_max));
    }
}

std::unique_ptr<model_workspace> word_piece_model::make_workspace() const {
    return std::make_unique<word_piece_workspace>();
}

void word_piece_model::append_unknown(std::vector<int32_t>& ids) const {
    const int32_t unknown = tokens_.find(unknown_token_);
    if (unknown < 0) {
        fail(SLUICE_INVALID,
             "the text needs the unknown token {}, which the tokenizer's vocabulary lacks; use a "
             "tokenizer.json whose model.unk_token is in model.vocab",
             quote(unknown_token_));
    }
    ids.push_back(unknown);
}

void word_piece_model::encode(std::string_view piece, std::vector<int32_t>& ids,
                              model_workspace& workspace) const {
    if (utf8_count(piece) > word_characters_max_) {
        append_unknown(ids);
        return;
    }
    std::string& candidate = static_cast<word_piece_workspace&>(workspace).candidate;
    const std::size_t first_id = ids.size();
    for (std::size_t start = 0; start < piece.size();) {
        // No token is longer than this, so there is no use in trying.
        std::size_t end = std::min(piece.size(), start + tokens_.longest_token_bytes());
        while (end < piece.size() && (static_cast<unsigned char>(piece[end]) & 0xc0) == 0x80) --end;
        int32_t id = -1;
        while (end > start) {
            candidate.assign(start > 0 ? continuing_prefix_ : std::string());
            candidate.append(piece.substr(start, end - start));
            id = tokens_.find(candidate);
            if (id >= 0) break;
            end = utf8_previous_start(piece, end);
        }
        if (id < 0) { // one part that is unknown makes the whole word unknown
            ids.resize(first_id);
            append_unknown(ids);
            return;
        }
        ids.push_back(id);
        start = end;
    }
}

} // namespace sluice::tokenization
