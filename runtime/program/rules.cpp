#include "program/rules.hpp"

#include "base/element_type.hpp"
#include "base/text.hpp"
#include "program/checker.hpp"
#include "program/print.hpp"

namespace sluice {

namespace {

struct batch_input_rule {
    sluice_element_type type;
    value_shape dimensions;
};

std::optional<batch_input_rule> batch_input_rule_of(uint32_t input) {
    switch (input) {
    case SLUICE_INPUT_TOKEN_IDS:
    case SLUICE_INPUT_POSITION:
    case SLUICE_INPUT_SEQUENCE_OF_ROW:
    case SLUICE_INPUT_SLOT:
    case SLUICE_INPUT_ADAPTER_INDEX:
        return batch_input_rule{SLUICE_I32, {size::tokens()}};
    case SLUICE_INPUT_KV_LENGTH:
        return batch_input_rule{SLUICE_I32, {size::sequences()}};
    case SLUICE_INPUT_BLOCK_TABLE:
        return batch_input_rule{SLUICE_I32, {size::sequences(), size::blocks()}};
    case SLUICE_INPUT_LOGIT_ROWS:
        return batch_input_rule{SLUICE_I32, {size::logits()}};
    default:
        return std::nullopt;
    }
}

std::string value_label(const program_contents& contents, value_number number) {
    const std::string& name = contents.values[number].name;
    return name.empty() ? fmt::format("value {}", number)
                        : fmt::format("value {} {}", number, quote(name));
}

void check_dimensions(const program_value& value, const std::string& label) {
    if (value.dimensions.size() > SLUICE_RANK_MAX) {
        fail(SLUICE_INVALID, "{}: the rank is {}, at most {} is allowed", label,
             value.dimensions.size(), SLUICE_RANK_MAX);
    }
    for (const dimension& size : value.dimensions) {
        if (size.extent >= SLUICE_EXTENT_COUNT) {
            fail(SLUICE_UNSUPPORTED, "{}: extent {} is not known; the known ones are 0 to {}",
                 label, size.extent, SLUICE_EXTENT_COUNT - 1);
        }
        const bool constant = size.extent == SLUICE_EXTENT_NONE;
        const bool fits =
            size.offset <= program_limits::dimension && size.offset >= -program_limits::dimension;
        // An extent is at least 1, so factor + offset is the smallest the size can be.
        const int64_t smallest = (constant ? 0 : int64_t(size.factor)) + size.offset;
        if (!fits || smallest < (constant ? 1 : 0) || (!constant && size.factor == 0)) {
            fail(SLUICE_INVALID, "{}: the size {} is not a positive size up to {}", label,
                 dimension_text(size), program_limits::dimension);
        }
    }
}

void check_input(const program_value& value, const std::string& label) {
    if (value.input == SLUICE_INPUT_CUSTOM) {
        if (element_bits(value.element_type) == 0) {
            fail(SLUICE_INVALID, "{}: element type {} is not known", label, value.element_type);
        }
        if (value.name.empty()) fail(SLUICE_INVALID, "{}: a custom input needs a name", label);
        return;
    }
    const auto rule = batch_input_rule_of(value.input);
    if (!rule) fail(SLUICE_UNSUPPORTED, "{}: input {} is not known", label, value.input);
    if (value.element_type != rule->type || !same(value.dimensions, rule->dimensions)) {
        fail(SLUICE_INVALID, "{}: this batch input must be {}{}, found {}", label,
             element_type_name(rule->type), dimensions_text(rule->dimensions),
             print_value_type(value));
    }
    if (value.group >= program_limits::groups) {
        fail(SLUICE_INVALID, "{}: cache group {} is over {}", label, value.group,
             program_limits::groups - 1);
    }
}

void check_weight(const program_value& value, const std::string& label) {
    const sluice_weight_format& format = value.weight_format;
    if (value.dimensions.empty() || value.dimensions.size() > 3) {
        fail(SLUICE_INVALID, "{}: a weight has rank 1 to 3, found {}", label,
             value.dimensions.size());
    }
    for (const dimension& size : value.dimensions) {
        if (!is_fixed(size)) {
            fail(SLUICE_INVALID, "{}: a weight has fixed sizes, found {}", label,
                 print_value_type(value));
        }
    }
    if (element_bits(format.element_type) == 0) {
        fail(SLUICE_INVALID, "{}: the format's element type {} is not known", label,
             format.element_type);
    }
    if (format.layout > SLUICE_WEIGHT_GPTQ || format.zero_point > SLUICE_ZERO_GROUP_LESS_ONE
        || format.group_index > 1) {
        fail(SLUICE_UNSUPPORTED, "{}: layout {}, zero point {} or group index {} is not known",
             label, format.layout, format.zero_point, format.group_index);
    }
    if (value.name.empty()) fail(SLUICE_INVALID, "{}: a weight needs a name", label);
}

} // namespace

void check_value(const program_contents& contents, value_number number) {
    const program_value& value = contents.values[number];
    const std::string label = value_label(contents, number);
    if (value.name.size() > program_limits::name_bytes || !is_utf8(value.name)) {
        fail(SLUICE_INVALID, "{}: the name must be UTF-8 of at most {} bytes", label,
             program_limits::name_bytes);
    }
    check_dimensions(value, label);
    switch (value.kind) {
    case SLUICE_VALUE_INPUT:
        return check_input(value, label);
    case SLUICE_VALUE_WEIGHT:
        return check_weight(value, label);
    case SLUICE_VALUE_STATE:
        if (value.state >= contents.states.size()) {
            fail(SLUICE_INVALID, "{}: there is no state {}, the program has {}", label, value.state,
                 contents.states.size());
        }
        if (!value.dimensions.empty()) {
            fail(SLUICE_INVALID, "{}: a state has rank 0", label);
        }
        return;
    case SLUICE_VALUE_RESULT:
        if (element_bits(value.element_type) == 0) {
            fail(SLUICE_INVALID, "{}: element type {} is not known", label, value.element_type);
        }
        return;
    default:
        fail(SLUICE_UNSUPPORTED, "{}: kind {} is not known", label, value.kind);
    }
}

void check_part_group(const program_state& state, size_t part, const std::string& label) {
    const uint32_t group = state.group_of(part);
    const uint32_t width = state.part_width[part];
    const bool is_whole = state.part_type[part] == SLUICE_I8;
    if (!is_whole && group != 0) {
        fail(SLUICE_INVALID, "{}: part {} is of type {}, so its elements share no scales", label,
             part, element_type_name(state.part_type[part]));
    }
    if (is_whole && (group == 0 || width % group != 0)) {
        fail(SLUICE_INVALID,
             "{}: part {} of type i8 has groups of {} elements, expected a divisor of its width {}",
             label, part, group, width);
    }
}

void check_state(const program_contents& contents, uint32_t number) {
    const program_state& state = contents.states[number];
    const std::string label = fmt::format("state {} {}", number, quote(state.name));
    if (state.kind < SLUICE_STATE_PAGED || state.kind > SLUICE_STATE_PER_SEQUENCE) {
        fail(SLUICE_UNSUPPORTED, "{}: kind {} is not known", label, state.kind);
    }
    if (state.name.size() > program_limits::name_bytes || !is_utf8(state.name)) {
        fail(SLUICE_INVALID, "{}: the name must be UTF-8 of at most {} bytes", label,
             program_limits::name_bytes);
    }
    if (state.group >= program_limits::groups) {
        fail(SLUICE_INVALID, "{}: cache group {} is over {}", label, state.group,
             program_limits::groups - 1);
    }
    const bool paged = state.kind != SLUICE_STATE_PER_SEQUENCE;
    if (paged && (state.tokens_per_block == 0 || state.tokens_per_block > (1u << 20))) {
        fail(SLUICE_INVALID, "{}: tokens_per_block is {}, expected 1 to {}", label,
             state.tokens_per_block, 1u << 20);
    }
    const size_t parts = state.part_width.size();
    if (parts == 0 || parts > SLUICE_STATE_PARTS_MAX || state.part_type.size() != parts) {
        fail(SLUICE_INVALID, "{}: {} parts, expected 1 to {}", label, parts,
             SLUICE_STATE_PARTS_MAX);
    }
    for (size_t part = 0; part < parts; ++part) {
        if (state.part_width[part] == 0 || element_bits(state.part_type[part]) == 0) {
            fail(SLUICE_INVALID, "{}: part {} needs a width and an element type", label, part);
        }
        check_part_group(state, part, label);
    }
}

void check_operation(const program_contents& contents, const program_operation& operation,
                     const std::string& label) {
    const operation_description* description = find_operation(operation.kind);
    if (description == nullptr) {
        fail(SLUICE_UNSUPPORTED, "{}: this kind of operation is not known", label);
    }
    if (operation.attributes.index() != description->attributes.index()) {
        fail(SLUICE_INVALID, "{}: the attributes are of another kind of operation", label);
    }
    const auto between = [](size_t count, uint32_t min, uint32_t max) {
        return count >= min && count <= max;
    };
    if (!between(operation.inputs.size(), description->input_count_min,
                 description->input_count_max)) {
        fail(SLUICE_INVALID, "{}: {} operands, expected {} to {}", label, operation.inputs.size(),
             description->input_count_min, description->input_count_max);
    }
    if (!between(operation.outputs.size(), description->output_count_min,
                 description->output_count_max)) {
        fail(SLUICE_INVALID, "{}: {} results, expected {} to {}", label, operation.outputs.size(),
             description->output_count_min, description->output_count_max);
    }
    const uint32_t known_flags =
        SLUICE_OPERATION_ONCE
        | (operation.kind == SLUICE_OP_ROUTE ? SLUICE_OPERATION_HOST_FUNCTION : 0);
    if ((operation.flags & ~known_flags) != 0) {
        fail(SLUICE_UNSUPPORTED, "{}: flags {:#x} are not known", label, operation.flags);
    }
    const operation_checker check(contents, operation, label);
    for (size_t i = 0; i < operation.inputs.size(); ++i) {
        if (check.has(i) && check.in(i).kind == SLUICE_VALUE_WEIGHT
            && weight_role_of_operand(operation.kind, i) == 0) {
            fail(SLUICE_INVALID, "{}: operand {} cannot be a weight; put {} through dequantize",
                 label, i, quote(check.in(i).name));
        }
    }
    check_dense(check);
    check_attention(check);
    check_experts(check);
    check_movement(check);
    check_elementwise(check);
    check_last_axis(check);
}

uint32_t weight_role_of_operand(uint32_t kind, size_t index) {
    switch (kind) {
    case SLUICE_OP_EMBED:
        return index == 1 ? SLUICE_ROLE_EMBEDDING : 0;
    case SLUICE_OP_RMS_NORM:
        return index == 1 ? SLUICE_ROLE_VECTOR : 0;
    case SLUICE_OP_LAYER_NORM:
        return index == 1 || index == 2 ? SLUICE_ROLE_VECTOR : 0;
    case SLUICE_OP_LINEAR:
        if (index == 1) return SLUICE_ROLE_LINEAR;
        return index == 2 ? SLUICE_ROLE_VECTOR : 0;
    case SLUICE_OP_GATED_MLP:
        return index >= 1 && index <= 3 ? SLUICE_ROLE_LINEAR : 0;
    case SLUICE_OP_ATTENTION:
        return index == 6 ? SLUICE_ROLE_VECTOR : 0;
    case SLUICE_OP_MLA_ATTENTION:
        return index == 3 || index == 4 ? SLUICE_ROLE_LATENT : 0;
    case SLUICE_OP_ROUTE:
        return index == 1 || index == 2 ? SLUICE_ROLE_VECTOR : 0;
    case SLUICE_OP_MOE_FFN:
        if (index >= 4 && index <= 6) return SLUICE_ROLE_GROUPED;
        return index >= 7 && index <= 9 ? SLUICE_ROLE_VECTOR : 0;
    case SLUICE_OP_GROUPED_LINEAR:
        if (index == 2) return SLUICE_ROLE_GROUPED;
        return index == 3 ? SLUICE_ROLE_VECTOR : 0;
    case SLUICE_OP_DEQUANTIZE:
        return index == 0 ? SLUICE_ROLE_TENSOR : 0;
    default:
        return 0;
    }
}

} // namespace sluice
