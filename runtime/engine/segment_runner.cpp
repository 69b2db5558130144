#include "engine/segment_runner.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/cache_size.hpp"

#include <algorithm>

namespace sluice {

segment_runner::segment_runner(const loaded_model& model, const std::vector<uint32_t>& block_counts)
    : model_(model), buffers_(model), devices_(model.backend_count()),
      events_(model.partition().segments.size(), nullptr), running_(events_.size(), false) {
    try {
        for (uint32_t i = 0; i < devices_.size(); ++i) make_device(i, block_counts);
        for (uint32_t i = 0; i < events_.size(); ++i) {
            const plugin_instance& backend = backend_of(i);
            plugin_call call = backend.call("event_create");
            call = backend.backend().event_create(backend.handle(), &events_[i], call.error());
        }
    } catch (...) {
        destroy();
        throw;
    }
}

segment_runner::~segment_runner() { destroy(); }

void segment_runner::destroy() noexcept {
    for (uint32_t i = 0; i < events_.size(); ++i) {
        if (events_[i] != nullptr) backend_of(i).backend().event_destroy(events_[i]);
    }
    for (uint32_t i = 0; i < devices_.size(); ++i) {
        const plugin_instance& backend = model_.backend(i);
        if (devices_[i].queue != nullptr) backend.backend().queue_destroy(devices_[i].queue);
        if (devices_[i].cache != nullptr) {
            backend.backend().cache_destroy(backend.handle(), devices_[i].cache);
        }
    }
}

const plugin_instance& segment_runner::backend_of(uint32_t segment) const {
    return model_.backend(model_.partition().segments[segment].placement);
}

void segment_runner::make_device(uint32_t placement, const std::vector<uint32_t>& block_counts) {
    const plugin_instance& backend = model_.backend(placement);
    plugin_call queue_call = backend.call("queue_create");
    queue_call = backend.backend().queue_create(backend.handle(), &devices_[placement].queue,
                                                queue_call.error());
    // All segments of a placement that use states list the same ones.
    for (const program_segment& segment : model_.partition().segments) {
        if (segment.placement != placement || segment.part.states().empty()) continue;
        make_cache(backend, segment.part, block_counts, devices_[placement].cache);
        return;
    }
}

// An error of too little memory says how large a pool would fit.
void segment_runner::make_cache(const plugin_instance& backend, const program& part,
                                const std::vector<uint32_t>& block_counts,
                                sluice_cache*& made) const {
    const sluice_program* view = part.view();
    try {
        plugin_call call = backend.call("cache_create");
        call = backend.backend().cache_create(backend.handle(), view->states, view->state_count,
                                              block_counts.data(), uint32_t(block_counts.size()),
                                              &made, call.error());
    } catch (const error& caught) {
        if (SLUICE_STATUS_CLASS(caught.status()) != SLUICE_EXHAUSTED) throw;
        const uint64_t tokens =
            uint64_t(*std::max_element(block_counts.begin(), block_counts.end()))
            * model_.tokens_per_block();
        const uint64_t token_bytes = std::max<uint64_t>(1, cache_bytes_per_token(backend, part));
        const memory_room room = memory_room_of(backend);
        fail(caught.status(),
             "{}\nThe KV pool of {} tokens takes {} ({} a token), where {}; with "
             "engine.cache_tokens = {} it would fit, and \"auto\" takes what there is",
             caught.what(), tokens, bytes_text(tokens * token_bytes), bytes_text(token_bytes),
             room_text(room),
             cache_budget_bytes(room) / token_bytes / model_.tokens_per_block()
                 * model_.tokens_per_block());
    }
}

uint32_t segment_runner::placement_of(value_number output) const {
    for (const program_segment& segment : model_.partition().segments) {
        const value_number number = segment.find(output);
        if (number == value_none) continue;
        if (segment.part.value(number).kind == SLUICE_VALUE_RESULT) return segment.placement;
    }
    fail(SLUICE_INTERNAL, "no segment writes value {}", output);
}

// ---- Binding ----

segment_runner::bound_segments segment_runner::bind(const extent_sizes& extents,
                                                    std::span<const output_buffer> outputs) {
    bound_segments bound;
    try {
        for (uint32_t i = 0; i < events_.size(); ++i) {
            bound.push_back(bind_segment(i, extents, outputs));
        }
    } catch (...) {
        release(bound);
        throw;
    }
    return bound;
}

sluice_bound* segment_runner::bind_segment(uint32_t segment, const extent_sizes& extents,
                                           std::span<const output_buffer> outputs) {
    const program_segment& source = model_.partition().segments[segment];
    std::vector<sluice_binding> bindings = buffers_.bindings(segment);
    for (const output_buffer& output : outputs) {
        const value_number number = source.find(output.value);
        if (number == value_none) continue;
        if (source.part.value(number).kind != SLUICE_VALUE_RESULT) continue;
        auto binding = SLUICE_INIT(sluice_binding);
        binding.value = number;
        binding.buffer = output.buffer;
        binding.offset_bytes = output.offset_bytes;
        bindings.push_back(binding);
    }
    std::vector<const sluice_binding*> pointers;
    for (const sluice_binding& binding : bindings) pointers.push_back(&binding);
    const plugin_instance& backend = model_.backend(source.placement);
    sluice_cache* cache = source.part.states().empty() ? nullptr : devices_[source.placement].cache;
    sluice_bound* bound = nullptr;
    plugin_call call = backend.call("bind");
    call = backend.backend().bind(model_.executable(segment), extents.data(), cache,
                                  pointers.data(), uint32_t(pointers.size()), &bound, call.error());
    return bound;
}

void segment_runner::release(const bound_segments& bound) noexcept {
    for (uint32_t i = 0; i < bound.size(); ++i) backend_of(i).backend().bound_destroy(bound[i]);
}

// ---- Steps ----

void segment_runner::copy_blocks(uint32_t group, std::span<const int32_t> from,
                                 std::span<const int32_t> to) {
    for (uint32_t i = 0; i < devices_.size(); ++i) {
        if (devices_[i].cache == nullptr) continue;
        const plugin_instance& backend = model_.backend(i);
        plugin_call call = backend.call("cache_copy_blocks");
        call = backend.backend().cache_copy_blocks(backend.handle(), devices_[i].cache, group,
                                                   from.data(), to.data(), uint32_t(from.size()),
                                                   call.error());
    }
}

void segment_runner::run(const bound_segments& bound, const sluice_batch& batch,
                         const std::function<void()>& meanwhile) {
    for (uint32_t i = 0; i < bound.size(); ++i) {
        const plugin_instance& backend = backend_of(i);
        plugin_call call = backend.call("plan");
        call = backend.backend().plan(bound[i], &batch, call.error());
    }
    extent_sizes valid{};
    valid[SLUICE_EXTENT_TOKENS] = batch.token_count;
    valid[SLUICE_EXTENT_SEQUENCES] = batch.sequence_count;
    valid[SLUICE_EXTENT_LOGITS] = batch.logit_count;
    valid[SLUICE_EXTENT_BLOCKS] = batch.block_table_columns;
    std::exception_ptr failure;
    times_.submitted = std::chrono::steady_clock::now();
    try {
        auto transfer = buffers_.transfers().begin();
        for (uint32_t i = 0; i < bound.size(); ++i) {
            for (; transfer != buffers_.transfers().end() && transfer->crossing.first_reader == i;
                 ++transfer) {
                wait(transfer->crossing.writer);
                wait(transfer->former_user);
                buffers_.copy(*transfer, valid);
            }
            submit(i, bound[i]);
        }
        if (meanwhile) meanwhile();
    } catch (...) {
        failure = std::current_exception();
    }
    wait_all(failure);
    times_.ended = std::chrono::steady_clock::now();
    if (failure) std::rethrow_exception(failure);
}

void segment_runner::submit(uint32_t segment, sluice_bound* bound) {
    const uint32_t placement = model_.partition().segments[segment].placement;
    const plugin_instance& backend = model_.backend(placement);
    plugin_call call = backend.call("submit");
    call = backend.backend().submit(bound, devices_[placement].queue, nullptr, 0, events_[segment],
                                    call.error());
    running_[segment] = true;
}

void segment_runner::wait(uint32_t segment) {
    if (segment == segment_buffers::no_segment || !running_[segment]) return;
    running_[segment] = false; // also when it failed: it has ended then
    const plugin_instance& backend = backend_of(segment);
    plugin_call call = backend.call("event_wait");
    call = backend.backend().event_wait(events_[segment], call.error());
}

// Waits for everything, whatever fails on the way, and keeps the first failure.
void segment_runner::wait_all(std::exception_ptr& failure) {
    for (uint32_t i = 0; i < events_.size(); ++i) {
        try {
            wait(i);
        } catch (...) {
            if (!failure) failure = std::current_exception();
        }
    }
}

std::vector<double> segment_runner::profile(const bound_segments& bound) const {
    std::vector<double> whole(model_.step_program().operations().size());
    for (uint32_t i = 0; i < bound.size(); ++i) {
        const std::vector<uint32_t>& operations = model_.partition().segments[i].operations;
        std::vector<double> seconds(operations.size());
        auto failure = SLUICE_INIT(sluice_error);
        const sluice_status status = backend_of(i).backend().profile(
            bound[i], seconds.data(), uint32_t(seconds.size()), &failure);
        if (SLUICE_STATUS_CLASS(status) == SLUICE_UNSUPPORTED) return {};
        check(status, failure, backend_of(i).id(), "profile");
        for (size_t k = 0; k < seconds.size(); ++k) whole[operations[k]] = seconds[k];
    }
    return whole;
}

} // namespace sluice
