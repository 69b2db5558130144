#include "engine/logits_runner.hpp"

#include "base/error.hpp"

namespace sluice {

namespace {

scheduler_limits limits_of(const loaded_model& model) {
    return {model.tokens_per_step_max(), model.sequences_max()};
}

// Takes every sequence out again, also when a step failed.
class scheduled_scope {
  public:
    scheduled_scope(scheduler& owner, size_t count) : owner_(owner), count_(count) {}
    ~scheduled_scope() {
        owner_.abandon();
        for (size_t i = 0; i < count_; ++i) owner_.remove(i);
    }
    scheduled_scope(const scheduled_scope&) = delete;
    scheduled_scope& operator=(const scheduled_scope&) = delete;

  private:
    scheduler& owner_;
    size_t count_;
};

} // namespace

logits_runner::logits_runner(std::shared_ptr<const loaded_model> model,
                             logits_runner_options options)
    : logits_runner(std::make_unique<model_runner>(model, runner_options{options.cache_tokens}),
                    *model) {}

logits_runner::logits_runner(std::unique_ptr<model_runner> runner, const loaded_model& model)
    : root_(runner->root_key()), pool_(runner->pool_options()),
      scheduler_(limits_of(model), pool_) {
    executor_ = std::move(runner);
}

logits_runner::logits_runner(std::unique_ptr<step_executor> executor, kv_pool_options pool,
                             scheduler_limits limits, sluice_block_key root)
    : executor_(std::move(executor)), root_(root), pool_(std::move(pool)),
      scheduler_(limits, pool_) {}

void logits_runner::check_tokens(std::span<const int32_t> tokens) const {
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] < 0 || uint32_t(tokens[i]) >= vocabulary_size()) {
            fail(SLUICE_INVALID,
                 "token {} at place {} is outside of the model's vocabulary, 0 to {}", tokens[i], i,
                 vocabulary_size() - 1);
        }
    }
}

const step_plan& logits_runner::run_step() {
    const step_plan& plan = scheduler_.plan();
    if (plan.empty()) {
        fail(SLUICE_INTERNAL, "{} sequences are left, but the scheduler plans nothing",
             scheduler_.running_count() + scheduler_.waiting_count());
    }
    executor_->run(plan, {});
    scheduler_.complete();
    return plan;
}

void logits_runner::run(std::span<const logits_request> requests, const row_function& on_row) {
    const scheduled_scope scope(scheduler_, requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
        check_tokens(requests[i].tokens);
        scheduled_request scheduled;
        scheduled.tokens = requests[i].tokens;
        scheduled.tokens_max = uint32_t(scheduled.tokens.size());
        scheduled.root = root_;
        scheduled.logits = logits_wanted::all;
        scheduled.chunk_tokens_max = requests[i].chunk_tokens_max;
        scheduled.prefix_reuse = requests[i].prefix_reuse;
        scheduler_.add(i, std::move(scheduled));
    }
    while (!scheduler_.idle()) {
        const step_plan& plan = run_step();
        const std::span<const float> logits = executor_->logits();
        const size_t width = vocabulary_size();
        for (const step_part& part : plan.parts) {
            for (uint32_t i = 0; i < part.logit_count; ++i) {
                on_row(part.sequence, part.position + i,
                       logits.subspan((part.logit_begin + i) * width, width));
            }
        }
        for (const step_part& part : plan.parts) {
            if (part.reaches_end) scheduler_.remove(part.sequence);
        }
    }
}

std::vector<float> logits_runner::forward(std::span<const int32_t> tokens,
                                          uint32_t chunk_tokens_max) {
    const size_t width = vocabulary_size();
    std::vector<float> result(tokens.size() * width);
    const logits_request request{{tokens.begin(), tokens.end()}, chunk_tokens_max, false};
    run(std::span(&request, 1), [&](size_t, uint32_t position, std::span<const float> logits) {
        std::copy(logits.begin(), logits.end(), result.begin() + ptrdiff_t(position * width));
    });
    return result;
}

std::vector<int32_t> logits_runner::greedy(std::span<const int32_t> prompt, uint32_t count) {
    const std::vector<int32_t> alone(prompt.begin(), prompt.end());
    return std::move(greedy(std::span(&alone, 1), count)[0]);
}

std::vector<std::vector<int32_t>>
logits_runner::greedy(std::span<const std::vector<int32_t>> prompts, uint32_t count,
                      const std::function<void()>& after_step) {
    const scheduled_scope scope(scheduler_, prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
        check_tokens(prompts[i]);
        scheduled_request scheduled;
        scheduled.tokens = prompts[i];
        scheduled.tokens_max = uint32_t(prompts[i].size()) + count;
        scheduled.root = root_;
        scheduled.prefix_reuse = false;
        scheduler_.add(i, std::move(scheduled));
    }
    std::vector<std::vector<int32_t>> continuations(prompts.size());
    for (size_t unfinished = count > 0 ? prompts.size() : 0; unfinished > 0;) {
        for (const step_part& part : run_step().parts) {
            if (!part.reaches_end) continue;
            auto& continuation = continuations[part.sequence];
            continuation.push_back(greedy_token(part.logit_begin));
            scheduler_.append(part.sequence, continuation.back());
            if (continuation.size() < count) continue;
            scheduler_.remove(part.sequence);
            --unfinished;
        }
        if (after_step) after_step();
    }
    return continuations;
}

int32_t logits_runner::greedy_token(uint32_t row) {
    const std::span<const sampled_token> chosen = executor_->greedy();
    if (!chosen.empty() && chosen[row].token >= 0) return chosen[row].token;
    const size_t width = vocabulary_size();
    return sampler_.sample(executor_->logits().subspan(row * width, width), {}, token_set(), 0)
        .token;
}

} // namespace sluice
