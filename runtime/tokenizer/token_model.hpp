// The third step of encoding: from one piece of text to token ids.
#pragma once

#include "base/json.hpp"
#include "tokenizer/vocabulary.hpp"

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace sluice::tokenization {

// Scratch memory of a model; one for each call to encode.
class model_workspace {
  public:
    virtual ~model_workspace() = default;
};

class token_model {
  public:
    virtual ~token_model() = default;

    virtual const vocabulary& tokens() const = 0;
    virtual std::unique_ptr<model_workspace> make_workspace() const = 0;
    // Appends the ids of `piece` (not empty, valid UTF-8). `workspace` comes from make_workspace of
    // this model. May be called by several threads at once, each with its own workspace.
    virtual void encode(std::string_view piece, std::vector<int32_t>& ids,
                        model_workspace& workspace) const = 0;
};

// Of the member "model" of tokenizer.json.
std::unique_ptr<const token_model> make_token_model(const json_view& node);

} // namespace sluice::tokenization
