// sluice plugins: what is installed, and why each candidate would load or not.
#include "command.hpp"

namespace sluice::command {

namespace {

struct plugins_options {
    std::string configuration;
    std::vector<std::string> folders;
    bool explain = false;
};

nlohmann::ordered_json result_json(const plugin_host& host,
                                   const std::vector<plugin_candidate>& candidates) {
    auto folders = nlohmann::ordered_json::array();
    for (const auto& folder : host.folders()) folders.push_back(folder.string());
    auto found = nlohmann::ordered_json::array();
    for (const auto& candidate : candidates)
        found.push_back({{"library", candidate.library_path.string()},
                         {"manifest", candidate.manifest_path.string()},
                         {"kind", candidate.kind},
                         {"id", candidate.id},
                         {"version", candidate.version},
                         {"summary", candidate.summary},
                         {"verdict", verdict_name(candidate.verdict)},
                         {"score", candidate.score},
                         {"reason", candidate.reason}});
    return {{"folders", folders}, {"plugins", found}};
}

void print_usable(const std::vector<plugin_candidate>& candidates) {
    size_t others = 0;
    for (const auto& candidate : candidates) {
        if (candidate.verdict != plugin_verdict::usable) {
            ++others;
            continue;
        }
        fmt::print("{:13} {:16} {:8} {}\n", candidate.kind, candidate.id, candidate.version,
                   candidate.summary);
    }
    if (others != 0)
        fmt::print("{} more cannot be used: sluice plugins --explain says why\n", others);
}

void print_explained(const plugin_host& host, const std::vector<plugin_candidate>& candidates) {
    fmt::print("folders searched, in order\n");
    for (const auto& folder : host.folders()) fmt::print("  {}\n", folder.string());
    for (const auto& candidate : candidates) {
        fmt::print("\n{} \"{}\" {}: {}\n", candidate.kind.empty() ? "plugin" : candidate.kind,
                   candidate.id, candidate.version, verdict_name(candidate.verdict));
        const auto line = [](std::string_view name, const std::string& text) {
            if (!text.empty()) fmt::print("  {:9} {}\n", name, text);
        };
        line("library", candidate.library_path.string());
        line("manifest", candidate.manifest_path.string());
        line("summary", candidate.summary);
        line("reason", candidate.reason);
        if (candidate.score != 0) line("score", std::to_string(candidate.score));
    }
    if (candidates.empty()) fmt::print("\nno plugin was found\n");
}

void list_plugins(const plugins_options& options, common_options& common) {
    auto configuration =
        options.configuration.empty()
            ? configuration_from_text("", std::filesystem::current_path(), "the command line")
            : configuration_from_file(options.configuration);
    std::vector<std::filesystem::path> folders;
    for (const auto& folder : options.folders) {
        if (!std::filesystem::is_directory(folder))
            fail(SLUICE_UNAVAILABLE, "--folder {}: there is no such folder", folder);
        folders.push_back(std::filesystem::absolute(folder));
    }
    configuration.plugin_folders.insert(configuration.plugin_folders.begin(), folders.begin(),
                                        folders.end());
    const session process(configuration, common);
    const auto candidates = process.plugins->candidates(true);
    if (common.json) return print_json(result_json(*process.plugins, candidates));
    if (options.explain) return print_explained(*process.plugins, candidates);
    print_usable(candidates);
}

} // namespace

void add_plugins(CLI::App& application, common_options& common) {
    auto options = std::make_shared<plugins_options>();
    auto* command = application.add_subcommand(
        "plugins", "the plugins that were found, and what each is good for");
    command->add_option("CONFIG", options->configuration,
                        "a TOML file whose plugin_folders are searched too");
    command->add_option("--folder", options->folders, "a folder to search first; repeatable");
    command->add_flag("--explain", options->explain, "every candidate with verdict and reason");
    command->callback([options, &common] { list_plugins(*options, common); });
}

} // namespace sluice::command
