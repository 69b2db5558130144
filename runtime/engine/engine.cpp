#include "engine/engine.hpp"

#include "engine/prompt_lookup.hpp"

#include <algorithm>
#include <iterator>

namespace sluice {

namespace {

// Runs `function` and turns whatever it throws into a sluice::error.
template <typename Function>
std::optional<error> caught_from(Function&& function) {
    try {
        function();
        return std::nullopt;
    } catch (const error& caught) {
        return caught;
    } catch (const std::bad_alloc&) {
        return error(SLUICE_EXHAUSTED, "out of memory");
    } catch (const std::exception& caught) {
        return error(SLUICE_INTERNAL, caught.what());
    }
}

speculation_options speculation_options_of(const speculation_configuration& configured) {
    speculation_options options;
    options.draft_tokens_max = configured.draft_tokens_max;
    options.row_cost = configured.row_cost;
    if (configured.method == speculation_method::prompt_lookup) {
        options.make_source = [min = configured.ngram_min, max = configured.ngram_max] {
            return std::make_unique<prompt_lookup>(min, max);
        };
    }
    return options;
}

} // namespace

engine::engine(std::unique_ptr<step_executor> executor, engine_options options)
    : options_(std::move(options)), executor_(std::move(executor)), pool_(options_.pool),
      scheduler_(options_.limits, pool_) {
    if (options_.speculation.make_source) {
        speculator_.emplace(options_.speculation, options_.limits.tokens_per_step_max);
    }
    register_metrics();
    thread_ = std::thread([this] { run(); });
}

std::unique_ptr<engine> engine::create(const std::shared_ptr<const loaded_model>& model,
                                       const configuration& configuration, plugin_host& plugins) {
    if (configuration.block_store != "none") {
        fail(
            SLUICE_UNSUPPORTED,
            "{}: block_store is \"{}\", but this version keeps cached blocks in the KV pool alone; "
            "write block_store = \"none\"",
            configuration.where("block_store"), configuration.block_store);
    }
    auto runner = std::make_unique<model_runner>(model);
    engine_options options;
    options.speculation = speculation_options_of(configuration.speculation);
    const bool drafts = bool(options.speculation.make_source);
    runner->warm(configuration.engine.warm, drafts ? options.speculation.draft_tokens_max : 0);
    options.pool = runner->pool_options();
    options.limits = {model->tokens_per_step_max(), model->sequences_max()};
    options.context = {model->text_tokenizer(), model->end_tokens(),
                       model->config().vocabulary_size, model->context_tokens_max()};
    options.root_key = [target = runner.get()](std::string_view tenant) {
        return target->root_key(tenant);
    };
    options.metrics = &model->services().metrics();
    if (configuration.result_cache != "none") {
        auto plugin =
            plugins.open(SLUICE_KIND_RESULT_CACHE, configuration.result_cache, configuration);
        options.results = std::make_shared<result_store>(std::move(plugin), model->services(),
                                                         model->fingerprint());
    }
    return std::make_unique<engine>(std::move(runner), std::move(options));
}

engine::~engine() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    arrived_.notify_all();
    thread_.join();
}

void engine::register_metrics() {
    if (options_.metrics == nullptr) return;
    const auto counter = [&](std::string_view name, std::string_view help) {
        return options_.metrics->add(SLUICE_METRIC_COUNTER, name, help);
    };
    const std::vector<double> seconds{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30};
    metrics_.requests = counter("sluice_requests_total", "Requests that ended.");
    metrics_.prompt_tokens = counter("sluice_prompt_tokens_total", "Tokens of prompts.");
    metrics_.prompt_tokens_reused = counter("sluice_prompt_tokens_reused_total",
                                            "Tokens of prompts whose cached vectors were reused.");
    metrics_.completion_tokens =
        counter("sluice_completion_tokens_total", "Tokens that were generated.");
    metrics_.draft_tokens =
        counter("sluice_draft_tokens_total", "Guessed tokens that were checked.");
    metrics_.draft_tokens_accepted =
        counter("sluice_draft_tokens_accepted_total", "Guessed tokens that were right.");
    metrics_.step_seconds = options_.metrics->add(SLUICE_METRIC_HISTOGRAM, "sluice_step_seconds",
                                                  "Duration of a step.", seconds);
    metrics_.time_to_first_token_seconds =
        options_.metrics->add(SLUICE_METRIC_HISTOGRAM, "sluice_time_to_first_token_seconds",
                              "Time from a request's submission to its first token.", seconds);
}

// ---- Submission, on the caller's thread ----

std::vector<int32_t> engine::prompt_tokens(const generation_request& request) const {
    if (!request.token_ids.empty()) return request.token_ids;
    if (!options_.context.text_tokenizer) {
        fail(SLUICE_UNSUPPORTED,
             "the model has no tokenizer.json, so it cannot read a text; give the prompt as token "
             "ids");
    }
    return options_.context.text_tokenizer->encode(request.prompt, request.add_special_tokens);
}

void engine::check_request(const generation_request& request, size_t prompt_count) const {
    check_sampling_parameters(request.parameters.sampling);
    if (request.parameters.tokens_max == 0) {
        fail(SLUICE_INVALID, "tokens_max is 0; expected at least 1 token to generate");
    }
    if (prompt_count == 0) {
        fail(SLUICE_INVALID, "the prompt is empty, and this model has no token that begins a text; "
                             "give at least one word");
    }
    if (prompt_count >= options_.context.context_tokens_max) {
        fail(SLUICE_INVALID,
             "the prompt has {} tokens, but a sequence has room for {} with at least one new; "
             "shorten it, or raise engine.context_tokens_max and engine.cache_tokens",
             prompt_count, options_.context.context_tokens_max);
    }
}

std::shared_ptr<generation> engine::submit(generation_request request,
                                           generation_callback callback) {
    auto stream = std::make_shared<generation>(std::move(callback));
    submit(std::move(request), stream);
    return stream;
}

void engine::submit(generation_request request, std::shared_ptr<generation> stream) {
    std::vector<arrival> added;
    added.push_back(checked(std::move(request), std::move(stream)));
    queue(std::move(added));
}

std::vector<std::shared_ptr<generation>> engine::submit(std::vector<generation_request> requests) {
    std::vector<std::shared_ptr<generation>> streams;
    std::vector<arrival> added;
    for (generation_request& request : requests) {
        streams.push_back(std::make_shared<generation>());
        added.push_back(checked(std::move(request), streams.back()));
    }
    queue(std::move(added));
    return streams;
}

engine::arrival engine::checked(generation_request request,
                                std::shared_ptr<generation> stream) const {
    std::vector<int32_t> prompt = prompt_tokens(request);
    check_request(request, prompt.size());
    const auto limit = int32_t(options_.context.vocabulary_size);
    for (size_t i = 0; i < prompt.size(); ++i) {
        if (prompt[i] >= 0 && prompt[i] < limit) continue;
        fail(SLUICE_INVALID,
             "token {} at place {} of the prompt is outside of the model's vocabulary, 0 to {}",
             prompt[i], i, limit - 1);
    }
    arrival added;
    added.task = std::make_unique<generation_task>(options_.context, std::move(request),
                                                   std::move(prompt), std::move(stream));
    if (options_.results && added.task->request().use_result_cache) {
        const generation_request& kept = added.task->request();
        added.task->store_key =
            result_store::key_of(added.task->prompt(), kept.parameters, kept.tenant);
        added.stored = options_.results->find(added.task->store_key);
    }
    return added;
}

void engine::queue(std::vector<arrival> added) {
    {
        const std::lock_guard lock(mutex_);
        if (stopping_) fail(SLUICE_CANCELLED, "the runtime is shutting down");
        std::move(added.begin(), added.end(), std::back_inserter(arrivals_));
    }
    arrived_.notify_one();
}

engine_statistics engine::statistics() const {
    const std::lock_guard lock(mutex_);
    return statistics_;
}

// ---- The engine's thread ----

void engine::run() {
    while (take_arrivals()) {
        end_cancelled();
        if (!tasks_.empty()) step();
        if (tasks_.empty()) send_events(); // no step follows during which that could be done
    }
    stop_all();
}

bool engine::take_arrivals() {
    std::vector<arrival> taken;
    {
        std::unique_lock lock(mutex_);
        if (tasks_.empty()) decode_ended_.reset(); // what follows may be a long wait
        arrived_.wait(lock, [&] { return stopping_ || !arrivals_.empty() || !tasks_.empty(); });
        if (stopping_) return false;
        taken.swap(arrivals_);
    }
    for (arrival& each : taken) admit(std::move(each));
    return true;
}

void engine::admit(arrival added) {
    if (added.stored) {
        added.task->replay(*added.stored);
        end(*added.task);
        return;
    }
    scheduled_request scheduled;
    scheduled.tokens = added.task->prompt();
    scheduled.tokens_max = added.task->sequence_tokens_max();
    const auto failure = caught_from([&] {
        if (options_.root_key) scheduled.root = options_.root_key(added.task->request().tenant);
        scheduler_.add(next_id_, std::move(scheduled));
    });
    if (failure) {
        added.task->fail_with(*failure);
        end(*added.task);
        return;
    }
    tasks_.emplace(next_id_++, std::move(added.task));
}

void engine::end_cancelled() {
    const auto now = generation_task::clock::now();
    std::vector<sequence_id> ended;
    for (const auto& [id, task] : tasks_) {
        if (task->stream().cancelled()) {
            task->finish(finish_reason::cancelled);
        } else if (task->past_deadline(now)) {
            task->finish(finish_reason::deadline);
        } else {
            continue;
        }
        ended.push_back(id);
    }
    for (const sequence_id id : ended) retire(id);
}

void engine::step() {
    const auto start = generation_task::clock::now();
    const step_plan* plan = nullptr;
    step_results results;
    const auto failure = caught_from([&] {
        if (speculator_) offer_drafts();
        plan = &scheduler_.plan();
        if (plan->empty()) fail(SLUICE_INTERNAL, "requests wait, but the scheduler plans nothing");
        executor_->run(*plan, [this] { send_events(); }); // of the step before
        results = read_results(*plan);
    });
    if (failure) {
        fail_step(*failure);
        return;
    }
    note_times(*plan);
    scheduler_.complete();
    const std::chrono::duration<double> duration = generation_task::clock::now() - start;
    if (metrics_.step_seconds != nullptr) metrics_.step_seconds->record(duration.count());
    {
        const std::lock_guard lock(mutex_);
        ++statistics_.steps;
        statistics_.preemptions = scheduler_.statistics().preemptions;
    }
    take_results(*plan, results);
}

void engine::offer_drafts() {
    scheduler_.find_decoding(decoding_);
    const auto drafts = speculator_->draft(decoding_);
    for (size_t i = 0; i < drafts.size(); ++i) {
        if (!drafts[i].empty()) scheduler_.draft(decoding_[i].sequence, drafts[i]);
    }
}

void engine::note_times(const step_plan& plan) {
    using seconds = std::chrono::duration<double>;
    const step_times times = executor_->times();
    const bool decodes =
        std::all_of(plan.parts.begin(), plan.parts.end(),
                    [](const step_part& part) { return part.row_count == 1 + part.draft_count; });
    if (decodes && decode_ended_) {
        const std::lock_guard lock(mutex_);
        ++statistics_.decode_steps;
        statistics_.decode_s += seconds(times.ended - *decode_ended_).count();
        statistics_.decode_host_s += seconds(times.submitted - *decode_ended_).count();
    }
    decode_ended_.reset();
    if (decodes) decode_ended_ = times.ended;
}

// Reads all logits from the backend only where a row needs them: they are 100,000 numbers a row,
// and what the backend has sampled is two.
engine::step_results engine::read_results(const step_plan& plan) {
    step_results results;
    const auto is_sampled = [](const step_part& part) {
        return part.reaches_end && part.logit_count > 0;
    };
    const auto is_greedy = [&](const step_part& part) {
        return is_sampled(part) && tasks_.at(part.sequence)->samples_greedily();
    };
    if (std::any_of(plan.parts.begin(), plan.parts.end(), is_greedy)) {
        results.greedy = executor_->greedy();
    }
    const auto needs_logits = [&](const step_part& part) {
        if (!is_sampled(part)) return false;
        if (!is_greedy(part) || results.greedy.empty()) return true;
        const auto chosen = results.greedy.subspan(part.logit_begin, part.logit_count);
        return std::any_of(chosen.begin(), chosen.end(),
                           [](const sampled_token& each) { return each.token < 0; });
    };
    if (std::any_of(plan.parts.begin(), plan.parts.end(), needs_logits)) {
        results.logits = executor_->logits();
    }
    return results;
}

void engine::take_results(const step_plan& plan, const step_results& results) {
    for (const step_part& part : plan.parts) {
        if (!part.reaches_end || part.logit_count == 0) continue;
        generation_task& task = *tasks_.at(part.sequence);
        bool goes_on = false;
        const auto failure = caught_from([&] { goes_on = take_rows(part, results, task); });
        if (failure) task.fail_with(*failure);
        if (!goes_on || failure) retire(part.sequence);
    }
}

// Takes the token that follows, and from the rows of a draft those after it, up to the first that
// was guessed wrong. Each is sampled as it would be alone in its step: from its own row of logits,
// after all tokens before it, with the number that belongs to its place. So a guess decides which
// rows there are, and never what is sampled.
bool engine::take_rows(const step_part& part, const step_results& results, generation_task& task) {
    task.note_draft(part.draft_count);
    uint32_t accepted = 0;
    for (;; ++accepted) {
        const sampled_token next = token_of(part.logit_begin + accepted, results, task);
        if (!task.take(next, scheduler_.reused_tokens(part.sequence))) return false;
        if (!scheduler_.append(part.sequence, task.last_token())) break;
        task.note_accepted();
    }
    if (part.draft_count > 0) {
        speculator_->note(part.sequence, accepted, accepted < part.draft_count);
    }
    return true;
}

sampled_token engine::token_of(uint32_t row, const step_results& results,
                               const generation_task& task) {
    // A greedy row takes what the backend has sampled whatever its neighbours need, so that they
    // cannot change its text.
    if (task.samples_greedily() && !results.greedy.empty() && results.greedy[row].token >= 0) {
        return results.greedy[row];
    }
    const size_t width = executor_->vocabulary_size();
    return task.sample(sampler_, results.logits.subspan(row * width, width));
}

// A step that failed takes its own requests with it; the others go on.
void engine::fail_step(const error& caught) {
    std::vector<sequence_id> lost;
    for (const step_part& part : scheduler_.open_plan().parts) lost.push_back(part.sequence);
    if (lost.empty()) { // nothing could even be planned
        for (const auto& [id, task] : tasks_) lost.push_back(id);
    }
    scheduler_.abandon();
    decode_ended_.reset();
    for (const sequence_id id : lost) {
        tasks_.at(id)->fail_with(caught);
        retire(id);
    }
    const std::lock_guard lock(mutex_);
    ++statistics_.steps_failed;
}

void engine::retire(sequence_id id) {
    const auto found = tasks_.find(id);
    scheduler_.remove(id);
    if (speculator_) speculator_->forget(id);
    ended_.push_back(std::move(found->second));
    tasks_.erase(found);
}

void engine::send_events() {
    for (const auto& [id, task] : tasks_) task->send();
    for (const task_pointer& task : ended_) end(*task);
    ended_.clear();
}

void engine::end(generation_task& task) {
    account(task);
    if (!task.store_key.empty() && !task.usage().from_result_cache) {
        if (const auto result = task.result()) options_.results->put(task.store_key, *result);
    }
    task.send_last();
}

void engine::account(const generation_task& task) {
    const generation_usage& usage = task.usage();
    if (options_.metrics != nullptr) {
        metrics_.requests->record(1);
        metrics_.prompt_tokens->record(usage.prompt_tokens);
        metrics_.prompt_tokens_reused->record(usage.prompt_tokens_reused);
        metrics_.completion_tokens->record(usage.completion_tokens);
        metrics_.draft_tokens->record(usage.draft_tokens);
        metrics_.draft_tokens_accepted->record(usage.draft_tokens_accepted);
        if (usage.time_to_first_token_s > 0) {
            metrics_.time_to_first_token_seconds->record(usage.time_to_first_token_s);
        }
    }
    const std::lock_guard lock(mutex_);
    ++statistics_.requests;
    statistics_.requests_failed += task.failed() ? 1 : 0;
    statistics_.prompt_tokens += usage.prompt_tokens;
    statistics_.prompt_tokens_reused += usage.prompt_tokens_reused;
    statistics_.completion_tokens += usage.completion_tokens;
    statistics_.draft_tokens += usage.draft_tokens;
    statistics_.draft_tokens_accepted += usage.draft_tokens_accepted;
    statistics_.result_cache_hits += usage.from_result_cache ? 1 : 0;
}

void engine::stop_all() {
    send_events();
    std::vector<arrival> taken;
    {
        const std::lock_guard lock(mutex_);
        taken.swap(arrivals_);
    }
    for (const auto& [id, task] : tasks_) {
        task->finish(finish_reason::cancelled);
        task->send_last();
    }
    for (const arrival& each : taken) {
        each.task->finish(finish_reason::cancelled);
        each.task->send_last();
    }
    tasks_.clear();
}

} // namespace sluice
