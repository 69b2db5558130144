// sluice explain: what a configuration would run, and why.
#include "command.hpp"

#include "base/text.hpp"
#include "pipeline/pipeline.hpp"
#include "program/print.hpp"

#include <map>

namespace sluice::command {

namespace {

struct explain_options {
    configuration_options configuration;
    bool all_layers = false;
    bool program_only = false;
};

std::string pipeline_text(const configuration& configuration) {
    if (configuration.stages.empty()) return "request.prompt -> generate -> text";
    std::string text;
    for (const auto& stage : configuration.stages) {
        if (!text.empty()) text += "\n          ";
        for (const auto& [port, edge] : stage.input)
            text += fmt::format("{}.{} -> {}.{}  ", edge.stage, edge.field, stage.name, port);
        text += fmt::format("({} '{}')", stage.kind, stage.name);
    }
    return text;
}

nlohmann::ordered_json report_json(const loaded_model& model, const configuration& configuration) {
    const auto& report = model.report();
    auto operations = nlohmann::ordered_json::array();
    for (const auto& operation : report.operations)
        operations.push_back(
            {{"operation", print_operation(model.step_program(), operation.operation)},
             {"plugin", operation.plugin},
             {"kernel", operation.kernel},
             {"remark", operation.remark}});
    auto expansions = nlohmann::ordered_json::array();
    for (const auto& expansion : report.expansions)
        expansions.push_back({{"name", expansion.name},
                              {"kind", expansion.kind},
                              {"plugin", expansion.plugin},
                              {"reason", expansion.reason}});
    auto weights = nlohmann::ordered_json::array();
    for (const auto& weight : report.weights)
        weights.push_back({{"name", weight.name},
                           {"stored", weight.stored},
                           {"prepared", weight.prepared},
                           {"stored_bytes", weight.stored_bytes},
                           {"prepared_bytes", weight.prepared_bytes}});
    return {{"configuration", configuration.name},
            {"pipeline", pipeline_text(configuration)},
            {"backend", report.backend},
            {"device", report.device},
            {"router", report.router},
            {"operations", operations},
            {"expansions", expansions},
            {"weights", weights}};
}

// Expansions and weights repeat from layer to layer: equal ones are counted.
void print_folded(const std::string& title, const std::map<std::string, uint64_t>& lines) {
    if (lines.empty()) return;
    fmt::print("\n{}\n", title);
    for (const auto& [line, count] : lines) fmt::print("  {} x {}\n", count, line);
}

void print_report(const loaded_model& model, const configuration& configuration,
                  const explain_options& options) {
    const auto& report = model.report();
    print_options print;
    print.fold_layers = !options.all_layers;
    print.remark = [&](uint32_t number) {
        const auto& operation = report.operations[number];
        auto text = fmt::format("{}: {}", operation.plugin, operation.kernel);
        return operation.remark.empty() ? text : text + "; " + operation.remark;
    };
    if (!options.program_only) {
        fmt::print("pipeline  {}\nmodel     {} ({})\nbackend   {} {} on {}\nrouter    {}\n\n",
                   pipeline_text(configuration), configuration.model.path.string(),
                   model.config().model_type, report.backend, report.backend_version, report.device,
                   report.router);
    } else {
        print.remark = nullptr;
    }
    fmt::print("{}", print_program(model.step_program(), print));
    if (options.program_only) return;
    std::map<std::string, uint64_t> expansions;
    for (const auto& each : report.expansions)
        ++expansions[fmt::format("{}: {} passed it over: {}", each.kind, each.plugin, each.reason)];
    print_folded("expanded into primitives", expansions);
    std::map<std::string, uint64_t> weights;
    uint64_t prepared = 0;
    for (const auto& each : report.weights) {
        ++weights[fmt::format("{} prepared as {}", each.stored, each.prepared)];
        prepared += each.prepared_bytes;
    }
    print_folded("weights", weights);
    fmt::print("  {} in all, prepared in {}\n", bytes_text(prepared), duration_text(report.load_s));
}

void explain(const explain_options& options, common_options& common) {
    const auto configuration = options.configuration.read();
    const session process(configuration, common);
    const auto model = process.load(configuration);
    if (common.json) return print_json(report_json(*model, configuration));
    print_report(*model, configuration, options);
}

} // namespace

void add_explain(CLI::App& application, common_options& common) {
    auto options = std::make_shared<explain_options>();
    auto* command = application.add_subcommand(
        "explain", "the pipeline, the program, and what runs each operation and why");
    options->configuration.add_to(*command);
    command->add_flag("--all-layers", options->all_layers, "do not fold layers that repeat");
    command->add_flag("--program", options->program_only, "the program's text alone");
    command->callback([options, &common] { explain(*options, common); });
}

} // namespace sluice::command
