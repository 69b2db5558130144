// WordPiece: from the left, always the longest token that fits.
#pragma once

#include "tokenizer/token_model.hpp"

#include <cstddef>
#include <string>

namespace sluice::tokenization {

class word_piece_model final : public token_model {
  public:
    explicit word_piece_model(const json_view& node);

    const vocabulary& tokens() const override { return tokens_; }
    std::unique_ptr<model_workspace> make_workspace() const override;
    void encode(std::string_view piece, std::vector<int32_t>& ids,
                model_workspace& workspace) const override;

  private:
    void append_unknown(std::vector<int32_t>& ids) const;

    vocabulary tokens_;
    std::string unknown_token_;
    std::string continuing_prefix_;
    std::size_t word_characters_max_; // longer words are unknown
};

} // namespace sluice::tokenization
