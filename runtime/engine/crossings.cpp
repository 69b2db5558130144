#include "engine/crossings.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "program/print.hpp"

#include <algorithm>
#include <set>

namespace sluice {

namespace {

void check_shape(const program_value& value) {
    for (size_t axis = 1; axis < value.dimensions.size(); ++axis) {
        if (value.dimensions[axis].extent == SLUICE_EXTENT_NONE) continue;
        fail(SLUICE_UNSUPPORTED,
             "{}: {} cannot pass from one backend to another, as its size changes along axis {}; "
             "place the operations that write and read it on one backend",
             quote(value.name), print_value_type(value), axis);
    }
}

} // namespace

std::vector<value_crossing> crossings_of(const program& whole, const program_partition& partition) {
    std::vector<value_crossing> crossings;
    for (const passed_value& passed : partition.passed) {
        const uint32_t from = partition.segments[passed.writer].placement;
        std::set<uint32_t> reached{from};
        for (const uint32_t reader : passed.readers) {
            const uint32_t to = partition.segments[reader].placement;
            if (!reached.insert(to).second) continue;
            check_shape(whole.value(passed.value));
            crossings.push_back({passed.value, from, to, passed.writer, reader});
        }
    }
    std::stable_sort(crossings.begin(), crossings.end(), [](const auto& left, const auto& right) {
        return left.first_reader < right.first_reader;
    });
    return crossings;
}

uint64_t valid_bytes(const program_value& value, const extent_sizes& extents) {
    uint64_t elements = 1;
    for (const int64_t size : evaluate(value.dimensions, extents)) elements *= uint64_t(size);
    return elements * element_bits(value.element_type) / 8;
}

uint64_t bytes_per_unit(const program_value& value) {
    extent_sizes one{};
    one.fill(1);
    return valid_bytes(value, one);
}

std::string unit_name(const program_value& value) {
    switch (value.dimensions.empty() ? SLUICE_EXTENT_NONE : value.dimensions[0].extent) {
    case SLUICE_EXTENT_TOKENS:
        return "token";
    case SLUICE_EXTENT_SEQUENCES:
        return "sequence";
    case SLUICE_EXTENT_LOGITS:
        return "logit row";
    case SLUICE_EXTENT_BLOCKS:
        return "block column";
    default:
        return "step";
    }
}

} // namespace sluice
