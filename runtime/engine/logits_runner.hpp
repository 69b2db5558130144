// Direct access to a model's logits, for verification, evaluation and measurement: runs given token
// sequences through the same scheduler, pool and program as the engine, but samples nothing.
#pragma once

#include "engine/model_runner.hpp"
#include "engine/scheduler.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace sluice {

struct logits_request {
    std::vector<int32_t> tokens;
    uint32_t chunk_tokens_max = 0; // rows a step: 1 computes one by one; 0: as many as fit
    bool prefix_reuse = false;     // rows found in the pool give no logits
};

struct logits_runner_options {
    uint32_t cache_tokens = 0; // of the runner's own cache; 0: as the configuration says
};

// Not for several threads at once. Several runners, and engines, may share a model.
class logits_runner {
  public:
    // sequence: index in the requests. logits: [vocabulary], valid during the call.
    using row_function =
        std::function<void(size_t sequence, uint32_t position, std::span<const float> logits)>;

    explicit logits_runner(std::shared_ptr<const loaded_model> model,
                           logits_runner_options options = {});
    // On any executor, for tests.
    logits_runner(std::unique_ptr<step_executor> executor, kv_pool_options pool,
                  scheduler_limits limits, sluice_block_key root = {});

    // Runs all sequences together, mixed in steps as the scheduler sees fit. Rows of one sequence
    // come in order. Fails with the executor's error or for a sequence that does not fit the pool.
    void run(std::span<const logits_request> requests, const row_function& on_row);

    // One sequence alone: [tokens, vocabulary].
    std::vector<float> forward(std::span<const int32_t> tokens, uint32_t chunk_tokens_max = 0);

    // The greedy continuation (ties to the lower token; end tokens do not stop it): [count].
    std::vector<int32_t> greedy(std::span<const int32_t> prompt, uint32_t count);
    // Those of several sequences, which are computed together. Calls after_step, where there is
    // one, after each step.
    std::vector<std::vector<int32_t>> greedy(std::span<const std::vector<int32_t>> prompts,
                                             uint32_t count,
                                             const std::function<void()>& after_step = {});

    uint32_t vocabulary_size() const { return executor_->vocabulary_size(); }
    const kv_pool& pool() const { return pool_; }
    const scheduler_statistics& statistics() const { return scheduler_.statistics(); }
    // The executor, where it is a model_runner; else nullptr.
    const model_runner* runner() const {
        return dynamic_cast<const model_runner*>(executor_.get());
    }

  private:
    logits_runner(std::unique_ptr<model_runner> runner, const loaded_model& model);

    void check_tokens(std::span<const int32_t> tokens) const;
    // Plans, runs and completes the next step. The plan, and the executor's results, stay until the
    // next one.
    const step_plan& run_step();
    int32_t greedy_token(uint32_t logit_row);

    std::unique_ptr<step_executor> executor_;
    sluice_block_key root_;
    kv_pool pool_;
    scheduler scheduler_;
    sampler sampler_;
};

} // namespace sluice
