#include "engine/generation_task.hpp"

#include "base/error.hpp"

#include <algorithm>

namespace sluice {

namespace {

double seconds_since(generation_task::clock::time_point start) {
    return std::chrono::duration<double>(generation_task::clock::now() - start).count();
}

} // namespace

generation_task::generation_task(const generation_context& context, generation_request request,
                                 std::vector<int32_t> prompt, std::shared_ptr<generation> stream)
    : context_(context), request_(std::move(request)), prompt_(std::move(prompt)),
      stream_(std::move(stream)), stops_(request_.parameters.stop) {
    const uint64_t wanted = uint64_t(prompt_.size()) + request_.parameters.tokens_max;
    sequence_tokens_max_ = uint32_t(std::min<uint64_t>(wanted, context_.context_tokens_max));
    usage_.prompt_tokens = uint32_t(prompt_.size());
    if (request_.parameters.sampling.repetition_penalty != 1.0) {
        occurred_ = token_set(context_.vocabulary_size);
        occurred_.add(prompt_);
    }
}

// Text continues the prompt: what a token looks like may depend on those before it (leading spaces,
// characters cut across tokens), so the decoder sees the prompt first.
void generation_task::skip_prompt() {
    decoder_.emplace(context_.text_tokenizer, true);
    size_t shown = 0;
    for (const int32_t token : prompt_) shown += decoder_->push(token).size();
    const size_t whole = context_.text_tokenizer->decode(prompt_, true).size();
    skip_bytes_ = whole > shown ? whole - shown : 0;
}

std::string generation_task::decode(int32_t token) {
    if (!context_.text_tokenizer) return {};
    if (!decoder_) skip_prompt();
    std::string piece = decoder_->push(token);
    const size_t skipped = std::min(skip_bytes_, piece.size());
    skip_bytes_ -= skipped;
    return piece.substr(skipped);
}

bool generation_task::is_end_token(int32_t token) const {
    return request_.parameters.end_tokens_stop
           && std::find(context_.end_tokens.begin(), context_.end_tokens.end(), token)
                  != context_.end_tokens.end();
}

sampled_token generation_task::sample(sampler& chooser, std::span<const float> logits) const {
    return chooser.sample(logits, request_.parameters.sampling, occurred_,
                          prompt_.size() + completion_.size());
}

bool generation_task::take(const sampled_token& sampled, uint32_t reused_tokens) {
    const uint64_t position = prompt_.size() + completion_.size();
    completion_.push_back(sampled.token);
    log_probabilities_.push_back(sampled.log_probability);
    occurred_.add(sampled.token);
    ++usage_.completion_tokens;
    if (completion_.size() == 1) {
        usage_.prompt_tokens_reused = reused_tokens;
        usage_.time_to_first_token_s = seconds_since(submitted_);
    }
    if (is_end_token(sampled.token)) {
        finish(finish_reason::end_token);
        return false;
    }
    std::string shown = stops_.push(decode(sampled.token));
    if (!shown.empty() || !context_.text_tokenizer) emit(std::move(shown));
    if (stops_.matched()) {
        finish(finish_reason::stop_text);
        return false;
    }
    if (completion_.size() >= request_.parameters.tokens_max) {
        finish(finish_reason::tokens_max);
        return false;
    }
    if (position + 1 >= sequence_tokens_max_) {
        finish(finish_reason::context_full);
        return false;
    }
    return true;
}

void generation_task::emit(std::string text) {
    generation_event event;
    event.text = std::move(text);
    text_ += event.text;
    const auto begin = ptrdiff_t(emitted_tokens_);
    event.token_ids.assign(completion_.begin() + begin, completion_.end());
    event.log_probabilities.assign(log_probabilities_.begin() + begin, log_probabilities_.end());
    emitted_tokens_ = completion_.size();
    ready_.push_back(std::move(event));
}

void generation_task::send() {
    for (generation_event& event : ready_) stream_->push(std::move(event));
    ready_.clear();
}

void generation_task::send_last() {
    send();
    stream_->push(std::move(last_));
}

void generation_task::finish(finish_reason reason) {
    if (reason != finish_reason::stop_text) {
        // What the decoder and the stop strings held back is text after all.
        std::string rest = decoder_ ? decoder_->finish() : std::string();
        rest.erase(0, std::min(skip_bytes_, rest.size()));
        std::string shown = stops_.push(rest);
        if (stops_.matched()) {
            reason = finish_reason::stop_text;
        } else {
            shown += stops_.flush();
        }
        if (!shown.empty()) emit(std::move(shown));
    }
    if (emitted_tokens_ < completion_.size()) emit({});
    end(reason, reason == finish_reason::stop_text ? stops_.matched_stop() : std::string());
}

void generation_task::fail_with(const error& caught) {
    end(finish_reason::failed, {}, caught.status(), caught.what());
}

void generation_task::replay(const stored_result& stored) {
    completion_ = stored.token_ids;
    log_probabilities_ = stored.log_probabilities;
    usage_.completion_tokens = uint32_t(completion_.size());
    usage_.from_result_cache = true;
    usage_.time_to_first_token_s = completion_.empty() ? 0 : seconds_since(submitted_);
    emit(stored.text);
    end(stored.reason, stored.stop);
}

void generation_task::end(finish_reason reason, std::string stop, sluice_status status,
                          std::string message) {
    usage_.duration_s = seconds_since(submitted_);
    last_.finished = true;
    last_.reason = reason;
    last_.stop = std::move(stop);
    last_.status = status;
    last_.message = std::move(message);
    last_.usage = usage_;
}

std::optional<stored_result> generation_task::result() const {
    if (last_.reason == finish_reason::cancelled || last_.reason == finish_reason::deadline
        || last_.reason == finish_reason::failed) {
        return std::nullopt;
    }
    return stored_result{text_, completion_, log_probabilities_, last_.reason, last_.stop};
}

} // namespace sluice
