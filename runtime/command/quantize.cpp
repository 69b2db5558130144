// sluice quantize: a checkpoint with fewer bits, in the Hugging Face GPTQ layout.
#include "command.hpp"

#include "base/mapped_file.hpp"
#include "base/progress.hpp"
#include "base/text.hpp"
#include "quantization/module_list.hpp"
#include "quantization/quantize_checkpoint.hpp"
#include "token_file.hpp"
#include "tokenizer/tokenizer.hpp"

#include <algorithm>
#include <limits>
#include <map>

namespace sluice::command {

namespace {

struct command_options {
    std::string model;
    std::string quantizer;
    std::string target;
    std::vector<std::string> settings;
    std::vector<std::string> plugin_folders;
    std::string config;
    std::string calibration;
    uint32_t calibration_tokens = 1u << 17;
    uint32_t window = 1024;
    uint32_t expert_tokens_min = 64;
    bool force = false;
};

// Modules of one kind that are stored alike.
struct summary_line {
    uint64_t modules = 0;
    uint64_t bytes_before = 0;
    uint64_t bytes_after = 0;
    double error_sum = 0;
    double error_max = 0;
    double rounding_error_sum = 0;
    double tokens_min = std::numeric_limits<double>::infinity();
    double damping_max = 0;
    uint64_t fallbacks = 0;

    void add(const module_report& module) {
        ++modules;
        bytes_before += module.bytes_before;
        bytes_after += module.bytes_after;
        error_sum += module.error_relative;
        error_max = std::max(error_max, module.error_relative);
        rounding_error_sum += module.rounding_error_relative;
        tokens_min = std::min(tokens_min, module.token_count);
        damping_max = std::max(damping_max, module.damping);
        fallbacks += module.fallback ? 1 : 0;
    }
    double error_mean() const { return error_sum / static_cast<double>(modules); }
    double rounding_error_mean() const { return rounding_error_sum / static_cast<double>(modules); }
};

struct summary_key {
    uint32_t kind = 0;
    uint32_t bits = 0;
    int64_t group_size = 0;

    auto operator<=>(const summary_key&) const = default;
};

std::string stored_text(const summary_key& key) {
    if (key.group_size == 0) return fmt::format("{} bits", key.bits);
    if (key.group_size < 0) return fmt::format("{} bits by row", key.bits);
    return fmt::format("{} bits in groups of {}", key.bits, key.group_size);
}

void print_text(const quantization_report& report, const std::string& target) {
    std::map<summary_key, summary_line> lines;
    std::map<std::string, uint64_t> notes;
    for (const auto& module : report.modules) {
        lines[{module.kind, module.bits, module.group_size}].add(module);
        if (!module.note.empty())
            ++notes[fmt::format("{}: {}", module_kind_name(module.kind), module.note)];
    }
    const bool calibrated = report.calibration_tokens != 0;
    fmt::print("{:14} {:>8}  {:24} {:>10} {:>10}  {:>10} {:>10}  {:>9}", "kind", "modules",
               "stored", "before", "after", "error mean", "max", "fallbacks");
    if (calibrated) fmt::print("  {:>11} {:>10} {:>8}", "of rounding", "tokens min", "damping");
    fmt::print("\n");
    for (const auto& [key, line] : lines) {
        fmt::print("{:14} {:8}  {:24} {:>10} {:>10}  {:10.2e} {:10.2e}  {:9}",
                   module_kind_name(key.kind), line.modules, stored_text(key),
                   bytes_text(line.bytes_before), bytes_text(line.bytes_after), line.error_mean(),
                   line.error_max, line.fallbacks);
        if (calibrated && key.group_size != 0)
            fmt::print("  {:11.2e} {:10} {:8.2g}", line.rounding_error_mean(), line.tokens_min,
                       line.damping_max);
        fmt::print("\n");
    }
    fmt::print("{:14} {:8}  {:24} {:>10} {:>10}\n", "other tensors", report.other_tensors,
               "unchanged", bytes_text(report.other_bytes), bytes_text(report.other_bytes));
    fmt::print("{:14} {:8}  {:24} {:>10} {:>10}\n", "in all", report.modules.size(), "",
               bytes_text(report.bytes_before), bytes_text(report.bytes_after));
    for (const auto& [note, count] : notes) fmt::print("{} x {}\n", count, note);
    if (report.resumed_modules != 0)
        fmt::print("{} modules were taken over from an interrupted run\n", report.resumed_modules);
    fmt::print("errors are |W - W'|^2 / |W|^2 of a module{}; written to {}\n",
               calibrated ? fmt::format(", weighted by the inputs that {} tokens gave it",
                                        report.calibration_tokens)
                          : "",
               target);
}

nlohmann::ordered_json report_json(const quantization_report& report,
                                   const command_options& options) {
    nlohmann::ordered_json json = {
        {"model", options.model}, {"target", options.target}, {"quantizer", options.quantizer}};
    json.update(to_json(report));
    return json;
}

// ---- Calibration text ----

// `count` windows evenly over a file of `size` units; unit_max: what a window takes at most.
std::vector<size_t> begins_of(size_t size, size_t count, size_t unit_max) {
    std::vector<size_t> begins;
    const size_t room = size > unit_max ? size - unit_max : 0;
    for (size_t i = 0; i < count; ++i)
        begins.push_back(count == 1 ? 0 : size_t(double(room) * double(i) / double(count - 1)));
    begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
    return begins;
}

std::vector<std::vector<int32_t>> windows_of_tokens(const command_options& options,
                                                    uint32_t vocabulary_size) {
    const std::vector<int32_t> tokens = read_token_file(options.calibration);
    check_tokens(options.calibration, tokens, vocabulary_size);
    std::vector<std::vector<int32_t>> windows;
    const size_t most = options.calibration_tokens / options.window;
    const size_t there = tokens.size() / options.window;
    for (const size_t begin : begins_of(tokens.size(), std::min(most, there), options.window))
        windows.emplace_back(tokens.begin() + ptrdiff_t(begin),
                             tokens.begin() + ptrdiff_t(begin + options.window));
    return windows;
}

// Windows begin at line starts, where the tokenizer sees what it would see in the whole text.
std::vector<std::vector<int32_t>> windows_of_text(const command_options& options,
                                                  const std::filesystem::path& model,
                                                  uint32_t vocabulary_size) {
    const auto file = mapped_file::open(options.calibration);
    const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()),
                                file->bytes().size());
    const auto words = tokenizer::load(model / "tokenizer.json");
    constexpr size_t token_bytes_max = 16; // a window of longer tokens is shorter
    const size_t bytes_max = size_t(options.window) * token_bytes_max;
    std::vector<std::vector<int32_t>> windows;
    const size_t most = options.calibration_tokens / options.window;
    for (size_t begin : begins_of(text.size(), most, bytes_max)) {
        if (begin != 0) begin = text.find('\n', begin);
        if (begin == std::string_view::npos) break;
        std::string_view piece = text.substr(begin == 0 ? 0 : begin + 1, bytes_max);
        if (begin + 1 + bytes_max < text.size()) piece = piece.substr(0, piece.rfind('\n') + 1);
        std::vector<int32_t> tokens = words->encode(piece, /*add_special_tokens=*/true);
        check_tokens(options.calibration, tokens, vocabulary_size);
        if (tokens.size() > options.window) tokens.resize(options.window);
        if (!tokens.empty()) windows.push_back(std::move(tokens));
    }
    return windows;
}

std::vector<std::vector<int32_t>> calibration_windows(const command_options& options,
                                                      const std::filesystem::path& model) {
    if (options.calibration_tokens < options.window)
        fail(SLUICE_INVALID, "--calibration-tokens {} is less than one --window of {}",
             options.calibration_tokens, options.window);
    const uint32_t vocabulary_size = load_model_config(model / "config.json").vocabulary_size;
    auto windows = options.calibration.ends_with(".u16")
                       ? windows_of_tokens(options, vocabulary_size)
                       : windows_of_text(options, model, vocabulary_size);
    if (windows.empty())
        fail(SLUICE_INVALID, "{}: expected text, or at least {} tokens, to calibrate with",
             options.calibration, options.window);
    return windows;
}

configuration configuration_of(const command_options& options) {
    configuration read = options.config.empty() ? configuration_for_model(options.model, {})
                                                : configuration_from_file(options.config);
    read.model.path = std::filesystem::absolute(options.model);
    for (const auto& folder : options.plugin_folders)
        read.plugin_folders.push_back(std::filesystem::absolute(folder));
    // The command line counts before the file.
    configured_settings& settings = read.settings[options.quantizer];
    for (auto& [name, value] :
         settings_from_overrides(options.settings, std::filesystem::current_path()).values)
        settings.values[name] = value;
    return read;
}

void quantize(const command_options& options, common_options& common) {
    const configuration configuration = configuration_of(options);
    const session process(configuration, common);
    const configured_settings& settings = configuration.settings_of(options.quantizer);
    const auto quantizer =
        process.plugins->open(SLUICE_KIND_QUANTIZER, options.quantizer, settings);
    quantize_options how;
    how.target = options.target;
    how.overwrite = options.force;
    how.formats = configuration.module_formats;
    how.settings = settings_text(settings);
    how.expert_tokens_min = options.expert_tokens_min;
    if (!options.calibration.empty()) {
        how.calibration.windows = calibration_windows(options, configuration.model.path);
        how.backend = process.plugins->open_backend(configuration);
    }
    std::unique_ptr<progress> line;
    how.on_progress = [&](uint64_t, uint64_t total) {
        if (line == nullptr) line = std::make_unique<progress>("quantizing modules", total);
        line->advance();
    };
    const auto report = quantize_checkpoint(configuration.model.path, *quantizer, how);
    line.reset();
    if (common.json) return print_json(report_json(report, options));
    print_text(report, options.target);
}

} // namespace

void add_quantize(CLI::App& application, common_options& common) {
    auto options = std::make_shared<command_options>();
    auto* command = application.add_subcommand(
        "quantize", "write a model with fewer bits a weight, in the GPTQ layout");
    command->add_option("MODEL_DIR", options->model, "the folder of the 16-bit model")->required();
    command->add_option("--quantizer", options->quantizer, "plugin id")->required();
    command->add_option("-o,--output", options->target, "the folder to write")->required();
    command->add_option("--set", options->settings, "setting=value of the quantizer; repeatable");
    command->add_option("--folder", options->plugin_folders,
                        "a folder to search for plugins first; repeatable");
    command->add_option("--config", options->config,
                        "a TOML file: backend, [quantization.formats], settings of plugins");
    command->add_option("--calibration", options->calibration,
                        "text, or token ids (little-endian 16-bit, in a file named *.u16), for "
                        "quantizers that want statistics");
    command
        ->add_option("--calibration-tokens", options->calibration_tokens,
                     "at most so many tokens, evenly over the file")
        ->check(CLI::Range(1u, 1u << 30))
        ->capture_default_str();
    command->add_option("--window", options->window, "tokens that are run together")
        ->check(CLI::Range(1u, 1u << 16))
        ->capture_default_str();
    command
        ->add_option("--expert-tokens-min", options->expert_tokens_min,
                     "fewer calibration tokens of an expert are an error")
        ->capture_default_str();
    command->add_flag("--force", options->force, "write into a folder that has files");
    command->callback([options, &common] { quantize(*options, common); });
}

} // namespace sluice::command
