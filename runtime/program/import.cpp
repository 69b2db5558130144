// Taking in a program from the other side of the ABI: nothing in it is believed.
#include "base/error.hpp"
#include "base/text.hpp"
#include "program/operation_table.hpp"
#include "program/program.hpp"
#include "program/rules.hpp"

#include <algorithm>
#include <cstring>

namespace sluice {

namespace {

// A full-size copy under the zero-tail rule: a missing tail is zero, an unknown tail must be.
template <typename Struct>
Struct read_struct(const void* source, const std::string& label) {
    if (source == nullptr) fail(SLUICE_INVALID, "{} is missing (NULL)", label);
    uint32_t size = 0;
    std::memcpy(&size, source, sizeof(size));
    constexpr uint32_t size_max = 1u << 16; // a wrong pointer should not be read to the end
    if (size < sizeof(uint32_t) || size > size_max) {
        fail(SLUICE_INVALID, "{}: struct_size is {}; fill the struct with SLUICE_INIT", label,
             size);
    }
    Struct copy{};
    std::memcpy(&copy, source, std::min<size_t>(size, sizeof(Struct)));
    const auto* bytes = static_cast<const unsigned char*>(source);
    for (size_t i = sizeof(Struct); i < size; ++i) {
        if (bytes[i] == 0) continue;
        fail(SLUICE_UNSUPPORTED,
             "{} uses a field at byte {} that this runtime does not know (it knows {} bytes)",
             label, i, sizeof(Struct));
    }
    copy.struct_size = sizeof(Struct);
    return copy;
}

std::string read_text(const sluice_text& text, const std::string& label) {
    if (text.size > program_limits::name_bytes) {
        fail(SLUICE_INVALID, "{}: the name has {} bytes, at most {} are allowed", label, text.size,
             program_limits::name_bytes);
    }
    if (text.size != 0 && text.data == nullptr) {
        fail(SLUICE_INVALID, "{}: the name has {} bytes at NULL", label, text.size);
    }
    return text.size == 0 ? std::string() : std::string(text.data, text.size);
}

void check_array(const void* array, uint64_t count, uint64_t limit, const std::string& label) {
    if (count > limit) {
        fail(SLUICE_INVALID, "{}: {} elements, at most {} are allowed", label, count, limit);
    }
    if (count != 0 && array == nullptr) {
        fail(SLUICE_INVALID, "{}: {} elements at NULL", label, count);
    }
}

program_value read_value(const sluice_value* source, const std::string& label) {
    const auto read = read_struct<sluice_value>(source, label);
    program_value value;
    value.kind = read.kind;
    value.element_type = read.element_type;
    if (read.rank > SLUICE_RANK_MAX) {
        fail(SLUICE_INVALID, "{}: the rank is {}, at most {} is allowed", label, read.rank,
             SLUICE_RANK_MAX);
    }
    value.dimensions.assign(read.shape, read.shape + read.rank);
    value.input = read.input;
    value.group = read.group;
    value.state = read.state;
    value.name = read_text(read.name, label);
    if (value.kind == SLUICE_VALUE_WEIGHT) {
        value.weight_format =
            read_struct<sluice_weight_format>(read.weight_format, label + ": weight_format");
    }
    return value;
}

program_state read_state(const sluice_state* source, const std::string& label) {
    const auto read = read_struct<sluice_state>(source, label);
    if (read.part_count > SLUICE_STATE_PARTS_MAX) {
        fail(SLUICE_INVALID, "{}: {} parts, at most {} are allowed", label, read.part_count,
             SLUICE_STATE_PARTS_MAX);
    }
    program_state state;
    state.kind = read.kind;
    state.group = read.group;
    state.window = read.window;
    state.tokens_per_block = read.tokens_per_block;
    state.part_width.assign(read.part_width, read.part_width + read.part_count);
    state.part_type.assign(read.part_type, read.part_type + read.part_count);
    if (std::any_of(read.part_group, read.part_group + read.part_count,
                    [](uint32_t group) { return group != 0; })) {
        state.part_group.assign(read.part_group, read.part_group + read.part_count);
    }
    state.name = read_text(read.name, label);
    return state;
}

operation_attributes read_attributes(const operation_description& description, const void* source,
                                     const std::string& label) {
    return std::visit(
        [&](const auto& defaults) -> operation_attributes {
            using attributes = std::decay_t<decltype(defaults)>;
            if constexpr (std::is_same_v<attributes, std::monostate>) {
                if (source != nullptr) {
                    fail(SLUICE_UNSUPPORTED, "{}: attributes are given, but this kind has none",
                         label);
                }
                return std::monostate{};
            } else {
                if (source == nullptr && !description.attributes_needed) return defaults;
                return read_struct<attributes>(source, label + ": attributes");
            }
        },
        description.attributes);
}

// Copies the array that the attributes of rope point to.
void own_table(program_operation& operation, const std::string& label) {
    auto* rope = std::get_if<sluice_rope_attributes>(&operation.attributes);
    if (rope == nullptr) return;
    constexpr uint32_t table_max = 1u << 16;
    check_array(rope->table, rope->table_count, table_max, label + ": table");
    if (rope->table_count == 0) {
        rope->table = nullptr;
        return;
    }
    auto table =
        std::make_shared<const std::vector<double>>(rope->table, rope->table + rope->table_count);
    rope->table = table->data();
    operation.table = std::move(table);
}

program_operation read_operation(const sluice_operation* source, size_t number) {
    const std::string place = fmt::format("operation {}", number);
    const auto read = read_struct<sluice_operation>(source, place);
    program_operation operation;
    operation.kind = read.kind;
    operation.name = read_text(read.name, place);
    const std::string label = operation_label(number, operation);
    const operation_description* description = find_operation(read.kind);
    if (description == nullptr) {
        fail(SLUICE_UNSUPPORTED, "{}: this kind of operation is not known", label);
    }
    check_array(read.inputs, read.input_count, program_limits::operands, label + ": inputs");
    check_array(read.outputs, read.output_count, program_limits::operands, label + ": outputs");
    operation.inputs.assign(read.inputs, read.inputs + read.input_count);
    operation.outputs.assign(read.outputs, read.outputs + read.output_count);
    operation.attributes = read_attributes(*description, read.attributes, label);
    operation.placement = read.placement;
    operation.flags = read.flags;
    own_table(operation, label);
    return operation;
}

program_contents read_contents(const sluice_program& foreign) {
    const auto read = read_struct<sluice_program>(&foreign, "sluice_program");
    check_array(read.values, read.value_count, program_limits::values, "values");
    check_array(read.operations, read.operation_count, program_limits::operations, "operations");
    check_array(read.states, read.state_count, program_limits::states, "states");
    check_array(read.outputs, read.output_count, program_limits::values, "outputs");
    program_contents contents;
    contents.name = read_text(read.name, "sluice_program");
    for (uint32_t i = 0; i < read.state_count; ++i) {
        contents.states.push_back(read_state(read.states[i], fmt::format("state {}", i)));
    }
    for (uint32_t i = 0; i < read.value_count; ++i) {
        contents.values.push_back(read_value(read.values[i], fmt::format("value {}", i)));
    }
    for (uint32_t i = 0; i < read.operation_count; ++i) {
        contents.operations.push_back(read_operation(read.operations[i], i));
    }
    if (read.output_count != 0) {
        contents.outputs.assign(read.outputs, read.outputs + read.output_count);
    }
    return contents;
}

} // namespace

program import_program(const sluice_program& foreign, std::string_view origin) {
    try {
        return program(read_contents(foreign));
    } catch (const error& failure) {
        throw error(failure.status(), fmt::format("{}: {}", origin, failure.what()));
    }
}

} // namespace sluice
