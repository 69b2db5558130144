// One request on its way through a pipeline.
#pragma once

#include "pipeline/pipeline.hpp"

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace sluice {

// Kept alive by the calls that are open in its stages.
class pipeline_run : public std::enable_shared_from_this<pipeline_run> {
  public:
    // Starts the stages that read nothing but the request. Throws what one of these refuses with.
    static void start(std::shared_ptr<const pipeline_graph> graph, pipeline_request request,
                      std::shared_ptr<generation> stream);

    pipeline_run(std::shared_ptr<const pipeline_graph> graph, pipeline_request request,
                 std::shared_ptr<generation> stream);

  private:
    class call;

    void start_stage(size_t node);
    std::optional<record> input_of(size_t node);
    void stage_streamed(size_t node, generation_event part);
    void stage_finished(size_t node, record output, const generation_event& last);
    void stage_failed(const error& caught);
    void add_usage(const generation_usage& usage);
    void end(generation_event last);
    void cancel_calls();
    void on_cancel(std::function<void()> function);

    const std::shared_ptr<const pipeline_graph> graph_;
    const pipeline_request request_;
    const std::shared_ptr<generation> stream_;
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();

    std::mutex mutex_; // of what follows
    std::vector<std::optional<record>> outputs_;
    std::vector<bool> started_;
    std::vector<std::function<void()>> cancellations_;
    generation_usage usage_;
    bool streamed_ = false; // some of the answer is out already
    bool cancelled_ = false;
    bool ended_ = false;
};

} // namespace sluice
