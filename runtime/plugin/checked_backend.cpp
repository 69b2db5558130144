#include "plugin/checked_backend.hpp"

#include "plugin/checked_objects.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

namespace sluice {

namespace {

using namespace checked_mode;

// ---- The wrappers, in the order of the table ----

sluice_status checked_properties(sluice_plugin* plugin, sluice_backend_properties* properties,
                                 sluice_error* error) {
    return checked("properties", error, [&] {
        backend_state& state = state_of(plugin);
        return state.real.properties(state.plugin, properties, error);
    });
}

sluice_status checked_claim(sluice_plugin* plugin, const sluice_program* program,
                            uint32_t operation, sluice_claim* claim, sluice_error* error) {
    return checked("claim", error, [&] {
        backend_state& state = state_of(plugin);
        if (program == nullptr || operation >= program->operation_count) {
            refuse("there is no program, or no operation {} in it", operation);
        }
        const sluice_status status =
            state.real.claim(state.plugin, program, operation, claim, error);
        if (status == SLUICE_OK && claim->accepted == 0
            && strnlen(claim->reason, sizeof claim->reason) == 0) {
            refuse("the operation is not accepted, but no reason is given");
        }
        return status;
    });
}

sluice_status checked_weight_size(sluice_plugin* plugin, const sluice_weight_source* source,
                                  uint32_t roles, uint64_t* size_bytes, sluice_error* error) {
    return checked("weight_size", error, [&] {
        backend_state& state = state_of(plugin);
        return state.real.weight_size(state.plugin, source, roles, size_bytes, error);
    });
}

sluice_status checked_weight_prepare(sluice_plugin* plugin, const sluice_weight_source* source,
                                     uint32_t roles, sluice_weight** weight_owned,
                                     uint32_t* source_still_needed, sluice_error* error) {
    return checked("weight_prepare", error, [&] {
        backend_state& state = state_of(plugin);
        require_no_worker(state.host);
        sluice_weight* weight = nullptr;
        const sluice_status status = state.real.weight_prepare(state.plugin, source, roles, &weight,
                                                               source_still_needed, error);
        return deliver(state, status, weight, weight_owned);
    });
}

void checked_weight_destroy(sluice_plugin* plugin, sluice_weight* weight_owned) {
    backend_state& state = state_of(plugin);
    destroy("weight_destroy", state, weight_owned,
            [&](sluice_weight* weight) { state.real.weight_destroy(state.plugin, weight); });
}

void checked_weight_describe(sluice_plugin* plugin, const sluice_weight* weight, char* text,
                             uint64_t size) {
    backend_state& state = state_of(plugin);
    checked_void("weight_describe", &state.host, [&] {
        object& one = object_of(weight, &state);
        state.real.weight_describe(state.plugin, real_of<sluice_weight>(one), text, size);
        if (size > 0 && strnlen(text, size) == size) {
            text[size - 1] = 0;
            refuse("the text is not ended by a zero byte");
        }
    });
}

sluice_status checked_buffer_create(sluice_plugin* plugin, uint64_t size_bytes,
                                    sluice_buffer** buffer_owned, sluice_error* error) {
    return checked("buffer_create", error, [&] {
        backend_state& state = state_of(plugin);
        sluice_buffer* buffer = nullptr;
        const sluice_status status =
            state.real.buffer_create(state.plugin, size_bytes, &buffer, error);
        const sluice_status delivered = deliver(state, status, buffer, buffer_owned);
        if (delivered == SLUICE_OK) {
            reinterpret_cast<object*>(*buffer_owned)->size_bytes = size_bytes;
        }
        return delivered;
    });
}

void checked_buffer_destroy(sluice_plugin* plugin, sluice_buffer* buffer_owned) {
    backend_state& state = state_of(plugin);
    destroy("buffer_destroy", state, buffer_owned,
            [&](sluice_buffer* buffer) { state.real.buffer_destroy(state.plugin, buffer); });
}

void require_range(const object& buffer, uint64_t offset, uint64_t size_bytes) {
    if (offset > buffer.size_bytes || size_bytes > buffer.size_bytes - offset) {
        refuse("{} bytes from {} are out of the buffer of {} bytes", size_bytes, offset,
               buffer.size_bytes);
    }
}

sluice_status checked_buffer_write(sluice_plugin* plugin, sluice_buffer* buffer, uint64_t offset,
                                   const void* data, uint64_t size_bytes, sluice_error* error) {
    return checked("buffer_write", error, [&] {
        backend_state& state = state_of(plugin);
        object& one = object_of(buffer, &state);
        const owner_call call = owned(one);
        require_range(one, offset, size_bytes);
        return state.real.buffer_write(state.plugin, real_of<sluice_buffer>(one), offset, data,
                                       size_bytes, error);
    });
}

sluice_status checked_buffer_read(sluice_plugin* plugin, const sluice_buffer* buffer,
                                  uint64_t offset, void* data, uint64_t size_bytes,
                                  sluice_error* error) {
    return checked("buffer_read", error, [&] {
        backend_state& state = state_of(plugin);
        object& one = object_of(buffer, &state);
        const owner_call call = owned(one);
        require_range(one, offset, size_bytes);
        return state.real.buffer_read(state.plugin, real_of<sluice_buffer>(one), offset, data,
                                      size_bytes, error);
    });
}

void* checked_buffer_map(sluice_plugin* plugin, sluice_buffer* buffer) {
    backend_state& state = state_of(plugin);
    void* memory = nullptr;
    checked_void("buffer_map", &state.host, [&] {
        object& one = object_of(buffer, &state);
        memory = state.real.buffer_map(state.plugin, real_of<sluice_buffer>(one));
    });
    return memory;
}

sluice_status checked_cache_block_bytes(sluice_plugin* plugin, const sluice_state* const* states,
                                        uint32_t state_count, uint32_t group, uint64_t* size_bytes,
                                        sluice_error* error) {
    return checked("cache_block_bytes", error, [&] {
        backend_state& state = state_of(plugin);
        return state.real.cache_block_bytes(state.plugin, states, state_count, group, size_bytes,
                                            error);
    });
}

sluice_status checked_cache_create(sluice_plugin* plugin, const sluice_state* const* states,
                                   uint32_t state_count, const uint32_t* block_count,
                                   uint32_t group_count, sluice_cache** cache_owned,
                                   sluice_error* error) {
    return checked("cache_create", error, [&] {
        backend_state& state = state_of(plugin);
        sluice_cache* cache = nullptr;
        const sluice_status status = state.real.cache_create(
            state.plugin, states, state_count, block_count, group_count, &cache, error);
        return deliver(state, status, cache, cache_owned);
    });
}

void checked_cache_destroy(sluice_plugin* plugin, sluice_cache* cache_owned) {
    backend_state& state = state_of(plugin);
    destroy("cache_destroy", state, cache_owned,
            [&](sluice_cache* cache) { state.real.cache_destroy(state.plugin, cache); });
}

sluice_status checked_cache_copy_blocks(sluice_plugin* plugin, sluice_cache* cache, uint32_t group,
                                        const int32_t* from, const int32_t* to, uint32_t count,
                                        sluice_error* error) {
    return checked("cache_copy_blocks", error, [&] {
        backend_state& state = state_of(plugin);
        object& one = object_of(cache, &state);
        const owner_call call = owned(one);
        return state.real.cache_copy_blocks(state.plugin, real_of<sluice_cache>(one), group, from,
                                            to, count, error);
    });
}

sluice_status checked_cache_read_block(sluice_plugin* plugin, const sluice_cache* cache,
                                       uint32_t group, int32_t block, void* data,
                                       sluice_error* error) {
    return checked("cache_read_block", error, [&] {
        backend_state& state = state_of(plugin);
        object& one = object_of(cache, &state);
        const owner_call call = owned(one);
        return state.real.cache_read_block(state.plugin, real_of<sluice_cache>(one), group, block,
                                           data, error);
    });
}

sluice_status checked_cache_write_block(sluice_plugin* plugin, sluice_cache* cache, uint32_t group,
                                        int32_t block, const void* data, sluice_error* error) {
    return checked("cache_write_block", error, [&] {
        backend_state& state = state_of(plugin);
        object& one = object_of(cache, &state);
        const owner_call call = owned(one);
        return state.real.cache_write_block(state.plugin, real_of<sluice_cache>(one), group, block,
                                            data, error);
    });
}

sluice_status checked_executable_create(sluice_plugin* plugin, const sluice_program* program,
                                        const sluice_compile_options* options,
                                        sluice_weight* const* weights,
                                        sluice_executable** executable_owned, sluice_error* error) {
    return checked("executable_create", error, [&] {
        backend_state& state = state_of(plugin);
        require_no_worker(state.host);
        if (program == nullptr || options == nullptr || weights == nullptr) {
            refuse("program, options or weights are NULL");
        }
        std::vector<sluice_weight*> real_weights(program->value_count, nullptr);
        std::vector<object*> uses;
        for (uint32_t i = 0; i < program->value_count; ++i) {
            const bool is_weight = program->values[i]->kind == SLUICE_VALUE_WEIGHT;
            if (is_weight != (weights[i] != nullptr)) {
                refuse("value {} {} a weight, but {} given", i, is_weight ? "is" : "is not",
                       is_weight ? "none is" : "one is");
            }
            if (!is_weight) continue;
            object& weight = object_of(weights[i], &state);
            uses.push_back(&weight);
            real_weights[i] = real_of<sluice_weight>(weight);
        }
        sluice_executable* executable = nullptr;
        const sluice_status status = state.real.executable_create(
            state.plugin, program, options, real_weights.data(), &executable, error);
        const sluice_status delivered =
            deliver(state, status, executable, executable_owned, std::move(uses));
        if (delivered == SLUICE_OK) {
            std::copy(std::begin(options->extent_max), std::end(options->extent_max),
                      reinterpret_cast<object*>(*executable_owned)->extents);
        }
        return delivered;
    });
}

void checked_executable_destroy(sluice_plugin* plugin, sluice_executable* executable_owned) {
    backend_state& state = state_of(plugin);
    destroy("executable_destroy", state, executable_owned, [&](sluice_executable* executable) {
        state.real.executable_destroy(state.plugin, executable);
    });
}

sluice_status checked_bind(sluice_executable* handle, const uint32_t* extents, sluice_cache* cache,
                           const sluice_binding* const* bindings, uint32_t binding_count,
                           sluice_bound** bound_owned, sluice_error* error) {
    return checked("bind", error, [&] {
        object& executable = object_of(handle);
        backend_state& state = *executable.state;
        for (uint32_t i = 1; i < SLUICE_EXTENT_COUNT; ++i) {
            if (extents[i] <= executable.extents[i]) continue;
            refuse("extent {} is {}; the executable was compiled for at most {}", i, extents[i],
                   executable.extents[i]);
        }
        std::vector<object*> uses = {&executable};
        sluice_cache* real_cache = nullptr;
        if (cache != nullptr) {
            object& one = object_of(cache, &state);
            uses.push_back(&one);
            real_cache = real_of<sluice_cache>(one);
        }
        std::vector<sluice_binding> real_bindings(binding_count, SLUICE_INIT(sluice_binding));
        std::vector<const sluice_binding*> pointers;
        for (uint32_t i = 0; i < binding_count; ++i) {
            object& buffer = object_of(bindings[i]->buffer, &state);
            uses.push_back(&buffer);
            real_bindings[i].value = bindings[i]->value;
            real_bindings[i].buffer = real_of<sluice_buffer>(buffer);
            real_bindings[i].offset_bytes = bindings[i]->offset_bytes;
            pointers.push_back(&real_bindings[i]);
        }
        sluice_bound* bound = nullptr;
        const sluice_status status =
            state.real.bind(real_of<sluice_executable>(executable), extents, real_cache,
                            pointers.data(), binding_count, &bound, error);
        const sluice_status delivered = deliver(state, status, bound, bound_owned, std::move(uses));
        if (delivered == SLUICE_OK) {
            std::copy(extents, extents + SLUICE_EXTENT_COUNT,
                      reinterpret_cast<object*>(*bound_owned)->extents);
        }
        return delivered;
    });
}

void checked_bound_destroy(sluice_bound* bound_owned) {
    checked_void("bound_destroy", host_of(bound_owned), [&] {
        object& bound = object_of(bound_owned);
        if (bound.state->is_running(bound))
            refuse("a submission of the bound executable still runs");
        bound.state->drop(bound);
        bound.state->real.bound_destroy(real_of<sluice_bound>(bound));
    });
}

void require_batch(const object& bound, const sluice_batch* batch) {
    if (batch == nullptr) refuse("the batch is NULL");
    const auto require = [&](uint32_t extent, uint32_t count, std::string_view what) {
        if (count > bound.extents[extent]) {
            refuse("{} {} are over the bound extent {}", count, what, bound.extents[extent]);
        }
    };
    require(SLUICE_EXTENT_TOKENS, batch->token_count, "token rows");
    require(SLUICE_EXTENT_SEQUENCES, batch->sequence_count, "sequences");
    require(SLUICE_EXTENT_LOGITS, batch->logit_count, "logit rows");
    require(SLUICE_EXTENT_BLOCKS, batch->block_table_columns, "columns of the block table");
    if (batch->decode_sequence_count > batch->sequence_count) {
        refuse("{} decoding sequences of {} in all", batch->decode_sequence_count,
               batch->sequence_count);
    }
}

sluice_status checked_plan(sluice_bound* handle, const sluice_batch* batch, sluice_error* error) {
    return checked("plan", error, [&] {
        object& bound = object_of(handle);
        const owner_call call = owned(bound);
        if (bound.state->is_running(bound))
            refuse("a submission of the bound executable still runs");
        require_batch(bound, batch);
        const sluice_status status =
            bound.state->real.plan(real_of<sluice_bound>(bound), batch, error);
        bound.planned = status == SLUICE_OK;
        return status;
    });
}

sluice_status checked_submit(sluice_bound* handle, sluice_queue* queue, sluice_event* const* waits,
                             uint32_t wait_count, sluice_event* done, sluice_error* error) {
    return checked("submit", error, [&] {
        object& bound = object_of(handle);
        backend_state& state = *bound.state;
        const owner_call call = owned(bound);
        if (!bound.planned) refuse("nothing was planned; its tag says state: planned");
        object& real_queue = object_of(queue, &state);
        object& event = object_of(done, &state);
        if (event.submitted && state.real.event_ended(real_of<sluice_event>(event)) == 0) {
            refuse("the event was given to a submission that has not ended");
        }
        std::vector<sluice_event*> real_waits;
        for (uint32_t i = 0; i < wait_count; ++i) {
            real_waits.push_back(real_of<sluice_event>(object_of(waits[i], &state)));
        }
        const sluice_status status =
            state.real.submit(real_of<sluice_bound>(bound), real_of<sluice_queue>(real_queue),
                              real_waits.data(), wait_count, real_of<sluice_event>(event), error);
        if (status == SLUICE_OK) {
            const std::lock_guard lock(state.mutex);
            // What the event told of another submission before, it tells no more.
            if (event.submission != nullptr) event.submission->submission = nullptr;
            if (bound.submission != nullptr) bound.submission->submission = nullptr;
            bound.submission = &event;
            event.submission = &bound;
            event.submitted = true;
        }
        return status;
    });
}

sluice_status checked_queue_create(sluice_plugin* plugin, sluice_queue** queue_owned,
                                   sluice_error* error) {
    return checked("queue_create", error, [&] {
        backend_state& state = state_of(plugin);
        sluice_queue* queue = nullptr;
        const sluice_status status = state.real.queue_create(state.plugin, &queue, error);
        return deliver(state, status, queue, queue_owned);
    });
}

void checked_queue_destroy(sluice_queue* queue_owned) {
    checked_void("queue_destroy", host_of(queue_owned), [&] {
        object& queue = object_of(queue_owned);
        queue.state->drop(queue);
        queue.state->real.queue_destroy(real_of<sluice_queue>(queue));
    });
}

sluice_status checked_event_create(sluice_plugin* plugin, sluice_event** event_owned,
                                   sluice_error* error) {
    return checked("event_create", error, [&] {
        backend_state& state = state_of(plugin);
        sluice_event* event = nullptr;
        const sluice_status status = state.real.event_create(state.plugin, &event, error);
        return deliver(state, status, event, event_owned);
    });
}

void checked_event_destroy(sluice_event* event_owned) {
    checked_void("event_destroy", host_of(event_owned), [&] {
        object& event = object_of(event_owned);
        if (event.submitted && event.state->real.event_ended(real_of<sluice_event>(event)) == 0) {
            refuse("the submission that signals the event has not ended");
        }
        event.state->drop(event);
        event.state->real.event_destroy(real_of<sluice_event>(event));
    });
}

sluice_status checked_event_wait(sluice_event* handle, sluice_error* error) {
    return checked("event_wait", error, [&] {
        object& event = object_of(handle);
        // A worker that waits for a submission waits for itself.
        if (event.submitted && event.state->real.event_ended(real_of<sluice_event>(event)) == 0) {
            require_no_worker(event.state->host);
        }
        return event.state->real.event_wait(real_of<sluice_event>(event), error);
    });
}

uint32_t checked_event_ended(sluice_event* handle) {
    uint32_t ended = 1;
    checked_void("event_ended", host_of(handle), [&] {
        object& event = object_of(handle);
        ended = event.state->real.event_ended(real_of<sluice_event>(event));
    });
    return ended;
}

sluice_status checked_measure(sluice_plugin* plugin, uint32_t measurement, double* value,
                              sluice_error* error) {
    return checked("measure", error, [&] {
        backend_state& state = state_of(plugin);
        require_no_worker(state.host);
        return state.real.measure(state.plugin, measurement, value, error);
    });
}

sluice_status checked_profile(sluice_bound* handle, double* seconds, uint32_t operation_count,
                              sluice_error* error) {
    return checked("profile", error, [&] {
        object& bound = object_of(handle);
        const owner_call call = owned(bound);
        return bound.state->real.profile(real_of<sluice_bound>(bound), seconds, operation_count,
                                         error);
    });
}

} // namespace

checked_backend::checked_backend(const sluice_backend& backend, sluice_plugin* plugin,
                                 host_table& host)
    : state_(std::make_unique<state>(backend, plugin, host)) {
    sluice_backend& table = state_->table;
    table.properties = checked_properties;
    table.claim = checked_claim;
    table.weight_size = checked_weight_size;
    table.weight_prepare = checked_weight_prepare;
    table.weight_destroy = checked_weight_destroy;
    table.weight_describe = checked_weight_describe;
    table.buffer_create = checked_buffer_create;
    table.buffer_destroy = checked_buffer_destroy;
    table.buffer_write = checked_buffer_write;
    table.buffer_read = checked_buffer_read;
    table.buffer_map = checked_buffer_map;
    table.cache_block_bytes = checked_cache_block_bytes;
    table.cache_create = checked_cache_create;
    table.cache_destroy = checked_cache_destroy;
    table.cache_copy_blocks = checked_cache_copy_blocks;
    table.cache_read_block = checked_cache_read_block;
    table.cache_write_block = checked_cache_write_block;
    table.executable_create = checked_executable_create;
    table.executable_destroy = checked_executable_destroy;
    table.bind = checked_bind;
    table.bound_destroy = checked_bound_destroy;
    table.plan = checked_plan;
    table.submit = checked_submit;
    table.queue_create = checked_queue_create;
    table.queue_destroy = checked_queue_destroy;
    table.event_create = checked_event_create;
    table.event_destroy = checked_event_destroy;
    table.event_wait = checked_event_wait;
    table.event_ended = checked_event_ended;
    table.measure = checked_measure;
    table.profile = checked_profile;
}

checked_backend::~checked_backend() = default;

const sluice_backend& checked_backend::table() const { return state_->table; }

sluice_plugin* checked_backend::handle() { return reinterpret_cast<sluice_plugin*>(state_.get()); }

void checked_backend::check_all_destroyed() {
    const std::lock_guard lock(state_->mutex);
    for (const auto& one : state_->objects) {
        if (one->alive) {
            state_->host.breach(fmt::format("checked mode: destroy: a {} was not destroyed before",
                                            kind_name(one->kind)));
        }
    }
}

} // namespace sluice
