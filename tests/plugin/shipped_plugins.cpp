// Every plugin that this build made, through the host as a configuration would load it.
#include "../base/error_check.hpp"
#include "plugin/plugin_host.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

namespace {

using namespace sluice;

std::unique_ptr<plugin_host> host_of_build(bool checked, std::string& log) {
    host_options options;
    options.worker_count = 2;
    options.on_log = [&log](log_level, std::string_view line) { log += std::string(line) + "\n"; };
    plugin_host_options plugin_options;
    plugin_options.folders = {SLUICE_PLUGIN_BUILD_DIR};
    plugin_options.use_install_folder = false;
    plugin_options.checked = checked;
    return std::make_unique<plugin_host>(std::make_shared<host_services>(options), plugin_options);
}

} // namespace

TEST_CASE("every shipped plugin is usable and opens with its default settings") {
    std::string log;
    const auto host = host_of_build(false, log);
    const std::vector<plugin_candidate> candidates = host->candidates(true);
    CHECK(candidates.size() >= 5);
    for (const plugin_candidate& candidate : candidates) {
        CAPTURE(candidate.id);
        CAPTURE(candidate.reason);
        if (candidate.verdict == plugin_verdict::unavailable) { // its device is not here
            CHECK(!candidate.reason.empty());
            CHECK(candidate.score == 0);
            continue;
        }
        REQUIRE(candidate.verdict == plugin_verdict::usable);
        CHECK(candidate.score > 0);
        CHECK(candidate.id == candidate.library_path.stem());
        const auto first = host->open(candidate.kind, candidate.id);
        const auto second = host->open_path(candidate.library_path);
        CHECK(first->handle() != nullptr);
        CHECK(first->handle() != second->handle()); // instances are independent
        CHECK(first->breach_count() == 0);
        CHECK(!first->manifest().summary.empty());
        CHECK(!first->manifest().license.empty());
        CHECK(manifest_text_of_file(candidate.library_path) == manifest_text(first->manifest()));
    }
    CHECK(log == "");
}

TEST_CASE("the reference backend passes the checked mode, and its misuse does not") {
    std::string log;
    const auto host = host_of_build(true, log);
    configuration configuration;
    configuration.backend = "referense";
    test::check_error(
        [&] { host->open_backend(configuration); }, SLUICE_UNAVAILABLE,
        {"default of backend", "did you mean \"reference\"", SLUICE_PLUGIN_BUILD_DIR});
    configuration.backend_fallback = {"reference"};
    const auto instance = host->open_backend(configuration);
    CHECK(log.find("\"reference\" is used in place of \"referense\"") != std::string::npos);

    const sluice_backend& backend = instance->backend();
    sluice_plugin* plugin = instance->handle();
    plugin_call call = instance->call("checked");
    sluice_backend_properties properties = SLUICE_INIT(sluice_backend_properties);
    call = backend.properties(plugin, &properties, call.error());
    CHECK(strnlen(properties.device_name, sizeof properties.device_name) > 0);
    sluice_buffer* buffer = nullptr;
    call = backend.buffer_create(plugin, 64, &buffer, call.error());
    char read[6] = {};
    call = backend.buffer_write(plugin, buffer, 10, "hello", 6, call.error());
    call = backend.buffer_read(plugin, buffer, 10, read, 6, call.error());
    CHECK(std::string(read) == "hello");
    test::check_error(
        [&] { call = backend.buffer_read(plugin, buffer, 60, read, 6, call.error()); },
        SLUICE_INVALID, {"out of the buffer of 64 bytes"});
    backend.buffer_destroy(plugin, buffer);
    test::check_error([&] { call = backend.buffer_write(plugin, buffer, 0, "x", 1, call.error()); },
                      SLUICE_INVALID, {"the buffer was destroyed before"});
    CHECK(instance->breach_count() == 0); // the caller's mistakes, answered with a status
}
