#include "api/runtime.hpp"

#include "pipeline/stages.hpp"

namespace sluice {

std::shared_ptr<host_services> make_host_services(const configuration& configuration,
                                                  const runtime_options& options) {
    host_options host;
    host.worker_count = configuration.engine.worker_count;
    host.executor = options.executor;
    host.allow_draft = configuration.allow_draft;
    host.log_level_min = options.log_level_min;
    host.on_log = options.on_log;
    auto services = std::make_shared<host_services>(std::move(host));
    offer_stage_host(*services);
    return services;
}

std::unique_ptr<plugin_host> make_plugin_host(const configuration& configuration,
                                              std::shared_ptr<host_services> services) {
    plugin_host_options options;
    options.folders = configuration.plugin_folders;
    options.allow_draft = configuration.allow_draft;
    options.checked = configuration.checked;
    return std::make_unique<plugin_host>(std::move(services), std::move(options));
}

runtime::runtime(struct configuration configuration, runtime_options options)
    : configuration_(std::move(configuration)),
      services_(make_host_services(configuration_, options)),
      plugins_(make_plugin_host(configuration_, services_)),
      model_(loaded_model::load(configuration_, *plugins_, services_, options.loading)) {
    engine_ = engine::create(model_, configuration_, *plugins_);
    pipeline_ = std::make_unique<pipeline>(configuration_, *engine_, *plugins_);
}

// The engine ends first: its last events still go through the pipeline.
runtime::~runtime() { engine_.reset(); }

} // namespace sluice
