// sluice quantize: a checkpoint with fewer bits, in the Hugging Face GPTQ layout.
#include "command.hpp"

#include "base/progress.hpp"
#include "base/text.hpp"
#include "quantization/module_list.hpp"
#include "quantization/quantize_checkpoint.hpp"

#include <algorithm>
#include <map>

namespace sluice::command {

namespace {

struct command_options {
    std::string model;
    std::string quantizer;
    std::string target;
    std::vector<std::string> settings;
    std::vector<std::string> plugin_folders;
    bool force = false;
};

// Modules of one kind that are stored alike.
struct summary_line {
    uint64_t modules = 0;
    uint64_t bytes_before = 0;
    uint64_t bytes_after = 0;
    double error_sum = 0;
    double error_max = 0;
    uint64_t fallbacks = 0;

    void add(const module_report& module) {
        ++modules;
        bytes_before += module.bytes_before;
        bytes_after += module.bytes_after;
        error_sum += module.error_relative;
        error_max = std::max(error_max, module.error_relative);
        fallbacks += module.fallback ? 1 : 0;
    }
    double error_mean() const { return error_sum / static_cast<double>(modules); }
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
    fmt::print("{:14} {:>8}  {:24} {:>10} {:>10}  {:>10} {:>10}  {}\n", "kind", "modules", "stored",
               "before", "after", "error mean", "max", "fallbacks");
    for (const auto& [key, line] : lines)
        fmt::print("{:14} {:8}  {:24} {:>10} {:>10}  {:10.2e} {:10.2e}  {}\n",
                   module_kind_name(key.kind), line.modules, stored_text(key),
                   bytes_text(line.bytes_before), bytes_text(line.bytes_after), line.error_mean(),
                   line.error_max, line.fallbacks);
    fmt::print("{:14} {:8}  {:24} {:>10} {:>10}\n", "other tensors", report.other_tensors,
               "unchanged", bytes_text(report.other_bytes), bytes_text(report.other_bytes));
    fmt::print("{:14} {:8}  {:24} {:>10} {:>10}\n", "in all", report.modules.size(), "",
               bytes_text(report.bytes_before), bytes_text(report.bytes_after));
    for (const auto& [note, count] : notes) fmt::print("{} x {}\n", count, note);
    fmt::print("errors are |W - W'|^2 / |W|^2 of a module; written to {}\n", target);
}

nlohmann::ordered_json report_json(const quantization_report& report,
                                   const command_options& options) {
    auto modules = nlohmann::ordered_json::array();
    for (const auto& module : report.modules) {
        nlohmann::ordered_json line = {{"name", module.name},
                                       {"kind", module_kind_name(module.kind)},
                                       {"rows", module.row_count},
                                       {"columns", module.column_count},
                                       {"quantized", module.is_quantized},
                                       {"bits", module.bits},
                                       {"bytes_before", module.bytes_before},
                                       {"bytes_after", module.bytes_after}};
        if (module.is_quantized) {
            line["group_size"] = module.group_size;
            line["symmetric"] = module.is_symmetric;
            line["error_relative"] = module.error_relative;
        }
        line["fallback"] = module.fallback;
        if (!module.note.empty()) line["note"] = module.note;
        modules.push_back(std::move(line));
    }
    return {{"model", options.model},
            {"target", options.target},
            {"quantizer", options.quantizer},
            {"bytes_before", report.bytes_before},
            {"bytes_after", report.bytes_after},
            {"other_tensors", report.other_tensors},
            {"other_bytes", report.other_bytes},
            {"modules", modules}};
}

void quantize(const command_options& options, common_options& common) {
    auto configuration = configuration_for_model(options.model, {});
    for (const auto& folder : options.plugin_folders)
        configuration.plugin_folders.push_back(std::filesystem::absolute(folder));
    const session process(configuration, common);
    const auto quantizer = process.plugins->open(
        SLUICE_KIND_QUANTIZER, options.quantizer,
        settings_from_overrides(options.settings, std::filesystem::current_path()));
    quantize_options how;
    how.target = options.target;
    how.overwrite = options.force;
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
    command->add_flag("--force", options->force, "write into a folder that has files");
    command->callback([options, &common] { quantize(*options, common); });
}

} // namespace sluice::command
