// sluice explain: what a configuration would run, and why.
#include "command.hpp"

#include "base/text.hpp"
#include "config/name_pattern.hpp"
#include "pipeline/pipeline.hpp"
#include "program/print.hpp"

#include <algorithm>
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
                           {"plugin", weight.plugin},
                           {"stored", weight.stored},
                           {"prepared", weight.prepared},
                           {"stored_bytes", weight.stored_bytes},
                           {"prepared_bytes", weight.prepared_bytes}});
    auto backends = nlohmann::ordered_json::array();
    for (const auto& backend : report.backends)
        backends.push_back(
            {{"id", backend.id}, {"version", backend.version}, {"device", backend.device}});
    auto crossings = nlohmann::ordered_json::array();
    for (const auto& crossing : report.crossings)
        crossings.push_back({{"value", crossing.value},
                             {"type", crossing.type},
                             {"from", crossing.from},
                             {"to", crossing.to},
                             {"bytes", crossing.bytes},
                             {"unit", crossing.unit}});
    return {{"configuration", configuration.name},
            {"pipeline", pipeline_text(configuration)},
            {"backend", report.backend},
            {"device", report.device},
            {"backends", backends},
            {"router", report.router},
            {"segments", report.segment_count},
            {"host_functions", report.host_function_count},
            {"crossings", crossings},
            {"operations", operations},
            {"expansions", expansions},
            {"host_sampling", report.host_sampling},
            {"weights", weights}};
}

// Expansions and weights repeat from layer to layer: equal ones are counted.
void print_folded(const std::string& title, const std::map<std::string, uint64_t>& lines) {
    if (lines.empty()) return;
    fmt::print("\n{}\n", title);
    for (const auto& [line, count] : lines) fmt::print("  {} x {}\n", count, line);
}

std::string name_of_layer(const std::string& name, bool all_layers) {
    return all_layers ? name : generalised_name(name);
}

// What is copied between backends: lines of layers alike are counted, in the order of a step.
void print_crossings(const explain_report& report, bool all_layers) {
    if (report.segment_count == 1) return;
    fmt::print("\nplacement: {} segments a step, {} copies between backends\n",
               report.segment_count, report.crossings.size());
    std::vector<std::pair<std::string, uint64_t>> lines;
    std::map<std::string, uint64_t> totals; // by unit
    for (const auto& each : report.crossings) {
        const auto line =
            fmt::format("{} : {}, {} a {}, from {} to {}", name_of_layer(each.value, all_layers),
                        each.type, bytes_text(each.bytes), each.unit, each.from, each.to);
        const auto found = std::find_if(lines.begin(), lines.end(),
                                        [&](const auto& other) { return other.first == line; });
        if (found == lines.end())
            lines.emplace_back(line, 1);
        else
            ++found->second;
        totals[each.unit] += each.bytes;
    }
    for (const auto& [line, count] : lines) fmt::print("  {} x {}\n", count, line);
    for (const auto& [unit, bytes] : totals)
        fmt::print("  {} copied for each {}\n", bytes_text(bytes), unit);
    if (report.host_function_count > 0)
        fmt::print("  a step waits for the host {} times: once in each layer that the function of "
                   "router \"{}\" routes\n",
                   report.host_function_count, report.router);
}

std::string backends_text(const explain_report& report) {
    std::string text;
    for (size_t i = 0; i < report.backends.size(); ++i) {
        const auto& each = report.backends[i];
        if (i > 0) text += fmt::format("\nat {}      ", i);
        text += fmt::format("{} {} on {}", each.id, each.version, each.device);
    }
    return text;
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
        fmt::print("pipeline  {}\nmodel     {} ({})\nbackend   {}\nrouter    {}\n\n",
                   pipeline_text(configuration), configuration.model.path.string(),
                   model.config().model_type, backends_text(report), report.router);
    } else {
        print.remark = nullptr;
    }
    fmt::print("{}", print_program(model.step_program(), print));
    if (options.program_only) return;
    print_crossings(report, options.all_layers);
    std::map<std::string, uint64_t> expansions;
    for (const auto& each : report.expansions)
        ++expansions[fmt::format("{}: {} passed it over: {}", each.kind, each.plugin, each.reason)];
    print_folded("expanded into primitives", expansions);
    if (!report.host_sampling.empty())
        fmt::print("\nthe host samples from all logits\n  {}\n", report.host_sampling);
    std::map<std::string, uint64_t> weights;
    uint64_t prepared = 0;
    for (const auto& each : report.weights) {
        const auto by = report.backends.size() == 1 ? "" : fmt::format(" by {}", each.plugin);
        ++weights[fmt::format("{} prepared{} as {}", each.stored, by, each.prepared)];
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
