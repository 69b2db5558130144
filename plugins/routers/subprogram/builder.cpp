#include "builder.hpp"

namespace sluice::routers {

program_builder::program_builder(std::string name) { program_.name = keep_text(name); }

program_builder::value program_builder::input(std::string_view name, sluice_element_type type,
                                              std::vector<size> shape) {
    const value made = add_value(SLUICE_VALUE_INPUT, name, type, shape);
    values_.back().input = SLUICE_INPUT_CUSTOM;
    return made;
}

program_builder::value program_builder::operation(uint32_t kind, std::string_view name,
                                                  std::vector<value> inputs,
                                                  sluice_element_type type,
                                                  std::vector<size> shape) {
    const value made = add_value(SLUICE_VALUE_RESULT, name, type, shape);
    operand_inputs_.push_back(std::move(inputs));
    operand_outputs_.push_back({made});
    auto& added = operations_.emplace_back(SLUICE_INIT(sluice_operation));
    added.kind = kind;
    added.name = values_.back().name;
    return made;
}

program_builder::value program_builder::further_output(std::string_view name,
                                                       sluice_element_type type,
                                                       std::vector<size> shape) {
    const value made = add_value(SLUICE_VALUE_RESULT, name, type, shape);
    operand_outputs_.back().push_back(made);
    return made;
}

const sluice_program& program_builder::finish() {
    for (const auto& each : values_) value_pointers_.push_back(&each);
    for (size_t i = 0; i < operations_.size(); ++i) {
        auto& each = operations_[i];
        each.inputs = operand_inputs_[i].data();
        each.input_count = static_cast<uint32_t>(operand_inputs_[i].size());
        each.outputs = operand_outputs_[i].data();
        each.output_count = static_cast<uint32_t>(operand_outputs_[i].size());
        operation_pointers_.push_back(&each);
    }
    program_.values = value_pointers_.data();
    program_.value_count = static_cast<uint32_t>(value_pointers_.size());
    program_.operations = operation_pointers_.data();
    program_.operation_count = static_cast<uint32_t>(operation_pointers_.size());
    program_.outputs = outputs_.data();
    program_.output_count = static_cast<uint32_t>(outputs_.size());
    return program_;
}

program_builder::value program_builder::add_value(uint32_t kind, std::string_view name,
                                                  sluice_element_type type,
                                                  const std::vector<size>& shape) {
    auto& added = values_.emplace_back(SLUICE_INIT(sluice_value));
    added.kind = kind;
    added.element_type = type;
    added.rank = static_cast<uint32_t>(shape.size());
    for (size_t i = 0; i < shape.size(); ++i) {
        added.shape[i].extent = shape[i].factor != 0 ? SLUICE_EXTENT_TOKENS : SLUICE_EXTENT_NONE;
        added.shape[i].factor = shape[i].factor;
        added.shape[i].offset = shape[i].fixed;
    }
    added.name = keep_text(name);
    return static_cast<value>(values_.size() - 1);
}

sluice_text program_builder::keep_text(std::string_view text) {
    const std::string& kept = texts_.emplace_back(text);
    return {kept.data(), kept.size()};
}

} // namespace sluice::routers
