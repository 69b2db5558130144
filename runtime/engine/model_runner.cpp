#include "engine/model_runner.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace sluice {

namespace {

// Bound executables kept at once. Each may hold memory for the activations of its sizes.
constexpr size_t bounds_max = 24;

// Counts that the host reads one by one lie apart, so that backends may align them.
constexpr uint64_t dropped_stride_bytes = 64;

std::vector<kv_group> groups_of(const program& step, uint64_t cache_tokens,
                                uint32_t tokens_per_block) {
    std::vector<kv_group> groups;
    std::vector<bool> windowed;
    for (const program_state& state : step.states()) {
        if (state.group >= groups.size()) {
            groups.resize(state.group + 1, {uint32_t(cache_tokens / tokens_per_block), 0});
            windowed.resize(state.group + 1, true);
        }
        // Blocks may go only when no layer of the group looks back on them any more.
        if (state.kind != SLUICE_STATE_PAGED_WINDOW) windowed[state.group] = false;
        groups[state.group].window = std::max(groups[state.group].window, state.window);
    }
    for (size_t i = 0; i < groups.size(); ++i) {
        if (!windowed[i]) groups[i].window = 0;
    }
    return groups;
}

} // namespace

model_runner::model_runner(std::shared_ptr<const loaded_model> model, runner_options options)
    : model_(std::move(model)), table_(model_->backend().backend()),
      plugin_(model_->backend().handle()) {
    try {
        make_cache(options);
        plugin_call queue_call = model_->backend().call("queue_create");
        queue_call = table_.queue_create(plugin_, &queue_, queue_call.error());
        plugin_call event_call = model_->backend().call("event_create");
        event_call = table_.event_create(plugin_, &event_, event_call.error());
        for (const routed_layer& layer : model_->model().routed_layers) {
            if (layer.dropped != value_none) dropped_values_.push_back(layer.dropped);
        }
        if (!dropped_values_.empty()) {
            dropped_buffer_ = make_buffer(dropped_values_.size() * dropped_stride_bytes);
        }
    } catch (...) {
        destroy();
        throw;
    }
}

model_runner::~model_runner() { destroy(); }

void model_runner::destroy() noexcept {
    for (const bound_step& bound : bounds_) table_.bound_destroy(bound.handle);
    for (const auto& [rows, buffer] : logits_buffers_) table_.buffer_destroy(plugin_, buffer);
    if (dropped_buffer_ != nullptr) table_.buffer_destroy(plugin_, dropped_buffer_);
    if (event_ != nullptr) table_.event_destroy(event_);
    if (queue_ != nullptr) table_.queue_destroy(queue_);
    if (cache_ != nullptr) table_.cache_destroy(plugin_, cache_);
}

void model_runner::make_cache(const runner_options& options) {
    const uint32_t block = model_->tokens_per_block();
    const uint64_t tokens =
        options.cache_tokens != 0 ? options.cache_tokens : model_->cache_tokens();
    groups_ = groups_of(model_->step_program(), (tokens + block - 1) / block * block, block);
    if (groups_.empty()) {
        groups_.push_back({uint32_t((tokens + block - 1) / block), 0});
        return; // a program without state, such as a slice of one
    }
    std::vector<uint32_t> block_counts;
    for (const kv_group& group : groups_) block_counts.push_back(group.block_count);
    const sluice_program* view = model_->step_program().view();
    plugin_call call = model_->backend().call("cache_create");
    call = table_.cache_create(plugin_, view->states, view->state_count, block_counts.data(),
                               uint32_t(block_counts.size()), &cache_, call.error());
}

kv_pool_options model_runner::pool_options() const {
    return {model_->tokens_per_block(), groups_, model_->prefix_reuse()};
}

sluice_block_key model_runner::root_key(std::string_view tenant) const {
    std::string format;
    for (const program_state& state : model_->step_program().states()) {
        for (const sluice_element_type type : state.part_type) {
            format += fmt::format("{} ", element_type_name(type));
        }
    }
    const explain_report& report = model_->report();
    const std::string layout = fmt::format("{} {}", report.backend, report.backend_version);
    return block_key_root({model_->fingerprint(), format, layout, {}, tenant},
                          model_->tokens_per_block());
}

sluice_buffer* model_runner::make_buffer(uint64_t size_bytes) {
    sluice_buffer* buffer = nullptr;
    plugin_call call = model_->backend().call("buffer_create");
    call = table_.buffer_create(plugin_, size_bytes, &buffer, call.error());
    return buffer;
}

sluice_buffer* model_runner::logits_buffer(uint32_t rows) {
    const auto found = logits_buffers_.find(rows);
    if (found != logits_buffers_.end()) return found->second;
    sluice_buffer* buffer = make_buffer(uint64_t(rows) * vocabulary_size() * sizeof(float));
    logits_buffers_.emplace(rows, buffer);
    return buffer;
}

// ---- Binding ----

model_runner::extent_key model_runner::extents_for(uint32_t tokens, uint32_t sequences,
                                                   uint32_t logits, uint32_t columns) const {
    const uint32_t columns_max = (model_->context_tokens_max() + model_->tokens_per_block() - 1)
                                 / model_->tokens_per_block();
    extent_key extents{};
    extents[SLUICE_EXTENT_TOKENS] = size_on_ladder(tokens, model_->tokens_per_step_max());
    extents[SLUICE_EXTENT_SEQUENCES] = size_on_ladder(sequences, model_->sequences_max());
    extents[SLUICE_EXTENT_LOGITS] =
        size_on_ladder(std::max(1u, logits), model_->tokens_per_step_max());
    extents[SLUICE_EXTENT_BLOCKS] = size_on_ladder(columns, columns_max);
    return extents;
}

model_runner::bound_step& model_runner::bound_for(const extent_key& extents) {
    const auto found = std::find_if(bounds_.begin(), bounds_.end(), [&](const bound_step& bound) {
        return bound.extents == extents;
    });
    if (found != bounds_.end()) {
        bounds_.splice(bounds_.begin(), bounds_, found);
        return bounds_.front();
    }
    if (bounds_.size() >= bounds_max) {
        if (bounds_.back().handle == last_bound_) last_bound_ = nullptr;
        table_.bound_destroy(bounds_.back().handle);
        bounds_.pop_back();
    }
    bound_step added;
    added.extents = extents;
    added.logits = logits_buffer(extents[SLUICE_EXTENT_LOGITS]);
    std::vector<sluice_binding> bindings;
    const auto bind_value = [&](value_number value, sluice_buffer* buffer, uint64_t offset_bytes) {
        auto binding = SLUICE_INIT(sluice_binding);
        binding.value = value;
        binding.buffer = buffer;
        binding.offset_bytes = offset_bytes;
        bindings.push_back(binding);
    };
    bind_value(model_->logits(), added.logits, 0);
    for (size_t i = 0; i < dropped_values_.size(); ++i) {
        bind_value(dropped_values_[i], dropped_buffer_, i * dropped_stride_bytes);
    }
    std::vector<const sluice_binding*> pointers;
    for (const sluice_binding& binding : bindings) pointers.push_back(&binding);
    plugin_call call = model_->backend().call("bind");
    call = table_.bind(model_->executable(), extents.data(), cache_, pointers.data(),
                       uint32_t(pointers.size()), &added.handle, call.error());
    bounds_.push_front(added);
    return bounds_.front();
}

void model_runner::warm(uint32_t tokens, uint32_t sequences, uint32_t logits,
                        uint32_t context_tokens) {
    const uint32_t columns =
        (context_tokens + model_->tokens_per_block() - 1) / model_->tokens_per_block();
    bound_for(extents_for(tokens, sequences, logits, std::max(1u, columns)));
}

// ---- Steps ----

void model_runner::copy_blocks(std::span<const kv_block_copy> copies) {
    for (uint32_t group = 0; group < groups_.size(); ++group) {
        std::vector<int32_t> from, to;
        for (const kv_block_copy& copy : copies) {
            if (copy.group != group) continue;
            from.push_back(copy.from);
            to.push_back(copy.to);
        }
        if (from.empty()) continue;
        plugin_call call = model_->backend().call("cache_copy_blocks");
        call = table_.cache_copy_blocks(plugin_, cache_, group, from.data(), to.data(),
                                        uint32_t(from.size()), call.error());
    }
}

std::span<const float> model_runner::run(const step_plan& plan) {
    const sluice_batch batch = plan.batch();
    copy_blocks(plan.copies);
    const bound_step& bound = bound_for(extents_for(batch.token_count, batch.sequence_count,
                                                    batch.logit_count, batch.block_table_columns));
    last_bound_ = bound.handle;
    plugin_call plan_call = model_->backend().call("plan");
    plan_call = table_.plan(bound.handle, &batch, plan_call.error());
    plugin_call submit_call = model_->backend().call("submit");
    submit_call = table_.submit(bound.handle, queue_, nullptr, 0, event_, submit_call.error());
    plugin_call wait_call = model_->backend().call("event_wait");
    wait_call = table_.event_wait(event_, wait_call.error());
    count_dropped();
    return read_logits(bound, batch.logit_count);
}

std::span<const float> model_runner::read_logits(const bound_step& bound, uint32_t rows) {
    const size_t count = size_t(rows) * vocabulary_size();
    if (const void* mapped = table_.buffer_map(plugin_, bound.logits)) {
        return {static_cast<const float*>(mapped), count};
    }
    staging_.resize(count);
    plugin_call call = model_->backend().call("buffer_read");
    call = table_.buffer_read(plugin_, bound.logits, 0, staging_.data(), count * sizeof(float),
                              call.error());
    return staging_;
}

void model_runner::count_dropped() {
    for (size_t i = 0; i < dropped_values_.size(); ++i) {
        int32_t dropped = 0;
        plugin_call call = model_->backend().call("buffer_read");
        call = table_.buffer_read(plugin_, dropped_buffer_, i * dropped_stride_bytes, &dropped,
                                  sizeof dropped, call.error());
        dropped_assignments_ += uint64_t(std::max(0, dropped));
    }
}

std::vector<double> model_runner::profile() const {
    if (last_bound_ == nullptr) return {};
    std::vector<double> seconds(model_->step_program().operations().size());
    auto error = SLUICE_INIT(sluice_error);
    const sluice_status status =
        table_.profile(last_bound_, seconds.data(), uint32_t(seconds.size()), &error);
    if (SLUICE_STATUS_CLASS(status) == SLUICE_UNSUPPORTED) return {};
    check(status, error, model_->backend().id(), "profile");
    return seconds;
}

} // namespace sluice
