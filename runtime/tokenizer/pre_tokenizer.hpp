// The second step of encoding: cutting the normalized text into pieces, which the model encodes
// one by one.
#pragma once

#include "base/json.hpp"
#include "tokenizer/pattern.hpp"

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::tokenization {

struct text_piece { // a part of text_pieces::text that is not empty
    std::size_t begin;
    std::size_t end;
    bool from_start; // see normalized_text
};

struct text_pieces {
    std::string text;               // valid UTF-8
    std::vector<text_piece> pieces; // in order; they need not cover the text

    std::string_view view(const text_piece& piece) const {
        return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
    }
};

class pre_tokenizer {
  public:
    virtual ~pre_tokenizer() = default;
    // May be called by several threads at once, each with a workspace of its own.
    virtual void apply(text_pieces& pieces, match_workspace& workspace) const = 0;
};

// Of the member "pre_tokenizer" of tokenizer.json.
std::unique_ptr<const pre_tokenizer> make_pre_tokenizer(const json_view& node);

} // namespace sluice::tokenization
