#include "engine/speculation.hpp"

#include "engine/loaded_model.hpp"

#include <algorithm>

namespace sluice {

namespace {

// Before anything is known, and with the weight of one guess ever after: most guesses are right
// where a text repeats, and where it does not, this is soon found out.
constexpr double chance_at_first = 0.75;
// What a guess counts for when another one has been checked: about the last ten matter.
constexpr double keep_checked = 0.9;
// When one has been passed over: a bad sequence is tried about every twentieth time.
constexpr double keep_passed_over = 0.96;

} // namespace

// ---- acceptance_estimate ----

double acceptance_estimate::probability() const {
    return (right_ + chance_at_first) / (checked_ + 1);
}

void acceptance_estimate::note(uint32_t accepted, bool rejected) {
    for (uint32_t i = 0; i < accepted + (rejected ? 1 : 0); ++i) {
        right_ = right_ * keep_checked + (i < accepted ? 1 : 0);
        checked_ = checked_ * keep_checked + 1;
    }
}

void acceptance_estimate::fade() {
    right_ *= keep_passed_over;
    checked_ *= keep_passed_over;
}

// ---- speculator ----

speculator::speculator(speculation_options options, uint32_t rows_max)
    : options_(std::move(options)), rows_max_(rows_max) {}

speculator::record& speculator::record_of(sequence_id sequence) {
    record& found = records_[sequence];
    if (!found.source) found.source = options_.make_source();
    return found;
}

void speculator::propose(std::span<const decoding_sequence> sequences) {
    candidates_.clear();
    drafts_.resize(sequences.size());
    for (size_t i = 0; i < sequences.size(); ++i) {
        const decoding_sequence& each = sequences[i];
        drafts_[i].clear();
        const uint32_t count_max = std::min(each.draft_tokens_max, options_.draft_tokens_max);
        if (count_max == 0) continue;
        const record& known = record_of(each.sequence);
        known.source->propose(each.tokens, count_max, drafts_[i]);
        double chance = 1;
        for (size_t row = 0; row < drafts_[i].size(); ++row) {
            chance *= known.acceptance.probability();
            candidates_.push_back({chance, i});
        }
    }
    // The rows of one sequence stay in their order, since their chances fall or are equal.
    std::stable_sort(
        candidates_.begin(), candidates_.end(),
        [](const auto& left, const auto& right) { return left.chance > right.chance; });
}

// In steps of one row.
double speculator::step_cost(size_t rows) const {
    return 1 + options_.row_cost * (size_on_ladder(uint32_t(rows), rows_max_) - 1);
}

size_t speculator::best_row_count(size_t sequence_count) const {
    auto expected = double(sequence_count); // tokens of the step
    double best = expected / step_cost(sequence_count);
    size_t best_count = 0;
    for (size_t i = 0; i < candidates_.size() && sequence_count + i < rows_max_; ++i) {
        expected += candidates_[i].chance;
        const double rate = expected / step_cost(sequence_count + i + 1);
        if (rate <= best) continue;
        best = rate;
        best_count = i + 1;
    }
    return best_count;
}

std::span<const std::vector<int32_t>>
speculator::draft(std::span<const decoding_sequence> sequences) {
    propose(sequences);
    lengths_.assign(sequences.size(), 0);
    const size_t rows = best_row_count(sequences.size());
    for (size_t i = 0; i < rows; ++i) ++lengths_[candidates_[i].place];
    for (size_t i = 0; i < sequences.size(); ++i) {
        if (!drafts_[i].empty() && lengths_[i] == 0) {
            record_of(sequences[i].sequence).acceptance.fade();
        }
        drafts_[i].resize(lengths_[i]);
    }
    return drafts_;
}

void speculator::note(sequence_id sequence, uint32_t accepted, bool rejected) {
    record_of(sequence).acceptance.note(accepted, rejected);
}

void speculator::forget(sequence_id sequence) { records_.erase(sequence); }

} // namespace sluice
