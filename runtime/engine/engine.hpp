// The generation engine: one thread that batches all requests of a runtime on one model.
#pragma once

#include "base/error.hpp"
#include "engine/generation.hpp"
#include "engine/generation_task.hpp"
#include "engine/model_runner.hpp"
#include "engine/result_store.hpp"
#include "engine/scheduler.hpp"
#include "engine/speculation.hpp"

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace sluice {

struct engine_options {
    kv_pool_options pool;
    scheduler_limits limits;
    generation_context context;
    speculation_options speculation;
    // Of block_key_root(), by tenant. Not set: tenants share one root.
    std::function<sluice_block_key(std::string_view tenant)> root_key;
    std::shared_ptr<result_store> results; // nullptr: none
    metric_registry* metrics = nullptr;    // nullptr: counts for statistics() only
};

struct engine_statistics {
    uint64_t requests = 0;
    uint64_t requests_failed = 0;
    uint64_t prompt_tokens = 0;
    uint64_t prompt_tokens_reused = 0;
    uint64_t completion_tokens = 0;
    uint64_t draft_tokens = 0;
    uint64_t draft_tokens_accepted = 0;
    uint64_t result_cache_hits = 0;
    uint64_t steps = 0;
    uint64_t steps_failed = 0;
    uint64_t preemptions = 0;
    // Steps that followed each other without a pause and had one row of each of their sequences,
    // besides those of drafts.
    uint64_t decode_steps = 0;
    double decode_s = 0;      // from the end of the step before to their own
    double decode_host_s = 0; // of that, until they went to the backend
};

// All members may be called from any thread.
class engine {
  public:
    engine(std::unique_ptr<step_executor> executor, engine_options options);
    // The engine of a loaded model, with the configuration's result cache where there is one.
    static std::unique_ptr<engine> create(const std::shared_ptr<const loaded_model>& model,
                                          const configuration& configuration, plugin_host& plugins);
    // Cancels what runs and joins the thread. Not from a callback.
    ~engine();
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;

    // Checks and tokenizes on the calling thread, then queues. Fails at once, with the reason, for
    // a request that could not run: no prompt, tokens outside of the vocabulary, a prompt longer
    // than the context, parameters out of range.
    std::shared_ptr<generation> submit(generation_request request,
                                       generation_callback callback = {});
    // Likewise into a stream that the caller has made.
    void submit(generation_request request, std::shared_ptr<generation> stream);
    // Several that are there for the same step. Fails as a whole, with nothing queued.
    std::vector<std::shared_ptr<generation>> submit(std::vector<generation_request> requests);

    engine_statistics statistics() const;
    const generation_context& context() const { return options_.context; }

  private:
    using task_pointer = std::unique_ptr<generation_task>;
    struct arrival {
        task_pointer task;
        std::optional<stored_result> stored;
    };
    // Of the rows whose logits were asked for; each part as far as some row needs it.
    struct step_results {
        std::span<const sampled_token> greedy; // [logit rows]
        std::span<const float> logits;         // [logit rows, vocabulary]
    };
    struct engine_metrics {
        sluice_metric* requests = nullptr;
        sluice_metric* prompt_tokens = nullptr;
        sluice_metric* prompt_tokens_reused = nullptr;
        sluice_metric* completion_tokens = nullptr;
        sluice_metric* draft_tokens = nullptr;
        sluice_metric* draft_tokens_accepted = nullptr;
        sluice_metric* step_seconds = nullptr;
        sluice_metric* time_to_first_token_seconds = nullptr;
    };

    std::vector<int32_t> prompt_tokens(const generation_request& request) const;
    void check_request(const generation_request& request, size_t prompt_count) const;
    arrival checked(generation_request request, std::shared_ptr<generation> stream) const;
    void queue(std::vector<arrival> added);
    void register_metrics();

    // On the engine's thread.
    void run();
    bool take_arrivals(); // false: the engine is to stop
    void admit(arrival added);
    void end_cancelled();
    void step();
    void offer_drafts();
    void note_times(const step_plan& plan);
    step_results read_results(const step_plan& plan);
    void take_results(const step_plan& plan, const step_results& results);
    bool take_rows(const step_part& part, const step_results& results, generation_task& task);
    sampled_token token_of(uint32_t row, const step_results& results, const generation_task& task);
    void fail_step(const error& caught);
    void retire(sequence_id id);
    void send_events();
    void end(generation_task& task);
    void account(const generation_task& task);
    void stop_all();

    engine_options options_;
    std::unique_ptr<step_executor> executor_;
    engine_metrics metrics_;

    mutable std::mutex mutex_; // of what follows
    std::condition_variable arrived_;
    std::vector<arrival> arrivals_;
    bool stopping_ = false;
    engine_statistics statistics_;

    // The engine's thread alone.
    kv_pool pool_;
    scheduler scheduler_;
    sampler sampler_;
    std::optional<speculator> speculator_;
    std::vector<decoding_sequence> decoding_; // scratch of offer_drafts()
    std::unordered_map<sequence_id, task_pointer> tasks_;
    std::vector<task_pointer> ended_; // whose last events are to be sent
    sequence_id next_id_ = 1;
    // When the last step ended, if it was one of decode_steps' kind and nothing was waited for
    // since.
    std::optional<generation_task::clock::time_point> decode_ended_;

    std::thread thread_;
};

} // namespace sluice
