// One request for text and the stream of what comes of it.
#pragma once

#include "engine/sampler.hpp"

#include <sluice/abi/status.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

struct generation_parameters {
    uint32_t tokens_max = 128; // new tokens at most
    sampling_parameters sampling;
    std::vector<std::string> stop; // text that ends the answer and is not part of it
    bool end_tokens_stop = true;   // false: the model's end tokens are tokens like any others
};

struct generation_request {
    std::string prompt;             // read unless token_ids are given
    std::vector<int32_t> token_ids; // the prompt as tokens, taken as they are
    bool add_special_tokens = true; // to the text, as the tokenizer's file says
    generation_parameters parameters;
    std::string tenant; // whose cached prefixes may be shared
    std::optional<std::chrono::steady_clock::time_point> deadline;
    bool use_result_cache = true;
};

enum class finish_reason {
    end_token,    // the model said that the text ends
    stop_text,    // a stop string came
    tokens_max,   // as many tokens as asked for
    context_full, // the longest sequence that the engine allows
    cancelled,
    deadline,
    failed, // see status and message
};
std::string_view finish_reason_name(finish_reason reason); // "end_token"

struct generation_usage {
    uint32_t prompt_tokens = 0;
    uint32_t prompt_tokens_reused = 0;  // found in the KV pool instead of computed
    uint32_t completion_tokens = 0;     // sampled, those behind a stop string included
    uint32_t draft_tokens = 0;          // guesses that were computed together with other tokens
    uint32_t draft_tokens_accepted = 0; // of these, those that were right
    double time_to_first_token_s = 0;   // since submission; 0: there was none
    double duration_s = 0;              // since submission
    bool from_result_cache = false;

    // Tokens after the first by the time they took; 0 where there was only one.
    double tokens_per_second() const;
};

struct generation_event {
    bool finished = false; // the last event; the members below the line are valid
    // New text: whole characters, never part of a stop string. The tokens sampled since the event
    // before, an end token among them; they may be ahead of the text, which waits for its next
    // character or for certainty that a stop string does not follow.
    std::string text;
    std::vector<int32_t> token_ids;
    std::vector<float> log_probabilities; // [token_ids]
    // ----
    finish_reason reason = finish_reason::failed;
    std::string stop; // the stop string that came
    sluice_status status = SLUICE_OK;
    std::string message; // of an error
    generation_usage usage;
};

// Called for each event in order, on a thread of the runtime; must not block for long, since
// every text waits for it, and must not destroy the runtime. It may submit and cancel.
using generation_callback = std::function<void(const generation_event& event)>;

// The two ends of a stream: whoever generates pushes, whoever asked polls, waits or is called back.
// Safe to use from several threads.
class generation {
  public:
    explicit generation(generation_callback callback = {}) : callback_(std::move(callback)) {}

    // The next event; nothing when there is none yet (or any more: see finished()).
    std::optional<generation_event> poll();
    // Likewise, waiting up to `timeout`; without one as long as it takes. After the last event was
    // taken it answers nothing at once.
    std::optional<generation_event>
    wait(std::optional<std::chrono::milliseconds> timeout = std::nullopt);
    // Waits for the last event, whether it is taken or not. With a callback: until that has
    // returned.
    void join();

    // Asks for an end. The last event still comes, with reason cancelled unless it ended before.
    void cancel();
    bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
    bool finished() const;

    // ---- The generating side ----

    // Nothing may follow the event that is finished. An exception from the callback cancels.
    void push(generation_event event);
    // Called once, when cancel() is first called, on the cancelling thread; at once when that has
    // been already.
    void on_cancel(std::function<void()> function);

  private:
    generation_callback callback_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<generation_event> events_;
    std::function<void()> on_cancel_;
    bool finished_ = false; // the last event was pushed (and the callback returned)
    std::atomic<bool> cancelled_{false};
};

} // namespace sluice
