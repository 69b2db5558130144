#include "engine/weight_store.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/cache_size.hpp"

#include <fmt/format.h>

namespace sluice {

std::string weight_format_text(const sluice_weight_format& format) {
    std::string text(element_type_name(format.element_type));
    if (format.scale_type != SLUICE_ELEMENT_UNKNOWN) {
        if (format.group_rows > 1) {
            text += fmt::format(" in blocks of {} x {}", format.group_rows, format.group_columns);
        } else if (format.group_columns > 0) {
            text += fmt::format(" in groups of {}", format.group_columns);
        } else {
            text += " by row";
        }
        text += fmt::format(", scales {}", element_type_name(format.scale_type));
    }
    if (format.layout == SLUICE_WEIGHT_GPTQ) text += ", GPTQ layout";
    return text;
}

weight_store::weight_store(std::shared_ptr<const checkpoint> files,
                           std::vector<std::shared_ptr<plugin_instance>> backends)
    : files_(std::move(files)), backends_(std::move(backends)), shelves_(backends_.size()) {}

weight_store::~weight_store() {
    for (size_t i = 0; i < shelves_.size(); ++i) {
        for (sluice_weight* weight : shelves_[i].prepared) {
            if (weight == nullptr) continue;
            backends_[i]->backend().weight_destroy(backends_[i]->handle(), weight);
        }
    }
}

// A weight has the roles of all its uses on one backend together.
void weight_store::note_roles(const program& whole, const program_partition& partition) {
    for (shelf& each : shelves_) {
        each.roles.assign(whole.values().size(), 0);
        each.prepared.assign(whole.values().size(), nullptr);
    }
    for (const program_segment& segment : partition.segments) {
        std::vector<uint32_t>& roles = shelves_[segment.placement].roles;
        for (size_t i = 0; i < segment.values.size(); ++i) {
            roles[segment.values[i]] |= segment.part.values()[i].weight_role;
        }
    }
}

// Before anything is read: what does not fit should not be found out after minutes.
void weight_store::check_room(const program& whole,
                              std::span<const weight_request> requests) const {
    for (size_t i = 0; i < shelves_.size(); ++i) {
        const plugin_instance& backend = *backends_[i];
        const memory_room room = memory_room_of(backend);
        // The machine's own memory may hold the checkpoint's pages, which make room.
        if (room.is_host || room.total_bytes == 0) continue;
        uint64_t needed = 0;
        for (const weight_request& request : requests) {
            const uint32_t roles = shelves_[i].roles[request.value];
            if (roles == 0) continue;
            bound_weight bound =
                bind_weight(*files_, request, whole.value(request.value).weight_format);
            uint64_t size_bytes = 0;
            plugin_call call = backend.call("weight_size");
            call = backend.backend().weight_size(backend.handle(), bound.source(), roles,
                                                 &size_bytes, call.error());
            needed += size_bytes;
        }
        if (needed <= room.free_bytes) continue;
        fail(
            SLUICE_EXHAUSTED,
            "the weights take {} on backend \"{}\", where {}; use a checkpoint of fewer bits "
            "(sluice quantize), or place experts in the machine's own memory: \"layers.*.experts\" "
            "= \"onednn\" under [placement]",
            bytes_text(needed), backend.id(), room_text(room));
    }
}

std::vector<weight_report> weight_store::prepare(const program& whole,
                                                 std::span<const weight_request> requests,
                                                 const program_partition& partition,
                                                 const progress& on_progress) {
    note_roles(whole, partition);
    check_room(whole, requests);
    const auto stored_bytes = [&](const weight_request& request) {
        return weight_bytes(whole.value(request.value).weight_format, request.row_count,
                            request.column_count)
               * request.matrix_count;
    };
    uint64_t total = 0;
    for (const weight_request& request : requests) total += stored_bytes(request);
    uint64_t done = 0;
    std::vector<weight_report> reports;
    for (const weight_request& request : requests) {
        if (on_progress) on_progress(done, total);
        for (size_t i = 0; i < shelves_.size(); ++i) {
            // A router that is a sub-program may have no use for one of the model's weights.
            if (shelves_[i].roles[request.value] == 0) continue;
            reports.push_back(prepare_on(i, request, whole.value(request.value)));
            reports.back().stored_bytes = stored_bytes(request);
        }
        done += stored_bytes(request);
    }
    if (on_progress) on_progress(total, total);
    return reports;
}

weight_report weight_store::prepare_on(size_t placement, const weight_request& request,
                                       const program_value& value) {
    const plugin_instance& backend = *backends_[placement];
    const sluice_backend& table = backend.backend();
    const uint32_t roles = shelves_[placement].roles[request.value];
    sluice_weight*& prepared = shelves_[placement].prepared[request.value];
    bound_weight bound = bind_weight(*files_, request, value.weight_format);
    uint64_t size_bytes = 0;
    plugin_call size_call = backend.call("weight_size");
    size_call =
        table.weight_size(backend.handle(), bound.source(), roles, &size_bytes, size_call.error());
    uint32_t source_needed = 0;
    plugin_call call = backend.call("weight_prepare");
    call = table.weight_prepare(backend.handle(), bound.source(), roles, &prepared, &source_needed,
                                call.error());
    char described[256] = {};
    table.weight_describe(backend.handle(), prepared, described, sizeof described);
    if (source_needed != 0) kept_sources_.push_back(std::move(bound));
    weight_report report;
    report.name = value.name;
    report.plugin = backend.id();
    report.stored = weight_format_text(value.weight_format);
    report.prepared = text_of_array(described, sizeof described);
    report.prepared_bytes = size_bytes;
    report.source_kept = source_needed != 0;
    return report;
}

std::vector<sluice_weight*> weight_store::of(const program_segment& segment) const {
    const std::vector<sluice_weight*>& prepared = shelves_[segment.placement].prepared;
    std::vector<sluice_weight*> weights;
    for (const value_number value : segment.values) weights.push_back(prepared[value]);
    return weights;
}

} // namespace sluice
