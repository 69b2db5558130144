// sluice eval: how well a model predicts a text, and how close another one comes to it.
#include "command.hpp"

#include "base/progress.hpp"
#include "engine/logits_runner.hpp"
#include "engine/row_statistics.hpp"
#include "token_file.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace sluice::command {

namespace {

struct window_options {
    std::string tokens;
    uint32_t window = 1024;
    uint32_t windows_max = 0;

    void add_to(CLI::App& subcommand) {
        subcommand.add_option("--tokens", tokens, "token ids, little-endian 16-bit")->required();
        subcommand.add_option("--window", window, "tokens that one window predicts")
            ->check(CLI::Range(1u, 1u << 20))
            ->capture_default_str();
        subcommand.add_option("--windows-max", windows_max, "at most so many windows; 0: all");
    }
};

// The windows of a file: `size` tokens and the one behind the last, which they predict.
class token_windows {
  public:
    explicit token_windows(const window_options& options)
        : path_(options.tokens), size_(options.window), tokens_(read_token_file(options.tokens)) {
        count_ = tokens_.empty() ? 0 : (tokens_.size() - 1) / size_;
        if (count_ == 0)
            fail(SLUICE_INVALID, "{}: expected at least {} tokens for one window, found {}", path_,
                 size_ + 1, tokens_.size());
        if (options.windows_max != 0) count_ = std::min<size_t>(count_, options.windows_max);
    }

    size_t count() const { return count_; }
    size_t token_count() const { return count_ * size_; }
    uint32_t size() const { return size_; }
    std::span<const int32_t> inputs(size_t window) const {
        return std::span(tokens_).subspan(window * size_, size_);
    }
    std::span<const int32_t> targets(size_t window) const {
        return std::span(tokens_).subspan(window * size_ + 1, size_);
    }

    void check_fit(const loaded_model& model, uint32_t vocabulary) const {
        if (model.context_tokens_max() < size_)
            fail(SLUICE_INVALID,
                 "--window {} is over the {} tokens of a sequence; raise engine.context_tokens_max "
                 "and engine.cache_tokens",
                 size_, model.context_tokens_max());
        check_tokens(path_, tokens_, vocabulary);
    }

  private:
    std::string path_;
    uint32_t size_;
    size_t count_ = 0;
    std::vector<int32_t> tokens_;
};

// A model in a process of its own making: plugins and settings are those of its configuration.
class evaluated_model {
  public:
    evaluated_model(const configuration& configuration, const common_options& common,
                    const token_windows& windows)
        : process_(configuration, common), model_(process_.load(configuration)), runner_(model_) {
        windows.check_fit(*model_, vocabulary_size());
    }
    uint32_t vocabulary_size() const { return runner_.vocabulary_size(); }

    // on_row(row, logits), rows in order.
    template <typename Function>
    void run(std::span<const int32_t> window, Function&& on_row) {
        const logits_request request{{window.begin(), window.end()}, 0, false};
        runner_.run({&request, 1}, [&](size_t, uint32_t position, std::span<const float> logits) {
            on_row(position, logits);
        });
    }

  private:
    session process_;
    std::shared_ptr<const loaded_model> model_;
    logits_runner runner_;
};

// A row of logits as a distribution: log p(token) = logit - log_sum.
struct distribution {
    explicit distribution(std::span<const float> row) : logits(row) {
        const largest_logit largest = find_largest(row);
        token = largest.token;
        log_sum = std::log(sum_of_exponentials(row, largest.value)) + double(largest.value);
    }
    double log_probability(size_t at) const { return double(logits[at]) - log_sum; }

    std::span<const float> logits;
    size_t token = 0; // the most probable
    double log_sum = 0;
};

// Kullback-Leibler divergence of `other` from `base`, in nats: sum of p log(p / q). Tokens whose
// logit is not finite on either side have no part in it.
double divergence(const distribution& base, const distribution& other) {
    double sum = 0;
    for (size_t i = 0; i < base.logits.size(); ++i) {
        const double log_p = base.log_probability(i), log_q = other.log_probability(i);
        if (std::isfinite(log_p) && std::isfinite(log_q)) sum += std::exp(log_p) * (log_p - log_q);
    }
    return std::max(sum, 0.0);
}

class stopwatch {
  public:
    double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }

  private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// ---- sluice eval nll ----

struct nll_options {
    configuration_options configuration;
    window_options windows;
};

void evaluate(const nll_options& options, common_options& common) {
    const auto configuration = options.configuration.read();
    const token_windows windows(options.windows);
    evaluated_model model(configuration, common, windows);
    double sum = 0;
    progress line("evaluating", windows.token_count());
    const stopwatch time;
    for (size_t w = 0; w < windows.count(); ++w) {
        model.run(windows.inputs(w), [&](uint32_t row, std::span<const float> logits) {
            sum -= distribution(logits).log_probability(size_t(windows.targets(w)[row]));
            line.advance();
        });
    }
    line.finish();
    const double mean = sum / static_cast<double>(windows.token_count());
    if (common.json)
        return print_json({{"mean_nll", mean},
                           {"perplexity", std::exp(mean)},
                           {"tokens", windows.token_count()},
                           {"windows", windows.count()},
                           {"seconds", time.seconds()}});
    fmt::print("mean negative log-likelihood {:.5f}, perplexity {:.4f}, over {} tokens in {} "
               "windows ({:.1f} s)\n",
               mean, std::exp(mean), windows.token_count(), windows.count(), time.seconds());
}

// ---- sluice eval compare ----

struct compare_options {
    std::string base, other;
    std::vector<std::string> overrides;
    window_options windows;
};

struct comparison {
    double base_nll = 0, other_nll = 0; // sums
    uint64_t agreements = 0;            // rows with the same most probable token
    std::vector<double> divergences;    // of every row

    void add(const distribution& base, const distribution& other, size_t target) {
        base_nll -= base.log_probability(target);
        other_nll -= other.log_probability(target);
        agreements += base.token == other.token ? 1 : 0;
        divergences.push_back(divergence(base, other));
    }
};

nlohmann::ordered_json comparison_json(comparison found, const compare_options& options,
                                       size_t windows) {
    auto& divergences = found.divergences;
    std::sort(divergences.begin(), divergences.end());
    const auto rows = static_cast<double>(divergences.size());
    double sum = 0;
    for (const double each : divergences) sum += each;
    const double base = std::exp(found.base_nll / rows), other = std::exp(found.other_nll / rows);
    const auto quantile = [&](double share) {
        return divergences[std::min(static_cast<size_t>(share * rows), divergences.size() - 1)];
    };
    return {{"base", options.base},
            {"other", options.other},
            {"base_perplexity", base},
            {"other_perplexity", other},
            {"perplexity_increase", other / base - 1},
            {"divergence_mean", sum / rows},
            {"divergence_median", quantile(0.5)},
            {"divergence_99", quantile(0.99)},
            {"divergence_max", divergences.back()},
            {"top_1_agreement", static_cast<double>(found.agreements) / rows},
            {"tokens", divergences.size()},
            {"windows", windows}};
}

void print_comparison(const nlohmann::ordered_json& r) {
    const auto number = [&](const char* key) { return r[key].get<double>(); };
    fmt::print("perplexity       {:.4f} of {}\n                 {:.4f} of {}: {:+.3f}%\n",
               number("base_perplexity"), r["base"].get<std::string>(), number("other_perplexity"),
               r["other"].get<std::string>(), 100 * number("perplexity_increase"));
    fmt::print("KL divergence    mean {:.6f}, median {:.6f}, 99% of tokens under {:.6f}, at most "
               "{:.6f}\n",
               number("divergence_mean"), number("divergence_median"), number("divergence_99"),
               number("divergence_max"));
    fmt::print("top-1 agreement  {:.3f}% of {} tokens in {} windows\n",
               100 * number("top_1_agreement"), r["tokens"].get<uint64_t>(),
               r["windows"].get<uint64_t>());
}

void compare(const compare_options& options, common_options& common) {
    const auto base_configuration = configuration_from_file(options.base, options.overrides);
    const auto other_configuration = configuration_from_file(options.other, options.overrides);
    const token_windows windows(options.windows);
    evaluated_model base(base_configuration, common, windows);
    evaluated_model other(other_configuration, common, windows);
    const size_t width = base.vocabulary_size();
    if (other.vocabulary_size() != width)
        fail(SLUICE_INVALID,
             "{} has a vocabulary of {}, {} one of {}; expected models of the same tokens",
             options.base, width, options.other, other.vocabulary_size());
    comparison found;
    std::vector<float> rows(windows.size() * width); // of the base, of one window
    progress line("comparing", windows.token_count());
    for (size_t w = 0; w < windows.count(); ++w) {
        base.run(windows.inputs(w), [&](uint32_t row, std::span<const float> logits) {
            std::copy(logits.begin(), logits.end(), rows.begin() + ptrdiff_t(row * width));
        });
        other.run(windows.inputs(w), [&](uint32_t row, std::span<const float> logits) {
            found.add(distribution(std::span(rows).subspan(row * width, width)),
                      distribution(logits), size_t(windows.targets(w)[row]));
            line.advance();
        });
    }
    line.finish();
    const auto result = comparison_json(std::move(found), options, windows.count());
    if (common.json) return print_json(result);
    print_comparison(result);
}

} // namespace

void add_eval(CLI::App& application, common_options& common) {
    auto* command = application.add_subcommand("eval", "measure how well a model predicts");
    command->require_subcommand(1);

    auto nll_given = std::make_shared<nll_options>();
    auto* nll = command->add_subcommand("nll", "mean negative log-likelihood and perplexity");
    nll_given->configuration.add_to(*nll);
    nll_given->windows.add_to(*nll);
    nll->callback([nll_given, &common] { evaluate(*nll_given, common); });

    auto given = std::make_shared<compare_options>();
    auto* comparing = command->add_subcommand(
        "compare", "how far a model is from another: perplexity, KL divergence, top-1 agreement");
    comparing->add_option("BASE", given->base, "the TOML file of the model that counts as right")
        ->required();
    comparing->add_option("OTHER", given->other, "the TOML file of the one compared to it")
        ->required();
    comparing->add_option("--set", given->overrides,
                          "section.key=value over both TOML files; repeatable");
    given->windows.add_to(*comparing);
    comparing->callback([given, &common] { compare(*given, common); });
}

} // namespace sluice::command
