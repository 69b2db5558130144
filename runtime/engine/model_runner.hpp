// Runs planned steps of a loaded model: caches, bound executables and queues of its own.
#pragma once

#include "engine/loaded_model.hpp"
#include "engine/sampler.hpp"
#include "engine/scheduler.hpp"
#include "engine/segment_runner.hpp"

#include <array>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <vector>

namespace sluice {

// The seam between scheduling and computing: the engine needs no more of a model than this.
class step_executor {
  public:
    virtual ~step_executor() = default;
    virtual uint32_t vocabulary_size() const = 0;
    // Copies the plan's blocks and runs it. Fails with the backend's error; the cache then holds
    // nothing of the step that counts. `meanwhile`, if given, is called when all of the step is
    // with the backend, so that it costs no time of its own; it must not throw.
    virtual void run(const step_plan& plan, const std::function<void()>& meanwhile) = 0;
    // Of the last step, valid until the next: the logits [logit rows, vocabulary] in float32.
    virtual std::span<const float> logits() = 0;
    // Likewise: what greedy sampling chose [logit rows], with token -1 where no logit is finite.
    // Empty where that is left to the caller.
    virtual std::span<const sampled_token> greedy() = 0;
    // Of the last step; the same time twice where they are not known.
    virtual step_times times() const { return {}; }
};

struct runner_options {
    uint32_t cache_tokens = 0; // 0: as the configuration says
};

// Not for several threads at once. Several runners of one model may run side by side.
class model_runner final : public step_executor {
  public:
    explicit model_runner(std::shared_ptr<const loaded_model> model, runner_options options = {});
    ~model_runner() override;
    model_runner(const model_runner&) = delete;
    model_runner& operator=(const model_runner&) = delete;

    // The block groups that the cache has; for the pool in front of it.
    kv_pool_options pool_options() const;
    // What the cache's contents depend on; see block_key_root().
    sluice_block_key root_key(std::string_view tenant = {}) const;

    uint32_t vocabulary_size() const override { return model_->config().vocabulary_size; }
    void run(const step_plan& plan, const std::function<void()>& meanwhile = {}) override;
    std::span<const float> logits() override;
    std::span<const sampled_token> greedy() override;
    step_times times() const override { return segments_.times(); }

    // Prepares steps of these sizes, so that their first ones are not slower than the others; those
    // that decode also with up to so many rows of drafts for each sequence. Logs what it does.
    // Returns the number of sizes that fit into memory.
    size_t warm(warm_sizes which, uint32_t draft_tokens_max = 0);
    // Sizes of steps that can run at once, without being prepared first.
    size_t prepared_count() const { return bounds_.size(); }

    const loaded_model& model() const { return *model_; }
    // Assignments of tokens to experts that capacity took away, in all steps so far.
    uint64_t dropped_assignments() const { return dropped_assignments_; }
    // Seconds in each operation of the last step, where the backend was configured to measure them;
    // else empty.
    std::vector<double> profile() const;

  private:
    // Results of up to so many logit rows.
    struct logit_buffers {
        device_buffer logits;           // f32 [rows, vocabulary]
        device_buffer sampled;          // i32 [rows], then f32 [rows]; none where the host samples
        uint64_t probability_begin = 0; // bytes to the second part
    };
    struct bound_step {
        extent_sizes extents{};
        segment_runner::bound_segments segments;
        const logit_buffers* results = nullptr; // in logit_buffers_
    };
    // Counts of dropped assignments that one backend writes.
    struct dropped_counts {
        uint32_t placement = 0;
        std::vector<value_number> values;
        device_buffer buffer;
        std::vector<std::byte> read;
    };

    extent_sizes extents_for(uint32_t tokens, uint32_t sequences, uint32_t logits,
                             uint32_t columns) const;
    bound_step& bound_for(const extent_sizes& extents);
    bound_step bind(const extent_sizes& extents);
    void release_oldest();
    std::vector<extent_sizes> sizes_of(warm_sizes which, uint32_t draft_tokens_max) const;
    const logit_buffers& buffers_for(uint32_t rows);
    const bound_step& last_step() const;
    void make_dropped_counts();
    void copy_blocks(std::span<const kv_block_copy> copies);
    void count_dropped();

    std::shared_ptr<const loaded_model> model_;
    std::vector<kv_group> groups_;
    segment_runner segments_;
    std::map<uint32_t, logit_buffers> logit_buffers_; // by rows
    std::vector<dropped_counts> dropped_;
    std::list<bound_step> bounds_; // last used first
    size_t bounds_max_;
    bool has_run_ = false;       // what bounds_ begins with
    uint32_t logit_rows_ = 0;    // of that step
    std::vector<float> staging_; // where the host cannot address the buffer
    std::vector<std::byte> sampled_staging_;
    std::vector<sampled_token> greedy_;
    uint64_t dropped_assignments_ = 0;
};

} // namespace sluice
