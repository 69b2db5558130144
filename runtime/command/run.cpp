// sluice run: text from a prompt, as it comes.
#include "command.hpp"

#include "engine/engine.hpp"
#include "pipeline/pipeline.hpp"

#include <atomic>
#include <csignal>
#include <cstdio>

namespace sluice::command {

namespace {

// Set by the first interrupt; the request then ends in order.
volatile std::sig_atomic_t interrupted = 0;

struct run_options {
    configuration_options configuration;
    std::string prompt;
    std::optional<uint32_t> tokens_max;
};

nlohmann::ordered_json report_json(const generation_event& last, const std::string& text,
                                   const std::vector<int32_t>& tokens) {
    return {{"text", text},
            {"token_ids", tokens},
            {"finish_reason", finish_reason_name(last.reason)},
            {"prompt_tokens", last.usage.prompt_tokens},
            {"prompt_tokens_reused", last.usage.prompt_tokens_reused},
            {"completion_tokens", last.usage.completion_tokens},
            {"draft_tokens", last.usage.draft_tokens},
            {"draft_tokens_accepted", last.usage.draft_tokens_accepted},
            {"time_to_first_token_seconds", last.usage.time_to_first_token_s},
            {"tokens_per_second", last.usage.tokens_per_second()},
            {"duration_seconds", last.usage.duration_s},
            {"from_result_cache", last.usage.from_result_cache}};
}

void print_report(const generation_event& last) {
    fmt::print("\n");
    std::fflush(stdout);
    std::string drafts;
    if (last.usage.draft_tokens > 0) {
        drafts = fmt::format(", {} of {} guessed tokens were right",
                             last.usage.draft_tokens_accepted, last.usage.draft_tokens);
    }
    fmt::print(stderr,
               "{} tokens, first after {:.1f} ms, {:.1f} tokens a second, ended by {}{}{}\n",
               last.usage.completion_tokens, 1000 * last.usage.time_to_first_token_s,
               last.usage.tokens_per_second(), finish_reason_name(last.reason), drafts,
               last.usage.from_result_cache ? " (from the result cache)" : "");
}

void run(const run_options& options, common_options& common) {
    auto configuration = options.configuration.read();
    // One request pays for its own sizes only, unless the file says otherwise.
    if (!configuration.origins.contains("engine.warm"))
        configuration.engine.warm = warm_sizes::none;
    const session process(configuration, common);
    const auto model = process.load(configuration);
    const auto generator = engine::create(model, configuration, *process.plugins);
    pipeline answers(configuration, *generator, *process.plugins);

    pipeline_request request;
    request.fields.emplace("prompt", options.prompt);
    request.options.generation.tokens_max = options.tokens_max;
    interrupted = 0;
    const auto previous = std::signal(SIGINT, [](int) { interrupted = 1; });
    const auto stream = answers.run(std::move(request));
    std::string text;
    std::vector<int32_t> tokens;
    for (;;) {
        const auto event = stream->wait(std::chrono::milliseconds(100));
        if (interrupted != 0) stream->cancel();
        if (!event) continue;
        text += event->text;
        tokens.insert(tokens.end(), event->token_ids.begin(), event->token_ids.end());
        if (!common.json && !event->text.empty()) {
            const bool written =
                std::fwrite(event->text.data(), 1, event->text.size(), stdout) == event->text.size()
                && std::fflush(stdout) == 0;
            if (!written) stream->cancel(); // nobody reads any more
        }
        if (!event->finished) continue;
        std::signal(SIGINT, previous);
        if (event->reason == finish_reason::failed) throw error(event->status, event->message);
        if (common.json)
            print_json(report_json(*event, text, tokens));
        else
            print_report(*event);
        return;
    }
}

} // namespace

void add_run(CLI::App& application, common_options& common) {
    auto options = std::make_shared<run_options>();
    auto* command = application.add_subcommand("run", "generate text from a prompt");
    options->configuration.add_to(*command);
    command->add_option("--prompt", options->prompt, "the text to go on from")->required();
    command->add_option("--max-tokens", options->tokens_max, "new tokens at most");
    command->callback([options, &common] { run(*options, common); });
}

} // namespace sluice::command
