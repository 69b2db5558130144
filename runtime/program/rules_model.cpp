// Rules of the dense layers, attention and experts.
#include "program/checker.hpp"
#include "program/route_inline.hpp"

#include <cmath>

namespace sluice {

namespace {

using size::fixed;

void check_norm(const operation_checker& check, int64_t width, size_t bias_index) {
    const program_value& x = check.floats(0);
    check.require(!x.dimensions.empty(), "operand 0 (x) must have a last axis");
    const dimension weight_shape[] = {fixed(width)};
    check.weight(1, weight_shape);
    if (bias_index != 0 && check.has(bias_index)) check.weight(bias_index, weight_shape);
    check.float_result(0, x.dimensions);
}

void check_rms_norm(const operation_checker& check) {
    const program_value& x = check.floats(0);
    check.require(!x.dimensions.empty(), "operand 0 (x) must have a last axis");
    const auto& attributes = check.attributes<sluice_rms_norm_attributes>();
    const int64_t width = check.fixed(x, x.dimensions.size() - 1);
    const int64_t group = attributes.group_width == 0 ? width : attributes.group_width;
    check.require(width % group == 0,
                  fmt::format("group_width {} does not divide {}", group, width));
    check.require(attributes.epsilon >= 0 && std::isfinite(attributes.epsilon),
                  fmt::format("epsilon is {}, expected a number from 0", attributes.epsilon));
    check_norm(check, group, 0);
    if (check.has(2)) {
        check.floats(2);
        check.shape_in(2, x.dimensions);
    }
    if (check.has_output(1)) check.float_result(1, x.dimensions);
}

void check_linear(const operation_checker& check) {
    const program_value& x = check.floats(0, 2);
    const program_value& weight = check.weight(1, 2);
    const dimension n = weight.dimensions[0];
    const dimension expected[] = {n, x.dimensions[1]};
    check.weight(1, expected);
    if (check.has(2)) check.weight(2, std::span(&n, 1));
    const dimension y[] = {x.dimensions[0], n};
    check.float_result(0, y);
}

void check_rope_scaling(const operation_checker& check, const sluice_rope_attributes& rope) {
    const auto positive = [&](double value, const char* name) {
        check.require(std::isfinite(value) && value > 0,
                      fmt::format("{} is {}, expected a positive number", name, value));
    };
    check.known(rope.scaling, SLUICE_ROPE_TABLE + 1, "rope scaling");
    check.known(rope.truncate_bounds, 3, "truncate_bounds");
    if (rope.scaling == SLUICE_ROPE_TABLE) {
        check.require(rope.table != nullptr && rope.table_count == rope.dimension / 2,
                      fmt::format("the table has {} frequencies, expected dimension/2 = {}",
                                  rope.table_count, rope.dimension / 2));
        return;
    }
    positive(rope.base, "base");
    if (rope.scaling != SLUICE_ROPE_PLAIN) positive(rope.factor, "factor");
    if (rope.scaling == SLUICE_ROPE_LLAMA3) {
        positive(rope.original_length, "original_length");
        positive(rope.low_frequency_factor, "low_frequency_factor");
        positive(rope.high_frequency_factor, "high_frequency_factor");
        check.require(rope.low_frequency_factor != rope.high_frequency_factor,
                      "low_frequency_factor and high_frequency_factor must differ");
    }
    if (rope.scaling == SLUICE_ROPE_YARN) {
        positive(rope.original_length, "original_length");
        positive(rope.beta_fast, "beta_fast");
        positive(rope.beta_slow, "beta_slow");
        check.require(rope.base != 1.0, "base is 1, which has no logarithm to divide by");
    }
}

void check_rope(const operation_checker& check) {
    const program_value& x = check.floats(0, 3);
    check.integers(1);
    check.shape_in(1, std::span(x.dimensions).first(1));
    const auto& rope = check.attributes<sluice_rope_attributes>();
    const int64_t width = check.fixed(x, 2);
    check.require(
        rope.dimension != 0 && rope.dimension % 2 == 0 && rope.dimension <= width,
        fmt::format("dimension is {}, expected an even number up to {}", rope.dimension, width));
    check.known(rope.interleaved, 2, "interleaved");
    check.known(rope.inverse, 2, "inverse");
    check.require(std::isfinite(rope.magnitude), "magnitude must be finite");
    check_rope_scaling(check, rope);
    check.float_result(0, x.dimensions);
}

// F from the width of gate, which holds up too where the layout is not SPLIT.
dimension half(const operation_checker& check, const dimension& width, uint32_t layout) {
    if (layout == SLUICE_GATE_SPLIT) return width;
    check.require(is_fixed(width) && width.offset % 2 == 0,
                  fmt::format("gate and up together are {} wide, expected an even fixed size",
                              dimension_text(width)));
    return fixed(width.offset / 2);
}

void check_gate_attributes(const operation_checker& check, uint32_t activation, uint32_t layout,
                           bool has_up) {
    check.known(activation, SLUICE_ACTIVATION_SWIGLU_OAI + 1, "activation");
    check.known(layout, SLUICE_GATE_INTERLEAVED + 1, "gate_layout");
    check.require(has_up == (layout == SLUICE_GATE_SPLIT),
                  has_up ? "gate_layout says that gate and up are one operand, but up is given"
                         : "gate_layout says that gate and up are two operands, but up is absent");
}

void check_gated_activation(const operation_checker& check) {
    const auto& attributes = check.attributes<sluice_activation_attributes>();
    check_gate_attributes(check, attributes.activation, attributes.gate_layout, check.has(1));
    const program_value& gate = check.floats(0);
    check.require(!gate.dimensions.empty(), "operand 0 (gate) must have a last axis");
    value_shape y = gate.dimensions;
    y.back() = half(check, y.back(), attributes.gate_layout);
    if (check.has(1)) {
        check.floats(1);
        check.shape_in(1, y);
    }
    check.float_result(0, y);
}

void check_gated_mlp(const operation_checker& check) {
    const auto& attributes = check.attributes<sluice_activation_attributes>();
    check_gate_attributes(check, attributes.activation, attributes.gate_layout, check.has(2));
    const program_value& x = check.floats(0, 2);
    const program_value& gate = check.weight(1, 2);
    const dimension hidden = x.dimensions[1];
    const dimension gate_shape[] = {gate.dimensions[0], hidden};
    check.weight(1, gate_shape);
    if (check.has(2)) check.weight(2, gate_shape);
    const dimension down[] = {hidden, half(check, gate.dimensions[0], attributes.gate_layout)};
    check.weight(3, down);
    check.float_result(0, x.dimensions);
}

// The batch operands of attention: position, sequence_of_row [T], kv_length [S], block_table [S,
// B].
void check_batch_operands(const operation_checker& check, size_t first, const dimension& rows) {
    check.integers(first);
    check.shape_in(first, std::span(&rows, 1));
    check.integers(first + 1);
    check.shape_in(first + 1, std::span(&rows, 1));
    const program_value& length = check.integers(first + 2, 1);
    const program_value& block_table = check.integers(first + 3, 2);
    check.require(same(block_table.dimensions[0], length.dimensions[0]),
                  "block_table and kv_length must have the same number of sequences");
}

void check_finite(const operation_checker& check, float value, const char* name) {
    check.require(std::isfinite(value), fmt::format("{} must be finite", name));
}

void check_parts(const operation_checker& check, const program_state& state, int64_t width0,
                 int64_t width1) {
    const bool fits = state.kind != SLUICE_STATE_PER_SEQUENCE && state.part_width.size() == 2
                      && state.part_width[0] == width0 && state.part_width[1] == width1;
    check.require(fits, fmt::format("state \"{}\" must be paged with two parts of widths {} and {}",
                                    state.name, width0, width1));
}

void check_grouped_query_attention(const operation_checker& check) {
    const auto& attributes = check.attributes<sluice_attention_attributes>();
    const program_value& q = check.floats(0, 3);
    const program_state& state = check.state(1);
    check_batch_operands(check, 2, q.dimensions[0]);
    const int64_t heads = check.fixed(q, 1);
    const int64_t kv_heads = attributes.kv_heads;
    check.require(
        kv_heads >= 1 && heads % kv_heads == 0,
        fmt::format("kv_heads is {}, expected a divisor of {} query heads", kv_heads, heads));
    const program_value& o = check.out(0);
    check.require(o.dimensions.size() == 3, "the result must be [T, heads, width]");
    const int64_t value_width = check.fixed(o, 2);
    check_parts(check, state, kv_heads * check.fixed(q, 2), kv_heads * value_width);
    check_finite(check, attributes.scale, "scale");
    check.require(attributes.softcap >= 0 && std::isfinite(attributes.softcap),
                  "softcap must be 0 or positive");
    if (check.has(6)) check.weight(6, std::span(q.dimensions).subspan(1, 1));
    const dimension expected[] = {q.dimensions[0], q.dimensions[1], fixed(value_width)};
    check.float_result(0, expected);
}

void check_mla_attention(const operation_checker& check) {
    const auto& attributes = check.attributes<sluice_mla_attention_attributes>();
    const program_value& q_nope = check.floats(0, 3);
    const program_value& q_pe = check.floats(1, 3);
    const program_state& state = check.state(2);
    check.require(same(std::span(q_nope.dimensions).first(2), std::span(q_pe.dimensions).first(2)),
                  "q_nope and q_pe must have the same rows and heads");
    const program_value& key_up = check.weight(3, 3);
    const program_value& value_up = check.weight(4, 3);
    const dimension rank = key_up.dimensions[2];
    const dimension key_shape[] = {q_nope.dimensions[1], q_nope.dimensions[2], rank};
    check.weight(3, key_shape);
    const dimension value_shape[] = {q_nope.dimensions[1], value_up.dimensions[1], rank};
    check.weight(4, value_shape);
    check_batch_operands(check, 5, q_nope.dimensions[0]);
    check_parts(check, state, check.fixed(key_up, 2), check.fixed(q_pe, 2));
    check_finite(check, attributes.scale, "scale");
    check.known(attributes.form, SLUICE_MLA_FORM_ABSORBED + 1, "form");
    const dimension o[] = {q_nope.dimensions[0], q_nope.dimensions[1], value_up.dimensions[1]};
    check.float_result(0, o);
}

void check_kv_write(const operation_checker& check) {
    const program_state& state = check.state(0);
    const program_value& slot = check.integers(1, 1);
    check.require(check.input_count() == 2 + state.part_width.size(),
                  fmt::format("{} parts are written, the state has {}", check.input_count() - 2,
                              state.part_width.size()));
    for (size_t part = 0; part < state.part_width.size(); ++part) {
        const program_value& x = check.floats(2 + part);
        check.require(!x.dimensions.empty() && same(x.dimensions[0], slot.dimensions[0]),
                      fmt::format("part {} must have as many rows as slot", part));
        const dimension width[] = {fixed(state.part_width[part])};
        check.require(same_element_count(std::span(x.dimensions).subspan(1), width),
                      fmt::format("part {} has rows of shape {}, the state keeps {} elements", part,
                                  dimensions_text(std::span(x.dimensions).subspan(1)),
                                  state.part_width[part]));
    }
    const program_value& written = check.out(0);
    check.require(written.kind == SLUICE_VALUE_STATE && written.state == check.in(0).state,
                  "the result must be the same state");
}

void check_kv_gather(const operation_checker& check) {
    const auto& attributes = check.attributes<sluice_kv_gather_attributes>();
    const program_state& state = check.state(0);
    const program_value& block_table = check.integers(1, 2);
    check.require(state.kind != SLUICE_STATE_PER_SEQUENCE, "the state must be paged");
    check.require(attributes.part < state.part_width.size(),
                  fmt::format("there is no part {}, the state has {}", attributes.part,
                              state.part_width.size()));
    const dimension x[] = {block_table.dimensions[0],
                           multiply(block_table.dimensions[1], state.tokens_per_block),
                           fixed(state.part_width[attributes.part])};
    check.float_result(0, x);
}

void check_route(const operation_checker& check) {
    const auto& routing = check.attributes<sluice_routing_specification>();
    check_routing_specification(routing, "its specification");
    const program_value& logits = check.floats(0, 2);
    const dimension rows = logits.dimensions[0];
    const dimension experts = fixed(routing.expert_count);
    const dimension expected[] = {rows, experts};
    check.shape_in(0, expected);
    check.require(logits.element_type == SLUICE_F32, "operand 0 (logits) must be f32");
    if (check.has(1)) check.weight(1, std::span(&experts, 1));
    if (check.has(2)) check.weight(2, std::span(&experts, 1));
    for (const size_t index : {size_t(3), size_t(4)}) {
        if (!check.has(index)) continue;
        check.integers(index);
        check.shape_in(index, std::span(&rows, 1));
    }
    if (check.has(5)) {
        const program_value& table = check.integers(5, 2);
        check.require(check.has(4), "a hash table needs operand 4 (token_ids)");
        check.require(is_fixed(table.dimensions[1], routing.choice_count),
                      fmt::format("the hash table must be [V, {}]", routing.choice_count));
    }
    const dimension chosen[] = {rows, fixed(routing.choice_count)};
    const dimension one = fixed(1);
    check.result(0, SLUICE_I32, chosen);
    check.result(1, SLUICE_F32, chosen);
    if (check.has_output(2)) check.result(2, SLUICE_I32, std::span(&experts, 1));
    if (check.has_output(3)) check.result(3, SLUICE_I32, std::span(&one, 1));
}

void check_moe_ffn(const operation_checker& check) {
    const auto& attributes = check.attributes<sluice_moe_ffn_attributes>();
    check_gate_attributes(check, attributes.activation, attributes.gate_layout, check.has(5));
    check.known(attributes.zero_expert, SLUICE_ZERO_EXPERT_ZERO + 1, "zero_expert");
    check.known(attributes.weight_on_input, 2, "weight_on_input");
    const program_value& x = check.floats(0, 2);
    const program_value& index = check.integers(1, 2);
    const program_value& weight = check.floats(2, 2);
    check.require(same(index.dimensions[0], x.dimensions[0]),
                  "operand 1 (index) must have as many rows as x");
    check.fixed(index, 1);
    check.require(weight.element_type == SLUICE_F32, "operand 2 (weight) must be f32");
    check.shape_in(2, index.dimensions);
    if (check.has(3)) check.integers(3, 1);
    check.require(!check.has(3) || attributes.zero_expert == SLUICE_ZERO_EXPERT_NONE,
                  "zero-computation experts are named by indices without a map");
    const program_value& gate = check.weight(4, 3);
    const dimension experts = gate.dimensions[0];
    const dimension gate_shape[] = {experts, gate.dimensions[1], x.dimensions[1]};
    check.weight(4, gate_shape);
    if (check.has(5)) check.weight(5, gate_shape);
    const dimension width = half(check, gate.dimensions[1], attributes.gate_layout);
    const dimension down[] = {experts, x.dimensions[1], width};
    check.weight(6, down);
    if (check.has(7)) check.weight(7, std::span(gate_shape).first(2));
    check.require(!check.has(8) || check.has(5), "b_up is given, but W_up is absent");
    if (check.has(8)) check.weight(8, std::span(gate_shape).first(2));
    if (check.has(9)) check.weight(9, std::span(down).first(2));
    check.float_result(0, x.dimensions);
}

void check_group_rows(const operation_checker& check) {
    const program_value& index = check.integers(0, 2);
    if (check.has(1)) check.integers(1, 1);
    const dimension places[] = {multiply(index.dimensions[0], check.fixed(index, 1))};
    check.result(0, SLUICE_I32, places);
    check.result(1, SLUICE_I32, places);
    check.result(2, SLUICE_I32, index.dimensions);
    const program_value& offset = check.out(3);
    check.require(offset.element_type == SLUICE_I32 && offset.dimensions.size() == 1
                      && check.fixed(offset, 0) >= 2,
                  "result 3 (offset) must be i32 [experts + 1]");
}

void check_grouped_linear(const operation_checker& check) {
    const program_value& x = check.floats(0, 2);
    const program_value& offset = check.integers(1, 1);
    const program_value& weight = check.weight(2, 3);
    const dimension expected[] = {fixed(check.fixed(offset, 0) - 1), weight.dimensions[1],
                                  x.dimensions[1]};
    check.weight(2, expected);
    if (check.has(3)) check.weight(3, std::span(expected).first(2));
    const dimension y[] = {x.dimensions[0], weight.dimensions[1]};
    check.float_result(0, y);
}

void check_combine_rows(const operation_checker& check) {
    const program_value& y = check.floats(0, 2);
    const program_value& place = check.integers(1, 2);
    if (check.has(2)) {
        const program_value& weight = check.floats(2, 2);
        check.require(weight.element_type == SLUICE_F32, "operand 2 (weight) must be f32");
        check.shape_in(2, place.dimensions);
    }
    const dimension o[] = {place.dimensions[0], y.dimensions[1]};
    check.float_result(0, o);
}

} // namespace

void check_dense(const operation_checker& check) {
    switch (check.operation().kind) {
    case SLUICE_OP_EMBED: {
        const program_value& ids = check.integers(0, 1);
        const program_value& weight = check.weight(1, 2);
        const dimension x[] = {ids.dimensions[0], weight.dimensions[1]};
        check.float_result(0, x);
        return;
    }
    case SLUICE_OP_RMS_NORM:
        return check_rms_norm(check);
    case SLUICE_OP_LAYER_NORM: {
        const program_value& x = check.floats(0);
        check.require(!x.dimensions.empty(), "operand 0 (x) must have a last axis");
        return check_norm(check, check.fixed(x, x.dimensions.size() - 1), 2);
    }
    case SLUICE_OP_LINEAR:
        return check_linear(check);
    case SLUICE_OP_ROPE:
        return check_rope(check);
    case SLUICE_OP_ACTIVATION:
        check.known(check.attributes<sluice_activation_attributes>().activation,
                    SLUICE_ACTIVATION_RELU_SQUARED + 1, "activation without a gate");
        return check.float_result(0, check.floats(0).dimensions);
    case SLUICE_OP_GATED_ACTIVATION:
        return check_gated_activation(check);
    case SLUICE_OP_GATED_MLP:
        return check_gated_mlp(check);
    default:
        return;
    }
}

void check_attention(const operation_checker& check) {
    switch (check.operation().kind) {
    case SLUICE_OP_KV_WRITE:
        return check_kv_write(check);
    case SLUICE_OP_KV_GATHER:
        return check_kv_gather(check);
    case SLUICE_OP_ATTENTION:
        return check_grouped_query_attention(check);
    case SLUICE_OP_MLA_ATTENTION:
        return check_mla_attention(check);
    default:
        return;
    }
}

void check_experts(const operation_checker& check) {
    switch (check.operation().kind) {
    case SLUICE_OP_ROUTE:
        return check_route(check);
    case SLUICE_OP_MOE_FFN:
        return check_moe_ffn(check);
    case SLUICE_OP_GROUP_ROWS:
        return check_group_rows(check);
    case SLUICE_OP_GROUPED_LINEAR:
        return check_grouped_linear(check);
    case SLUICE_OP_COMBINE_ROWS:
        return check_combine_rows(check);
    default:
        return;
    }
}

} // namespace sluice
