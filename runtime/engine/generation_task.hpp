// One request inside of the engine: from sampled tokens to text, and when it ends.
#pragma once

#include "base/error.hpp"
#include "engine/generation.hpp"
#include "engine/result_store.hpp"
#include "engine/stop_matcher.hpp"
#include "tokenizer/tokenizer.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace sluice {

// What a task needs to know of its engine.
struct generation_context {
    std::shared_ptr<const tokenizer> text_tokenizer; // nullptr: the events carry tokens alone
    std::vector<int32_t> end_tokens;
    uint32_t vocabulary_size = 0;
    uint32_t context_tokens_max = 0;
};

// Belongs to the engine's thread once it runs.
class generation_task {
  public:
    using clock = std::chrono::steady_clock;

    // prompt: the request's tokens, checked. Fails for a bad stop string.
    generation_task(const generation_context& context, generation_request request,
                    std::vector<int32_t> prompt, std::shared_ptr<generation> stream);

    const std::vector<int32_t>& prompt() const { return prompt_; }
    const generation_request& request() const { return request_; }
    class generation& stream() {
        return *stream_;
    }
    // Tokens that the sequence may reach: prompt and answer within the context.
    uint32_t sequence_tokens_max() const { return sequence_tokens_max_; }

    // Samples the token that follows from its logits [vocabulary].
    sampled_token sample(sampler& chooser, std::span<const float> logits) const;
    // Whether greedy sampling on the backend would choose the same one.
    bool samples_greedily() const { return is_greedy(request_.parameters.sampling); }
    // Takes the token that follows. Returns whether the sequence goes on, with last_token() as its
    // next; otherwise it has ended.
    bool take(const sampled_token& sampled, uint32_t reused_tokens);
    int32_t last_token() const { return completion_.back(); }
    // Counts guesses at tokens to come, as a step with some ends, and each that take() confirmed.
    void note_draft(uint32_t computed) { usage_.draft_tokens += computed; }
    void note_accepted() { ++usage_.draft_tokens_accepted; }

    // Ends it from outside: what is left of the text is certain then.
    void finish(finish_reason reason);
    void fail_with(const error& caught);
    // Plays a stored answer and ends.
    void replay(const stored_result& stored);
    // Passes the text that is certain on to whoever reads it, which may take a while: readers are
    // woken, callbacks called. Apart from what makes the text, so that it can wait for a moment
    // when the backend is busy, and for statistics and caches to know of the end before the caller
    // does.
    void send();
    void send_last(); // with the last event, of a task that has ended

    bool past_deadline(clock::time_point now) const {
        return request_.deadline && now >= *request_.deadline;
    }
    const generation_usage& usage() const { return usage_; }
    bool failed() const { return last_.reason == finish_reason::failed; }
    // The answer, where it may be stored: it ended by itself.
    std::optional<stored_result> result() const;

    std::string store_key; // empty: not to be stored

  private:
    std::string decode(int32_t token);
    void skip_prompt();
    bool is_end_token(int32_t token) const;
    void emit(std::string text);
    void end(finish_reason reason, std::string stop, sluice_status status = SLUICE_OK,
             std::string message = {});

    const generation_context& context_;
    generation_request request_;
    std::vector<int32_t> prompt_;
    std::shared_ptr<class generation> stream_;
    clock::time_point submitted_ = clock::now();
    uint32_t sequence_tokens_max_ = 0;

    token_set occurred_;
    stop_matcher stops_;
    std::optional<token_stream_decoder> decoder_;
    size_t skip_bytes_ = 0; // of the prompt's text that the decoder still holds
    std::vector<int32_t> completion_;
    std::vector<float> log_probabilities_;
    size_t emitted_tokens_ = 0; // of completion_
    std::string text_;
    generation_usage usage_;
    std::vector<generation_event> ready_; // to be sent
    generation_event last_;
};

} // namespace sluice
