// A whole runtime: host services, plugins, model, engine and pipeline from one configuration. What
// the C API wraps, and the command line uses.
#pragma once

#include "config/configuration.hpp"
#include "engine/engine.hpp"
#include "engine/loaded_model.hpp"
#include "pipeline/pipeline.hpp"
#include "plugin/host_services.hpp"
#include "plugin/plugin_host.hpp"

#include <memory>

namespace sluice {

struct runtime_options {
    log_level log_level_min = log_level::warning;
    log_callback on_log;                       // empty: standard error
    std::shared_ptr<worker_executor> executor; // the embedder's own threads, or empty
    model_load_options loading;
};

// Services and plugins as the configuration wants them.
std::shared_ptr<host_services> make_host_services(const configuration& configuration,
                                                  const runtime_options& options = {});
std::unique_ptr<plugin_host> make_plugin_host(const configuration& configuration,
                                              std::shared_ptr<host_services> services);

// Safe to use from several threads. Several runtimes in one process share nothing.
class runtime {
  public:
    explicit runtime(configuration configuration, runtime_options options = {});
    // Cancels what runs and joins all threads. Not from a callback.
    ~runtime();
    runtime(const runtime&) = delete;
    runtime& operator=(const runtime&) = delete;

    std::shared_ptr<generation> submit(pipeline_request request,
                                       generation_callback callback = {}) {
        return pipeline_->run(std::move(request), std::move(callback));
    }

    const struct configuration& settings() const { return configuration_; }
    host_services& services() { return *services_; }
    plugin_host& plugins() { return *plugins_; }
    const std::shared_ptr<const loaded_model>& model() const { return model_; }
    engine& generator() { return *engine_; }
    const pipeline& stages() const { return *pipeline_; }

  private:
    const struct configuration configuration_;
    std::shared_ptr<host_services> services_;
    std::unique_ptr<plugin_host> plugins_;
    std::shared_ptr<const loaded_model> model_;
    std::unique_ptr<pipeline>
        pipeline_; // destroyed after the engine, whose callbacks run through it
    std::unique_ptr<engine> engine_;
};

} // namespace sluice
