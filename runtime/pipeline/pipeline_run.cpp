#include "pipeline/pipeline_run.hpp"

#include "base/error.hpp"

#include <atomic>
#include <utility>

namespace sluice {

// One stage's end of the run.
class pipeline_run::call final : public stage_call {
  public:
    call(std::shared_ptr<pipeline_run> run, size_t node) : run_(std::move(run)), node_(node) {}

    void stream(generation_event part) override {
        if (!ended_.load()) run_->stage_streamed(node_, std::move(part));
    }
    void finish(record output, const generation_event& last) override {
        if (!ended_.exchange(true)) run_->stage_finished(node_, std::move(output), last);
    }
    void fail(const error& caught) override {
        if (!ended_.exchange(true)) run_->stage_failed(caught);
    }
    bool cancelled() const override { return run_->stream_->cancelled(); }
    void on_cancel(std::function<void()> function) override {
        run_->on_cancel(std::move(function));
    }
    const request_options& options() const override { return run_->request_.options; }

  private:
    std::shared_ptr<pipeline_run> run_;
    size_t node_;
    std::atomic<bool> ended_{false};
};

pipeline_run::pipeline_run(std::shared_ptr<const pipeline_graph> graph, pipeline_request request,
                           std::shared_ptr<generation> stream)
    : graph_(std::move(graph)), request_(std::move(request)), stream_(std::move(stream)),
      outputs_(graph_->nodes().size()), started_(graph_->nodes().size(), false) {}

void pipeline_run::start(std::shared_ptr<const pipeline_graph> graph, pipeline_request request,
                         std::shared_ptr<generation> stream) {
    const auto run = std::make_shared<pipeline_run>(std::move(graph), std::move(request), stream);
    // A weak reference: the stream lives as long as its reader likes, the run only while stages
    // work.
    stream->on_cancel([weak = std::weak_ptr(run)] {
        if (const auto alive = weak.lock()) alive->cancel_calls();
    });
    try {
        for (size_t node = 0; node < run->graph_->nodes().size(); ++node) {
            bool first = true;
            for (const pipeline_edge& edge : run->graph_->nodes()[node].edges) {
                first = first && edge.source == pipeline_graph::request;
            }
            if (first) run->start_stage(node);
        }
    } catch (...) {
        // The caller gets the error itself, so the stream, which it never sees, needs no end.
        {
            const std::lock_guard lock(run->mutex_);
            run->ended_ = true;
        }
        run->cancel_calls();
        throw;
    }
}

// The stage's input when all of it is there and nobody has started the stage.
std::optional<record> pipeline_run::input_of(size_t node) {
    const std::lock_guard lock(mutex_);
    if (ended_ || started_[node]) return std::nullopt;
    record input;
    for (const pipeline_edge& edge : graph_->nodes()[node].edges) {
        const record* source = &request_.fields;
        if (edge.source != pipeline_graph::request) {
            if (!outputs_[edge.source]) return std::nullopt;
            source = &*outputs_[edge.source];
        }
        const auto found = source->find(edge.field);
        if (found != source->end()) {
            input.emplace(edge.input, found->second);
        } else if (edge.required) {
            fail(SLUICE_INTERNAL, "stage \"{}\" gave no field \"{}\", which it had promised",
                 edge.source == pipeline_graph::request ? "request"
                                                        : graph_->nodes()[edge.source].name,
                 edge.field);
        }
    }
    started_[node] = true;
    return input;
}

void pipeline_run::start_stage(size_t node) {
    const auto input = input_of(node);
    if (!input) return;
    const auto opened = std::make_shared<call>(shared_from_this(), node);
    graph_->nodes()[node].runs->start(*input, opened);
}

void pipeline_run::stage_streamed(size_t node, generation_event part) {
    if (node != graph_->answer()) return;
    {
        const std::lock_guard lock(mutex_);
        if (ended_) return;
        streamed_ = true;
    }
    stream_->push(std::move(part));
}

void pipeline_run::stage_finished(size_t node, record output, const generation_event& last) {
    const bool answers = node == graph_->answer();
    std::optional<std::string> whole; // of an answer that was not streamed
    {
        const std::lock_guard lock(mutex_);
        if (ended_) return;
        add_usage(last.usage);
        if (answers && !streamed_) {
            const auto text = output.find("text");
            if (text != output.end()) whole = std::get<std::string>(text->second);
        }
        outputs_[node] = std::move(output);
    }
    // A cut answer is nothing that later stages could work on.
    const bool cut =
        last.reason == finish_reason::cancelled || last.reason == finish_reason::deadline;
    if (answers || cut) {
        if (whole && !whole->empty()) {
            generation_event part;
            part.text = std::move(*whole);
            stream_->push(std::move(part));
        }
        end(last);
        return;
    }
    try {
        for (const size_t successor : graph_->nodes()[node].successors) start_stage(successor);
    } catch (const error& caught) {
        stage_failed(caught);
    } catch (const std::exception& caught) {
        stage_failed(error(SLUICE_INTERNAL, caught.what()));
    }
}

void pipeline_run::stage_failed(const error& caught) {
    generation_event last;
    last.reason = finish_reason::failed;
    last.status = caught.status();
    last.message = caught.what();
    end(std::move(last));
}

void pipeline_run::add_usage(const generation_usage& usage) {
    const std::chrono::duration<double> now = std::chrono::steady_clock::now() - start_;
    if (usage_.time_to_first_token_s == 0 && usage.time_to_first_token_s > 0) {
        usage_.time_to_first_token_s = now.count() - usage.duration_s + usage.time_to_first_token_s;
    }
    usage_.prompt_tokens += usage.prompt_tokens;
    usage_.prompt_tokens_reused += usage.prompt_tokens_reused;
    usage_.completion_tokens += usage.completion_tokens;
    usage_.draft_tokens += usage.draft_tokens;
    usage_.draft_tokens_accepted += usage.draft_tokens_accepted;
    usage_.from_result_cache = usage_.from_result_cache || usage.from_result_cache;
    usage_.duration_s = now.count();
}

void pipeline_run::end(generation_event last) {
    {
        const std::lock_guard lock(mutex_);
        if (std::exchange(ended_, true)) return;
        last.finished = true;
        last.usage = usage_;
    }
    cancel_calls(); // of stages whose answers nobody waits for any more
    stream_->push(std::move(last));
}

void pipeline_run::cancel_calls() {
    std::vector<std::function<void()>> functions;
    {
        const std::lock_guard lock(mutex_);
        cancelled_ = true;
        functions.swap(cancellations_);
    }
    for (const auto& function : functions) function();
}

void pipeline_run::on_cancel(std::function<void()> function) {
    {
        const std::lock_guard lock(mutex_);
        if (!cancelled_) {
            cancellations_.push_back(std::move(function));
            return;
        }
    }
    function();
}

} // namespace sluice
