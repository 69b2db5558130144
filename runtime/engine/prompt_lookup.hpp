// Guesses by looking the newest tokens up in the sequence itself, prompt and answer: where they
// stood before, what followed then may follow again (Saxena, "Prompt lookup decoding", 2023).
// Nothing to load and nothing to train; of use where texts repeat, such as code, quotations and
// tables.
#pragma once

#include "engine/draft_source.hpp"

#include <cstddef>
#include <unordered_map>

namespace sluice {

class prompt_lookup final : public draft_source {
  public:
    // The newest ngram_min tokens, at least 1, must have occurred. Of their occurrences the one
    // that agrees in most tokens before them counts, up to ngram_max in all; among equals the
    // newest.
    prompt_lookup(uint32_t ngram_min, uint32_t ngram_max);

    void propose(std::span<const int32_t> tokens, uint32_t count_max,
                 std::vector<int32_t>& draft) override;

  private:
    void index(std::span<const int32_t> tokens);
    size_t best_place(std::span<const int32_t> tokens) const;

    uint32_t ngram_min_;
    uint32_t ngram_max_;
    // A place is that of the token which follows an n-gram, so it is never 0. N-grams of one hash
    // are a chain from the newest place to the oldest, 0 at its end.
    std::unordered_map<uint64_t, uint32_t> newest_;
    std::vector<uint32_t> earlier_; // [place]
};

} // namespace sluice
