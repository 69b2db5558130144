// sluice verify: a checkpoint's logits against reference ones.
#include "command.hpp"

#include "base/element_type.hpp"
#include "base/text.hpp"
#include "engine/logits_runner.hpp"
#include "model/safetensors.hpp"

#include <algorithm>
#include <cmath>

namespace sluice::command {

namespace {

struct verify_options {
    std::string model;
    std::string golden;
    std::string backend = "onednn";
    std::string router = "specification";
    std::string type = "float32";
    double margin = 0.01;
    std::optional<double> tolerance;
    std::optional<double> agreement_min;
    uint32_t chunk = 0;
    std::vector<std::string> overrides;
};

// One sequence of the reference: its tokens, the logits after each, and a greedy continuation.
struct reference_sequence {
    std::vector<int32_t> tokens;
    std::vector<float> logits; // [tokens, vocabulary]
    std::vector<int32_t> greedy;
};

struct verify_result {
    double error_max = 0;
    uint64_t rows = 0;
    uint64_t rows_clear = 0; // whose margin is over the limit
    uint64_t rows_agreeing = 0;
    uint64_t continuation = 0;
    uint64_t continuation_agreeing = 0;

    double agreement() const {
        return rows_clear == 0
                   ? 1.0
                   : static_cast<double>(rows_agreeing) / static_cast<double>(rows_clear);
    }
};

tensor_view required(const safetensors_file& file, const std::string& name,
                     sluice_element_type type) {
    const auto* entry = file.find_entry(name);
    if (entry == nullptr || entry->element_type != type)
        fail(SLUICE_INVALID, "{}: expected a tensor '{}' of type {}, found {}",
             file.path().string(), name, safetensors_dtype(type),
             entry == nullptr ? "none" : entry->dtype);
    return file.tensor(*entry);
}

std::vector<int32_t> integers(const tensor_view& view) {
    const auto* first = reinterpret_cast<const int32_t*>(view.bytes.data());
    return {first, first + view.elements()};
}

// input_ids [rows, tokens] and logits [rows, tokens, vocabulary], greedy for the first row.
std::vector<reference_sequence> read_batch(const safetensors_file& file) {
    const auto ids = required(file, "input_ids", SLUICE_I32);
    const auto logits = required(file, "logits", SLUICE_F32);
    if (ids.shape.size() != 2 || logits.shape.size() != 3 || logits.shape[0] != ids.shape[0]
        || logits.shape[1] != ids.shape[1])
        fail(SLUICE_INVALID,
             "{}: expected input_ids [sequences, tokens] and logits [sequences, tokens, "
             "vocabulary], found {} and {}",
             file.path().string(), shape_text(ids.shape), shape_text(logits.shape));
    const auto tokens = static_cast<size_t>(ids.shape[1]);
    const auto width = tokens * static_cast<size_t>(logits.shape[2]);
    const auto all_ids = integers(ids);
    const auto* values = reinterpret_cast<const float*>(logits.bytes.data());
    std::vector<reference_sequence> result(static_cast<size_t>(ids.shape[0]));
    for (size_t row = 0; row < result.size(); ++row) {
        const auto first = all_ids.begin() + static_cast<std::ptrdiff_t>(row * tokens);
        result[row].tokens.assign(first, first + static_cast<std::ptrdiff_t>(tokens));
        result[row].logits.assign(values + row * width, values + (row + 1) * width);
    }
    if (!result.empty() && file.find_entry("greedy") != nullptr)
        result[0].greedy = integers(required(file, "greedy", SLUICE_I32));
    return result;
}

// "0.input_ids" [tokens], "0.logits" [tokens, vocabulary], "0.greedy", "1.input_ids", ...
std::vector<reference_sequence> read_numbered(const safetensors_file& file) {
    std::vector<reference_sequence> result;
    for (size_t i = 0; file.find_entry(fmt::format("{}.input_ids", i)) != nullptr; ++i) {
        auto& sequence = result.emplace_back();
        sequence.tokens = integers(required(file, fmt::format("{}.input_ids", i), SLUICE_I32));
        sequence.logits = required(file, fmt::format("{}.logits", i), SLUICE_F32).to_f32();
        sequence.greedy = integers(required(file, fmt::format("{}.greedy", i), SLUICE_I32));
    }
    return result;
}

std::vector<reference_sequence> read_golden(const std::string& path) {
    const auto file = safetensors_file::open(path);
    auto result =
        file->find_entry("input_ids") != nullptr ? read_batch(*file) : read_numbered(*file);
    if (result.empty())
        fail(SLUICE_INVALID,
             "{}: expected tensors 'input_ids' and 'logits', or '0.input_ids', "
             "'0.logits' and so on; found neither",
             path);
    return result;
}

// Place of the largest, and its distance to the second.
std::pair<size_t, float> top(std::span<const float> row) {
    const auto best = std::max_element(row.begin(), row.end());
    float second = -INFINITY;
    for (auto each = row.begin(); each != row.end(); ++each)
        if (each != best) second = std::max(second, *each);
    return {static_cast<size_t>(best - row.begin()), *best - second};
}

void compare_row(std::span<const float> found, std::span<const float> expected, double margin,
                 verify_result& result) {
    ++result.rows;
    for (size_t i = 0; i < expected.size(); ++i) {
        const double error = std::fabs(static_cast<double>(found[i]) - expected[i]);
        result.error_max = std::isnan(error) ? INFINITY : std::max(result.error_max, error);
    }
    const auto [best, distance] = top(expected);
    if (distance <= margin) return;
    ++result.rows_clear;
    if (top(found).first == best) ++result.rows_agreeing;
}

void compare(logits_runner& runner, const std::vector<reference_sequence>& golden,
             const verify_options& options, verify_result& result) {
    const size_t width = runner.vocabulary_size();
    std::vector<logits_request> requests;
    for (const auto& sequence : golden) {
        if (sequence.logits.size() != sequence.tokens.size() * width)
            fail(SLUICE_INVALID,
                 "{}: the logits have {} values for {} tokens; the model's vocabulary is {}",
                 options.golden, sequence.logits.size(), sequence.tokens.size(), width);
        requests.push_back({sequence.tokens, options.chunk, false});
    }
    runner.run(requests, [&](size_t sequence, uint32_t position, std::span<const float> logits) {
        compare_row(logits, std::span(golden[sequence].logits).subspan(position * width, width),
                    options.margin, result);
    });
    for (const auto& sequence : golden) {
        if (sequence.greedy.empty()) continue;
        const auto found =
            runner.greedy(sequence.tokens, static_cast<uint32_t>(sequence.greedy.size()));
        result.continuation += found.size();
        for (size_t i = 0; i < found.size() && found[i] == sequence.greedy[i]; ++i)
            ++result.continuation_agreeing;
    }
}

void verify(const verify_options& options, common_options& common) {
    auto configuration = configuration_for_model(options.model, options.overrides);
    configuration.backend = options.backend;
    configuration.router = options.router;
    const bool narrow = options.type == "bfloat16";
    configuration.model.compute_type = *element_type_from_name(options.type);
    configuration.model.cache_type = configuration.model.compute_type;
    const auto golden = read_golden(options.golden);
    const session process(configuration, common);
    logits_runner runner(process.load(configuration));
    verify_result result;
    compare(runner, golden, options, result);

    const double tolerance = options.tolerance.value_or(narrow ? INFINITY : 1e-3);
    const double agreement_min = options.agreement_min.value_or(narrow ? 0.95 : 1.0);
    const bool holds = result.error_max <= tolerance && result.agreement() >= agreement_min;
    common.status = holds ? exit_done : exit_not_so;
    if (common.json)
        return print_json({{"max_abs_error", result.error_max},
                           {"greedy_agreement", result.agreement()},
                           {"rows", result.rows},
                           {"rows_over_margin", result.rows_clear},
                           {"margin", options.margin},
                           {"continuation_tokens", result.continuation},
                           {"continuation_tokens_agreeing", result.continuation_agreeing},
                           {"backend", options.backend},
                           {"dtype", options.type},
                           {"passed", holds}});
    fmt::print("{} on {} in {}: largest error {:.3g}; greedy agreement {:.2f}% of {} rows with a "
               "margin over {}; continuation {} of {} tokens: {}\n",
               options.model, options.backend, options.type, result.error_max,
               100 * result.agreement(), result.rows_clear, options.margin,
               result.continuation_agreeing, result.continuation, holds ? "passed" : "FAILED");
}

} // namespace

void add_verify(CLI::App& application, common_options& common) {
    auto options = std::make_shared<verify_options>();
    auto* command =
        application.add_subcommand("verify", "compare a checkpoint's logits to reference ones");
    command->add_option("MODEL_DIR", options->model, "the model's folder")->required();
    command->add_option("--golden", options->golden, "safetensors with input_ids and logits")
        ->required();
    command->add_option("--backend", options->backend, "plugin id")->capture_default_str();
    command->add_option("--router", options->router, "plugin id")->capture_default_str();
    command->add_option("--dtype", options->type, "type of activations and cache")
        ->check(CLI::IsMember({"float32", "bfloat16"}))
        ->capture_default_str();
    command
        ->add_option("--margin", options->margin,
                     "rows whose reference has its two best closer than this do not count")
        ->capture_default_str();
    command->add_option("--tolerance", options->tolerance,
                        "largest error allowed (0.001; in bfloat16 none)");
    command->add_option("--agreement-min", options->agreement_min,
                        "least share of agreeing greedy tokens (1; in bfloat16 0.95)");
    command->add_option("--chunk", options->chunk, "rows a step; 1 computes one by one, 0 all");
    command->add_option("--set", options->overrides, "section.key=value; repeatable");
    command->callback([options, &common] { verify(*options, common); });
}

} // namespace sluice::command
