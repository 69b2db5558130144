// sluice-plugin-check: loads a plugin as the host would, and checks it against the contract.
#include "checks.hpp"

#include "backend_checks/performance.hpp"
#include "base/error.hpp"

#include <CLI/CLI.hpp>

#include <iostream>
#include <unistd.h>

namespace sluice::checker {
namespace {

struct arguments {
    std::filesystem::path library;
    std::string action = "check";
    std::filesystem::path oracle;
    std::string only;
    std::vector<std::string> settings;
    uint64_t seed = 1;
    uint32_t iterations = 10;
    uint32_t timeout_s = 300;
    bool json = false;
    bool manifest = false;
    bool isolated = false;
    bool quiet = false;
    bool kind_tests = false;
};

void declare(CLI::App& app, arguments& given) {
    app.add_option("library", given.library, "The plugin's shared library (.so)")
        ->required()
        ->check(CLI::ExistingFile);
    app.add_option("action", given.action,
                   "check: run the checks; perf: time a backend's operations")
        ->check(CLI::IsMember({"check", "perf"}));
    app.add_flag(
        "--manifest", given.manifest,
        "Print the manifest (<id>.toml) that belongs beside the library, and nothing else");
    app.add_flag("--json", given.json, "Print one JSON document instead of lines");
    app.add_flag("--isolated", given.isolated,
                 "Run each check in a process of its own, so that a crash fails that check alone");
    app.add_flag("--quiet", given.quiet, "Print failures and the last line only");
    app.add_flag("--kind-tests", given.kind_tests,
                 "Run the checks of the plugin's kind only, not those of every library");
    app.add_option("--only", given.only, "Run only checks whose name contains this text");
    app.add_option("--setting", given.settings,
                   "NAME=TEXT: a text setting that the plugin is run with; may be repeated")
        ->allow_extra_args(false);
    app.add_option("--oracle", given.oracle,
                   "The reference backend's library; default: reference.so beside the plugin, or "
                   "in ../lib/sluice/plugins from this program")
        ->check(CLI::ExistingFile);
    app.add_option("--seed", given.seed, "Seed of the random cases")->capture_default_str();
    app.add_option("--iterations", given.iterations, "Random cases a check")
        ->capture_default_str()
        ->check(CLI::Range(1, 100000));
    app.add_option("--timeout", given.timeout_s, "Seconds an isolated check may take")
        ->capture_default_str();
}

std::filesystem::path find_oracle(const arguments& given) {
    if (!given.oracle.empty()) return std::filesystem::canonical(given.oracle);
    for (const auto& folder : {given.library.parent_path(), plugin_install_folder()})
        if (std::filesystem::exists(folder / "reference.so"))
            return std::filesystem::canonical(folder / "reference.so");
    return {};
}

configured_settings read_settings(const std::vector<std::string>& given) {
    configured_settings settings;
    settings.folder = std::filesystem::current_path();
    for (const auto& each : given) {
        const size_t equals = each.find('=');
        if (equals == std::string::npos)
            fail(SLUICE_INVALID, "--setting: expected NAME=TEXT, found {}", each);
        settings.values[each.substr(0, equals)].value = each.substr(equals + 1);
    }
    return settings;
}

// The checks that apply. The kind is asked in a process of its own where checks are isolated: the
// library might not survive being loaded.
std::vector<check> choose_checks(const arguments& given, const check_options& options) {
    const auto kind = [&] { return context(options).raw().manifest().kind; };
    std::string found;
    try {
        found = given.isolated ? ask_isolated(kind, given.timeout_s).value_or("") : kind();
    } catch (const std::exception&) {
        // The library's own checks will say what is wrong.
    }
    std::vector<check> chosen;
    const std::vector<check> common = given.kind_tests ? std::vector<check>() : library_checks();
    for (const auto& list : {common, checks_of_kind(found)})
        for (const auto& each : list)
            if (each.name.find(given.only) != std::string::npos) chosen.push_back(each);
    return chosen;
}

int run_checks(const arguments& given, const check_options& options) {
    const std::vector<check> chosen = choose_checks(given, options);
    std::vector<check_result> results;
    context shared(options);
    const bool color = isatty(STDOUT_FILENO) != 0;
    size_t counts[3] = {0, 0, 0};
    for (const auto& each : chosen) {
        results.push_back(given.isolated ? run_isolated(
                              each, [&] { return context(options); }, given.timeout_s)
                                         : run_here(each, shared));
        const check_result& result = results.back();
        ++counts[static_cast<size_t>(result.outcome)];
        if (!given.json && (!given.quiet || result.outcome == verdict::fail))
            std::cout << result_line(result, color) << std::endl;
    }
    if (given.json)
        std::cout << results_json(given.library.string(), results) << '\n';
    else
        std::cout << fmt::format("{}: {} passed, {} failed, {} skipped\n",
                                 given.library.filename().string(), counts[0], counts[1],
                                 counts[2]);
    return counts[1] == 0 && !chosen.empty() ? 0 : 1;
}

int run(arguments given) {
    given.library = std::filesystem::canonical(given.library);
    if (given.manifest) {
        std::cout << manifest_text_of_file(given.library);
        return 0;
    }
    const check_options options{given.library, find_oracle(given), given.seed, given.iterations,
                                read_settings(given.settings)};
    if (given.action == "perf") {
        context with(options);
        std::cout << performance_report(with, given.json);
        return 0;
    }
    return run_checks(given, options);
}

} // namespace
} // namespace sluice::checker

int main(int argc, char** argv) {
    CLI::App app("Checks a sluice plugin against the contract: loading, settings, errors, and what "
                 "its kind computes.\nExit status 0: nothing failed; 1: something did; 2: it could "
                 "not be checked.");
    sluice::checker::arguments given;
    sluice::checker::declare(app, given);
    CLI11_PARSE(app, argc, argv);
    try {
        return sluice::checker::run(given);
    } catch (const std::exception& thrown) {
        std::cerr << "sluice-plugin-check: " << thrown.what() << '\n';
        return 2;
    }
}
