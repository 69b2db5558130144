// Pipelines: a graph of stages from the configuration, through which requests run.
#pragma once

#include "engine/engine.hpp"
#include "pipeline/pipeline_graph.hpp"

#include <memory>

namespace sluice {

struct pipeline_request {
    record fields; // "prompt", a text, for the default pipeline, or "token_ids"
    request_options options;
};

// Safe to use from several threads; any number of requests may run at once.
class pipeline {
  public:
    // The engine outlives the pipeline.
    pipeline(const configuration& configuration, engine& generator, plugin_host& plugins);
    // On a graph made elsewhere.
    explicit pipeline(std::shared_ptr<const pipeline_graph> graph);

    // Starts a request. The stream carries the answer of the last stage; its usage adds up all
    // stages. Fails at once for a missing or mistyped field and where a first stage refuses;
    // failures of later stages end the stream.
    std::shared_ptr<generation> run(pipeline_request request, generation_callback callback = {});

    const pipeline_graph& graph() const { return *graph_; }

  private:
    std::shared_ptr<const pipeline_graph> graph_;
};

} // namespace sluice
