#include "engine/scheduler.hpp"

#include "base/error.hpp"

#include <algorithm>

namespace sluice {

sluice_batch step_plan::batch() const {
    block_table_pointers_.clear();
    slot_pointers_.clear();
    for (const auto& table : block_table) block_table_pointers_.push_back(table.data());
    for (const auto& slots : slot) slot_pointers_.push_back(slots.data());

    sluice_batch batch = SLUICE_INIT(sluice_batch);
    batch.token_count = uint32_t(token_ids.size());
    batch.sequence_count = uint32_t(parts.size());
    batch.logit_count = uint32_t(logit_rows.size());
    batch.decode_sequence_count = decode_sequence_count;
    batch.group_count = uint32_t(block_table.size());
    batch.block_table_columns = block_table_columns;
    batch.token_ids = token_ids.data();
    batch.position = position.data();
    batch.sequence_of_row = sequence_of_row.data();
    batch.query_start = query_start.data();
    batch.kv_length = kv_length.data();
    batch.block_table = block_table_pointers_.data();
    batch.slot = slot_pointers_.data();
    batch.logit_rows = logit_rows.data();
    return batch;
}

void step_plan::clear() {
    parts.clear();
    copies.clear();
    decode_sequence_count = 0;
    for (std::vector<int32_t>* each :
         {&token_ids, &position, &sequence_of_row, &query_start, &kv_length, &logit_rows}) {
        each->clear();
    }
    for (std::vector<int32_t>& table : block_table) table.clear();
    for (std::vector<int32_t>& slots : slot) slots.clear();
    block_table_columns = 0;
}

scheduler::scheduler(scheduler_limits limits, kv_pool& pool) : limits_(limits), pool_(pool) {
    if (limits.tokens_per_step_max == 0 || limits.sequences_max == 0) {
        fail(
            SLUICE_INVALID,
            "engine.tokens_per_step_max is {} and engine.sequences_max {}; both must be at least 1",
            limits.tokens_per_step_max, limits.sequences_max);
    }
}

scheduler::~scheduler() {
    for (auto& [id, sequence] : sequences_) pool_.close(sequence->cache);
}

scheduler::record& scheduler::at(sequence_id id) {
    const auto found = sequences_.find(id);
    if (found == sequences_.end()) fail(SLUICE_INTERNAL, "sequence {} is not scheduled", id);
    return *found->second;
}

const scheduler::record& scheduler::at(sequence_id id) const {
    return const_cast<scheduler*>(this)->at(id);
}

void scheduler::add(sequence_id id, scheduled_request request) {
    if (request.tokens.empty()) {
        fail(SLUICE_INVALID, "a sequence without tokens cannot be computed; give at least one");
    }
    if (request.tokens.size() > request.tokens_max) {
        fail(SLUICE_INVALID, "the sequence has {} tokens; the most it may have is {}",
             request.tokens.size(), request.tokens_max);
    }
    if (request.tokens_max > pool_.tokens_max()) {
        fail(SLUICE_INVALID,
             "the sequence may grow to {} tokens, the KV pool holds {}; raise engine.cache_tokens "
             "or ask for fewer tokens",
             request.tokens_max, pool_.tokens_max());
    }
    auto sequence = std::make_unique<record>();
    sequence->id = id;
    sequence->arrival = arrivals_++;
    sequence->request = std::move(request);
    record* added = sequence.get();
    if (!sequences_.emplace(id, std::move(sequence)).second) {
        fail(SLUICE_INTERNAL, "sequence {} is scheduled already", id);
    }
    waiting_.push_back(added);
}

void scheduler::remove(sequence_id id) {
    const auto found = sequences_.find(id);
    if (found == sequences_.end()) return;
    if (plan_open_) fail(SLUICE_INTERNAL, "sequence {} is removed while a step runs", id);
    record* sequence = found->second.get();
    pool_.close(sequence->cache);
    std::erase(running_, sequence);
    waiting_.remove(sequence);
    sequences_.erase(found);
}

bool scheduler::append(sequence_id id, int32_t token) {
    record& sequence = at(id);
    if (sequence.known() >= sequence.request.tokens_max) {
        fail(SLUICE_INTERNAL, "sequence {} grows beyond its {} tokens", id,
             sequence.request.tokens_max);
    }
    sequence.request.tokens.push_back(token);
    const bool guessed = sequence.draft_computed && sequence.draft_settled < sequence.draft.size()
                         && sequence.draft[sequence.draft_settled] == token;
    if (!guessed) {
        forget_draft(sequence);
        return false;
    }
    ++sequence.draft_settled;
    pool_.commit(sequence.cache, std::span(&token, 1));
    return true;
}

void scheduler::find_decoding(std::vector<decoding_sequence>& found) const {
    found.clear();
    for (const record* sequence : running_) {
        if (sequence->pending() != 1) continue;
        found.push_back({sequence->id, sequence->request.tokens, draft_room(*sequence)});
    }
}

uint32_t scheduler::draft_room(const record& sequence) const {
    const scheduled_request& request = sequence.request;
    // A step brings a token more than the guesses that are right, so the last one needs no guess.
    uint32_t room = request.tokens_max - std::min(request.tokens_max, sequence.known() + 1);
    if (request.chunk_tokens_max > 0) room = std::min(room, request.chunk_tokens_max - 1);
    return room;
}

void scheduler::draft(sequence_id id, std::span<const int32_t> tokens) {
    at(id).draft.assign(tokens.begin(), tokens.end());
}

void scheduler::forget_draft(record& sequence) {
    if (sequence.draft_computed) pool_.trim(sequence.cache);
    sequence.draft.clear();
    sequence.draft_computed = false;
    sequence.draft_settled = 0;
}

// ---- Planning ----

const step_plan& scheduler::plan() {
    if (plan_open_) fail(SLUICE_INTERNAL, "a step is planned while another one runs");
    plan_.clear();
    chosen_.clear();
    for (record* sequence : running_) {
        sequence->planned = sequence->drafted = 0;
        if (sequence->draft_computed) forget_draft(*sequence);
    }
    rows_left_ = limits_.tokens_per_step_max;
    plan_decodes();
    plan_prompts();
    admit();
    plan_drafts();
    if (chosen_.empty()) return plan_;
    lay_out();
    plan_open_ = true;
    ++statistics_.steps;
    statistics_.rows += plan_.token_ids.size();
    return plan_;
}

uint32_t scheduler::chunk_of(const record& sequence) const {
    uint32_t chunk = std::min(sequence.pending(), rows_left_);
    if (sequence.request.chunk_tokens_max > 0) {
        chunk = std::min(chunk, sequence.request.chunk_tokens_max);
    }
    return chunk;
}

void scheduler::plan_decodes() {
    candidates_ = running_; // which preemption changes
    for (record* sequence : candidates_) {
        if (!sequence->running || sequence->pending() != 1 || rows_left_ == 0) continue;
        if (!reserve_or_preempt(*sequence)) continue;
        sequence->planned = 1;
        --rows_left_;
        chosen_.push_back(sequence);
    }
}

// Makes room for one more token, at the cost of younger sequences. False when the sequence itself
// had to go.
bool scheduler::reserve_or_preempt(record& sequence) {
    while (!pool_.reserve(sequence.cache, 1, plan_.copies)) {
        record* youngest = running_.back();
        if (youngest == &sequence && running_.size() == 1) {
            fail(SLUICE_EXHAUSTED,
                 "the KV pool has no block left for the only running sequence, at {} of its {} "
                 "tokens; raise engine.cache_tokens",
                 sequence.cache.length, sequence.request.tokens_max);
        }
        preempt(*youngest);
        if (youngest == &sequence) return false;
    }
    return true;
}

void scheduler::preempt(record& victim) {
    // What was chosen so far is older, so the victim has no rows in this plan.
    pool_.close(victim.cache);
    victim.draft.clear();
    victim.running = false;
    std::erase(running_, &victim);
    const auto later = std::find_if(waiting_.begin(), waiting_.end(), [&](const record* other) {
        return other->arrival > victim.arrival;
    });
    waiting_.insert(later, &victim);
    ++statistics_.preemptions;
}

void scheduler::plan_prompts() {
    for (record* sequence : running_) {
        if (rows_left_ == 0) break;
        if (sequence->planned > 0 || sequence->pending() == 0) continue;
        // Blocks for all known tokens were reserved when the sequence was admitted.
        sequence->planned = chunk_of(*sequence);
        rows_left_ -= sequence->planned;
        chosen_.push_back(sequence);
    }
}

// Blocks that stay free at admission: without them, the next block that any running sequence needs
// would throw the newcomer out again.
uint32_t scheduler::reserve_margin() const { return uint32_t(running_.size()); }

void scheduler::admit() {
    while (rows_left_ > 0 && !waiting_.empty() && running_.size() < limits_.sequences_max) {
        // Strictly in order: a long prompt at the front is not overtaken for ever by short ones.
        record& candidate = *waiting_.front();
        if (!admit_one(candidate)) break;
        waiting_.pop_front();
        const auto later = std::find_if(running_.begin(), running_.end(), [&](const record* other) {
            return other->arrival > candidate.arrival;
        });
        running_.insert(later, &candidate);
        candidate.running = true;
        candidate.planned = chunk_of(candidate);
        rows_left_ -= candidate.planned;
        chosen_.push_back(&candidate);
    }
}

bool scheduler::admit_one(record& candidate) {
    const scheduled_request& request = candidate.request;
    candidate.cache = pool_.open(request.tokens, request.root, request.prefix_reuse);
    bool fits = pool_.reserve(candidate.cache, candidate.pending(), plan_.copies);
    for (uint32_t group = 0; fits && group < pool_.group_count(); ++group) {
        fits = pool_.available_count(group) >= reserve_margin();
    }
    if (!fits) {
        pool_.close(candidate.cache);
        return false;
    }
    if (!candidate.reused) candidate.reused = candidate.cache.length;
    return true;
}

// Guesses take what is left when everything certain has its rows and blocks.
void scheduler::plan_drafts() {
    for (record* sequence : chosen_) {
        if (sequence->draft.empty() || sequence->pending() != 1) continue;
        auto count = uint32_t(sequence->draft.size());
        count = std::min({count, rows_left_, draft_room(*sequence)});
        while (count > 0 && !pool_.reserve(sequence->cache, 1 + count, plan_.copies)) --count;
        sequence->draft.resize(count);
        sequence->drafted = count;
        sequence->planned += count;
        rows_left_ -= count;
    }
}

// ---- The arrays ----

void scheduler::lay_out() {
    plan_.block_table.resize(pool_.group_count());
    plan_.slot.resize(pool_.group_count());
    for (const record* sequence : chosen_) {
        const uint32_t length = sequence->cache.length + sequence->planned;
        const uint32_t blocks = (length + pool_.tokens_per_block() - 1) / pool_.tokens_per_block();
        plan_.block_table_columns = std::max(plan_.block_table_columns, blocks);
    }
    plan_.query_start.push_back(0);
    for (record* sequence : chosen_) {
        if (sequence->planned == 1) lay_out_part(*sequence, true);
    }
    for (record* sequence : chosen_) {
        if (sequence->planned > 1) lay_out_part(*sequence, false);
    }
}

void scheduler::lay_out_part(record& sequence, bool single) {
    step_part part;
    part.sequence = sequence.id;
    part.row_begin = uint32_t(plan_.token_ids.size());
    part.row_count = sequence.planned;
    part.position = sequence.cache.length;
    part.logit_begin = uint32_t(plan_.logit_rows.size());
    part.draft_count = sequence.drafted;
    const uint32_t certain = sequence.planned - sequence.drafted;
    part.reaches_end = certain == sequence.pending();
    const auto place = int32_t(plan_.parts.size());
    for (uint32_t i = 0; i < sequence.planned; ++i) {
        const uint32_t position = part.position + i;
        plan_.token_ids.push_back(i < certain ? sequence.request.tokens[position]
                                              : sequence.draft[i - certain]);
        plan_.position.push_back(int32_t(position));
        plan_.sequence_of_row.push_back(place);
        for (uint32_t group = 0; group < pool_.group_count(); ++group) {
            plan_.slot[group].push_back(pool_.slot(sequence.cache, group, position));
        }
        const bool last = part.reaches_end && i + 1 >= certain;
        if (sequence.request.logits == logits_wanted::all
            || (sequence.request.logits == logits_wanted::last && last)) {
            plan_.logit_rows.push_back(int32_t(part.row_begin + i));
        }
    }
    part.logit_count = uint32_t(plan_.logit_rows.size()) - part.logit_begin;
    plan_.query_start.push_back(int32_t(plan_.token_ids.size()));
    plan_.kv_length.push_back(int32_t(part.position + part.row_count));
    for (uint32_t group = 0; group < pool_.group_count(); ++group) {
        // A table may be longer than this step needs: prompts reserve all their blocks at once.
        const std::vector<int32_t>& table = sequence.cache.tables[group];
        std::vector<int32_t>& target = plan_.block_table[group];
        const size_t end = target.size() + plan_.block_table_columns;
        const size_t count = std::min<size_t>(table.size(), plan_.block_table_columns);
        target.insert(target.end(), table.begin(), table.begin() + ptrdiff_t(count));
        target.resize(end, -1);
    }
    plan_.parts.push_back(part);
    if (single) ++plan_.decode_sequence_count;
}

// ---- After the step ----

void scheduler::complete() {
    if (!plan_open_) fail(SLUICE_INTERNAL, "a step is completed that was not planned");
    plan_open_ = false;
    for (record* sequence : chosen_) {
        const std::span<const int32_t> known(sequence->request.tokens);
        pool_.commit(sequence->cache,
                     known.subspan(sequence->cache.length, sequence->planned - sequence->drafted));
        sequence->draft_computed = sequence->drafted > 0;
        sequence->planned = sequence->drafted = 0;
    }
    chosen_.clear(); // its sequences may be removed from here on
}

void scheduler::abandon() {
    plan_open_ = false;
    for (record* sequence : chosen_) {
        sequence->draft_computed = sequence->drafted > 0; // and blocks were reserved for it
        forget_draft(*sequence);
        sequence->planned = sequence->drafted = 0;
    }
    chosen_.clear();
}

uint32_t scheduler::reused_tokens(sequence_id id) const { return at(id).reused.value_or(0); }

std::span<const int32_t> scheduler::tokens(sequence_id id) const { return at(id).request.tokens; }

void scheduler::check() const {
    std::vector<const kv_sequence*> open;
    for (const auto& [id, sequence] : sequences_) {
        if (sequence->running != sequence->cache.open) {
            fail(SLUICE_INTERNAL, "sequence {} is {} but its cache is {}", id,
                 sequence->running ? "running" : "waiting",
                 sequence->cache.open ? "open" : "closed");
        }
        if (sequence->running) open.push_back(&sequence->cache);
    }
    if (open.size() != running_.size() || running_.size() + waiting_.size() != sequences_.size()) {
        fail(SLUICE_INTERNAL, "{} sequences, {} running, {} waiting", sequences_.size(),
             running_.size(), waiting_.size());
    }
    pool_.check(open);
}

} // namespace sluice
