// The C API: handles, copies and error records around sluice::runtime. No exception leaves this
// file.
#include <sluice/sluice.h>

#include "api/runtime.hpp"
#include "base/error.hpp"
#include "model/model_program.hpp"

#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>

// Everything that the texts of a sluice_generation_event point to.
struct event_storage {
    sluice::generation_event source;
    sluice_generation_usage usage = SLUICE_INIT(sluice_generation_usage);
    sluice_generation_event event = SLUICE_INIT(sluice_generation_event);

    void fill(sluice::generation_event taken);
};

struct sluice_runtime {
    std::unique_ptr<sluice::runtime> inner;
    uint64_t parameter_count = 0;
    uint64_t active_parameter_count = 0;
};

struct sluice_generation {
    std::shared_ptr<sluice::generation> inner;
    bool has_callback = false;
    event_storage last; // what sluice_generation_next handed out
};

namespace {

sluice_status report(sluice_error* error, sluice_status status, std::string_view message) {
    if (error == nullptr || !SLUICE_HAS_FIELD(sluice_error, error, status)) return status;
    error->status = status;
    const size_t header = offsetof(sluice_error, message);
    if (error->struct_size <= header) return status;
    const size_t room = std::min<size_t>(error->struct_size - header, SLUICE_ERROR_MESSAGE_BYTES);
    size_t length = std::min(message.size(), room - 1);
    // Not in the middle of a character.
    while (length < message.size() && length > 0 && (uint8_t(message[length]) & 0xc0u) == 0x80u) {
        --length;
    }
    std::memcpy(error->message, message.data(), length);
    error->message[length] = '\0';
    return status;
}

template <typename Function>
sluice_status guard(sluice_error* error, Function&& function) noexcept {
    try {
        function();
        return SLUICE_OK;
    } catch (const sluice::error& caught) {
        return report(error, caught.status(), caught.what());
    } catch (const std::bad_alloc&) {
        return report(error, SLUICE_EXHAUSTED, "out of memory");
    } catch (const std::exception& caught) {
        return report(error, SLUICE_INTERNAL, caught.what());
    } catch (...) {
        return report(error, SLUICE_INTERNAL, "an exception of unknown type");
    }
}

std::string_view view(sluice_text text, const char* name) {
    if (text.data == nullptr && text.size > 0) {
        sluice::fail(SLUICE_INVALID, "{}: a text of {} bytes at NULL", name, text.size);
    }
    return text.size == 0 ? std::string_view() : std::string_view(text.data, text.size);
}

sluice_text text_of(const std::string& text) { return {text.data(), text.size()}; }

void demand(const void* pointer, const char* name) {
    if (pointer == nullptr) sluice::fail(SLUICE_INVALID, "{} is NULL", name);
}

// A full-size copy of the caller's struct, older or newer: a missing tail is zero, an unknown one
// must be.
template <typename Struct>
Struct read_struct(const Struct* given, const char* name) {
    Struct copy{};
    copy.struct_size = uint32_t(sizeof(Struct));
    if (given == nullptr) return copy;
    const size_t size = given->struct_size;
    if (size < sizeof(uint32_t)) {
        sluice::fail(SLUICE_INVALID, "{}.struct_size is {}; begin with {} = SLUICE_INIT({})", name,
                     size, name, name);
    }
    std::memcpy(&copy, given, std::min(size, sizeof(Struct)));
    const auto* bytes = reinterpret_cast<const unsigned char*>(given);
    for (size_t i = sizeof(Struct); i < size; ++i) {
        if (bytes[i] != 0) {
            sluice::fail(SLUICE_UNSUPPORTED,
                         "{} uses a field at byte {} that this libsluice ({}) does not know", name,
                         i, SLUICE_VERSION);
        }
    }
    copy.struct_size = uint32_t(sizeof(Struct));
    return copy;
}

// Writes an answer into the caller's struct, as far as that reaches.
template <typename Struct>
void write_struct(Struct* target, const Struct& source, const char* name) {
    demand(target, name);
    const uint32_t size = target->struct_size;
    if (size < sizeof(uint32_t)) {
        sluice::fail(SLUICE_INVALID, "{}.struct_size is {}; begin with SLUICE_INIT({})", name, size,
                     name);
    }
    std::memcpy(target, &source, std::min<size_t>(size, sizeof(Struct)));
    target->struct_size = size;
}

// ---- Runtimes ----

sluice::runtime_options runtime_options_of(const sluice_runtime_options& given) {
    sluice::runtime_options options;
    if (given.log_level > SLUICE_RUNTIME_LOG_NONE) {
        sluice::fail(SLUICE_INVALID, "log_level is {}; expected a SLUICE_RUNTIME_LOG_*",
                     given.log_level);
    }
    if (given.log_level == SLUICE_RUNTIME_LOG_NONE) {
        options.log_level_min = sluice::log_level::error;
        options.on_log = [](sluice::log_level, std::string_view) {};
    } else {
        if (given.log_level != SLUICE_RUNTIME_LOG_DEFAULT) {
            options.log_level_min = sluice::log_level(given.log_level);
        }
        if (given.on_log != nullptr) {
            options.on_log = [function = given.on_log, context = given.log_context](
                                 sluice::log_level level, std::string_view line) {
                const std::string copy(line); // ends in a zero byte
                function(context, uint32_t(level), text_of(copy));
            };
        }
    }
    if (given.on_progress != nullptr) {
        options.loading.on_progress =
            [function = given.on_progress, context = given.progress_context](
                uint64_t done, uint64_t total) { function(context, done, total); };
    }
    return options;
}

std::vector<std::string> overrides_of(const sluice_runtime_options& given) {
    std::vector<std::string> overrides;
    if (given.override_count > 0) demand(given.overrides, "overrides");
    for (uint64_t i = 0; i < given.override_count; ++i) {
        demand(given.overrides[i], "an override");
        overrides.emplace_back(given.overrides[i]);
    }
    return overrides;
}

sluice_runtime* make_runtime(sluice::configuration configuration,
                             const sluice_runtime_options& options) {
    auto made = std::make_unique<sluice_runtime>();
    made->inner =
        std::make_unique<sluice::runtime>(std::move(configuration), runtime_options_of(options));
    const sluice::loaded_model& model = *made->inner->model();
    const auto account = sluice::account_parameters(model.config(), model.model());
    made->parameter_count = account.parameter_count;
    made->active_parameter_count = account.active_parameter_count;
    return made.release();
}

// ---- Generations ----

static_assert(uint32_t(sluice::finish_reason::end_token) + 1 == SLUICE_FINISH_END_TOKEN);
static_assert(uint32_t(sluice::finish_reason::stop_text) + 1 == SLUICE_FINISH_STOP_TEXT);
static_assert(uint32_t(sluice::finish_reason::tokens_max) + 1 == SLUICE_FINISH_TOKENS_MAX);
static_assert(uint32_t(sluice::finish_reason::context_full) + 1 == SLUICE_FINISH_CONTEXT_FULL);
static_assert(uint32_t(sluice::finish_reason::cancelled) + 1 == SLUICE_FINISH_CANCELLED);
static_assert(uint32_t(sluice::finish_reason::deadline) + 1 == SLUICE_FINISH_DEADLINE);
static_assert(uint32_t(sluice::finish_reason::failed) + 1 == SLUICE_FINISH_FAILED);

sluice::generation_overrides overrides_of(const sluice_generation_options& given) {
    if ((given.set & ~SLUICE_SET_ALL) != 0) {
        sluice::fail(SLUICE_UNSUPPORTED, "set is {:#x}; this libsluice knows {:#x}", given.set,
                     SLUICE_SET_ALL);
    }
    sluice::generation_overrides overrides;
    if (given.set & SLUICE_SET_TOKENS_MAX) overrides.tokens_max = given.tokens_max;
    if (given.set & SLUICE_SET_TEMPERATURE) overrides.temperature = given.temperature;
    if (given.set & SLUICE_SET_TOP_K) overrides.top_k = given.top_k;
    if (given.set & SLUICE_SET_TOP_P) overrides.top_p = given.top_p;
    if (given.set & SLUICE_SET_MIN_P) overrides.min_p = given.min_p;
    if (given.set & SLUICE_SET_REPETITION_PENALTY) {
        overrides.repetition_penalty = given.repetition_penalty;
    }
    if (given.set & SLUICE_SET_SEED) overrides.seed = given.seed;
    if (given.set & SLUICE_SET_STOP) {
        overrides.stop.emplace();
        if (given.stop_count > 0) demand(given.stop, "stop");
        for (uint64_t i = 0; i < given.stop_count; ++i) {
            overrides.stop->emplace_back(view(given.stop[i], "stop"));
        }
    }
    if (given.flags & SLUICE_GENERATION_IGNORE_END) overrides.end_tokens_stop = false;
    return overrides;
}

bool reads_prompt(const sluice::pipeline_graph& graph) {
    for (const sluice::field_description& field : graph.request_fields()) {
        if (field.name == "prompt") return true;
    }
    return false;
}

sluice::pipeline_request request_of(const sluice_generation_options& given,
                                    const sluice::pipeline_graph& graph) {
    constexpr uint32_t known_flags = SLUICE_GENERATION_IGNORE_END | SLUICE_GENERATION_PLAIN_PROMPT
                                     | SLUICE_GENERATION_NO_RESULT_CACHE;
    if ((given.flags & ~known_flags) != 0) {
        sluice::fail(SLUICE_UNSUPPORTED, "flags is {:#x}; this libsluice knows {:#x}", given.flags,
                     known_flags);
    }
    sluice::pipeline_request request;
    if (given.token_count > 0) {
        demand(given.token_ids, "token_ids");
        request.fields["token_ids"] =
            std::vector<int32_t>(given.token_ids, given.token_ids + given.token_count);
    } else if (given.prompt.size > 0 || reads_prompt(graph)) {
        request.fields["prompt"] = std::string(view(given.prompt, "prompt"));
    }
    if (given.field_count > 0) demand(given.fields, "fields");
    for (uint64_t i = 0; i < given.field_count; ++i) {
        request.fields[std::string(view(given.fields[i].name, "name of a field"))] =
            std::string(view(given.fields[i].text, "text of a field"));
    }
    request.options.generation = overrides_of(given);
    request.options.add_special_tokens = (given.flags & SLUICE_GENERATION_PLAIN_PROMPT) == 0;
    request.options.use_result_cache = (given.flags & SLUICE_GENERATION_NO_RESULT_CACHE) == 0;
    request.options.tenant = view(given.tenant, "tenant");
    if (given.timeout_ms > 0) {
        // A year is as good as for ever, and cannot overflow the clock.
        const uint64_t timeout_ms = std::min<uint64_t>(given.timeout_ms, 31536000000u);
        request.options.deadline =
            std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    }
    return request;
}

} // namespace

void event_storage::fill(sluice::generation_event taken) {
    source = std::move(taken);
    event = SLUICE_INIT(sluice_generation_event);
    event.text = text_of(source.text);
    event.token_ids = source.token_ids.data();
    event.log_probabilities = source.log_probabilities.data();
    event.token_count = source.token_ids.size();
    event.message = text_of(source.message);
    event.stop = text_of(source.stop);
    if (!source.finished) return;
    event.finish = uint32_t(source.reason) + 1;
    event.status = source.status;
    usage.prompt_tokens = source.usage.prompt_tokens;
    usage.prompt_tokens_reused = source.usage.prompt_tokens_reused;
    usage.completion_tokens = source.usage.completion_tokens;
    usage.time_to_first_token_s = source.usage.time_to_first_token_s;
    usage.duration_s = source.usage.duration_s;
    usage.tokens_per_second = source.usage.tokens_per_second();
    usage.from_result_cache = source.usage.from_result_cache ? 1 : 0;
    usage.draft_tokens = source.usage.draft_tokens;
    usage.draft_tokens_accepted = source.usage.draft_tokens_accepted;
    event.usage = &usage;
}

const char* sluice_version(void) { return SLUICE_VERSION; }

sluice_status sluice_runtime_create_from_file(const char* path,
                                              const sluice_runtime_options* options,
                                              sluice_runtime** runtime_owned, sluice_error* error) {
    return guard(error, [&] {
        demand(runtime_owned, "runtime_owned");
        *runtime_owned = nullptr;
        demand(path, "path");
        const auto given = read_struct(options, "sluice_runtime_options");
        *runtime_owned =
            make_runtime(sluice::configuration_from_file(path, overrides_of(given)), given);
    });
}

sluice_status sluice_runtime_create_from_text(sluice_text toml,
                                              const sluice_runtime_options* options,
                                              sluice_runtime** runtime_owned, sluice_error* error) {
    return guard(error, [&] {
        demand(runtime_owned, "runtime_owned");
        *runtime_owned = nullptr;
        const auto given = read_struct(options, "sluice_runtime_options");
        const std::filesystem::path folder = given.folder == nullptr
                                                 ? std::filesystem::current_path()
                                                 : std::filesystem::absolute(given.folder);
        *runtime_owned =
            make_runtime(sluice::configuration_from_text(view(toml, "toml"), folder,
                                                         "configuration", overrides_of(given)),
                         given);
    });
}

void sluice_runtime_destroy(sluice_runtime* runtime_owned) { delete runtime_owned; }

sluice_status sluice_runtime_model_info(sluice_runtime* runtime, sluice_model_info* info,
                                        sluice_error* error) {
    return guard(error, [&] {
        demand(runtime, "runtime");
        const sluice::loaded_model& model = *runtime->inner->model();
        auto found = SLUICE_INIT(sluice_model_info);
        found.vocabulary_size = model.config().vocabulary_size;
        found.layer_count = model.config().layer_count;
        found.hidden_size = model.config().hidden_size;
        found.expert_count = model.config().moe.expert_count;
        found.context_tokens_max = model.context_tokens_max();
        found.has_tokenizer = model.text_tokenizer() ? 1 : 0;
        found.sequences_max = model.sequences_max();
        found.parameter_count = runtime->parameter_count;
        found.active_parameter_count = runtime->active_parameter_count;
        found.model_type = text_of(model.config().model_type);
        found.backend = text_of(model.report().backend);
        found.device = text_of(model.report().device);
        found.fingerprint = text_of(model.fingerprint());
        write_struct(info, found, "sluice_model_info");
    });
}

sluice_status sluice_runtime_tokenize(sluice_runtime* runtime, sluice_text text, uint32_t special,
                                      int32_t* token_ids, uint64_t capacity, uint64_t* token_count,
                                      sluice_error* error) {
    return guard(error, [&] {
        demand(runtime, "runtime");
        demand(token_count, "token_count");
        const auto& tokenizer = runtime->inner->model()->text_tokenizer();
        if (!tokenizer) {
            sluice::fail(SLUICE_UNSUPPORTED, "the model has no tokenizer.json to read a text with");
        }
        const auto tokens = tokenizer->encode(view(text, "text"), special != 0);
        *token_count = tokens.size();
        if (tokens.size() > capacity || tokens.empty()) return;
        demand(token_ids, "token_ids");
        std::memcpy(token_ids, tokens.data(), tokens.size() * sizeof(int32_t));
    });
}

sluice_status sluice_runtime_submit(sluice_runtime* runtime,
                                    const sluice_generation_options* options,
                                    sluice_generation** generation_owned, sluice_error* error) {
    return guard(error, [&] {
        demand(generation_owned, "generation_owned");
        *generation_owned = nullptr;
        demand(runtime, "runtime");
        demand(options, "options");
        const auto given = read_struct(options, "sluice_generation_options");
        auto made = std::make_unique<sluice_generation>();
        made->has_callback = given.on_event != nullptr;
        sluice::generation_callback callback;
        if (given.on_event != nullptr) {
            callback = [function = given.on_event,
                        context = given.context](const sluice::generation_event& event) {
                event_storage storage;
                storage.fill(event);
                function(context, &storage.event);
            };
        }
        made->inner = runtime->inner->submit(request_of(given, runtime->inner->stages().graph()),
                                             std::move(callback));
        *generation_owned = made.release();
    });
}

sluice_status sluice_generation_next(sluice_generation* generation, uint64_t timeout_ms,
                                     const sluice_generation_event** event, sluice_error* error) {
    return guard(error, [&] {
        demand(event, "event");
        *event = nullptr;
        demand(generation, "generation");
        if (generation->has_callback) {
            sluice::fail(SLUICE_INVALID,
                         "this generation gives its events to the callback it was submitted with");
        }
        std::optional<std::chrono::milliseconds> timeout;
        constexpr uint64_t longest_ms = 31536000000u; // a year: more would overflow the clock
        if (timeout_ms < longest_ms) timeout = std::chrono::milliseconds(timeout_ms);
        auto taken = timeout_ms == 0 ? generation->inner->poll() : generation->inner->wait(timeout);
        if (!taken) return;
        generation->last.fill(std::move(*taken));
        *event = &generation->last.event;
    });
}

void sluice_generation_wait(sluice_generation* generation) {
    if (generation != nullptr) generation->inner->join();
}

uint32_t sluice_generation_finished(sluice_generation* generation) {
    return generation != nullptr && generation->inner->finished() ? 1 : 0;
}

void sluice_generation_cancel(sluice_generation* generation) {
    if (generation == nullptr) return;
    guard(nullptr, [&] { generation->inner->cancel(); });
}

void sluice_generation_destroy(sluice_generation* generation_owned) {
    if (generation_owned == nullptr) return;
    guard(nullptr, [&] {
        generation_owned->inner->cancel();
        // What the callback's context points to may go right after this call.
        if (generation_owned->has_callback) generation_owned->inner->join();
    });
    delete generation_owned;
}
