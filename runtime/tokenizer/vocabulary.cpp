#include "tokenizer/vocabulary.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "tokenizer/component_json.hpp"

#include <algorithm>

namespace sluice::tokenization {

namespace {

constexpr std::size_t token_bytes_max = std::size_t{1} << 16;

} // namespace

vocabulary::vocabulary(const json_view& tokens) {
    if (tokens.as_object().size() == 0) tokens.fail_expected("an object from token to id");
    ids_.reserve(tokens.size());
    for (const json_view token : tokens) {
        const std::string_view text = token.key();
        if (text.size() > token_bytes_max) {
            fail(SLUICE_INVALID, "{}: a token of {} bytes, the limit is {}", tokens.where(),
                 text.size(), token_bytes_max);
        }
        const int32_t id = read_token_id(token);
        const auto place = ids_.emplace(text, id).first; // the keys of an object differ
        longest_token_bytes_ = std::max(longest_token_bytes_, text.size());
        if (static_cast<std::size_t>(id) >= texts_.size()) {
            texts_.resize(static_cast<std::size_t>(id) + 1, nullptr);
        }
        const std::string*& slot = texts_[static_cast<std::size_t>(id)];
        if (slot != nullptr) {
            fail(SLUICE_INVALID, "{}: the tokens {} and {} both have the id {}", tokens.where(),
                 quote(*slot), quote(text), id);
        }
        slot = &place->first;
    }
}

} // namespace sluice::tokenization
