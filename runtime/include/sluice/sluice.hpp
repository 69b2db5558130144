// The C++ face of sluice.h: header-only, C++17, everything owned, errors as exceptions.
//
//     sluice::embed::runtime runtime =
//     sluice::embed::runtime::from_file("configs/quickstart.toml"); sluice::embed::request
//     request("The package manager"); for (const auto& event : runtime.submit(request)) std::cout
//     << event.text << std::flush;
//
// What sluice.h says of threads and lifetimes holds here. A runtime outlives its generations' use.
#pragma once

#include <sluice/sluice.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice::embed {

// What every failing call throws.
class error : public std::runtime_error {
  public:
    error(sluice_status status, const std::string& message)
        : std::runtime_error(message), status_(status) {}
    sluice_status status() const noexcept { return status_; }

  private:
    sluice_status status_;
};

namespace detail {

inline std::string string_of(sluice_text text) {
    return text.size == 0 ? std::string() : std::string(text.data, text.size);
}
inline sluice_text text_of(std::string_view text) { return {text.data(), text.size()}; }

// Calls `function` with an error record and throws what it reports.
template <typename Function>
void call(Function&& function) {
    sluice_error record = SLUICE_INIT(sluice_error);
    const sluice_status status = function(&record);
    if (status != SLUICE_OK) throw error(status, record.message);
}

} // namespace detail

inline std::string version() { return sluice_version(); }

struct usage {
    uint32_t prompt_tokens = 0;
    uint32_t prompt_tokens_reused = 0;
    uint32_t completion_tokens = 0;
    double time_to_first_token_s = 0;
    double duration_s = 0;
    double tokens_per_second = 0;
    bool from_result_cache = false;
    uint32_t draft_tokens = 0; // guesses that were computed together with other tokens
    uint32_t draft_tokens_accepted = 0;
};

// A piece of an answer, or its end.
struct event {
    uint32_t finish = SLUICE_FINISH_NONE; // SLUICE_FINISH_*; NONE for a piece
    std::string text;
    std::vector<int32_t> token_ids; // sampled since the event before
    std::vector<float> log_probabilities;
    sluice_status status = SLUICE_OK; // of a failure
    std::string message;              // of a failure
    std::string stop;                 // the stop string that came
    struct usage usage;               // of the last event

    bool finished() const { return finish != SLUICE_FINISH_NONE; }

    static event from(const sluice_generation_event& source) {
        event copy;
        copy.finish = source.finish;
        copy.text = detail::string_of(source.text);
        if (source.token_count > 0) {
            copy.token_ids.assign(source.token_ids, source.token_ids + source.token_count);
            copy.log_probabilities.assign(source.log_probabilities,
                                          source.log_probabilities + source.token_count);
        }
        copy.status = source.status;
        copy.message = detail::string_of(source.message);
        copy.stop = detail::string_of(source.stop);
        if (source.usage != nullptr) {
            copy.usage = {source.usage->prompt_tokens,
                          source.usage->prompt_tokens_reused,
                          source.usage->completion_tokens,
                          source.usage->time_to_first_token_s,
                          source.usage->duration_s,
                          source.usage->tokens_per_second,
                          source.usage->from_result_cache != 0};
            // A library from before these were there says nothing of them.
            if (SLUICE_HAS_FIELD(sluice_generation_usage, source.usage, draft_tokens_accepted)) {
                copy.usage.draft_tokens = source.usage->draft_tokens;
                copy.usage.draft_tokens_accepted = source.usage->draft_tokens_accepted;
            }
        }
        return copy;
    }
};

// What is asked for. Members that are not set keep the configuration's [generation].
struct request {
    std::string prompt; // read unless token_ids are given
    std::vector<int32_t> token_ids;
    std::optional<uint32_t> tokens_max;
    std::optional<double> temperature;
    std::optional<uint32_t> top_k;
    std::optional<double> top_p;
    std::optional<double> min_p;
    std::optional<double> repetition_penalty;
    std::optional<uint64_t> seed;
    std::optional<std::vector<std::string>> stop;
    std::vector<std::pair<std::string, std::string>> fields; // for pipelines: "request.<name>"
    std::string tenant;
    std::chrono::milliseconds timeout{0}; // 0: none
    uint32_t flags = 0;                   // SLUICE_GENERATION_*

    request() = default;
    explicit request(std::string text) : prompt(std::move(text)) {}
};

// Called for each event in order; see sluice_generation_function. What it throws ends the request
// and comes out of generation::wait().
using callback = std::function<void(const event&)>;

// One request. Destroying it cancels what still runs.
class generation {
  public:
    generation(generation&&) noexcept = default;
    generation& operator=(generation&& other) noexcept {
        handle_ = std::move(other.handle_); // joins the callback before its state goes
        state_ = std::move(other.state_);
        return *this;
    }

    // The next event; nothing when none came in time or all were taken. Without a timeout: waits.
    std::optional<event> next(std::optional<std::chrono::milliseconds> timeout = std::nullopt) {
        const sluice_generation_event* taken = nullptr;
        const uint64_t timeout_ms = timeout ? uint64_t(timeout->count()) : SLUICE_WAIT_FOREVER;
        detail::call([&](sluice_error* record) {
            return sluice_generation_next(handle_.get(), timeout_ms, &taken, record);
        });
        if (taken == nullptr) return std::nullopt;
        return event::from(*taken);
    }

    // Waits for the end; throws what the callback threw.
    void wait() {
        sluice_generation_wait(handle_.get());
        if (state_ && state_->thrown) std::rethrow_exception(std::exchange(state_->thrown, {}));
    }
    bool finished() const { return sluice_generation_finished(handle_.get()) != 0; }
    void cancel() { sluice_generation_cancel(handle_.get()); }

    // Input iteration over the events, the last one included.
    class iterator {
      public:
        using iterator_category = std::input_iterator_tag;
        using value_type = event;
        using difference_type = std::ptrdiff_t;
        using pointer = const event*;
        using reference = const event&;

        iterator() = default;
        explicit iterator(generation* source) : source_(source) { ++*this; }
        reference operator*() const { return *current_; }
        pointer operator->() const { return &*current_; }
        iterator& operator++() {
            current_ = source_->next();
            if (!current_) source_ = nullptr;
            return *this;
        }
        void operator++(int) { ++*this; }
        bool operator==(const iterator& other) const { return source_ == other.source_; }
        bool operator!=(const iterator& other) const { return source_ != other.source_; }

      private:
        generation* source_ = nullptr;
        std::optional<event> current_;
    };
    iterator begin() { return iterator(this); }
    iterator end() { return iterator(); }

  private:
    friend class runtime;

    struct callback_state {
        callback function;
        std::exception_ptr thrown; // set before the last event has been delivered
    };
    struct destroyer {
        void operator()(sluice_generation* handle) const { sluice_generation_destroy(handle); }
    };

    static void trampoline(void* context, const sluice_generation_event* source) {
        auto& state = *static_cast<callback_state*>(context);
        if (state.thrown) return;
        try {
            state.function(event::from(*source));
        } catch (...) {
            state.thrown = std::current_exception();
        }
    }

    generation() = default;

    std::unique_ptr<callback_state> state_; // destroyed after the handle
    std::unique_ptr<sluice_generation, destroyer> handle_;
};

struct runtime_options {
    uint32_t log_level = SLUICE_RUNTIME_LOG_DEFAULT;
    std::function<void(uint32_t level, std::string_view line)> on_log; // empty: standard error
    std::function<void(uint64_t done_bytes, uint64_t total_bytes)> on_progress;
    std::vector<std::string> overrides; // "section.key=value"
    std::string folder;                 // for relative paths in a TOML text; empty: the current one
};

struct model_info {
    uint32_t vocabulary_size = 0;
    uint32_t layer_count = 0;
    uint32_t hidden_size = 0;
    uint32_t expert_count = 0;
    uint32_t context_tokens_max = 0;
    bool has_tokenizer = false;
    uint32_t sequences_max = 0;
    uint64_t parameter_count = 0;
    uint64_t active_parameter_count = 0;
    std::string model_type;
    std::string backend;
    std::string device;
    std::string fingerprint;
};

class runtime {
  public:
    static runtime from_file(const std::string& path, runtime_options options = {}) {
        return create(std::move(options), [&](const sluice_runtime_options& given,
                                              sluice_runtime** made, sluice_error* record) {
            return sluice_runtime_create_from_file(path.c_str(), &given, made, record);
        });
    }
    static runtime from_text(std::string_view toml, runtime_options options = {}) {
        return create(std::move(options), [&](const sluice_runtime_options& given,
                                              sluice_runtime** made, sluice_error* record) {
            return sluice_runtime_create_from_text(detail::text_of(toml), &given, made, record);
        });
    }

    // Queues a request, to be read with generation::next or in a loop.
    generation submit(const request& asked) { return submit(asked, callback()); }

    // Queues a request whose events go to `function`.
    generation submit(const request& asked, callback function) {
        generation made;
        sluice_generation_options given = SLUICE_INIT(sluice_generation_options);
        if (function) {
            made.state_ = std::make_unique<generation::callback_state>();
            made.state_->function = std::move(function);
            given.on_event = generation::trampoline;
            given.context = made.state_.get();
        }
        std::vector<sluice_text> stops;
        std::vector<sluice_named_text> fields;
        fill(given, asked, stops, fields);
        sluice_generation* handle = nullptr;
        detail::call([&](sluice_error* record) {
            return sluice_runtime_submit(handle_.get(), &given, &handle, record);
        });
        made.handle_.reset(handle);
        return made;
    }

    // The whole answer in one event: its text and tokens, finish and usage. Throws where it failed.
    event generate(const request& asked) {
        event whole;
        for (const event& part : submit(asked)) {
            whole.text += part.text;
            whole.token_ids.insert(whole.token_ids.end(), part.token_ids.begin(),
                                   part.token_ids.end());
            whole.log_probabilities.insert(whole.log_probabilities.end(),
                                           part.log_probabilities.begin(),
                                           part.log_probabilities.end());
            if (!part.finished()) continue;
            if (part.finish == SLUICE_FINISH_FAILED) throw error(part.status, part.message);
            whole.finish = part.finish;
            whole.stop = part.stop;
            whole.usage = part.usage;
        }
        return whole;
    }

    std::vector<int32_t> tokenize(std::string_view text, bool special = true) const {
        std::vector<int32_t> tokens(text.size() + 16);
        uint64_t count = 0;
        const auto attempt = [&] {
            detail::call([&](sluice_error* record) {
                return sluice_runtime_tokenize(handle_.get(), detail::text_of(text),
                                               special ? 1 : 0, tokens.data(), tokens.size(),
                                               &count, record);
            });
        };
        attempt();
        if (count > tokens.size()) {
            tokens.resize(count);
            attempt();
        }
        tokens.resize(count);
        return tokens;
    }

    model_info info() const {
        sluice_model_info found = SLUICE_INIT(sluice_model_info);
        detail::call([&](sluice_error* record) {
            return sluice_runtime_model_info(handle_.get(), &found, record);
        });
        return {found.vocabulary_size,
                found.layer_count,
                found.hidden_size,
                found.expert_count,
                found.context_tokens_max,
                found.has_tokenizer != 0,
                found.sequences_max,
                found.parameter_count,
                found.active_parameter_count,
                detail::string_of(found.model_type),
                detail::string_of(found.backend),
                detail::string_of(found.device),
                detail::string_of(found.fingerprint)};
    }

    sluice_runtime* handle() const { return handle_.get(); }

  private:
    struct destroyer {
        void operator()(sluice_runtime* handle) const { sluice_runtime_destroy(handle); }
    };

    runtime() = default;

    template <typename Create>
    static runtime create(runtime_options options, Create&& create_handle) {
        runtime made;
        made.options_ = std::make_unique<runtime_options>(std::move(options));
        sluice_runtime_options given = SLUICE_INIT(sluice_runtime_options);
        given.log_level = made.options_->log_level;
        if (made.options_->on_log) {
            given.on_log = log;
            given.log_context = made.options_.get();
        }
        if (made.options_->on_progress) {
            given.on_progress = advance;
            given.progress_context = made.options_.get();
        }
        std::vector<const char*> overrides;
        for (const std::string& each : made.options_->overrides) {
            overrides.push_back(each.c_str());
        }
        given.overrides = overrides.data();
        given.override_count = overrides.size();
        if (!made.options_->folder.empty()) given.folder = made.options_->folder.c_str();
        sluice_runtime* handle = nullptr;
        detail::call([&](sluice_error* record) { return create_handle(given, &handle, record); });
        made.handle_.reset(handle);
        return made;
    }

    // Exceptions of these two end here: there is nobody to throw them to.
    static void log(void* context, uint32_t level, sluice_text line) {
        try {
            static_cast<runtime_options*>(context)->on_log(level, {line.data, line.size});
        } catch (...) {
        }
    }
    static void advance(void* context, uint64_t done_bytes, uint64_t total_bytes) {
        try {
            static_cast<runtime_options*>(context)->on_progress(done_bytes, total_bytes);
        } catch (...) {
        }
    }

    static void fill(sluice_generation_options& given, const request& asked,
                     std::vector<sluice_text>& stops, std::vector<sluice_named_text>& fields) {
        const auto set = [&](const auto& source, auto& target, uint32_t bit) {
            if (!source) return;
            target = *source;
            given.set |= bit;
        };
        set(asked.tokens_max, given.tokens_max, SLUICE_SET_TOKENS_MAX);
        set(asked.temperature, given.temperature, SLUICE_SET_TEMPERATURE);
        set(asked.top_k, given.top_k, SLUICE_SET_TOP_K);
        set(asked.top_p, given.top_p, SLUICE_SET_TOP_P);
        set(asked.min_p, given.min_p, SLUICE_SET_MIN_P);
        set(asked.repetition_penalty, given.repetition_penalty, SLUICE_SET_REPETITION_PENALTY);
        set(asked.seed, given.seed, SLUICE_SET_SEED);
        if (asked.stop) {
            for (const std::string& each : *asked.stop) stops.push_back(detail::text_of(each));
            given.set |= SLUICE_SET_STOP;
        }
        given.stop = stops.data();
        given.stop_count = stops.size();
        for (const auto& [name, text] : asked.fields) {
            fields.push_back({detail::text_of(name), detail::text_of(text)});
        }
        given.fields = fields.data();
        given.field_count = fields.size();
        given.prompt = detail::text_of(asked.prompt);
        given.token_ids = asked.token_ids.data();
        given.token_count = asked.token_ids.size();
        given.tenant = detail::text_of(asked.tenant);
        given.timeout_ms = uint64_t(asked.timeout.count());
        given.flags = asked.flags;
    }

    std::unique_ptr<runtime_options> options_; // the callbacks; destroyed after the handle
    std::unique_ptr<sluice_runtime, destroyer> handle_;
};

} // namespace sluice::embed
