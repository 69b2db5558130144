#include "engine/model_runner.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace sluice {

namespace {

// Bound executables kept at once, besides those that were warmed. Each may hold memory for the
// activations of its sizes.
constexpr size_t cold_bounds_max = 24;

// Outputs that share a buffer lie apart, so that backends may align them.
constexpr uint64_t output_alignment_bytes = 64;

uint64_t aligned(uint64_t size_bytes) {
    return (size_bytes + output_alignment_bytes - 1) / output_alignment_bytes
           * output_alignment_bytes;
}

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
      segments_(*model_, block_counts_of(groups_)), bounds_max_(cold_bounds_max) {
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
        each.read.resize(each.values.size() * output_alignment_bytes);
        each.buffer = device_buffer(model_->backend(each.placement), each.read.size());
    }
}

kv_pool_options model_runner::pool_options() const {
    return {model_->tokens_per_block(), groups_, model_->prefix_reuse()};
}

sluice_block_key model_runner::root_key(std::string_view tenant) const {
    std::string format;
    for (const program_state& state : model_->step_program().states()) {
        for (size_t part = 0; part < state.part_type.size(); ++part) {
            format += fmt::format("{} ", element_type_name(state.part_type[part]));
            if (state.group_of(part) != 0) format += fmt::format("by {} ", state.group_of(part));
        }
    }
    std::string layout;
    for (const backend_report& each : model_->report().backends) {
        layout += fmt::format("{}{} {}", layout.empty() ? "" : ", ", each.id, each.version);
    }
    return block_key_root({model_->fingerprint(), format, layout, {}, tenant},
                          model_->tokens_per_block());
}

const model_runner::logit_buffers& model_runner::buffers_for(uint32_t rows) {
    const auto found = logit_buffers_.find(rows);
    if (found != logit_buffers_.end()) return found->second;
    logit_buffers made;
    made.logits = device_buffer(model_->backend(segments_.placement_of(model_->logits())),
                                uint64_t(rows) * vocabulary_size() * sizeof(float));
    if (model_->sampled().token != value_none) {
        made.probability_begin = aligned(rows * sizeof(int32_t));
        made.sampled =
            device_buffer(model_->backend(segments_.placement_of(model_->sampled().token)),
                          made.probability_begin + rows * sizeof(float));
    }
    return logit_buffers_.emplace(rows, std::move(made)).first->second;
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
    extents[SLUICE_EXTENT_BLOCKS] = columns_on_ladder(columns, largest[SLUICE_EXTENT_BLOCKS]);
    return extents;
}

// Sizes that were not used for longest make room, in number and in memory.
model_runner::bound_step& model_runner::bound_for(const extent_sizes& extents) {
    has_run_ = false;
    const auto found = std::find_if(bounds_.begin(), bounds_.end(), [&](const bound_step& bound) {
        return bound.extents == extents;
    });
    if (found != bounds_.end()) {
        bounds_.splice(bounds_.begin(), bounds_, found);
        return bounds_.front();
    }
    if (bounds_.size() >= bounds_max_) release_oldest();
    for (;;) {
        try {
            bounds_.push_front(bind(extents));
            return bounds_.front();
        } catch (const error& caught) {
            if (SLUICE_STATUS_CLASS(caught.status()) != SLUICE_EXHAUSTED || bounds_.empty()) throw;
            release_oldest();
        }
    }
}

model_runner::bound_step model_runner::bind(const extent_sizes& extents) {
    bound_step made;
    made.extents = extents;
    made.results = &buffers_for(extents[SLUICE_EXTENT_LOGITS]);
    std::vector<segment_runner::output_buffer> outputs{
        {model_->logits(), made.results->logits.handle(), 0}};
    if (const sampled_values& sampled = model_->sampled(); sampled.token != value_none) {
        sluice_buffer* buffer = made.results->sampled.handle();
        outputs.push_back({sampled.token, buffer, 0});
        outputs.push_back({sampled.log_probability, buffer, made.results->probability_begin});
    }
    for (const dropped_counts& each : dropped_) {
        for (size_t i = 0; i < each.values.size(); ++i) {
            outputs.push_back({each.values[i], each.buffer.handle(), i * output_alignment_bytes});
        }
    }
    made.segments = segments_.bind(extents, outputs);
    return made;
}

void model_runner::release_oldest() {
    segments_.release(bounds_.back().segments);
    bounds_.pop_back();
}

std::vector<extent_sizes> model_runner::sizes_of(warm_sizes which,
                                                 uint32_t draft_tokens_max) const {
    std::vector<extent_sizes> sizes;
    if (which == warm_sizes::none) return sizes;
    const extent_sizes largest = model_->extents_max();
    const auto add = [&](uint32_t tokens, uint32_t sequences, uint32_t logits, uint32_t columns) {
        const extent_sizes extents = extents_for(tokens, sequences, logits, columns);
        if (std::find(sizes.begin(), sizes.end(), extents) == sizes.end()) sizes.push_back(extents);
    };
    const uint32_t tokens_max = largest[SLUICE_EXTENT_TOKENS];
    const std::vector<uint32_t> prompts =
        which == warm_sizes::all ? size_ladder(tokens_max) : std::vector<uint32_t>{tokens_max};
    for (const uint32_t columns : column_ladder(largest[SLUICE_EXTENT_BLOCKS])) {
        for (const uint32_t sequences : size_ladder(largest[SLUICE_EXTENT_SEQUENCES])) {
            const uint64_t rows_max = uint64_t(sequences) * (1 + draft_tokens_max);
            for (const uint32_t rows : size_ladder(tokens_max)) {
                if (rows < sequences || rows > rows_max) continue;
                add(rows, sequences, rows, columns); // every row's logits are wanted
            }
        }
        for (const uint32_t tokens : prompts) {
            if (uint64_t(columns) * model_->tokens_per_block() >= tokens)
                add(tokens, 1, 1, columns);
        }
    }
    return sizes;
}

size_t model_runner::warm(warm_sizes which, uint32_t draft_tokens_max) {
    const std::vector<extent_sizes> sizes = sizes_of(which, draft_tokens_max);
    if (sizes.empty()) return 0;
    bounds_max_ = cold_bounds_max + sizes.size();
    host_services& services = model_->services();
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = 0; i < sizes.size(); ++i) {
        const extent_sizes& size = sizes[i];
        services.log(log_level::debug,
                     "preparing steps, {} of {}: {} tokens, {} sequences, {} block columns", i + 1,
                     sizes.size(), size[SLUICE_EXTENT_TOKENS], size[SLUICE_EXTENT_SEQUENCES],
                     size[SLUICE_EXTENT_BLOCKS]);
        bound_for(size);
    }
    services.log(log_level::info, "{} sizes of steps prepared in {:.2f} s", bounds_.size(),
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    if (bounds_.size() < sizes.size()) {
        services.log(log_level::warning,
                     "memory has room for {} of {} sizes of steps; the others make room when they "
                     "are needed",
                     bounds_.size(), sizes.size());
    }
    return bounds_.size();
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

void model_runner::run(const step_plan& plan, const std::function<void()>& meanwhile) {
    const sluice_batch batch = plan.batch();
    copy_blocks(plan.copies);
    const bound_step& bound = bound_for(extents_for(batch.token_count, batch.sequence_count,
                                                    batch.logit_count, batch.block_table_columns));
    segments_.run(bound.segments, batch, meanwhile);
    has_run_ = true;
    logit_rows_ = batch.logit_count;
    count_dropped();
}

const model_runner::bound_step& model_runner::last_step() const {
    if (!has_run_) fail(SLUICE_INTERNAL, "results of a step are read, but none has run");
    return bounds_.front();
}

std::span<const float> model_runner::logits() {
    const device_buffer& buffer = last_step().results->logits;
    const size_t count = size_t(logit_rows_) * vocabulary_size();
    if (const void* mapped = buffer.mapped()) return {static_cast<const float*>(mapped), count};
    staging_.resize(count);
    buffer.read(0, staging_.data(), count * sizeof(float));
    return staging_;
}

std::span<const sampled_token> model_runner::greedy() {
    const logit_buffers& results = *last_step().results;
    if (model_->sampled().token == value_none || logit_rows_ == 0) return {};
    const std::byte* bytes = results.sampled.mapped();
    if (bytes == nullptr) {
        const size_t size_bytes = results.probability_begin + logit_rows_ * sizeof(float);
        sampled_staging_.resize(size_bytes);
        results.sampled.read(0, sampled_staging_.data(), size_bytes);
        bytes = sampled_staging_.data();
    }
    greedy_.resize(logit_rows_);
    for (uint32_t i = 0; i < logit_rows_; ++i) {
        std::memcpy(&greedy_[i].token, bytes + i * sizeof(int32_t), sizeof(int32_t));
        std::memcpy(&greedy_[i].log_probability,
                    bytes + results.probability_begin + i * sizeof(float), sizeof(float));
    }
    return greedy_;
}

void model_runner::count_dropped() {
    for (dropped_counts& each : dropped_) {
        each.buffer.read(0, each.read.data(), each.read.size());
        for (size_t i = 0; i < each.values.size(); ++i) {
            int32_t dropped = 0;
            std::memcpy(&dropped, each.read.data() + i * output_alignment_bytes, sizeof dropped);
            dropped_assignments_ += uint64_t(std::max(0, dropped));
        }
    }
}

std::vector<double> model_runner::profile() const {
    if (!has_run_) return {};
    return segments_.profile(bounds_.front().segments);
}

} // namespace sluice
