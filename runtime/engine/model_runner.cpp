#include "engine/model_runner.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace sluice {

namespace {

// Bound executables kept at once. Each may hold memory for the activations of its sizes.
constexpr size_t bounds_max = 24;

// Counts that the host reads one by one lie apart, so that backends may align them.
constexpr uint64_t dropped_stride_bytes = 64;

std::vector<kv_group> groups_of(const program& step, uint64_t cache_tokens,
                                uint32_t tokens_per_block) {
    const auto blocks = uint32_t((cache_tokens + tokens_per_block - 1) / tokens_per_block);
    std::vector<kv_group> groups;
    std::vector<bool> windowed;
    for (const program_state& state : step.states()) {
        if (state.group >= groups.size()) {
            groups.resize(state.group + 1, {blocks, 0});
            windowed.resize(state.group + 1, true);
        }
        // Blocks may go only when no layer of the group looks back on them any more.
        if (state.kind != SLUICE_STATE_PAGED_WINDOW) windowed[state.group] = false;
        groups[state.group].window = std::max(groups[state.group].window, state.window);
    }
    for (size_t i = 0; i < groups.size(); ++i) {
        if (!windowed[i]) groups[i].window = 0;
    }
    // A program without state, such as a slice of one, is scheduled all the same.
    if (groups.empty()) groups.push_back({blocks, 0});
    return groups;
}

std::vector<uint32_t> block_counts_of(const std::vector<kv_group>& groups) {
    std::vector<uint32_t> counts;
    for (const kv_group& group : groups) counts.push_back(group.block_count);
    return counts;
}

} // namespace

model_runner::model_runner(std::shared_ptr<const loaded_model> model, runner_options options)
    : model_(std::move(model)),
      groups_(groups_of(model_->step_program(),
                        options.cache_tokens != 0 ? options.cache_tokens : model_->cache_tokens(),
                        model_->tokens_per_block())),
      segments_(*model_, block_counts_of(groups_)) {
    make_dropped_counts();
}

model_runner::~model_runner() {
    for (const bound_step& bound : bounds_) segments_.release(bound.segments);
}

void model_runner::make_dropped_counts() {
    for (const routed_layer& layer : model_->model().routed_layers) {
        if (layer.dropped == value_none) continue;
        const uint32_t placement = segments_.placement_of(layer.dropped);
        auto found = std::find_if(dropped_.begin(), dropped_.end(),
                                  [&](const auto& each) { return each.placement == placement; });
        if (found == dropped_.end()) {
            dropped_.push_back({placement, {}, {}, {}});
            found = dropped_.end() - 1;
        }
        found->values.push_back(layer.dropped);
    }
    for (dropped_counts& each : dropped_) {
        each.read.resize(each.values.size() * dropped_stride_bytes);
        each.buffer = device_buffer(model_->backend(each.placement), each.read.size());
    }
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
    std::string layout;
    for (const backend_report& each : model_->report().backends) {
        layout += fmt::format("{}{} {}", layout.empty() ? "" : ", ", each.id, each.version);
    }
    return block_key_root({model_->fingerprint(), format, layout, {}, tenant},
                          model_->tokens_per_block());
}

const device_buffer& model_runner::logits_buffer(uint32_t rows) {
    const auto found = logits_buffers_.find(rows);
    if (found != logits_buffers_.end()) return found->second;
    const plugin_instance& backend = model_->backend(segments_.placement_of(model_->logits()));
    const uint64_t size_bytes = uint64_t(rows) * vocabulary_size() * sizeof(float);
    return logits_buffers_.emplace(rows, device_buffer(backend, size_bytes)).first->second;
}

// ---- Binding ----

extent_sizes model_runner::extents_for(uint32_t tokens, uint32_t sequences, uint32_t logits,
                                       uint32_t columns) const {
    const extent_sizes largest = model_->extents_max();
    extent_sizes extents{};
    extents[SLUICE_EXTENT_TOKENS] = size_on_ladder(tokens, largest[SLUICE_EXTENT_TOKENS]);
    extents[SLUICE_EXTENT_SEQUENCES] = size_on_ladder(sequences, largest[SLUICE_EXTENT_SEQUENCES]);
    extents[SLUICE_EXTENT_LOGITS] =
        size_on_ladder(std::max(1u, logits), largest[SLUICE_EXTENT_LOGITS]);
    extents[SLUICE_EXTENT_BLOCKS] = size_on_ladder(columns, largest[SLUICE_EXTENT_BLOCKS]);
    return extents;
}

model_runner::bound_step& model_runner::bound_for(const extent_sizes& extents) {
    has_run_ = false;
    const auto found = std::find_if(bounds_.begin(), bounds_.end(), [&](const bound_step& bound) {
        return bound.extents == extents;
    });
    if (found != bounds_.end()) {
        bounds_.splice(bounds_.begin(), bounds_, found);
        return bounds_.front();
    }
    if (bounds_.size() >= bounds_max) {
        segments_.release(bounds_.back().segments);
        bounds_.pop_back();
    }
    bound_step added;
    added.extents = extents;
    added.logits = &logits_buffer(extents[SLUICE_EXTENT_LOGITS]);
    std::vector<segment_runner::output_buffer> outputs{
        {model_->logits(), added.logits->handle(), 0}};
    for (const dropped_counts& each : dropped_) {
        for (size_t i = 0; i < each.values.size(); ++i) {
            outputs.push_back({each.values[i], each.buffer.handle(), i * dropped_stride_bytes});
        }
    }
    added.segments = segments_.bind(extents, outputs);
    bounds_.push_front(std::move(added));
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
        if (!from.empty()) segments_.copy_blocks(group, from, to);
    }
}

std::span<const float> model_runner::run(const step_plan& plan) {
    const sluice_batch batch = plan.batch();
    copy_blocks(plan.copies);
    const bound_step& bound = bound_for(extents_for(batch.token_count, batch.sequence_count,
                                                    batch.logit_count, batch.block_table_columns));
    segments_.run(bound.segments, batch);
    has_run_ = true;
    count_dropped();
    return read_logits(bound, batch.logit_count);
}

std::span<const float> model_runner::read_logits(const bound_step& bound, uint32_t rows) {
    const size_t count = size_t(rows) * vocabulary_size();
    if (const void* mapped = bound.logits->mapped()) {
        return {static_cast<const float*>(mapped), count};
    }
    staging_.resize(count);
    bound.logits->read(0, staging_.data(), count * sizeof(float));
    return staging_;
}

void model_runner::count_dropped() {
    for (dropped_counts& each : dropped_) {
        each.buffer.read(0, each.read.data(), each.read.size());
        for (size_t i = 0; i < each.values.size(); ++i) {
            int32_t dropped = 0;
            std::memcpy(&dropped, each.read.data() + i * dropped_stride_bytes, sizeof dropped);
            dropped_assignments_ += uint64_t(std::max(0, dropped));
        }
    }
}

std::vector<double> model_runner::profile() const {
    if (!has_run_) return {};
    return segments_.profile(bounds_.front().segments);
}

} // namespace sluice
