// Runs planned steps of a loaded model: a cache, bound executables and a queue of its own.
#pragma once

#include "engine/loaded_model.hpp"
#include "engine/scheduler.hpp"

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
    using extent_key = std::array<uint32_t, SLUICE_EXTENT_COUNT>;
    struct bound_step {
        extent_key extents{};
        sluice_bound* handle = nullptr;
        sluice_buffer* logits = nullptr; // borrowed from logits_buffers_
    };

    extent_key extents_for(uint32_t tokens, uint32_t sequences, uint32_t logits,
                           uint32_t columns) const;
    bound_step& bound_for(const extent_key& extents);
    sluice_buffer* logits_buffer(uint32_t rows);
    sluice_buffer* make_buffer(uint64_t size_bytes);
    void make_cache(const runner_options& options);
    void copy_blocks(std::span<const kv_block_copy> copies);
    std::span<const float> read_logits(const bound_step& bound, uint32_t rows);
    void count_dropped();
    void destroy() noexcept;

    std::shared_ptr<const loaded_model> model_;
    const sluice_backend& table_;
    sluice_plugin* plugin_;
    std::vector<kv_group> groups_;
    sluice_cache* cache_ = nullptr;
    sluice_queue* queue_ = nullptr;
    sluice_event* event_ = nullptr;
    std::map<uint32_t, sluice_buffer*> logits_buffers_; // by rows
    std::vector<value_number> dropped_values_;
    sluice_buffer* dropped_buffer_ = nullptr;
    std::list<bound_step> bounds_; // last used first
    sluice_bound* last_bound_ = nullptr;
    std::vector<float> staging_; // where the host cannot address the buffer
    uint64_t dropped_assignments_ = 0;
};

} // namespace sluice
