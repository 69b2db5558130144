#include "engine/prompt_lookup.hpp"

#include <algorithm>

namespace sluice {

namespace {

// Occurrences that are compared at most, the newest ones: more cost time between steps, and rarely
// agree better.
constexpr uint32_t occurrences_max = 32;

// FNV-1a over the tokens.
uint64_t hash_of(std::span<const int32_t> ngram) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const int32_t token : ngram) hash = (hash ^ uint32_t(token)) * 0x100000001b3u;
    return hash;
}

// Tokens before `place` and before the end that are the same, at most count_max.
size_t agreement(std::span<const int32_t> tokens, size_t place, size_t count_max) {
    const size_t limit = std::min(place, count_max);
    size_t count = 0;
    while (count < limit && tokens[place - 1 - count] == tokens[tokens.size() - 1 - count]) ++count;
    return count;
}

} // namespace

prompt_lookup::prompt_lookup(uint32_t ngram_min, uint32_t ngram_max)
    : ngram_min_(std::max(1u, ngram_min)), ngram_max_(std::max(ngram_min_, ngram_max)) {}

void prompt_lookup::index(std::span<const int32_t> tokens) {
    // What the last n-gram is followed by is not known yet.
    for (size_t place = std::max<size_t>(ngram_min_, earlier_.size()); place < tokens.size();
         ++place) {
        earlier_.resize(place, 0);
        uint32_t& newest = newest_[hash_of(tokens.subspan(place - ngram_min_, ngram_min_))];
        earlier_.push_back(newest);
        newest = uint32_t(place);
    }
}

size_t prompt_lookup::best_place(std::span<const int32_t> tokens) const {
    const auto found = newest_.find(hash_of(tokens.last(ngram_min_)));
    if (found == newest_.end()) return 0;
    size_t best = 0;
    size_t longest = ngram_min_ - 1; // hashes may collide: the tokens count
    uint32_t left = occurrences_max;
    for (uint32_t place = found->second; place != 0 && left > 0; place = earlier_[place], --left) {
        const size_t length = agreement(tokens, place, ngram_max_);
        if (length <= longest) continue;
        best = place;
        longest = length;
        if (longest == ngram_max_) break;
    }
    return best;
}

void prompt_lookup::propose(std::span<const int32_t> tokens, uint32_t count_max,
                            std::vector<int32_t>& draft) {
    index(tokens);
    if (tokens.size() < ngram_min_) return;
    const size_t place = best_place(tokens);
    if (place == 0) return;
    // Past the end goes the draft on with itself: what repeats does so again.
    for (size_t i = 0; i < count_max; ++i) {
        const size_t from = place + i;
        draft.push_back(from < tokens.size() ? tokens[from] : draft[from - tokens.size()]);
    }
}

} // namespace sluice
