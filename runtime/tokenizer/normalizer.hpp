// The first step of encoding: rewriting the text.
#pragma once

#include "base/json.hpp"
#include "tokenizer/pattern.hpp"

#include <memory>
#include <string>

namespace sluice::tokenization {

// A text on its way through the normalizer.
struct normalized_text {
    std::string text; // valid UTF-8
    // Whether the first character comes from the very start of the input: the pre-tokenizer
    // Metaspace marks the start of the input only, wherever the added tokens cut it.
    bool from_start = false;
};

class normalizer {
  public:
    virtual ~normalizer() = default;
    // May be called by several threads at once, each with a workspace of its own.
    virtual void apply(normalized_text& text, match_workspace& workspace) const = 0;
};

// Of the member "normalizer" of tokenizer.json.
std::unique_ptr<const normalizer> make_normalizer(const json_view& node);

} // namespace sluice::tokenization
