// Pipelines: a graph of stages from the configuration, through which requests run.
#pragma once

#include "engine/engine.hpp"
#include "pipeline/pipeline_graph.hpp"

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

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
    // Cancels what runs and waits for it, for a while: a stage that never answers does not hold up
    // the host, and keeps the graph until it does. Not from a callback.
    ~pipeline();
    pipeline(const pipeline&) = delete;
    pipeline& operator=(const pipeline&) = delete;

    // Starts a request. The stream carries the answer of the last stage; its usage adds up all
    // stages. Fails at once for a missing or mistyped field and where a first stage refuses;
    // failures of later stages end the stream.
    std::shared_ptr<generation> run(pipeline_request request, generation_callback callback = {});

    const pipeline_graph& graph() const { return *graph_; }

  private:
    // The requests under way. Their stages' threads only borrow the graph: were one of them the
    // last to let go of it, a stage would be destroyed on, and join, its own thread.
    struct open_runs {
        std::mutex mutex;
        std::condition_variable ended;
        std::map<uint64_t, std::weak_ptr<generation>> streams;
        uint64_t next = 0;
        std::shared_ptr<const pipeline_graph> kept; // by runs that outlast the pipeline
    };
    std::shared_ptr<const pipeline_graph> lend(const std::shared_ptr<generation>& stream);

    std::shared_ptr<const pipeline_graph> graph_;
    std::shared_ptr<open_runs> open_ = std::make_shared<open_runs>();
};

} // namespace sluice
