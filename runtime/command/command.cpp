#include "command.hpp"

#include "base/progress.hpp"

#include <algorithm>
#include <cstdio>

namespace sluice::command {

session::session(const configuration& configuration, const common_options& common) {
    host_options options;
    options.worker_count = configuration.engine.worker_count;
    options.allow_draft = configuration.allow_draft;
    options.log_level_min = common.verbose ? log_level::debug : log_level::warning;
    services = std::make_shared<host_services>(std::move(options));
    plugin_host_options plugin_options;
    plugin_options.folders = configuration.plugin_folders;
    plugin_options.allow_draft = configuration.allow_draft;
    plugin_options.checked = configuration.checked;
    plugins = std::make_unique<plugin_host>(services, std::move(plugin_options));
}

std::shared_ptr<const loaded_model> session::load(const configuration& configuration,
                                                  model_load_options options) const {
    std::unique_ptr<progress> line;
    uint64_t shown = 0;
    options.on_progress = [&](uint64_t done, uint64_t total) {
        if (line == nullptr)
            line = std::make_unique<progress>("loading weights", total, progress_unit::bytes);
        line->advance(done - shown);
        shown = done;
    };
    return loaded_model::load(configuration, *plugins, services, options);
}

void configuration_options::add_to(CLI::App& subcommand) {
    subcommand.add_option("CONFIG", path, "the TOML file")->required();
    subcommand.add_option("--set", overrides, "section.key=value over the TOML file; repeatable");
}

configuration configuration_options::read() const {
    return configuration_from_file(path, overrides);
}

configuration configuration_for_model(const std::filesystem::path& model,
                                      const std::vector<std::string>& overrides) {
    auto result =
        configuration_from_text("", std::filesystem::current_path(), "the command line", overrides);
    result.model.path = std::filesystem::absolute(model);
    return result;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values.empty() ? 0 : values[values.size() / 2];
}

void print_json(const nlohmann::ordered_json& value) {
    fmt::print("{}\n", value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    std::fflush(stdout);
}

} // namespace sluice::command
