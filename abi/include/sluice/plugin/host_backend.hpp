// A kit for backends that compute in host memory on the host's worker team: buffers, caches,
// events, queues, the memory plan of intermediate values, and a bound executable that takes batches
// in and runs as one team entry. What is left to the backend is weights, claims and `run`.
#pragma once

#include <sluice/plugin/backend.hpp>
#include <sluice/plugin/memory_plan.hpp>

#include <condition_variable>
#include <mutex>

namespace sluice::plugin {

class host_buffer final : public sluice_buffer {
  public:
    host_buffer(const host& owner, uint64_t size_bytes) : memory_(owner, size_bytes) {
        memory_.clear();
    }
    std::byte* at(uint64_t offset, uint64_t size_bytes) const {
        if (offset > memory_.size() || size_bytes > memory_.size() - offset)
            fail(SLUICE_INVALID, "bytes ", offset, " to ", offset + size_bytes,
                 " are outside a buffer of ", memory_.size(), " bytes");
        return memory_.as() + offset;
    }
    std::byte* data() const { return memory_.as(); }

  private:
    memory memory_;
};

// For each part of each state the vectors of all slots: [block_count * tokens_per_block,
// part_width]. In a part of whole numbers each vector is followed by its scales, f32 [groups].
class host_cache final : public sluice_cache {
  public:
    host_cache(const host& owner, std::span<const sluice_state> states,
               std::span<const uint32_t> block_count)
        : states_(states.begin(), states.end()),
          block_count_(block_count.begin(), block_count.end()) {
        for (const auto& state : states_) {
            if (state.kind == SLUICE_STATE_PER_SEQUENCE)
                fail(SLUICE_UNSUPPORTED, "states kept per sequence are not supported");
            if (state.group >= block_count_.size() || state.tokens_per_block == 0
                || state.part_count > SLUICE_STATE_PARTS_MAX)
                fail(SLUICE_INVALID, "a state of group ", state.group, " with ", state.part_count,
                     " parts and ", state.tokens_per_block, " tokens a block, in a cache of ",
                     block_count_.size(), " groups");
            for (uint32_t part = 0; part < state.part_count; ++part) {
                check_groups(state, part);
                parts_.emplace_back(owner, block_bytes(state, part) * block_count_[state.group]);
                parts_.back().clear();
            }
        }
    }

    // Of a part of whole numbers: how many scales a vector has.
    static uint32_t group_count(const sluice_state& state, uint32_t part) {
        return state.part_group[part] == 0 ? 0 : state.part_width[part] / state.part_group[part];
    }
    static uint64_t token_bytes(const sluice_state& state, uint32_t part) {
        return bytes_of(state.part_type[part], state.part_width[part])
               + group_count(state, part) * sizeof(float);
    }
    static uint64_t block_bytes(const sluice_state& state, uint32_t part) {
        return token_bytes(state, part) * state.tokens_per_block;
    }
    static uint64_t block_bytes(std::span<const sluice_state> states, uint32_t group) {
        uint64_t total = 0;
        for (const auto& state : states)
            if (state.group == group)
                for (uint32_t part = 0; part < state.part_count; ++part)
                    total += block_bytes(state, part);
        return total;
    }

    const std::vector<sluice_state>& states() const { return states_; }
    uint32_t block_count(uint32_t group) const { return block_count_[group]; }
    std::byte* part(uint32_t state, uint32_t part) const {
        size_t index = part;
        for (uint32_t before = 0; before < state; ++before) index += states_[before].part_count;
        return parts_[index].as();
    }

    // Calls visit(bytes of the block, size) for each state and part of a group.
    template <typename Visit>
    void each_part_of_block(uint32_t group, int32_t block, Visit&& visit) const {
        if (group >= block_count_.size() || block < 0
            || static_cast<uint32_t>(block) >= block_count_[group])
            fail(SLUICE_INVALID, "block ", block, " of group ", group, " is not in the cache");
        for (uint32_t s = 0; s < states_.size(); ++s) {
            if (states_[s].group != group) continue;
            for (uint32_t p = 0; p < states_[s].part_count; ++p) {
                const uint64_t size = block_bytes(states_[s], p);
                visit(part(s, p) + size * static_cast<uint64_t>(block), size);
            }
        }
    }

  private:
    static void check_groups(const sluice_state& state, uint32_t part) {
        const bool is_whole = state.part_type[part] == SLUICE_I8;
        const uint32_t group = state.part_group[part];
        if (is_whole ? group == 0 || state.part_width[part] % group != 0 : group != 0)
            fail(SLUICE_INVALID, "part ", part, " of a state has ", state.part_width[part],
                 " elements in groups of ", group,
                 "; groups are of whole numbers (i8), and divide their width");
    }

    std::vector<sluice_state> states_;
    std::vector<uint32_t> block_count_;
    std::vector<memory> parts_;
};

class host_event final : public sluice_event {
  public:
    void begin() {
        const std::lock_guard lock(mutex_);
        ended_ = false;
        status_ = SLUICE_OK;
    }
    void end(sluice_status status, std::string_view message) {
        const std::lock_guard lock(mutex_);
        status_ = status;
        copy_text(message_, message);
        ended_ = true;
        changed_.notify_all();
    }
    void wait() override {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return ended_; });
        if (status_ != SLUICE_OK) throw failure(status_, message_);
    }
    bool ended() const override {
        const std::lock_guard lock(mutex_);
        return ended_;
    }

  private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool ended_ = true;
    sluice_status status_ = SLUICE_OK;
    char message_[SLUICE_ERROR_MESSAGE_BYTES] = "";
};

// The team runs its entries in order, so a queue only counts what has not ended yet. It knows no
// event: those may be destroyed before it.
class host_queue final : public sluice_queue {
  public:
    ~host_queue() override {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return running_ == 0; });
    }
    void begin() {
        const std::lock_guard lock(mutex_);
        ++running_;
    }
    void end() {
        const std::lock_guard lock(mutex_);
        --running_;
        changed_.notify_all();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    uint32_t running_ = 0;
};

// An executable bound to extents, cache and buffers: where its values lie, and how batches get in.
// The tensors by value number and the counts of the batch are those of the last plan.
class host_values : public sluice_bound {
  public:
    host_values(const host& owner, const plugin::program& p, const extents& sizes,
                sluice_cache* cache, std::span<const sluice_binding> bindings)
        : host_(owner), program_(p), sizes_(sizes), plan_(p, sizes),
          arena_(owner, plan_.size_bytes), tensors_(p.values.size()), bound_(p.values.size()) {
        if (!p.states.empty()) {
            cache_ = dynamic_cast<host_cache*>(cache);
            if (cache_ == nullptr || cache_->states().size() != p.states.size())
                fail(SLUICE_INVALID, "the program has ", p.states.size(),
                     " states; bind it to a cache that was made for them");
        }
        for (uint32_t i = 0; i < tensors_.size(); ++i) {
            tensors_[i].type = p.values[i].type;
            tensors_[i].rank = p.values[i].rank;
            if (plan_.planned[i]) tensors_[i].data = arena_.as() + plan_.offset[i];
        }
        for (const auto& b : bindings) bind_buffer(b);
        allocate_inputs();
        resize(sizes);
    }

    void plan(const sluice_batch& batch) override {
        check_batch(batch);
        extents present{};
        present[SLUICE_EXTENT_TOKENS] = batch.token_count;
        present[SLUICE_EXTENT_SEQUENCES] = batch.sequence_count;
        present[SLUICE_EXTENT_LOGITS] = batch.logit_count;
        present[SLUICE_EXTENT_BLOCKS] = batch.block_table_columns;
        resize(present);
        for (const auto& v : program_.values)
            if (v.kind == SLUICE_VALUE_INPUT && v.input != SLUICE_INPUT_CUSTOM && !bound_[v.number])
                copy_input(v, batch);
        decode_sequence_count_ = batch.decode_sequence_count;
        query_start_.assign(batch.query_start, batch.query_start + batch.sequence_count + 1);
        planned(batch);
        is_planned_ = true;
    }

    ~host_values() override = default;

  protected:
    // Host work of the backend's own, after the inputs are in place. Must not allocate.
    virtual void planned(const sluice_batch&) {}

    void require_planned() const {
        if (!is_planned_) fail(SLUICE_INVALID, "submit needs a plan first");
    }
    const plugin::program& source() const { return program_; }
    const tensor& at(uint32_t number) const { return tensors_[number]; }
    const tensor* optional(uint32_t number) const {
        return number == SLUICE_VALUE_NONE ? nullptr : &tensors_[number];
    }
    const host_cache& cache() const { return *cache_; }
    const extents& sizes_max() const { return sizes_; }
    const extents& sizes_present() const { return present_; }
    // First row of each sequence, and its end: [sequences + 1].
    std::span<const int32_t> query_start() const { return query_start_; }
    uint32_t decode_sequence_count() const { return decode_sequence_count_; }
    const host& owner() const { return host_; }

  private:
    void bind_buffer(const sluice_binding& b) {
        if (b.value >= tensors_.size())
            fail(SLUICE_INVALID, "a binding names value ", b.value, " of ", tensors_.size());
        const auto& v = program_.values[b.value];
        const bool is_output = std::find(program_.outputs.begin(), program_.outputs.end(), b.value)
                               != program_.outputs.end();
        if (v.kind != SLUICE_VALUE_INPUT && !is_output)
            fail(SLUICE_INVALID, "value '", v.name, "' is neither an input nor an output");
        auto& buffer = dynamic_cast<host_buffer&>(*b.buffer);
        std::byte* data = buffer.at(b.offset_bytes, bytes_of(v.type, v.element_count(sizes_)));
        for (uint32_t i = 0; i < tensors_.size(); ++i)
            if (plan_.alias[i] == b.value) tensors_[i].data = data;
        bound_[b.value] = true;
    }

    void allocate_inputs() {
        for (const auto& v : program_.values) {
            if (v.kind != SLUICE_VALUE_INPUT || bound_[v.number]) continue;
            if (v.input == SLUICE_INPUT_CUSTOM)
                fail(SLUICE_INVALID, "input '", v.name, "' must be bound to a buffer");
            inputs_.emplace_back(host_, bytes_of(v.type, v.element_count(sizes_)) + 64);
            for (uint32_t i = 0; i < tensors_.size(); ++i)
                if (plan_.alias[i] == v.number) tensors_[i].data = inputs_.back().as();
        }
        query_start_.reserve(sizes_[SLUICE_EXTENT_SEQUENCES] + 1);
    }

    void resize(const extents& present) {
        present_ = present;
        for (uint32_t i = 0; i < tensors_.size(); ++i)
            for (uint32_t axis = 0; axis < tensors_[i].rank; ++axis)
                tensors_[i].shape[axis] = program_.values[i].size(axis, present);
    }

    void check_batch(const sluice_batch& batch) const {
        const std::pair<uint32_t, uint32_t> pairs[] = {
            {batch.token_count, sizes_[SLUICE_EXTENT_TOKENS]},
            {batch.sequence_count, sizes_[SLUICE_EXTENT_SEQUENCES]},
            {batch.logit_count, sizes_[SLUICE_EXTENT_LOGITS]},
            {batch.block_table_columns, sizes_[SLUICE_EXTENT_BLOCKS]}};
        for (const auto& [found, bound] : pairs)
            if (found > bound)
                fail(SLUICE_INVALID, "a batch of ", batch.token_count, " tokens, ",
                     batch.sequence_count, " sequences, ", batch.logit_count, " logit rows and ",
                     batch.block_table_columns, " block columns is over what was bound (",
                     sizes_[1], ", ", sizes_[2], ", ", sizes_[3], ", ", sizes_[4], ")");
        if (batch.query_start == nullptr) fail(SLUICE_INVALID, "batch.query_start is missing");
    }

    void copy_input(const value& v, const sluice_batch& batch) {
        const int32_t* from = nullptr;
        switch (v.input) {
        case SLUICE_INPUT_TOKEN_IDS:
            from = batch.token_ids;
            break;
        case SLUICE_INPUT_POSITION:
            from = batch.position;
            break;
        case SLUICE_INPUT_SEQUENCE_OF_ROW:
            from = batch.sequence_of_row;
            break;
        case SLUICE_INPUT_KV_LENGTH:
            from = batch.kv_length;
            break;
        case SLUICE_INPUT_LOGIT_ROWS:
            from = batch.logit_rows;
            break;
        case SLUICE_INPUT_ADAPTER_INDEX:
            from = batch.adapter_index;
            break;
        case SLUICE_INPUT_BLOCK_TABLE:
        case SLUICE_INPUT_SLOT:
            if (v.group < batch.group_count)
                from =
                    v.input == SLUICE_INPUT_SLOT ? batch.slot[v.group] : batch.block_table[v.group];
            break;
        default:
            fail(SLUICE_UNSUPPORTED, "input kind ", v.input, " is not known to this backend");
        }
        const auto& target = tensors_[v.number];
        const int64_t count = target.element_count();
        if (from == nullptr && count != 0)
            fail(SLUICE_INVALID, "the batch lacks what input '", v.name, "' needs");
        std::copy_n(from, count, target.as<int32_t>());
    }

    host host_;
    const plugin::program& program_;
    extents sizes_;
    extents present_{};
    memory_plan plan_;
    memory arena_;
    std::vector<memory> inputs_;
    std::vector<tensor> tensors_;
    std::vector<bool> bound_;
    host_cache* cache_ = nullptr;
    std::vector<int32_t> query_start_;
    uint32_t decode_sequence_count_ = 0;
    bool is_planned_ = false;
};

// One whose step runs as one team entry. Derived classes run the operations.
class host_bound : public host_values {
  public:
    using host_values::host_values;

    void plan(const sluice_batch& batch) final {
        if (running_) fail(SLUICE_INVALID, "plan was called while a submission runs");
        host_values::plan(batch);
    }

    void submit(sluice_queue& queue, std::span<sluice_event* const> waits,
                sluice_event* done) final {
        require_planned();
        if (running_.exchange(true)) fail(SLUICE_INVALID, "the last submission still runs");
        wait_count_ = std::min(waits.size(), waits_.size());
        if (wait_count_ < waits.size()) {
            running_ = false;
            fail(SLUICE_UNSUPPORTED, "at most ", waits_.size(), " events can be waited for");
        }
        std::copy(waits.begin(), waits.end(), waits_.begin());
        done_ = static_cast<host_event*>(done);
        if (done_ != nullptr) done_->begin();
        queue_ = &static_cast<host_queue&>(queue);
        queue_->begin();
        failed_ = false;
        status_ = SLUICE_OK;
        task_ = SLUICE_INIT(sluice_team_task);
        task_.context = this;
        task_.run = [](void* self, uint32_t index, uint32_t count, sluice_barrier* handle) {
            auto& bound = *static_cast<host_bound*>(self);
            bound.enter(worker{index, count, barrier(bound.owner().table(), handle)});
        };
        task_.finished = [](void* self) { static_cast<host_bound*>(self)->leave(); };
        owner().table().team_start(owner().table().context, &task_);
    }

  protected:
    // Runs the planned step on one worker; all workers call it together. Must not throw between
    // barriers that other workers wait at: use `attempt`.
    virtual void run(const worker& self) = 0;

    // Runs `function`, keeping the first thing thrown as the submission's error. Returns false when
    // this or another worker has failed; after a barrier all workers see the same.
    template <typename Function>
    bool attempt(Function&& function) {
        sluice_error error = SLUICE_INIT(sluice_error);
        const sluice_status status = guard(&error, std::forward<Function>(function));
        if (status != SLUICE_OK && !failed_.exchange(true)) {
            status_ = status;
            copy_text(message_, error.message);
        }
        return !failed_;
    }
    bool failed() const { return failed_; }

  private:
    void enter(const worker& self) {
        if (wait_count_ != 0) {
            if (self.index == 0)
                attempt([&] {
                    for (size_t i = 0; i < wait_count_; ++i) waits_[i]->wait();
                });
            self.meet.wait();
            if (failed_) return;
        }
        run(self);
    }

    void leave() {
        // Nothing of this object is touched once the event has ended: it may be destroyed then.
        host_event* done = done_;
        host_queue* queue = queue_;
        const sluice_status status = status_;
        char message[SLUICE_ERROR_MESSAGE_BYTES];
        copy_text(message, message_);
        running_ = false;
        if (done != nullptr) done->end(status, status == SLUICE_OK ? "" : message);
        queue->end();
    }

    sluice_team_task task_ = SLUICE_INIT(sluice_team_task);
    std::array<sluice_event*, 8> waits_{};
    size_t wait_count_ = 0;
    host_event* done_ = nullptr;
    host_queue* queue_ = nullptr;
    std::atomic<bool> running_{false};
    std::atomic<bool> failed_{false};
    sluice_status status_ = SLUICE_OK;
    char message_[SLUICE_ERROR_MESSAGE_BYTES] = "";
};

// The part of `backend` that is the same for all backends in host memory.
class host_backend : public backend {
  public:
    explicit host_backend(host owner) : host_(owner) {}

    std::unique_ptr<sluice_buffer> buffer_create(uint64_t size_bytes) final {
        return std::make_unique<host_buffer>(host_, size_bytes);
    }
    void buffer_write(sluice_buffer& buffer, uint64_t offset, const void* data,
                      uint64_t size_bytes) final {
        std::memcpy(static_cast<host_buffer&>(buffer).at(offset, size_bytes), data, size_bytes);
    }
    void buffer_read(const sluice_buffer& buffer, uint64_t offset, void* data,
                     uint64_t size_bytes) const final {
        std::memcpy(data, static_cast<const host_buffer&>(buffer).at(offset, size_bytes),
                    size_bytes);
    }
    void* buffer_map(sluice_buffer& buffer) final {
        return static_cast<host_buffer&>(buffer).data();
    }

    uint64_t cache_block_bytes(std::span<const sluice_state> states, uint32_t group) const final {
        return host_cache::block_bytes(states, group);
    }
    std::unique_ptr<sluice_cache> cache_create(std::span<const sluice_state> states,
                                               std::span<const uint32_t> block_count) final {
        return std::make_unique<host_cache>(host_, states, block_count);
    }
    void cache_copy_blocks(sluice_cache& cache, uint32_t group, std::span<const int32_t> from,
                           std::span<const int32_t> to) final {
        auto& blocks = static_cast<host_cache&>(cache);
        for (size_t i = 0; i < from.size(); ++i) {
            std::vector<std::byte*> sources;
            blocks.each_part_of_block(group, from[i],
                                      [&](std::byte* data, uint64_t) { sources.push_back(data); });
            size_t part = 0;
            blocks.each_part_of_block(group, to[i], [&](std::byte* data, uint64_t size) {
                std::memcpy(data, sources[part++], size);
            });
        }
    }
    void cache_read_block(const sluice_cache& cache, uint32_t group, int32_t block,
                          void* data) const final {
        auto* target = static_cast<std::byte*>(data);
        static_cast<const host_cache&>(cache).each_part_of_block(
            group, block, [&](const std::byte* part, uint64_t size) {
                std::memcpy(target, part, size);
                target += size;
            });
    }
    void cache_write_block(sluice_cache& cache, uint32_t group, int32_t block,
                           const void* data) final {
        const auto* from = static_cast<const std::byte*>(data);
        static_cast<host_cache&>(cache).each_part_of_block(group, block,
                                                           [&](std::byte* part, uint64_t size) {
                                                               std::memcpy(part, from, size);
                                                               from += size;
                                                           });
    }

    std::unique_ptr<sluice_queue> queue_create() final { return std::make_unique<host_queue>(); }
    std::unique_ptr<sluice_event> event_create() final { return std::make_unique<host_event>(); }

  protected:
    const host& owner() const { return host_; }

  private:
    host host_;
};

} // namespace sluice::plugin
