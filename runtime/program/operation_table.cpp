#include "program/operation_table.hpp"

#include "base/error.hpp"

#include <array>

namespace sluice {

namespace {

using names = std::array<std::string_view, 10>;

struct table_row {
    operation_description description;
    names operands;
};

template <typename Attributes>
operation_attributes defaults() {
    return SLUICE_INIT(Attributes);
}

constexpr uint32_t concat_inputs_max = 4096;

// In the order of their numbers. {kind, name, composite, inputs min, max, outputs min, max},
// operand names, attributes, whether attributes must be given.
std::vector<table_row> make_table() {
    const operation_attributes none = std::monostate{};
    const auto activation = defaults<sluice_activation_attributes>();
    const auto axis = defaults<sluice_axis_attributes>();
    const auto accumulate = defaults<sluice_accumulate_attributes>();
    const auto row = [](uint32_t kind, std::string_view name, bool composite,
                        std::array<uint32_t, 4> counts, names operands,
                        operation_attributes attributes, bool needed) {
        return table_row{{kind,
                          name,
                          composite,
                          counts[0],
                          counts[1],
                          counts[2],
                          counts[3],
                          {},
                          std::move(attributes),
                          needed},
                         operands};
    };
    const bool P = false;
    const bool C = true;
    return {
        row(0, "", P, {0, 0, 0, 0}, {}, none, false),
        row(SLUICE_OP_EMBED, "embed", P, {2, 2, 1, 1}, {"ids", "W"},
            defaults<sluice_embed_attributes>(), false),
        row(SLUICE_OP_RMS_NORM, "rms_norm", P, {2, 3, 1, 2}, {"x", "w", "addend"},
            defaults<sluice_rms_norm_attributes>(), true),
        row(SLUICE_OP_LAYER_NORM, "layer_norm", P, {2, 3, 1, 1}, {"x", "w", "b"},
            defaults<sluice_layer_norm_attributes>(), true),
        row(SLUICE_OP_LINEAR, "linear", P, {2, 3, 1, 1}, {"x", "W", "b"}, none, false),
        row(SLUICE_OP_ROPE, "rope", P, {2, 2, 1, 1}, {"x", "position"},
            defaults<sluice_rope_attributes>(), true),
        row(SLUICE_OP_ACTIVATION, "activation", P, {1, 1, 1, 1}, {"x"}, activation, false),
        row(SLUICE_OP_GATED_ACTIVATION, "gated_activation", P, {1, 2, 1, 1}, {"gate", "up"},
            activation, false),
        row(SLUICE_OP_GATED_MLP, "gated_mlp", C, {4, 4, 1, 1}, {"x", "W_gate", "W_up", "W_down"},
            activation, false),
        row(SLUICE_OP_KV_WRITE, "kv_write", P, {3, 2 + SLUICE_STATE_PARTS_MAX, 1, 1},
            {"state", "slot", "part0", "part1", "part2", "part3"}, none, false),
        row(SLUICE_OP_KV_GATHER, "kv_gather", P, {2, 2, 1, 1}, {"state", "block_table"},
            defaults<sluice_kv_gather_attributes>(), false),
        row(SLUICE_OP_ATTENTION, "attention", C, {6, 7, 1, 1},
            {"q", "state", "position", "sequence_of_row", "kv_length", "block_table", "sinks"},
            defaults<sluice_attention_attributes>(), true),
        row(SLUICE_OP_MLA_ATTENTION, "mla_attention", C, {9, 9, 1, 1},
            {"q_nope", "q_pe", "state", "W_uk", "W_uv", "position", "sequence_of_row", "kv_length",
             "block_table"},
            defaults<sluice_mla_attention_attributes>(), true),
        row(SLUICE_OP_ROUTE, "route", C, {1, 6, 2, 4},
            {"logits", "choice_bias", "per_expert_scale", "position", "token_ids", "table"},
            defaults<sluice_routing_specification>(), true),
        row(SLUICE_OP_MOE_FFN, "moe_ffn", C, {7, 10, 1, 1},
            {"x", "index", "weight", "expert_map", "W_gate", "W_up", "W_down", "b_gate", "b_up",
             "b_down"},
            defaults<sluice_moe_ffn_attributes>(), false),
        row(SLUICE_OP_GROUP_ROWS, "group_rows", P, {1, 2, 4, 4}, {"index", "expert_map"}, none,
            false),
        row(SLUICE_OP_GROUPED_LINEAR, "grouped_linear", P, {3, 4, 1, 1}, {"x", "offset", "W", "b"},
            none, false),
        row(SLUICE_OP_COMBINE_ROWS, "combine_rows", P, {2, 3, 1, 1}, {"y", "place", "weight"}, none,
            false),
        row(SLUICE_OP_GATHER_ROWS, "gather_rows", P, {2, 2, 1, 1}, {"x", "rows"}, none, false),
        row(SLUICE_OP_GATHER, "gather", P, {2, 2, 1, 1}, {"x", "index"}, none, false),
        row(SLUICE_OP_SCATTER_ADD, "scatter_add", P, {3, 3, 1, 1}, {"base", "rows", "x"}, none,
            false),
        row(SLUICE_OP_RESHAPE, "reshape", P, {1, 1, 1, 1}, {"x"}, none, false),
        row(SLUICE_OP_TRANSPOSE, "transpose", P, {1, 1, 1, 1}, {"x"},
            defaults<sluice_transpose_attributes>(), true),
        row(SLUICE_OP_SLICE, "slice", P, {1, 1, 1, 1}, {"x"}, axis, false),
        row(SLUICE_OP_CONCAT, "concat", P, {1, concat_inputs_max, 1, 1}, {}, axis, false),
        row(SLUICE_OP_CAST, "cast", P, {1, 1, 1, 1}, {"x"}, none, false),
        row(SLUICE_OP_COPY, "copy", P, {1, 1, 1, 1}, {"x"}, none, false),
        row(SLUICE_OP_DEQUANTIZE, "dequantize", P, {1, 1, 1, 1}, {"W"}, none, false),
        row(SLUICE_OP_UNARY, "unary", P, {1, 1, 1, 1}, {"x"}, defaults<sluice_unary_attributes>(),
            true),
        row(SLUICE_OP_BINARY, "binary", P, {2, 2, 1, 1}, {"x", "y"},
            defaults<sluice_binary_attributes>(), true),
        row(SLUICE_OP_SELECT, "select", P, {3, 3, 1, 1}, {"condition", "x", "y"}, none, false),
        row(SLUICE_OP_FILL, "fill", P, {0, 0, 1, 1}, {}, defaults<sluice_fill_attributes>(), false),
        row(SLUICE_OP_IOTA, "iota", P, {0, 0, 1, 1}, {}, none, false),
        row(SLUICE_OP_SOFTMAX, "softmax", P, {1, 1, 1, 1}, {"x"}, none, false),
        row(SLUICE_OP_REDUCE, "reduce", P, {1, 1, 1, 1}, {"x"},
            defaults<sluice_reduce_attributes>(), true),
        row(SLUICE_OP_TOPK, "topk", P, {1, 1, 2, 2}, {"x"}, none, false),
        row(SLUICE_OP_CUMSUM, "cumsum", P, {1, 1, 1, 1}, {"x"}, none, false),
        row(SLUICE_OP_MATMUL, "matmul", P, {2, 2, 1, 1}, {"x", "y"}, none, false),
        row(SLUICE_OP_ACCUMULATE_GRAM, "accumulate_gram", P, {4, 4, 2, 2},
            {"x", "index", "sum", "rows"}, accumulate, false),
        row(SLUICE_OP_ACCUMULATE_ABS_MAX, "accumulate_abs_max", P, {4, 4, 2, 2},
            {"x", "index", "maximum", "rows"}, accumulate, false),
        row(SLUICE_OP_SAMPLE, "sample", C, {1, 1, 1, 2}, {"logits"},
            defaults<sluice_sample_attributes>(), false),
    };
}

const std::vector<table_row>& table() {
    static const std::vector<table_row> rows = [] {
        std::vector<table_row> made = make_table();
        for (table_row& row : made) {
            const size_t named =
                std::min<size_t>(row.description.input_count_max, row.operands.size());
            row.description.inputs = std::span(row.operands).first(named);
        }
        return made;
    }();
    return rows;
}

} // namespace

const operation_description* find_operation(uint32_t kind) {
    static_assert(SLUICE_OP_COUNT == 41);
    if (kind == 0 || kind >= table().size()) return nullptr;
    return &table()[kind].description;
}

std::string operation_name(uint32_t kind) {
    const operation_description* found = find_operation(kind);
    return found != nullptr ? std::string(found->name) : fmt::format("operation {}", kind);
}

bool is_composite(uint32_t kind) {
    const operation_description* found = find_operation(kind);
    return found != nullptr && found->composite;
}

} // namespace sluice
