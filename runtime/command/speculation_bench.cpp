#include "speculation_bench.hpp"

#include "command.hpp"

#include "base/error.hpp"
#include "engine/engine.hpp"
#include "pipeline/generation_overrides.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace sluice::command {

namespace {

struct side {
    std::unique_ptr<engine> generator;
    std::vector<double> tokens_per_second;
    std::vector<int32_t> tokens; // of the last text
    uint32_t prompt_tokens = 0;
    engine_statistics before; // of what is not timed
};

side make_side(const std::shared_ptr<const loaded_model>& model, configuration configuration,
               speculation_method method, plugin_host& plugins) {
    configuration.speculation.method = method;
    side made;
    made.generator = engine::create(model, configuration, plugins);
    return made;
}

double generate(side& measured, const generation_request& request) {
    const auto stream = measured.generator->submit(request);
    measured.tokens.clear();
    for (;;) {
        const auto event = stream->wait();
        if (!event) continue;
        measured.tokens.insert(measured.tokens.end(), event->token_ids.begin(),
                               event->token_ids.end());
        if (!event->finished) continue;
        if (event->reason == finish_reason::failed) throw error(event->status, event->message);
        measured.prompt_tokens = event->usage.prompt_tokens;
        return event->usage.tokens_per_second();
    }
}

// Of the decode steps that were timed.
nlohmann::ordered_json side_json(const side& measured) {
    const engine_statistics after = measured.generator->statistics();
    const auto steps = double(after.decode_steps - measured.before.decode_steps);
    const auto drafts = after.draft_tokens - measured.before.draft_tokens;
    const auto accepted = after.draft_tokens_accepted - measured.before.draft_tokens_accepted;
    return {{"tokens_per_second", median(measured.tokens_per_second)},
            {"tokens_per_second_all", measured.tokens_per_second},
            {"step_seconds", steps > 0 ? (after.decode_s - measured.before.decode_s) / steps : 0.0},
            {"rows_per_step", steps > 0 ? 1 + double(drafts) / steps : 0.0},
            {"draft_tokens", drafts},
            {"draft_tokens_accepted", accepted}};
}

// What a row beyond the first cost, on average, as [speculation] counts it.
double row_cost_of(const nlohmann::ordered_json& plain, const nlohmann::ordered_json& drafted) {
    const double rows = drafted["rows_per_step"].get<double>() - 1;
    const double alone = plain["step_seconds"].get<double>();
    return rows > 0 && alone > 0 ? (drafted["step_seconds"].get<double>() / alone - 1) / rows : 0;
}

} // namespace

nlohmann::ordered_json speculation_bench(const std::shared_ptr<const loaded_model>& model,
                                         configuration configuration, plugin_host& plugins,
                                         const speculation_bench_options& options) {
    const speculation_method method = configuration.speculation.method == speculation_method::none
                                          ? speculation_method::prompt_lookup
                                          : configuration.speculation.method;
    side plain = make_side(model, configuration, speculation_method::none, plugins);
    side drafted = make_side(model, configuration, method, plugins);
    generation_request request;
    request.prompt = options.prompt;
    request.parameters = parameters_of(configuration.generation);
    request.parameters.tokens_max = options.decode_tokens + 1;
    request.parameters.stop.clear();
    request.parameters.end_tokens_stop = false;
    // First without timing: a size's first step prepares it.
    for (side* each : {&plain, &drafted}) {
        generate(*each, request);
        each->before = each->generator->statistics();
    }
    for (uint32_t i = 0; i < options.repetitions; ++i) {
        for (side* each : {&plain, &drafted}) {
            each->tokens_per_second.push_back(generate(*each, request));
        }
    }
    const auto differs = std::mismatch(plain.tokens.begin(), plain.tokens.end(),
                                       drafted.tokens.begin(), drafted.tokens.end());
    const auto plain_json = side_json(plain);
    const auto drafted_json = side_json(drafted);
    return {{"model_type", model->config().model_type},
            {"backend", model->report().backend},
            {"device", model->report().device},
            {"prompt_tokens", plain.prompt_tokens},
            {"decode_tokens", options.decode_tokens},
            {"repetitions", options.repetitions},
            {"plain", plain_json},
            {"speculation", drafted_json},
            {"ratio", median(drafted.tokens_per_second) / median(plain.tokens_per_second)},
            {"row_cost", row_cost_of(plain_json, drafted_json)},
            {"equal_tokens", differs.first - plain.tokens.begin()},
            {"same_text", plain.tokens == drafted.tokens}};
}

void print_speculation_bench(const nlohmann::ordered_json& r) {
    const auto& plain = r["plain"];
    const auto& drafted = r["speculation"];
    fmt::print("{} on {} ({}), {} tokens after a prompt of {}, median of {}\n",
               r["model_type"].get<std::string>(), r["backend"].get<std::string>(),
               r["device"].get<std::string>(), r["decode_tokens"].get<uint32_t>(),
               r["prompt_tokens"].get<uint32_t>(), r["repetitions"].get<uint32_t>());
    fmt::print("  plain        {:9.1f} tokens/s, {:.1f} us a step\n",
               plain["tokens_per_second"].get<double>(), plain["step_seconds"].get<double>() * 1e6);
    fmt::print("  speculation  {:9.1f} tokens/s: {:.2f} times, {:.1f} us a step of {:.2f} rows, {} "
               "of {} guessed tokens were right\n",
               drafted["tokens_per_second"].get<double>(), r["ratio"].get<double>(),
               drafted["step_seconds"].get<double>() * 1e6, drafted["rows_per_step"].get<double>(),
               drafted["draft_tokens_accepted"].get<uint64_t>(),
               drafted["draft_tokens"].get<uint64_t>());
    fmt::print("  a row more cost {:.2f} of a step of one row (speculation.row_cost)\n",
               r["row_cost"].get<double>());
    if (r["same_text"].get<bool>())
        fmt::print("  the text is the same\n");
    else
        fmt::print("  the text is the same for {} tokens; then sums of another order decided "
                   "between near ties\n",
                   r["equal_tokens"].get<uint64_t>());
}

} // namespace sluice::command
