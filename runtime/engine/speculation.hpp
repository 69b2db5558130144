// Speculative decoding: how many guesses at the next tokens of each sequence a step checks.
//
// A row more costs time whether its guess is right or not, and is of use only if all guesses before
// it are right too. So rows are added in the order of that chance, and as many as promise the most
// tokens for the time of the step. The chance comes from how the sequence's guesses have fared, the
// time from a fixed price of a row: what is computed together depends on the tokens alone, and the
// same request takes the same steps each time.
#pragma once

#include "engine/draft_source.hpp"
#include "engine/scheduler.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

namespace sluice {

struct speculation_options {
    draft_source_factory make_source; // not set: no guesses
    uint32_t draft_tokens_max = 15;   // for a sequence and step
    double row_cost = 0.4;            // of a row beyond the first, as a share of a step of one row
};

// The chance that the next guess is right, from those before, where newer ones count more.
class acceptance_estimate {
  public:
    double probability() const;
    // Of a checked draft so many tokens were right, and then one was wrong, or none were left.
    void note(uint32_t accepted, bool rejected);
    // A draft was not worth checking. What is known gets old, so that one will be tried again.
    void fade();

  private:
    double right_ = 0;
    double checked_ = 0;
};

// Not for several threads at once.
class speculator {
  public:
    // rows_max: of a step. Steps are padded to sizes of size_ladder(rows_max).
    speculator(speculation_options options, uint32_t rows_max);

    // The drafts that the next step should check: one for each sequence, in their order, empty
    // where a guess is not worth its row. `sequences`: all that it decodes. Valid until the next
    // call.
    std::span<const std::vector<int32_t>> draft(std::span<const decoding_sequence> sequences);
    // How a sequence's draft fared in the step.
    void note(sequence_id sequence, uint32_t accepted, bool rejected);
    // The sequence has ended. Unknown ones are ignored.
    void forget(sequence_id sequence);

  private:
    struct record {
        std::unique_ptr<draft_source> source;
        acceptance_estimate acceptance;
    };
    struct candidate_row {
        double chance; // that the token before its guess comes, and the guess is right
        size_t place;  // of its sequence
    };

    record& record_of(sequence_id sequence);
    void propose(std::span<const decoding_sequence> sequences);
    size_t best_row_count(size_t sequence_count) const;
    double step_cost(size_t rows) const;

    speculation_options options_;
    uint32_t rows_max_;
    std::unordered_map<sequence_id, record> records_;
    std::vector<std::vector<int32_t>> drafts_;
    std::vector<candidate_row> candidates_;
    std::vector<size_t> lengths_;
};

} // namespace sluice
