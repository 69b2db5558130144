#include "program/checker.hpp"

#include "base/text.hpp"
#include "program/print.hpp"

namespace sluice {

bool is_float(sluice_element_type type) {
    return type == SLUICE_F32 || type == SLUICE_F16 || type == SLUICE_BF16;
}

std::string operation_label(size_t number, const program_operation& operation) {
    const std::string kind = operation_name(operation.kind);
    if (operation.name.empty()) return fmt::format("operation {} ({})", number, kind);
    return fmt::format("operation {} {} ({})", number, quote(operation.name), kind);
}

std::string operation_checker::operand_name(size_t index) const {
    const operation_description* description = find_operation(operation_.kind);
    if (description != nullptr && index < description->inputs.size()) {
        return fmt::format("operand {} ({})", index, description->inputs[index]);
    }
    return fmt::format("operand {}", index);
}

void operation_checker::wrong(const std::string& operand, const std::string& expected,
                              const program_value& found) const {
    fail(SLUICE_INVALID, "{}: {} must be {}, found {}{}{}", label_, operand, expected,
         print_value_type(found), found.name.empty() ? "" : " ", found.name);
}

const program_value& operation_checker::in(size_t index) const {
    if (!has(index)) fail(SLUICE_INVALID, "{}: {} is needed", label_, operand_name(index));
    return contents_.values[operation_.inputs[index]];
}

const program_value& operation_checker::out(size_t index) const {
    if (!has_output(index)) fail(SLUICE_INVALID, "{}: result {} is needed", label_, index);
    return contents_.values[operation_.outputs[index]];
}

const program_state& operation_checker::state(size_t index) const {
    const program_value& value = in(index);
    if (value.kind != SLUICE_VALUE_STATE) wrong(operand_name(index), "a state", value);
    return contents_.states[value.state];
}

void operation_checker::check_rank(size_t index, int rank, std::string_view type) const {
    const program_value& value = in(index);
    if (rank < 0 || value.dimensions.size() == static_cast<size_t>(rank)) return;
    wrong(operand_name(index), fmt::format("{} of rank {}", type, rank), value);
}

const program_value& operation_checker::floats(size_t index, int rank) const {
    const program_value& value = in(index);
    if (value.kind == SLUICE_VALUE_STATE || !is_float(value.element_type)) {
        wrong(operand_name(index), "f32, f16 or bf16", value);
    }
    check_rank(index, rank, "a tensor");
    return value;
}

const program_value& operation_checker::integers(size_t index, int rank) const {
    const program_value& value = in(index);
    if (value.element_type != SLUICE_I32) wrong(operand_name(index), "i32", value);
    check_rank(index, rank, "i32");
    return value;
}

const program_value& operation_checker::any(size_t index, int rank) const {
    const program_value& value = in(index);
    if (value.kind == SLUICE_VALUE_STATE || value.kind == SLUICE_VALUE_WEIGHT) {
        wrong(operand_name(index), "a tensor (put a weight through dequantize)", value);
    }
    check_rank(index, rank, "a tensor");
    return value;
}

const program_value& operation_checker::weight(size_t index, int rank) const {
    const program_value& value = in(index);
    // Vectors may be computed; matrices lie in the backend's own layout and cannot.
    const bool is_vector = weight_role_of_operand(operation_.kind, index) == SLUICE_ROLE_VECTOR;
    if (value.kind != SLUICE_VALUE_WEIGHT && !(is_vector && is_float(value.element_type))) {
        wrong(operand_name(index), is_vector ? "a weight or a float tensor" : "a weight", value);
    }
    check_rank(index, rank, "a weight");
    return value;
}

const program_value& operation_checker::weight(size_t index,
                                               std::span<const dimension> expected) const {
    const program_value& value = weight(index, -1);
    shape_in(index, expected);
    return value;
}

void operation_checker::shape_in(size_t index, std::span<const dimension> expected) const {
    const program_value& value = in(index);
    if (same(value.dimensions, expected)) return;
    wrong(operand_name(index), dimensions_text(expected), value);
}

void operation_checker::result(size_t index, sluice_element_type type,
                               std::span<const dimension> expected) const {
    const program_value& value = out(index);
    if (value.element_type == type && same(value.dimensions, expected)) return;
    wrong(fmt::format("result {}", index),
          std::string(element_type_name(type)) + dimensions_text(expected), value);
}

void operation_checker::float_result(size_t index, std::span<const dimension> expected) const {
    const program_value& value = out(index);
    if (is_float(value.element_type) && same(value.dimensions, expected)) return;
    wrong(fmt::format("result {}", index), "f32, f16 or bf16 of shape " + dimensions_text(expected),
          value);
}

void operation_checker::same_result(size_t index, const program_value& as) const {
    result(index, as.element_type, as.dimensions);
}

int64_t operation_checker::fixed(const program_value& value, size_t axis) const {
    if (axis < value.dimensions.size() && is_fixed(value.dimensions[axis])) {
        return value.dimensions[axis].offset;
    }
    fail(SLUICE_INVALID, "{}: axis {} of {} must have a fixed size, found {}", label_, axis,
         value.name.empty() ? "an operand" : quote(value.name), print_value_type(value));
}

} // namespace sluice
