// sluice eval nll: how well a model predicts a text.
#include "command.hpp"

#include "base/mapped_file.hpp"
#include "base/progress.hpp"
#include "engine/logits_runner.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace sluice::command {

namespace {

struct nll_options {
    configuration_options configuration;
    std::string tokens;
    uint32_t window = 1024;
    uint32_t windows_max = 0;
};

std::vector<int32_t> read_tokens(const std::string& path) {
    const auto file = mapped_file::open(path);
    const auto bytes = file->bytes();
    if (bytes.size() % 2 != 0)
        fail(SLUICE_INVALID, "{}: expected little-endian 16-bit token ids, found {} bytes", path,
             bytes.size());
    std::vector<int32_t> tokens(bytes.size() / 2);
    for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = std::to_integer<int32_t>(bytes[2 * i])
                    | std::to_integer<int32_t>(bytes[2 * i + 1]) << 8;
    return tokens;
}

// -log softmax(logits)[target]
double negative_log_likelihood(std::span<const float> logits, int32_t target) {
    const float maximum = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float x : logits) sum += std::exp(x - maximum);
    return std::log(sum) + maximum - logits[static_cast<size_t>(target)];
}

void evaluate(const nll_options& options, common_options& common) {
    const auto configuration = options.configuration.read();
    const auto tokens = read_tokens(options.tokens);
    size_t windows = tokens.empty() ? 0 : (tokens.size() - 1) / options.window;
    if (windows == 0)
        fail(SLUICE_INVALID, "{}: expected at least {} tokens for one window, found {}",
             options.tokens, options.window + 1, tokens.size());
    if (options.windows_max != 0) windows = std::min<size_t>(windows, options.windows_max);

    const session process(configuration, common);
    const auto model = process.load(configuration);
    if (model->context_tokens_max() < options.window)
        fail(SLUICE_INVALID,
             "--window {} is over the {} tokens of a sequence; raise engine.context_tokens_max "
             "and engine.cache_tokens",
             options.window, model->context_tokens_max());
    logits_runner runner(model);
    const auto vocabulary = static_cast<int32_t>(runner.vocabulary_size());
    for (const int32_t token : tokens)
        if (token >= vocabulary)
            fail(SLUICE_INVALID, "{}: token {} is outside of the vocabulary of {}", options.tokens,
                 token, vocabulary);

    double sum = 0;
    uint64_t count = 0;
    progress line("evaluating", windows * options.window);
    const auto start = std::chrono::steady_clock::now();
    for (size_t w = 0; w < windows; ++w) {
        const int32_t* first = tokens.data() + w * options.window;
        const logits_request request{{first, first + options.window}, 0, false};
        runner.run({&request, 1}, [&](size_t, uint32_t position, std::span<const float> logits) {
            sum += negative_log_likelihood(logits, first[position + 1]);
            ++count;
            line.advance();
        });
    }
    line.finish();
    const double mean = sum / static_cast<double>(count);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (common.json)
        return print_json({{"mean_nll", mean},
                           {"perplexity", std::exp(mean)},
                           {"tokens", count},
                           {"windows", windows},
                           {"seconds", seconds}});
    fmt::print("mean negative log-likelihood {:.5f}, perplexity {:.4f}, over {} tokens in {} "
               "windows ({:.1f} s)\n",
               mean, std::exp(mean), count, windows, seconds);
}

} // namespace

void add_eval(CLI::App& application, common_options& common) {
    auto options = std::make_shared<nll_options>();
    auto* command = application.add_subcommand("eval", "measure how well a model predicts");
    command->require_subcommand(1);
    auto* nll = command->add_subcommand("nll", "mean negative log-likelihood and perplexity");
    options->configuration.add_to(*nll);
    nll->add_option("--tokens", options->tokens, "token ids, little-endian 16-bit")->required();
    nll->add_option("--window", options->window, "tokens that one window predicts")
        ->check(CLI::Range(1u, 1u << 20))
        ->capture_default_str();
    nll->add_option("--windows-max", options->windows_max, "at most so many windows; 0: all");
    nll->callback([options, &common] { evaluate(*options, common); });
}

} // namespace sluice::command
