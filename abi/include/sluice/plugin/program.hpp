// A typed copy of a program, read under the zero-tail rule and checked, for backends that compile
// it.
#pragma once

#include <sluice/abi/operations.h>
#include <sluice/abi/router.h>
#include <sluice/plugin/structs.hpp>

#include <array>
#include <optional>
#include <span>
#include <variant>
#include <vector>

namespace sluice::plugin {

using extents = std::array<uint32_t, SLUICE_EXTENT_COUNT>; // by SLUICE_EXTENT_*; [0] is unused

struct value {
    uint32_t number = 0;
    uint32_t kind = 0; // SLUICE_VALUE_*
    sluice_element_type type = 0;
    uint32_t rank = 0;
    std::array<sluice_dimension, SLUICE_RANK_MAX> shape{};
    uint32_t input = 0; // SLUICE_INPUT_*
    uint32_t group = 0;
    uint32_t state = 0;
    uint32_t weight_role = 0;
    std::optional<sluice_weight_format> weight_format;
    std::string name;

    int64_t size(uint32_t axis, const extents& sizes) const {
        const auto& d = shape[axis];
        return d.extent == SLUICE_EXTENT_NONE
                   ? d.offset
                   : static_cast<int64_t>(d.factor) * sizes[d.extent] + d.offset;
    }
    int64_t element_count(const extents& sizes) const {
        int64_t count = 1;
        for (uint32_t axis = 0; axis < rank; ++axis) count *= size(axis, sizes);
        return count;
    }
    // Size of an axis that no extent changes; axis may be negative, counted from the end.
    int64_t fixed(int axis) const {
        const auto& d = shape[axis < 0 ? rank + axis : axis];
        if (d.extent != SLUICE_EXTENT_NONE)
            fail(SLUICE_UNSUPPORTED, "value '", name, "': axis ", axis, " must have a fixed size");
        return d.offset;
    }
};

struct no_attributes {};

// The copied attributes; arrays they point to are copied too.
using attributes =
    std::variant<no_attributes, sluice_embed_attributes, sluice_rms_norm_attributes,
                 sluice_layer_norm_attributes, sluice_rope_attributes, sluice_activation_attributes,
                 sluice_kv_gather_attributes, sluice_attention_attributes,
                 sluice_mla_attention_attributes, sluice_routing_specification,
                 sluice_moe_ffn_attributes, sluice_transpose_attributes, sluice_axis_attributes,
                 sluice_unary_attributes, sluice_binary_attributes, sluice_fill_attributes,
                 sluice_reduce_attributes, sluice_accumulate_attributes, sluice_sample_attributes>;

struct operation {
    uint32_t number = 0;
    uint32_t kind = 0;            // SLUICE_OP_*
    std::vector<uint32_t> inputs; // value numbers, SLUICE_VALUE_NONE for absent
    std::vector<uint32_t> outputs;
    uint32_t placement = 0;
    uint32_t flags = 0;
    plugin::attributes attributes;
    std::vector<double> table; // of rope
    std::string name;

    // The operand, or SLUICE_VALUE_NONE where it was left out.
    uint32_t input(size_t index) const {
        return index < inputs.size() ? inputs[index] : SLUICE_VALUE_NONE;
    }
    uint32_t output(size_t index) const {
        return index < outputs.size() ? outputs[index] : SLUICE_VALUE_NONE;
    }
    bool has_input(size_t index) const { return input(index) != SLUICE_VALUE_NONE; }
    bool has_output(size_t index) const { return output(index) != SLUICE_VALUE_NONE; }
    template <typename Attributes>
    const Attributes& as() const {
        return std::get<Attributes>(attributes);
    }
};

inline const char* operation_name(uint32_t kind) {
    static constexpr const char* names[SLUICE_OP_COUNT] = {"?",
                                                           "embed",
                                                           "rms_norm",
                                                           "layer_norm",
                                                           "linear",
                                                           "rope",
                                                           "activation",
                                                           "gated_activation",
                                                           "gated_mlp",
                                                           "kv_write",
                                                           "kv_gather",
                                                           "attention",
                                                           "mla_attention",
                                                           "route",
                                                           "moe_ffn",
                                                           "group_rows",
                                                           "grouped_linear",
                                                           "combine_rows",
                                                           "gather_rows",
                                                           "gather",
                                                           "scatter_add",
                                                           "reshape",
                                                           "transpose",
                                                           "slice",
                                                           "concat",
                                                           "cast",
                                                           "copy",
                                                           "dequantize",
                                                           "unary",
                                                           "binary",
                                                           "select",
                                                           "fill",
                                                           "iota",
                                                           "softmax",
                                                           "reduce",
                                                           "topk",
                                                           "cumsum",
                                                           "matmul",
                                                           "accumulate_gram",
                                                           "accumulate_abs_max",
                                                           "sample"};
    return kind < SLUICE_OP_COUNT ? names[kind] : "?";
}

namespace detail {

template <typename Attributes>
attributes read_attributes(const sluice_operation& source) {
    return read(static_cast<const Attributes*>(source.attributes), "the attributes");
}

inline attributes read_attributes(const sluice_operation& source) {
    switch (source.kind) {
    case SLUICE_OP_EMBED:
        return read_attributes<sluice_embed_attributes>(source);
    case SLUICE_OP_RMS_NORM:
        return read_attributes<sluice_rms_norm_attributes>(source);
    case SLUICE_OP_LAYER_NORM:
        return read_attributes<sluice_layer_norm_attributes>(source);
    case SLUICE_OP_ROPE:
        return read_attributes<sluice_rope_attributes>(source);
    case SLUICE_OP_ACTIVATION:
    case SLUICE_OP_GATED_ACTIVATION:
    case SLUICE_OP_GATED_MLP:
        return read_attributes<sluice_activation_attributes>(source);
    case SLUICE_OP_KV_GATHER:
        return read_attributes<sluice_kv_gather_attributes>(source);
    case SLUICE_OP_ATTENTION:
        return read_attributes<sluice_attention_attributes>(source);
    case SLUICE_OP_MLA_ATTENTION:
        return read_attributes<sluice_mla_attention_attributes>(source);
    case SLUICE_OP_ROUTE:
        return read_attributes<sluice_routing_specification>(source);
    case SLUICE_OP_MOE_FFN:
        return read_attributes<sluice_moe_ffn_attributes>(source);
    case SLUICE_OP_TRANSPOSE:
        return read_attributes<sluice_transpose_attributes>(source);
    case SLUICE_OP_SLICE:
    case SLUICE_OP_CONCAT:
        return read_attributes<sluice_axis_attributes>(source);
    case SLUICE_OP_UNARY:
        return read_attributes<sluice_unary_attributes>(source);
    case SLUICE_OP_BINARY:
        return read_attributes<sluice_binary_attributes>(source);
    case SLUICE_OP_FILL:
        return read_attributes<sluice_fill_attributes>(source);
    case SLUICE_OP_REDUCE:
        return read_attributes<sluice_reduce_attributes>(source);
    case SLUICE_OP_ACCUMULATE_GRAM:
    case SLUICE_OP_ACCUMULATE_ABS_MAX:
        return read_attributes<sluice_accumulate_attributes>(source);
    case SLUICE_OP_SAMPLE:
        return read_attributes<sluice_sample_attributes>(source);
    default:
        break;
    }
    if (source.kind == 0 || source.kind >= SLUICE_OP_COUNT)
        fail(SLUICE_UNSUPPORTED, "operation kind ", source.kind, " is not known to this plugin");
    return no_attributes{};
}

} // namespace detail

inline value read_value(const sluice_program& program, uint32_t number) {
    if (number >= program.value_count)
        fail(SLUICE_INVALID, "value ", number, " of a program with ", program.value_count);
    const auto source = read(program.values[number], "sluice_value");
    value result;
    result.number = number;
    result.kind = source.kind;
    result.type = source.element_type;
    result.rank = source.rank;
    if (source.rank > SLUICE_RANK_MAX)
        fail(SLUICE_INVALID, "value ", number, ": rank ", source.rank, " is over ",
             SLUICE_RANK_MAX);
    for (uint32_t axis = 0; axis < source.rank; ++axis) {
        if (source.shape[axis].extent >= SLUICE_EXTENT_COUNT)
            fail(SLUICE_UNSUPPORTED, "value ", number, ": extent ", source.shape[axis].extent,
                 " is not known to this plugin");
        result.shape[axis] = source.shape[axis];
    }
    result.input = source.input;
    result.group = source.group;
    result.state = source.state;
    result.weight_role = source.weight_role;
    if (source.weight_format != nullptr)
        result.weight_format = read(source.weight_format, "sluice_weight_format");
    result.name = std::string(view(source.name));
    return result;
}

inline operation read_operation(const sluice_program& program, uint32_t number) {
    if (number >= program.operation_count)
        fail(SLUICE_INVALID, "operation ", number, " of a program with ", program.operation_count);
    const auto source = read(program.operations[number], "sluice_operation");
    operation result;
    result.number = number;
    result.kind = source.kind;
    result.inputs.assign(source.inputs, source.inputs + source.input_count);
    result.outputs.assign(source.outputs, source.outputs + source.output_count);
    for (const auto& list : {result.inputs, result.outputs})
        for (const uint32_t used : list)
            if (used != SLUICE_VALUE_NONE && used >= program.value_count)
                fail(SLUICE_INVALID, "operation ", number, " names value ", used,
                     " of a program with ", program.value_count);
    result.placement = source.placement;
    result.flags = source.flags;
    result.attributes = detail::read_attributes(source);
    result.name = std::string(view(source.name));
    if (auto* rope = std::get_if<sluice_rope_attributes>(&result.attributes)) {
        if (rope->table_count != 0)
            result.table.assign(rope->table, rope->table + rope->table_count);
        rope->table = nullptr; // the copy is `table`
    }
    return result;
}

// The whole program, copied.
struct program {
    std::vector<value> values;
    std::vector<operation> operations;
    std::vector<sluice_state> states; // names are not kept
    std::vector<uint32_t> outputs;
    std::string name;

    explicit program(const sluice_program* given) {
        const auto source = read(given, "sluice_program");
        for (uint32_t i = 0; i < source.value_count; ++i) values.push_back(read_value(source, i));
        for (uint32_t i = 0; i < source.operation_count; ++i)
            operations.push_back(read_operation(source, i));
        for (uint32_t i = 0; i < source.state_count; ++i) {
            states.push_back(read(source.states[i], "sluice_state"));
            states.back().name = {};
        }
        outputs.assign(source.outputs, source.outputs + source.output_count);
        for (const uint32_t output : outputs)
            if (output >= source.value_count)
                fail(SLUICE_INVALID, "output ", output, " of a program with ", source.value_count,
                     " values");
        for (const auto& v : values)
            if (v.kind == SLUICE_VALUE_STATE && v.state >= states.size())
                fail(SLUICE_INVALID, "value '", v.name, "' names state ", v.state,
                     " of a program with ", states.size());
        name = std::string(view(source.name));
    }
};

inline uint64_t element_bits(sluice_element_type type) {
    switch (type) {
    case SLUICE_F64:
    case SLUICE_I64:
        return 64;
    case SLUICE_F32:
    case SLUICE_I32:
        return 32;
    case SLUICE_F16:
    case SLUICE_BF16:
    case SLUICE_I16:
        return 16;
    case SLUICE_F8_E4M3:
    case SLUICE_F8_E5M2:
    case SLUICE_F8_E8M0:
    case SLUICE_I8:
    case SLUICE_U8:
    case SLUICE_BOOL:
        return 8;
    case SLUICE_F4_E2M1:
    case SLUICE_U4:
    case SLUICE_I4:
        return 4;
    default:
        fail(SLUICE_UNSUPPORTED, "element type ", type, " is not known to this plugin");
    }
}

inline uint64_t bytes_of(sluice_element_type type, int64_t elements) {
    return (element_bits(type) * static_cast<uint64_t>(elements) + 7) / 8;
}

} // namespace sluice::plugin
