// sluice bench: prefill and decode speed, beside what the machine could do at best.
#include "command.hpp"

#include "base/text.hpp"
#include "engine/engine.hpp"
#include "profile_report.hpp"
#include "speculation_bench.hpp"

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

namespace sluice::command {

namespace {

struct bench_options {
    configuration_options configuration;
    uint32_t prompt_tokens = 512;
    uint32_t decode_tokens = 128;
    uint32_t batch = 1;
    uint32_t repetitions = 3;
    bool profile = false;
    std::string prompt; // not empty: a comparison instead
};

// What the machine and the program's arithmetic allow.
struct limits {
    double bandwidth_bytes_per_second = 0;
    double matrix_peak_operations_per_second = 0;
    double f32_peak_operations_per_second = 0;
};

// Of a decode step, on average.
struct step_cost {
    double seconds = 0;      // from the end of the step before to its own
    double host_seconds = 0; // of that, outside of the backend
};

struct speeds {
    std::vector<double> prefill; // tokens a second, one for each repetition
    std::vector<double> decode;
    step_cost step;
};

double measure(const loaded_model& model, uint32_t what) {
    const auto& backend = model.backend();
    double value = 0;
    auto call = backend.call("measure");
    call = backend.backend().measure(backend.handle(), what, &value, call.error());
    return value;
}

limits measure_limits(const loaded_model& model, sluice_element_type type) {
    return {
        measure(model, SLUICE_MEASURE_READ_BANDWIDTH),
        measure(model, type == SLUICE_BF16 ? SLUICE_MEASURE_BF16_PEAK : SLUICE_MEASURE_F32_PEAK),
        measure(model, SLUICE_MEASURE_F32_PEAK)};
}

// Requests of random tokens that share no prefix, submitted together and waited for.
class load {
  public:
    load(engine& generator, uint32_t vocabulary) : engine_(generator), vocabulary_(vocabulary) {}

    struct result {
        double prefill_s = 0; // until every request has its first token
        double decode_s = 0;  // from there to the end
        uint64_t decoded_tokens = 0;
    };

    result run(uint32_t batch, uint32_t prompt_tokens, uint32_t tokens_max) {
        using clock = std::chrono::steady_clock;
        std::vector<generation_request> requests(batch);
        for (auto& request : requests) prepare(request, prompt_tokens, tokens_max);
        const auto start = clock::now();
        // Together, so that every repetition is the same steps.
        const auto streams = engine_.submit(std::move(requests));
        result total;
        double first = 0;
        for (const auto& stream : streams) {
            const auto last = finish(*stream);
            first = std::max(first, last.usage.time_to_first_token_s);
            total.decoded_tokens += last.usage.completion_tokens - 1;
        }
        total.prefill_s = first;
        total.decode_s =
            std::chrono::duration<double>(clock::now() - start).count() - total.prefill_s;
        return total;
    }

  private:
    void prepare(generation_request& request, uint32_t prompt_tokens, uint32_t tokens_max) {
        std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(vocabulary_) - 1);
        for (uint32_t i = 0; i < prompt_tokens; ++i) request.token_ids.push_back(token(random_));
        request.parameters.tokens_max = tokens_max;
        request.parameters.end_tokens_stop = false;
        request.use_result_cache = false;
    }
    static generation_event finish(generation& stream) {
        for (;;) {
            auto event = stream.wait();
            if (!event || !event->finished) continue;
            if (event->reason == finish_reason::failed) throw error(event->status, event->message);
            return *event;
        }
    }

    engine& engine_;
    uint32_t vocabulary_;
    std::mt19937 random_{1};
};

step_cost cost_between(const engine_statistics& before, const engine_statistics& after) {
    const auto steps = static_cast<double>(after.decode_steps - before.decode_steps);
    if (steps == 0) return {};
    return {(after.decode_s - before.decode_s) / steps,
            (after.decode_host_s - before.decode_host_s) / steps};
}

constexpr uint32_t short_prompt = 16; // before what is decoded

speeds measure_speeds(engine& generator, const bench_options& options, uint32_t vocabulary) {
    load requests(generator, vocabulary);
    // First everything that is measured without being timed: a size's first step prepares it.
    requests.run(options.batch, options.prompt_tokens, 1);
    requests.run(options.batch, short_prompt, options.decode_tokens + 1);
    speeds found;
    const auto before = generator.statistics();
    for (uint32_t i = 0; i < options.repetitions; ++i) {
        const auto prefill = requests.run(options.batch, options.prompt_tokens, 1);
        found.prefill.push_back(options.batch * options.prompt_tokens / prefill.prefill_s);
        const auto decode = requests.run(options.batch, short_prompt, options.decode_tokens + 1);
        found.decode.push_back(static_cast<double>(decode.decoded_tokens) / decode.decode_s);
    }
    found.step = cost_between(before, generator.statistics());
    return found;
}

// Matrix operations of one prompt token: two for each weight that it uses, the head left out (one
// row of a prompt needs it) and attention's scores not counted.
double operations_per_prompt_token(const model_config& config, const parameter_account& account) {
    const double head = static_cast<double>(config.vocabulary_size) * config.hidden_size;
    const double row = config.hidden_size;
    return 2.0 * (static_cast<double>(account.active_parameter_count) - head - row);
}

// "cuda, onednn"; the limits are the first one's.
std::string backends_text(const explain_report& report) {
    std::string text;
    for (const auto& each : report.backends) text += (text.empty() ? "" : ", ") + each.id;
    return text;
}

nlohmann::ordered_json step_json(const step_cost& step) {
    return {{"seconds", step.seconds},
            {"host_seconds", step.host_seconds},
            {"host_share", step.seconds > 0 ? step.host_seconds / step.seconds : 0.0}};
}

void print_step(const nlohmann::ordered_json& step) {
    fmt::print("  between  {:9.1f} us outside of the backend from one decode step to the next: "
               "{:.1f}% of {:.1f} us\n",
               step["host_seconds"].get<double>() * 1e6, 100 * step["host_share"].get<double>(),
               step["seconds"].get<double>() * 1e6);
}

nlohmann::ordered_json result_json(const bench_options& options, const loaded_model& model,
                                   const speeds& found, const limits& machine) {
    const auto account = account_parameters(model.config(), model.model());
    const double prefill = median(found.prefill);
    const double decode = median(found.decode);
    const double bytes = step_bytes(model.config(), model.model(), options.batch);
    const double operations = operations_per_prompt_token(model.config(), account);
    return {
        {"model_type", model.config().model_type},
        {"backend", model.report().backend},
        {"device", model.report().device},
        {"backends", backends_text(model.report())},
        {"segments", model.report().segment_count},
        {"workers", std::thread::hardware_concurrency()},
        {"prompt_tokens", options.prompt_tokens},
        {"decode_tokens", options.decode_tokens},
        {"batch", options.batch},
        {"repetitions", options.repetitions},
        {"prefill_tokens_per_second", prefill},
        {"prefill_tokens_per_second_all", found.prefill},
        {"decode_tokens_per_second", decode},
        {"decode_tokens_per_second_all", found.decode},
        {"decode_step", step_json(found.step)},
        {"operations_per_prompt_token", operations},
        {"prefill_operations_per_second", prefill * operations},
        {"prefill_matrix_peak_share",
         prefill * operations / machine.matrix_peak_operations_per_second},
        {"bytes_per_step", bytes},
        {"decode_bandwidth_share",
         decode / options.batch * bytes / machine.bandwidth_bytes_per_second},
        {"measured_bandwidth_bytes_per_second", machine.bandwidth_bytes_per_second},
        {"measured_matrix_peak_operations_per_second", machine.matrix_peak_operations_per_second},
        {"measured_f32_peak_operations_per_second", machine.f32_peak_operations_per_second}};
}

void print_text(const nlohmann::ordered_json& r) {
    fmt::print("{} on {} ({}), batch {}, median of {}\n", r["model_type"].get<std::string>(),
               r["backends"].get<std::string>(), r["device"].get<std::string>(),
               r["batch"].get<uint32_t>(), r["repetitions"].get<uint32_t>());
    fmt::print("  prefill  {:9.1f} tokens/s of {} tokens: {:.1f} GFLOP/s, {:.1f}% of the matrix "
               "peak of {:.1f}\n",
               r["prefill_tokens_per_second"].get<double>(), r["prompt_tokens"].get<uint32_t>(),
               r["prefill_operations_per_second"].get<double>() / 1e9,
               100 * r["prefill_matrix_peak_share"].get<double>(),
               r["measured_matrix_peak_operations_per_second"].get<double>() / 1e9);
    fmt::print("  decode   {:9.1f} tokens/s of {} tokens: {}{} a step, {:.1f}% of the read "
               "bandwidth of {:.1f} GB/s\n",
               r["decode_tokens_per_second"].get<double>(), r["decode_tokens"].get<uint32_t>(),
               r["batch"].get<uint32_t>() > 1 ? "about " : "",
               bytes_text(static_cast<uint64_t>(r["bytes_per_step"].get<double>())),
               100 * r["decode_bandwidth_share"].get<double>(),
               r["measured_bandwidth_bytes_per_second"].get<double>() / 1e9);
    print_step(r["decode_step"]);
}

void bench_profile(const bench_options& options, common_options& common,
                   configuration configuration) {
    configuration.settings[configuration.backend].values["profile"].value = true;
    const session process(configuration, common);
    const auto model = process.load(configuration);
    auto report = profile_report(model, options.prompt_tokens, options.batch);
    const auto generator = engine::create(model, configuration, *process.plugins);
    load requests(*generator, model->config().vocabulary_size);
    requests.run(options.batch, short_prompt, options.decode_tokens + 1);
    const auto before = generator->statistics();
    requests.run(options.batch, short_prompt, options.decode_tokens + 1);
    const auto step = step_json(cost_between(before, generator->statistics()));
    if (!common.json) {
        print_profile(report);
        return print_step(step);
    }
    report["decode_step"] = step;
    print_json(report);
}

void bench_speculation(const bench_options& options, common_options& common,
                       configuration configuration) {
    const session process(configuration, common);
    const auto model = process.load(configuration);
    const auto report =
        speculation_bench(model, std::move(configuration), *process.plugins,
                          {options.prompt, options.decode_tokens, options.repetitions});
    if (common.json) return print_json(report);
    print_speculation_bench(report);
}

void bench(const bench_options& options, common_options& common) {
    auto configuration = options.configuration.read();
    configuration.result_cache = "none";
    configuration.engine.prefix_reuse = false;
    // What is asked for together is to run together.
    configuration.engine.sequences_max =
        std::max(configuration.engine.sequences_max, options.batch);
    if (!options.prompt.empty())
        return bench_speculation(options, common, std::move(configuration));
    // What follows random tokens says nothing of texts.
    configuration.speculation.method = speculation_method::none;
    if (options.profile) return bench_profile(options, common, std::move(configuration));
    const session process(configuration, common);
    const auto model = process.load(configuration);
    const auto generator = engine::create(model, configuration, *process.plugins);
    const auto machine = measure_limits(*model, configuration.model.compute_type);
    const auto found = measure_speeds(*generator, options, model->config().vocabulary_size);
    const auto result = result_json(options, *model, found, machine);
    if (common.json) return print_json(result);
    print_text(result);
}

} // namespace

void add_bench(CLI::App& application, common_options& common) {
    auto options = std::make_shared<bench_options>();
    auto* command = application.add_subcommand(
        "bench", "prefill and decode speed, and their shares of the machine's limits");
    options->configuration.add_to(*command);
    command->add_option("--prompt-tokens", options->prompt_tokens, "tokens of each prompt")
        ->check(CLI::Range(1u, 1u << 20))
        ->capture_default_str();
    command->add_option("--decode-tokens", options->decode_tokens, "tokens generated after it")
        ->check(CLI::Range(1u, 1u << 20))
        ->capture_default_str();
    command->add_option("--batch", options->batch, "requests at once")
        ->check(CLI::Range(1u, 4096u))
        ->capture_default_str();
    command->add_option("--repetitions", options->repetitions, "the median is reported")
        ->check(CLI::Range(1u, 1000u))
        ->capture_default_str();
    command->add_flag("--profile", options->profile,
                      "instead: where the time of a step goes, by kind of operation");
    command->add_option("--prompt", options->prompt,
                        "instead: what follows this text, with and without [speculation]");
    command->callback([options, &common] { bench(*options, common); });
}

} // namespace sluice::command
