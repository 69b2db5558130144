// The model's own tokens: text to id and back.
#pragma once

#include "base/json.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sluice::tokenization {

struct text_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
        return std::hash<std::string_view>{}(text);
    }
};

class vocabulary {
  public:
    // Of model.vocab, an object from token to id. Throws if two tokens share an id: no text could
    // be decoded for certain.
    explicit vocabulary(const json_view& tokens);

    std::size_t size() const { return ids_.size(); }
    std::size_t longest_token_bytes() const { return longest_token_bytes_; }

    // The id, or -1.
    int32_t find(std::string_view text) const {
        const auto found = ids_.find(text);
        return found == ids_.end() ? -1 : found->second;
    }

    // The token's text, or null.
    const std::string* text(int32_t id) const {
        return id >= 0 && static_cast<std::size_t>(id) < texts_.size()
                   ? texts_[static_cast<std::size_t>(id)]
                   : nullptr;
    }

    // One more than the largest id.
    int32_t id_end() const { return static_cast<int32_t>(texts_.size()); }

  private:
    std::unordered_map<std::string, int32_t, text_hash, std::equal_to<>> ids_;
    std::vector<const std::string*> texts_; // by id, into the keys of ids_
    std::size_t longest_token_bytes_ = 0;
};

} // namespace sluice::tokenization
