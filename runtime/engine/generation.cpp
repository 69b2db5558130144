#include "engine/generation.hpp"

namespace sluice {

std::string_view finish_reason_name(finish_reason reason) {
    switch (reason) {
    case finish_reason::end_token:
        return "end_token";
    case finish_reason::stop_text:
        return "stop_text";
    case finish_reason::tokens_max:
        return "tokens_max";
    case finish_reason::context_full:
        return "context_full";
    case finish_reason::cancelled:
        return "cancelled";
    case finish_reason::deadline:
        return "deadline";
    case finish_reason::failed:
        return "failed";
    }
    return "unknown";
}

double generation_usage::tokens_per_second() const {
    const double decode_s = duration_s - time_to_first_token_s;
    return completion_tokens > 1 && decode_s > 0 ? (completion_tokens - 1) / decode_s : 0;
}

std::optional<generation_event> generation::poll() {
    const std::lock_guard lock(mutex_);
    if (events_.empty()) return std::nullopt;
    generation_event event = std::move(events_.front());
    events_.pop_front();
    return event;
}

std::optional<generation_event> generation::wait(std::optional<std::chrono::milliseconds> timeout) {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return !events_.empty() || finished_; };
    if (timeout) {
        changed_.wait_for(lock, *timeout, ready);
    } else {
        changed_.wait(lock, ready);
    }
    if (events_.empty()) return std::nullopt;
    generation_event event = std::move(events_.front());
    events_.pop_front();
    return event;
}

void generation::join() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finished_; });
}

void generation::cancel() {
    std::function<void()> function;
    {
        const std::lock_guard lock(mutex_);
        if (cancelled_.exchange(true)) return;
        function = std::move(on_cancel_);
    }
    if (function) function();
}

bool generation::finished() const {
    const std::lock_guard lock(mutex_);
    return finished_;
}

void generation::push(generation_event event) {
    const bool last = event.finished;
    const bool called_back = bool(callback_);
    if (called_back) {
        try {
            callback_(event);
        } catch (...) {
            cancel(); // nobody is left to read what would follow
        }
        if (last) callback_ = nullptr; // what it holds may refer back to this object
    }
    std::function<void()> forgotten; // destroyed outside of the lock
    {
        const std::lock_guard lock(mutex_);
        if (!called_back) events_.push_back(std::move(event));
        if (last) {
            finished_ = true;
            forgotten = std::move(on_cancel_);
        }
    }
    changed_.notify_all(); // without the lock, which the woken would else wait for
}

void generation::on_cancel(std::function<void()> function) {
    {
        const std::lock_guard lock(mutex_);
        if (!cancelled_.load()) {
            on_cancel_ = std::move(function);
            return;
        }
    }
    function();
}

} // namespace sluice
