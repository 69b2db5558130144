#include "engine/segment_buffers.hpp"

#include <algorithm>
#include <cstring>

namespace sluice {

segment_buffers::segment_buffers(const loaded_model& model) : model_(model) {
    for (const value_crossing& each : crossings_of(model.step_program(), model.partition())) {
        transfers_.push_back({each, no_segment});
    }
    plan(stays());
    add_constants();
}

std::vector<segment_buffers::stay> segment_buffers::stays() const {
    const program_partition& partition = model_.partition();
    std::map<place, stay> found;
    for (const passed_value& passed : partition.passed) {
        const uint32_t from = partition.segments[passed.writer].placement;
        stay& source = found[{passed.value, from}];
        source = {{passed.value, from}, passed.writer, passed.writer, passed.writer};
        for (const uint32_t reader : passed.readers) {
            const uint32_t to = partition.segments[reader].placement;
            const auto [target, is_new] =
                found.try_emplace({passed.value, to}, stay{{passed.value, to}, reader, 0, 0});
            target->second.end = target->second.last_use = reader;
            // What is copied must be there when the copy is made, just before its first reader.
            if (is_new) found[{passed.value, from}].end = reader;
        }
    }
    std::vector<stay> sorted;
    for (const auto& [at, each] : found) sorted.push_back(each);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const stay& left, const stay& right) { return left.begin < right.begin; });
    return sorted;
}

// Each stay takes the smallest memory that is free and large enough, or else new memory.
void segment_buffers::plan(const std::vector<stay>& stays) {
    std::vector<slot> slots;
    for (const stay& each : stays) {
        const auto [value, placement] = each.at;
        const uint64_t size_bytes =
            valid_bytes(model_.step_program().value(value), model_.extents_max());
        slot* chosen = nullptr;
        for (slot& free : slots) {
            if (free.placement != placement || free.size_bytes < size_bytes) continue;
            if (free.end >= each.begin) continue;
            if (chosen == nullptr || free.size_bytes < chosen->size_bytes) chosen = &free;
        }
        uint32_t former_user = no_segment;
        if (chosen == nullptr) {
            slots.push_back({placement, size_bytes, 0, 0});
            chosen = &slots.back();
        } else {
            former_user = chosen->last_use;
        }
        chosen->end = each.end;
        chosen->last_use = each.last_use;
        buffer_of_[each.at] = size_t(chosen - slots.data());
        for (transfer& copied : transfers_) {
            if (copied.crossing.value == value && copied.crossing.to == placement) {
                copied.former_user = former_user;
            }
        }
    }
    for (const slot& each : slots) {
        buffers_.emplace_back(model_.backend(each.placement),
                              std::max<uint64_t>(each.size_bytes, 1));
        // A backend that pads reads rows that nobody writes: they should at least be numbers.
        const std::vector<std::byte> zeros(each.size_bytes);
        buffers_.back().write(0, zeros.data(), zeros.size());
    }
}

void segment_buffers::add_constants() {
    for (const constant_input& constant : model_.constants()) {
        for (const program_segment& segment : model_.partition().segments) {
            const place at{constant.value, segment.placement};
            if (segment.find(constant.value) == value_none || buffer_of_.contains(at)) continue;
            const uint64_t size_bytes = constant.values.size() * sizeof(int32_t);
            buffer_of_[at] = buffers_.size();
            buffers_.emplace_back(model_.backend(segment.placement), size_bytes);
            buffers_.back().write(0, constant.values.data(), size_bytes);
        }
    }
}

std::vector<sluice_binding> segment_buffers::bindings(uint32_t segment) const {
    const program_segment& bound = model_.partition().segments[segment];
    std::vector<sluice_binding> result;
    for (value_number i = 0; i < bound.values.size(); ++i) {
        const auto found = buffer_of_.find({bound.values[i], bound.placement});
        if (found == buffer_of_.end()) continue;
        auto binding = SLUICE_INIT(sluice_binding);
        binding.value = i;
        binding.buffer = buffers_[found->second].handle();
        result.push_back(binding);
    }
    return result;
}

void segment_buffers::copy(const transfer& made, const extent_sizes& extents) {
    const value_crossing& crossing = made.crossing;
    const program_value& value = model_.step_program().value(crossing.value);
    const uint64_t size_bytes = valid_bytes(value, extents);
    if (size_bytes == 0) return;
    const uint64_t whole_bytes = size_bytes + padding_bytes(value, extents);
    const device_buffer& source = buffers_[buffer_of_.at({crossing.value, crossing.from})];
    device_buffer& target = buffers_[buffer_of_.at({crossing.value, crossing.to})];
    const std::byte* readable = source.mapped();
    std::byte* writable = target.mapped();
    if (readable != nullptr && writable == nullptr && whole_bytes == size_bytes) {
        target.write(0, readable, size_bytes);
        return;
    }
    if (writable == nullptr) staging_.resize(std::max<size_t>(staging_.size(), whole_bytes));
    std::byte* to = writable != nullptr ? writable : staging_.data();
    if (readable != nullptr) {
        std::memcpy(to, readable, size_bytes);
    } else {
        source.read(0, to, size_bytes);
    }
    std::memset(to + size_bytes, 0xff, whole_bytes - size_bytes);
    if (writable == nullptr) target.write(0, to, whole_bytes);
}

// Numbers of experts and rows are -1 in rows of padding, as the operation that wrote them would
// have left them there: what an earlier step left would be computed for nothing.
uint64_t segment_buffers::padding_bytes(const program_value& value,
                                        const extent_sizes& extents) const {
    const bool has_padding = value.element_type == SLUICE_I32 && !value.dimensions.empty()
                             && value.dimensions[0].extent == SLUICE_EXTENT_TOKENS;
    if (!has_padding) return 0;
    extent_sizes padded = extents;
    uint32_t& tokens = padded[SLUICE_EXTENT_TOKENS];
    tokens = size_on_ladder(tokens, model_.extents_max()[SLUICE_EXTENT_TOKENS]);
    return valid_bytes(value, padded) - valid_bytes(value, extents);
}

} // namespace sluice
