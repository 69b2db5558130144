// The sluice command.
#include "command.hpp"

#include "plugin/plugin_call.hpp"

#include <csignal>
#include <cstdio>

namespace {

using sluice::command::common_options;

int run(int argument_count, char** arguments) {
    CLI::App application("sluice: a plugin-based engine runtime for Mixture-of-Experts models");
    application.set_version_flag("--version", SLUICE_VERSION);
    application.require_subcommand(1);
    application.fallthrough();
    common_options common;
    application.add_flag("--json", common.json, "print one JSON object instead of text");
    application.add_flag("--verbose", common.verbose, "log everything, not only warnings");
    using namespace sluice::command;
    for (const auto add : {add_run, add_explain, add_plugins, add_inspect, add_tokenize, add_verify,
                           add_eval, add_quantize, add_bench})
        add(application, common);
    try {
        application.parse(argument_count, arguments);
        return common.status;
    } catch (const CLI::ParseError& caught) {
        return application.exit(caught) == 0 ? exit_done : exit_error;
    }
}

} // namespace

int main(int argument_count, char** arguments) {
    // A reader that goes away (`sluice run ... | head`) ends the writing, not the process with a
    // message.
    std::signal(SIGPIPE, SIG_IGN);
    try {
        return run(argument_count, arguments);
    } catch (const sluice::error& caught) {
        fmt::print(stderr, "sluice: {}: {}\n", sluice::status_name(caught.status()), caught.what());
    } catch (const std::bad_alloc&) {
        fmt::print(stderr, "sluice: exhausted: out of memory\n");
    } catch (const std::exception& caught) {
        fmt::print(stderr, "sluice: internal: {}\n", caught.what());
    }
    return sluice::command::exit_error;
}
