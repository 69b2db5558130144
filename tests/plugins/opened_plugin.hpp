// Plugins of the build, opened as the host opens them.
#pragma once

#include "base/error.hpp"
#include "context.hpp"

#include <string>
#include <vector>

namespace sluice::plugin_tests {

// `overrides`: "key=value" as on the command line.
inline std::shared_ptr<plugin_instance> open_plugin(std::string_view kind, std::string_view id,
                                                    const std::vector<std::string>& overrides = {},
                                                    uint32_t worker_count = 2) {
    host_options services;
    services.worker_count = worker_count;
    services.on_log = [](log_level, std::string_view) {};
    plugin_host_options options;
    options.folders = {SLUICE_PLUGIN_BUILD_DIR};
    options.use_install_folder = false;
    plugin_host host(std::make_shared<host_services>(std::move(services)), std::move(options));
    return host.open(kind, id, settings_from_overrides(overrides, std::filesystem::current_path()));
}

} // namespace sluice::plugin_tests
