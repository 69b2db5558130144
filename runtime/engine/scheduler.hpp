// Continuous batching: which tokens of which sequences the next step computes.
//
// A step holds at most tokens_per_step_max rows of at most sequences_max sequences. Decodes come
// first, so that running texts never wait for a prompt; the rest of the step is filled with chunks
// of prompts in the order of arrival. A sequence is admitted when the pool has room for all its
// known tokens; when decodes run out of blocks, the youngest sequence gives its blocks back and
// waits, to be computed again from what is still cached (recompute rather than swap).
//
// A decoding sequence may come with a draft: guesses at the tokens that follow, which the same step
// computes in rows behind the sequence's own. Rows and blocks that nothing certain needs are
// theirs. What is written for a guess counts only once append() has brought the same token; from
// the first other one on it is forgotten, and never seen by the pool.
//
// Pure bookkeeping: no backend, no clock, no thread. Not for several threads at once.
#pragma once

#include "engine/kv_pool.hpp"

#include <sluice/abi/backend.h>

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

namespace sluice {

using sequence_id = uint64_t;

enum class logits_wanted {
    last, // of the last known token, to sample the next one
    all,  // of every row that is computed
    none, // fills the cache
};

struct scheduled_request {
    std::vector<int32_t> tokens; // at least one
    uint32_t tokens_max = 0;     // longest the sequence may grow, prompt included
    sluice_block_key root{};     // block_key_root() of what the sequence may share
    logits_wanted logits = logits_wanted::last;
    uint32_t chunk_tokens_max = 0; // rows a step; 0: as many as fit
    bool prefix_reuse = true;
};

struct scheduler_limits {
    uint32_t tokens_per_step_max = 512;
    uint32_t sequences_max = 16;
};

// A sequence's part in a step: rows row_begin .. row_begin + row_count - 1 are its tokens from
// `position` on.
struct step_part {
    sequence_id sequence = 0;
    uint32_t row_begin = 0;
    uint32_t row_count = 0;
    uint32_t position = 0;
    uint32_t logit_begin = 0; // first of its rows in the logits [L, V]
    uint32_t logit_count = 0;
    uint32_t draft_count = 0; // of its rows, the last ones: guesses
    bool reaches_end = false; // after this step all known tokens are computed
};

// The arrays of a sluice_batch, with what the runner has to do around it.
class step_plan {
  public:
    std::vector<step_part> parts;
    std::vector<kv_block_copy> copies; // before the step
    uint32_t decode_sequence_count = 0;

    std::vector<int32_t> token_ids;
    std::vector<int32_t> position;
    std::vector<int32_t> sequence_of_row;
    std::vector<int32_t> query_start;
    std::vector<int32_t> kv_length;
    std::vector<std::vector<int32_t>> block_table; // [group][sequence, block_table_columns]
    std::vector<std::vector<int32_t>> slot;        // [group][token]
    std::vector<int32_t> logit_rows;
    uint32_t block_table_columns = 0;

    // Points into the arrays; valid until the plan changes.
    sluice_batch batch() const;
    // Empties it. The arrays keep their memory, for the next plan is much like this one.
    void clear();
    bool empty() const { return parts.empty(); }

  private:
    mutable std::vector<const int32_t*> block_table_pointers_;
    mutable std::vector<const int32_t*> slot_pointers_;
};

struct scheduler_statistics {
    uint64_t steps = 0;
    uint64_t rows = 0;
    uint64_t preemptions = 0;
};

// A running sequence whose next step computes one token, its newest.
struct decoding_sequence {
    sequence_id sequence = 0;
    std::span<const int32_t> tokens; // valid until its next append()
    uint32_t draft_tokens_max = 0;   // a longer draft could not be of use
};

class scheduler {
  public:
    // `pool` outlives the scheduler.
    scheduler(scheduler_limits limits, kv_pool& pool);
    ~scheduler(); // gives all blocks back

    // Queues a sequence. Fails with SLUICE_INVALID where it could never run: no tokens, or
    // tokens_max beyond the pool.
    void add(sequence_id id, scheduled_request request);
    // Takes a sequence out, wherever it stands. Unknown ones are ignored.
    void remove(sequence_id id);
    // The next token of a sequence whose tokens are all computed. Returns whether the last step has
    // computed that one too, as a guess: then the next one follows from the next of its logit rows.
    bool append(sequence_id id, int32_t token);

    // The sequences that the next step decodes, by arrival.
    void find_decoding(std::vector<decoding_sequence>& found) const;
    // Guesses at what follows the tokens of a decoding sequence, for the next plan, which takes as
    // many of them as there is room for.
    void draft(sequence_id id, std::span<const int32_t> tokens);

    // Plans the next step. An empty plan means that nothing can run (nothing is queued, or all
    // sequences wait for append()). At most one plan is open at a time.
    const step_plan& plan();
    // The plan that plan() made last.
    const step_plan& open_plan() const { return plan_; }
    // The planned step has run: what it wrote counts from now on.
    void complete();
    // The planned step did not run, or failed; nothing it would have written counts. Callers remove
    // the sequences they give up.
    void abandon();

    // Tokens whose blocks were found in the pool when the sequence was first admitted.
    uint32_t reused_tokens(sequence_id id) const;
    std::span<const int32_t> tokens(sequence_id id) const;
    uint32_t running_count() const { return static_cast<uint32_t>(running_.size()); }
    uint32_t waiting_count() const { return static_cast<uint32_t>(waiting_.size()); }
    bool idle() const { return sequences_.empty(); }
    const scheduler_statistics& statistics() const { return statistics_; }
    // kv_pool::check with this scheduler's sequences. For tests.
    void check() const;

  private:
    struct record {
        sequence_id id = 0;
        uint64_t arrival = 0;
        scheduled_request request; // its tokens grow
        kv_sequence cache;
        bool running = false;
        std::optional<uint32_t> reused;
        uint32_t planned = 0;        // rows in the open plan
        uint32_t drafted = 0;        // of these, the last ones: guesses
        std::vector<int32_t> draft;  // of what follows the known tokens
        bool draft_computed = false; // a step has run with it, and append() says what was right
        uint32_t draft_settled = 0;  // of its tokens: those that came since

        uint32_t known() const { return static_cast<uint32_t>(request.tokens.size()); }
        uint32_t pending() const { return known() - cache.length; }
    };

    record& at(sequence_id id);
    const record& at(sequence_id id) const;
    void plan_decodes();
    void plan_prompts();
    void plan_drafts();
    uint32_t draft_room(const record& sequence) const;
    void forget_draft(record& sequence);
    void admit();
    bool admit_one(record& candidate);
    bool reserve_or_preempt(record& sequence);
    void preempt(record& victim);
    uint32_t chunk_of(const record& sequence) const;
    uint32_t reserve_margin() const;
    void lay_out();
    void lay_out_part(record& sequence, bool single);

    scheduler_limits limits_;
    kv_pool& pool_;
    std::unordered_map<sequence_id, std::unique_ptr<record>> sequences_;
    std::list<record*> waiting_;      // by arrival
    std::vector<record*> running_;    // by arrival
    std::vector<record*> chosen_;     // of the open plan, decodes first
    std::vector<record*> candidates_; // scratch of plan_decodes()
    uint32_t rows_left_ = 0;
    uint64_t arrivals_ = 0;
    bool plan_open_ = false;
    step_plan plan_;
    scheduler_statistics statistics_;
};

} // namespace sluice
