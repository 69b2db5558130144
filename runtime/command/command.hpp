// What the subcommands of `sluice` share. Each subcommand is one file that adds itself to the
// command line; it throws sluice::error, which main turns into one line on standard error and an
// exit status.
#pragma once

#include "base/error.hpp"
#include "config/configuration.hpp"
#include "engine/loaded_model.hpp"
#include "plugin/plugin_host.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace sluice::command {

// How the process ends: 0 done, 1 the thing checked does not hold, 2 an error.
inline constexpr int exit_done = 0;
inline constexpr int exit_not_so = 1;
inline constexpr int exit_error = 2;

// Options that every subcommand takes.
struct common_options {
    bool json = false;    // one JSON object on standard output instead of text
    bool verbose = false; // log everything, not warnings alone
    int status = exit_done;
};

// Each adds its subcommand; what it does runs as the subcommand's callback. `common` outlives the
// call.
void add_run(CLI::App& application, common_options& common);
void add_explain(CLI::App& application, common_options& common);
void add_plugins(CLI::App& application, common_options& common);
void add_inspect(CLI::App& application, common_options& common);
void add_tokenize(CLI::App& application, common_options& common);
void add_verify(CLI::App& application, common_options& common);
void add_eval(CLI::App& application, common_options& common);
void add_quantize(CLI::App& application, common_options& common);
void add_bench(CLI::App& application, common_options& common);

// Services and plugins of one process, made from a configuration.
struct session {
    std::shared_ptr<host_services> services;
    std::unique_ptr<plugin_host> plugins;

    session(const configuration& configuration, const common_options& common);

    // Loads the configured model with progress on a terminal.
    std::shared_ptr<const loaded_model> load(const configuration& configuration,
                                             model_load_options options = {}) const;
};

// CONFIG and --set, as most subcommands take them.
struct configuration_options {
    std::string path;
    std::vector<std::string> overrides;

    void add_to(CLI::App& subcommand);
    configuration read() const;
};

// A configuration for a model folder alone, for subcommands that take MODEL_DIR.
configuration configuration_for_model(const std::filesystem::path& model,
                                      const std::vector<std::string>& overrides);

// The upper one of two in the middle; 0 of none.
double median(std::vector<double> values);

// Writes one JSON object and a line end to standard output.
void print_json(const nlohmann::ordered_json& value);

} // namespace sluice::command
