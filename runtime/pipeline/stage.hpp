// A stage of a pipeline: takes one record in, gives one out, asynchronously.
#pragma once

#include "base/error.hpp"
#include "engine/generation.hpp"
#include "pipeline/generation_overrides.hpp"
#include "pipeline/record.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace sluice {

// What a request says besides its record.
struct request_options {
    generation_overrides generation; // over the stages' own settings
    bool add_special_tokens = true;
    bool use_result_cache = true;
    std::string tenant;
    std::optional<std::chrono::steady_clock::time_point> deadline;
};

// One request in one stage: where the stage answers. All members are safe from any thread. Exactly
// one of finish and fail ends the call; what comes after is ignored.
class stage_call {
  public:
    virtual ~stage_call() = default;
    // A part of the answer, streamed on if this stage gives the pipeline's answer.
    virtual void stream(generation_event part) = 0;
    // `last`: how a generation ended, with its usage; its members below the line alone count.
    virtual void finish(record output, const generation_event& last) = 0;
    virtual void fail(const error& caught) = 0;
    virtual bool cancelled() const = 0;
    // Called once when the request is cancelled; at once if it has been.
    virtual void on_cancel(std::function<void()> function) = 0;
    virtual const request_options& options() const = 0;
};

// How a stage that generates nothing itself ends.
inline generation_event ended_normally() {
    generation_event event;
    event.finished = true;
    event.reason = finish_reason::end_token;
    return event;
}

// Safe to use from several threads; many calls may be open at once.
class stage {
  public:
    virtual ~stage() = default;
    virtual const std::vector<field_description>& inputs() const = 0;
    virtual const std::vector<field_description>& outputs() const = 0;
    // Begins a call and returns without waiting for it. input: the fields of inputs(), the optional
    // ones where they were given. May throw sluice::error instead of calling fail.
    virtual void start(const record& input, std::shared_ptr<stage_call> call) = 0;
};

} // namespace sluice
