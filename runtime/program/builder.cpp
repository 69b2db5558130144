#include "program/builder.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "program/operation_table.hpp"
#include "program/rules.hpp"

#include <algorithm>

namespace sluice {

namespace {

struct batch_input_name {
    uint32_t input;
    const char* name;
    bool grouped;
};

constexpr batch_input_name batch_input_names[] = {
    {SLUICE_INPUT_TOKEN_IDS, "token_ids", false},
    {SLUICE_INPUT_POSITION, "position", false},
    {SLUICE_INPUT_SEQUENCE_OF_ROW, "sequence_of_row", false},
    {SLUICE_INPUT_KV_LENGTH, "kv_length", false},
    {SLUICE_INPUT_BLOCK_TABLE, "block_table", true},
    {SLUICE_INPUT_SLOT, "slot", true},
    {SLUICE_INPUT_LOGIT_ROWS, "logit_rows", false},
    {SLUICE_INPUT_ADAPTER_INDEX, "adapter_index", false},
};

value_shape batch_input_shape(uint32_t input) {
    switch (input) {
    case SLUICE_INPUT_KV_LENGTH:
        return {size::sequences()};
    case SLUICE_INPUT_BLOCK_TABLE:
        return {size::sequences(), size::blocks()};
    case SLUICE_INPUT_LOGIT_ROWS:
        return {size::logits()};
    default:
        return {size::tokens()};
    }
}

bool same_format(const sluice_weight_format& left, const sluice_weight_format& right) {
    return left.element_type == right.element_type && left.layout == right.layout
           && left.scale_type == right.scale_type && left.group_rows == right.group_rows
           && left.group_columns == right.group_columns && left.zero_point == right.zero_point
           && left.group_index == right.group_index
           && left.global_scale_type == right.global_scale_type;
}

} // namespace

program_builder::program_builder(std::string name) { contents_.name = std::move(name); }

program_builder::program_builder(const program& base)
    : contents_(base.contents()), base_count_(base.values().size()),
      stand_in_(base.values().size(), value_none) {
    contents_.operations.clear();
    for (value_number i = 0; i < contents_.values.size(); ++i) {
        if (!contents_.values[i].name.empty()) names_.emplace(contents_.values[i].name, i);
    }
}

const program_value& program_builder::value(value_number number) const {
    if (number >= contents_.values.size()) {
        fail(SLUICE_INVALID, "program {}: there is no value {}, there are {} so far",
             quote(contents_.name), number, contents_.values.size());
    }
    return contents_.values[number];
}

std::string program_builder::unique_name(const std::string& name) const {
    if (name.empty() || !names_.contains(name)) return name;
    for (uint32_t i = 2;; ++i) {
        std::string numbered = fmt::format("{}#{}", name, i);
        if (!names_.contains(numbered)) return numbered;
    }
}

value_number program_builder::new_value(program_value value) {
    const auto number = static_cast<value_number>(contents_.values.size());
    if (!value.name.empty() && !names_.emplace(value.name, number).second) {
        fail(SLUICE_INVALID, "program {}: two values are named {}", quote(contents_.name),
             quote(value.name));
    }
    contents_.values.push_back(std::move(value));
    stand_in_.push_back(value_none);
    return number;
}

value_number program_builder::result(const std::string& name, sluice_element_type type,
                                     value_shape dimensions) {
    program_value value;
    value.element_type = type;
    value.dimensions = std::move(dimensions);
    value.name = unique_name(name);
    return new_value(std::move(value));
}

void program_builder::add(uint32_t kind, const std::string& name, operation_attributes attributes,
                          std::vector<value_number> inputs, std::vector<value_number> outputs,
                          uint32_t flags) {
    program_operation operation;
    operation.kind = kind;
    operation.flags = flags;
    operation.attributes = std::move(attributes);
    operation.inputs = std::move(inputs);
    operation.outputs = std::move(outputs);
    operation.placement = placement_;
    operation.name = name;
    const operation_description* description = find_operation(kind);
    while (operation.inputs.size() > description->input_count_min
           && operation.inputs.back() == value_none) {
        operation.inputs.pop_back();
    }
    while (operation.outputs.size() > description->output_count_min
           && operation.outputs.back() == value_none) {
        operation.outputs.pop_back();
    }
    append(std::move(operation));
}

void program_builder::append(program_operation operation) {
    const std::string label = fmt::format("program {}: {}", quote(contents_.name),
                                          operation_label(contents_.operations.size(), operation));
    for (const auto* operands : {&operation.inputs, &operation.outputs}) {
        for (const value_number number : *operands) {
            if (number == value_none || number < contents_.values.size()) continue;
            fail(SLUICE_INVALID, "{}: there is no value {}, there are {} so far", label, number,
                 contents_.values.size());
        }
    }
    check_operation(contents_, operation, label);
    contents_.operations.push_back(std::move(operation));
}

void program_builder::redirect(value_number from, value_number to) {
    const program_value& source = value(from);
    const program_value& target = value(to);
    if (source.element_type != target.element_type || !same(source.dimensions, target.dimensions)) {
        fail(SLUICE_INTERNAL, "program {}: {} cannot stand for {}: their types or shapes differ",
             quote(contents_.name), quote(source.name), quote(target.name));
    }
    const bool own =
        from >= base_count_ && source.kind == SLUICE_VALUE_RESULT && stand_in_[from] == value_none;
    if (!own) {
        const value_number current = stand_in_[from] == value_none ? from : stand_in_[from];
        return add(SLUICE_OP_COPY, target.name, std::monostate{}, {current}, {to});
    }
    for (program_operation& operation : contents_.operations) {
        std::replace(operation.inputs.begin(), operation.inputs.end(), from, to);
        std::replace(operation.outputs.begin(), operation.outputs.end(), from, to);
    }
    stand_in_[from] = to;
}

// Drops the values that were redirected; the numbers of the base program's values do not change.
program program_builder::finish() {
    std::vector<value_number> renumbered(contents_.values.size(), value_none);
    std::vector<program_value> kept;
    for (size_t i = 0; i < contents_.values.size(); ++i) {
        if (stand_in_[i] != value_none) continue;
        renumbered[i] = static_cast<value_number>(kept.size());
        kept.push_back(std::move(contents_.values[i]));
    }
    const auto renumber = [&](std::vector<value_number>& numbers) {
        for (value_number& number : numbers) {
            if (number != value_none) number = renumbered[number];
        }
    };
    contents_.values = std::move(kept);
    for (program_operation& operation : contents_.operations) {
        renumber(operation.inputs);
        renumber(operation.outputs);
    }
    renumber(contents_.outputs);
    return program(std::move(contents_));
}

// ---- Values ----

value_number program_builder::batch_input(uint32_t input, uint32_t group) {
    const auto* found = std::find_if(std::begin(batch_input_names), std::end(batch_input_names),
                                     [&](const auto& entry) { return entry.input == input; });
    if (found == std::end(batch_input_names)) {
        fail(SLUICE_INVALID, "program {}: there is no batch input {}", quote(contents_.name),
             input);
    }
    program_value value;
    value.kind = SLUICE_VALUE_INPUT;
    value.element_type = SLUICE_I32;
    value.dimensions = batch_input_shape(input);
    value.input = input;
    value.group = found->grouped ? group : 0;
    for (value_number i = 0; i < contents_.values.size(); ++i) {
        const program_value& other = contents_.values[i];
        if (other.kind == SLUICE_VALUE_INPUT && other.input == input
            && other.group == value.group) {
            return i;
        }
    }
    value.name = unique_name(value.group == 0 ? std::string(found->name)
                                              : fmt::format("{}.{}", found->name, value.group));
    return new_value(std::move(value));
}

value_number program_builder::custom_input(const std::string& name, sluice_element_type type,
                                           value_shape dimensions) {
    program_value value;
    value.kind = SLUICE_VALUE_INPUT;
    value.element_type = type;
    value.dimensions = std::move(dimensions);
    value.name = name;
    return new_value(std::move(value));
}

value_number program_builder::weight(const std::string& name, std::span<const int64_t> dimensions,
                                     const sluice_weight_format& format) {
    program_value value;
    value.kind = SLUICE_VALUE_WEIGHT;
    for (const int64_t count : dimensions) value.dimensions.push_back(size::fixed(count));
    value.weight_format = format;
    value.weight_format.struct_size = sizeof(sluice_weight_format);
    value.name = name;
    if (const auto found = names_.find(name); found != names_.end()) {
        const program_value& other = contents_.values[found->second];
        if (other.kind != SLUICE_VALUE_WEIGHT || !same(other.dimensions, value.dimensions)
            || !same_format(other.weight_format, format)) {
            fail(SLUICE_INVALID, "program {}: weight {} is wanted as {} and as {}",
                 quote(contents_.name), quote(name), dimensions_text(other.dimensions),
                 dimensions_text(value.dimensions));
        }
        return found->second;
    }
    return new_value(std::move(value));
}

value_number program_builder::state(program_state description) {
    program_value value;
    value.kind = SLUICE_VALUE_STATE;
    value.state = static_cast<uint32_t>(contents_.states.size());
    value.name = unique_name(description.name);
    contents_.states.push_back(std::move(description));
    return new_value(std::move(value));
}

value_number program_builder::state_after(value_number before, const std::string& name) {
    program_value value = this->value(before);
    value.name = unique_name(name);
    return new_value(std::move(value));
}

std::vector<value_number> program_builder::batch_operands(value_number state) {
    const program_value& value = this->value(state);
    if (value.kind != SLUICE_VALUE_STATE) {
        fail(SLUICE_INVALID, "program {}: {} is no state", quote(contents_.name),
             quote(value.name));
    }
    const uint32_t group = contents_.states[value.state].group;
    return {batch_input(SLUICE_INPUT_POSITION), batch_input(SLUICE_INPUT_SEQUENCE_OF_ROW),
            batch_input(SLUICE_INPUT_KV_LENGTH), batch_input(SLUICE_INPUT_BLOCK_TABLE, group)};
}

void program_builder::output(value_number value) {
    this->value(value);
    contents_.outputs.push_back(value);
}

} // namespace sluice
