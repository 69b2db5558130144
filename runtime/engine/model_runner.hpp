// Runs planned steps of a loaded model: caches, bound executables and queues of its own.
#pragma once

#include "engine/loaded_model.hpp"
#include "engine/scheduler.hpp"
#include "engine/segment_runner.hpp"

#include <array>
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
    // Copies the plan's blocks and runs it. Returns the logits [logit rows, vocabulary] in float32,
    // valid until the next call. Fails with the backend's error; the cache then holds nothing of
    // the step that counts.
    virtual std::span<const float> run(const step_plan& plan) = 0;
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
    std::span<const float> run(const step_plan& plan) override;

    // Binds and runs nothing yet: makes what a step of that size will need, so that the first one
    // is not slower than the others.
    void warm(uint32_t tokens, uint32_t sequences, uint32_t logits, uint32_t context_tokens);

    const loaded_model& model() const { return *model_; }
    // Assignments of tokens to experts that capacity took away, in all steps so far.
    uint64_t dropped_assignments() const { return dropped_assignments_; }
    // Seconds in each operation of the last step, where the backend was configured to measure them;
    // else empty.
    std::vector<double> profile() const;

  private:
    struct bound_step {
        extent_sizes extents{};
        segment_runner::bound_segments segments;
        const device_buffer* logits = nullptr; // in logits_buffers_
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
    const device_buffer& logits_buffer(uint32_t rows);
    void make_dropped_counts();
    void copy_blocks(std::span<const kv_block_copy> copies);
    std::span<const float> read_logits(const bound_step& bound, uint32_t rows);
    void count_dropped();

    std::shared_ptr<const loaded_model> model_;
    std::vector<kv_group> groups_;
    segment_runner segments_;
    std::map<uint32_t, device_buffer> logits_buffers_; // by rows
    std::vector<dropped_counts> dropped_;
    std::list<bound_step> bounds_; // last used first
    bool has_run_ = false;         // what bounds_ begins with
    std::vector<float> staging_;   // where the host cannot address the buffer
    uint64_t dropped_assignments_ = 0;
};

} // namespace sluice
