// One method an operation: what its results' shapes are. Whether the operands fit is the business
// of rules*.cpp, which look at the finished operation.
#include "base/error.hpp"
#include "base/text.hpp"
#include "program/builder.hpp"

namespace sluice {

namespace {

// Axis `axis` of a shape; a size that no rule accepts where the operand has no such axis, so that
// the check of the operation reports it.
dimension axis_of(const value_shape& dimensions, size_t axis) {
    return axis < dimensions.size() ? dimensions[axis] : size::fixed(1);
}

value_shape with_last(value_shape dimensions, dimension last) {
    if (!dimensions.empty()) dimensions.back() = last;
    return dimensions;
}

value_shape without_last(const value_shape& dimensions, size_t count) {
    const size_t kept = dimensions.size() > count ? dimensions.size() - count : 0;
    return value_shape(dimensions.begin(), dimensions.begin() + static_cast<ptrdiff_t>(kept));
}

value_shape broadcast_shape(const value_shape& left, const value_shape& right,
                            const std::string& name) {
    value_shape result;
    if (!broadcast(left, right, result)) {
        fail(SLUICE_INVALID, "operation {}: {} and {} do not broadcast", quote(name),
             dimensions_text(left), dimensions_text(right));
    }
    return result;
}

} // namespace

// ---- Dense layers ----

value_number program_builder::embed(const std::string& name, value_number ids, value_number weight,
                                    sluice_element_type type, float scale) {
    auto attributes = SLUICE_INIT(sluice_embed_attributes);
    attributes.scale = scale == 1.0f ? 0.0f : scale;
    const value_number x =
        result(name, type, {axis_of(dimensions(ids), 0), axis_of(dimensions(weight), 1)});
    add(SLUICE_OP_EMBED, name, attributes, {ids, weight}, {x});
    return x;
}

norm_results program_builder::rms_norm(const std::string& name, value_number x, value_number weight,
                                       value_number addend, sluice_rms_norm_attributes attributes,
                                       sluice_element_type type, bool wants_sum) {
    const value_number normed = result(name, type, dimensions(x));
    const value_number sum = addend != value_none && wants_sum
                                 ? result(name + ".sum", value(x).element_type, dimensions(x))
                                 : value_none;
    add(SLUICE_OP_RMS_NORM, name, attributes, {x, weight, addend}, {normed, sum});
    return {normed, sum};
}

value_number program_builder::layer_norm(const std::string& name, value_number x,
                                         value_number weight, value_number bias, float epsilon,
                                         sluice_element_type type) {
    auto attributes = SLUICE_INIT(sluice_layer_norm_attributes);
    attributes.epsilon = epsilon;
    const value_number y = result(name, type, dimensions(x));
    add(SLUICE_OP_LAYER_NORM, name, attributes, {x, weight, bias}, {y});
    return y;
}

value_number program_builder::linear(const std::string& name, value_number x, value_number weight,
                                     value_number bias, sluice_element_type type) {
    const value_number y =
        result(name, type, {axis_of(dimensions(x), 0), axis_of(dimensions(weight), 0)});
    add(SLUICE_OP_LINEAR, name, std::monostate{}, {x, weight, bias}, {y});
    return y;
}

value_number program_builder::rope(const std::string& name, value_number x, value_number position,
                                   sluice_rope_attributes attributes,
                                   std::shared_ptr<const std::vector<double>> table) {
    const value_number y = result(name, value(x).element_type, dimensions(x));
    attributes.table = table == nullptr ? nullptr : table->data();
    attributes.table_count = table == nullptr ? 0 : static_cast<uint32_t>(table->size());
    add(SLUICE_OP_ROPE, name, attributes, {x, position}, {y});
    contents_.operations.back().table = std::move(table);
    return y;
}

value_number program_builder::activation(const std::string& name, value_number x,
                                         sluice_activation_attributes attributes) {
    const value_number y = result(name, value(x).element_type, dimensions(x));
    add(SLUICE_OP_ACTIVATION, name, attributes, {x}, {y});
    return y;
}

value_number program_builder::gated_activation(const std::string& name, value_number gate,
                                               value_number up,
                                               sluice_activation_attributes attributes) {
    value_shape shape = dimensions(gate);
    if (attributes.gate_layout != SLUICE_GATE_SPLIT && !shape.empty()) shape.back().offset /= 2;
    const value_number y = result(name, value(gate).element_type, std::move(shape));
    add(SLUICE_OP_GATED_ACTIVATION, name, attributes, {gate, up}, {y});
    return y;
}

value_number program_builder::gated_mlp(const std::string& name, value_number x, value_number gate,
                                        value_number up, value_number down,
                                        sluice_activation_attributes attributes,
                                        sluice_element_type type) {
    const value_number y = result(name, type, dimensions(x));
    add(SLUICE_OP_GATED_MLP, name, attributes, {x, gate, up, down}, {y});
    return y;
}

// ---- Caches and attention ----

value_number program_builder::kv_write(const std::string& name, value_number state,
                                       std::span<const value_number> parts) {
    batch_operands(state); // checks that it is one
    const uint32_t group = contents_.states[value(state).state].group;
    std::vector<value_number> inputs = {state, batch_input(SLUICE_INPUT_SLOT, group)};
    inputs.insert(inputs.end(), parts.begin(), parts.end());
    const value_number written = state_after(state, name);
    add(SLUICE_OP_KV_WRITE, name, std::monostate{}, std::move(inputs), {written});
    return written;
}

value_number program_builder::kv_gather(const std::string& name, value_number state,
                                        value_number block_table, uint32_t part,
                                        sluice_element_type type) {
    batch_operands(state);
    const program_state& description = contents_.states[value(state).state];
    auto attributes = SLUICE_INIT(sluice_kv_gather_attributes);
    attributes.part = part;
    const uint32_t width = part < description.part_width.size() ? description.part_width[part] : 1;
    const value_shape& table = dimensions(block_table);
    const value_number x =
        result(name, type,
               {axis_of(table, 0), multiply(axis_of(table, 1), description.tokens_per_block),
                size::fixed(width)});
    add(SLUICE_OP_KV_GATHER, name, attributes, {state, block_table}, {x});
    return x;
}

value_number program_builder::attention(const std::string& name, const attention_operands& operands,
                                        sluice_attention_attributes attributes,
                                        sluice_element_type type) {
    std::vector<value_number> inputs = {operands.q, operands.state};
    for (const value_number input : batch_operands(operands.state)) inputs.push_back(input);
    inputs.push_back(operands.sinks);
    const program_state& state = contents_.states[value(operands.state).state];
    const uint32_t value_width = state.part_width.size() > 1 && attributes.kv_heads != 0
                                     ? state.part_width[1] / attributes.kv_heads
                                     : 1;
    const value_number o = result(
        name, type, with_last(dimensions(operands.q), size::fixed(std::max(1u, value_width))));
    add(SLUICE_OP_ATTENTION, name, attributes, std::move(inputs), {o});
    return o;
}

value_number program_builder::mla_attention(const std::string& name, value_number q_nope,
                                            value_number q_pe, value_number state,
                                            value_number key_up, value_number value_up,
                                            sluice_mla_attention_attributes attributes,
                                            sluice_element_type type) {
    std::vector<value_number> inputs = {q_nope, q_pe, state, key_up, value_up};
    for (const value_number input : batch_operands(state)) inputs.push_back(input);
    const value_number o =
        result(name, type, with_last(dimensions(q_nope), axis_of(dimensions(value_up), 1)));
    add(SLUICE_OP_MLA_ATTENTION, name, attributes, std::move(inputs), {o});
    return o;
}

// ---- Experts ----

route_results program_builder::route(const std::string& name, const route_operands& operands,
                                     const sluice_routing_specification& specification,
                                     uint32_t flags) {
    const dimension rows = axis_of(dimensions(operands.logits), 0);
    const value_shape chosen = {rows, size::fixed(specification.choice_count)};
    route_results results{};
    results.index = result(name + ".index", SLUICE_I32, chosen);
    results.weight = result(name + ".weight", SLUICE_F32, chosen);
    results.count = result(name + ".count", SLUICE_I32, {size::fixed(specification.expert_count)});
    results.dropped = specification.capacity_factor > 0 || flags != 0
                          ? result(name + ".dropped", SLUICE_I32, {size::fixed(1)})
                          : value_none;
    add(SLUICE_OP_ROUTE, name, specification,
        {operands.logits, operands.choice_bias, operands.per_expert_scale, operands.position,
         operands.token_ids, operands.table},
        {results.index, results.weight, results.count, results.dropped}, flags);
    return results;
}

value_number program_builder::moe_ffn(const std::string& name, const moe_operands& operands,
                                      sluice_moe_ffn_attributes attributes,
                                      sluice_element_type type) {
    const value_number y = result(name, type, dimensions(operands.x));
    add(SLUICE_OP_MOE_FFN, name, attributes,
        {operands.x, operands.index, operands.weight, operands.expert_map, operands.gate,
         operands.up, operands.down, operands.gate_bias, operands.up_bias, operands.down_bias},
        {y});
    return y;
}

group_results program_builder::group_rows(const std::string& name, value_number index,
                                          value_number expert_map, uint32_t local_expert_count) {
    const value_shape chosen = dimensions(index);
    const dimension places = multiply(axis_of(chosen, 0), axis_of(chosen, 1).offset);
    group_results results{};
    results.row = result(name + ".row", SLUICE_I32, {places});
    results.choice = result(name + ".choice", SLUICE_I32, {places});
    results.place = result(name + ".place", SLUICE_I32, chosen);
    results.offset =
        result(name + ".offset", SLUICE_I32, {size::fixed(int64_t(local_expert_count) + 1)});
    add(SLUICE_OP_GROUP_ROWS, name, std::monostate{}, {index, expert_map},
        {results.row, results.choice, results.place, results.offset});
    return results;
}

value_number program_builder::grouped_linear(const std::string& name, value_number x,
                                             value_number offset, value_number weight,
                                             value_number bias, sluice_element_type type) {
    const value_number y =
        result(name, type, {axis_of(dimensions(x), 0), axis_of(dimensions(weight), 1)});
    add(SLUICE_OP_GROUPED_LINEAR, name, std::monostate{}, {x, offset, weight, bias}, {y});
    return y;
}

value_number program_builder::combine_rows(const std::string& name, value_number y,
                                           value_number place, value_number weight,
                                           sluice_element_type type) {
    const value_number o =
        result(name, type, {axis_of(dimensions(place), 0), axis_of(dimensions(y), 1)});
    add(SLUICE_OP_COMBINE_ROWS, name, std::monostate{}, {y, place, weight}, {o});
    return o;
}

// ---- Data movement ----

value_number program_builder::gather_rows(const std::string& name, value_number x,
                                          value_number rows) {
    value_shape shape = dimensions(x);
    if (!shape.empty()) shape[0] = axis_of(dimensions(rows), 0);
    const value_number y = result(name, value(x).element_type, std::move(shape));
    add(SLUICE_OP_GATHER_ROWS, name, std::monostate{}, {x, rows}, {y});
    return y;
}

value_number program_builder::gather(const std::string& name, value_number x, value_number index) {
    value_shape shape =
        broadcast_shape(without_last(dimensions(x), 1), without_last(dimensions(index), 1), name);
    if (!dimensions(index).empty()) shape.push_back(dimensions(index).back());
    const value_number y = result(name, value(x).element_type, std::move(shape));
    add(SLUICE_OP_GATHER, name, std::monostate{}, {x, index}, {y});
    return y;
}

value_number program_builder::scatter_add(const std::string& name, value_number base,
                                          value_number rows, value_number x) {
    const value_number y = result(name, value(base).element_type, dimensions(base));
    add(SLUICE_OP_SCATTER_ADD, name, std::monostate{}, {base, rows, x}, {y});
    return y;
}

value_number program_builder::reshape(const std::string& name, value_number x,
                                      value_shape dimensions) {
    const value_number y = result(name, value(x).element_type, std::move(dimensions));
    add(SLUICE_OP_RESHAPE, name, std::monostate{}, {x}, {y});
    return y;
}

value_number program_builder::transpose(const std::string& name, value_number x,
                                        std::span<const uint32_t> order) {
    auto attributes = SLUICE_INIT(sluice_transpose_attributes);
    value_shape shape;
    for (size_t axis = 0; axis < order.size() && axis < SLUICE_RANK_MAX; ++axis) {
        attributes.order[axis] = order[axis];
        shape.push_back(axis_of(dimensions(x), order[axis]));
    }
    const value_number y = result(name, value(x).element_type, std::move(shape));
    add(SLUICE_OP_TRANSPOSE, name, attributes, {x}, {y});
    return y;
}

value_number program_builder::slice(const std::string& name, value_number x, uint32_t axis,
                                    int64_t begin, dimension size) {
    auto attributes = SLUICE_INIT(sluice_axis_attributes);
    attributes.axis = axis;
    attributes.begin = begin;
    value_shape shape = dimensions(x);
    if (axis < shape.size()) shape[axis] = size;
    const value_number y = result(name, value(x).element_type, std::move(shape));
    add(SLUICE_OP_SLICE, name, attributes, {x}, {y});
    return y;
}

value_number program_builder::concat(const std::string& name, std::span<const value_number> parts,
                                     uint32_t axis) {
    auto attributes = SLUICE_INIT(sluice_axis_attributes);
    attributes.axis = axis;
    if (parts.empty()) fail(SLUICE_INVALID, "operation {}: nothing to join", quote(name));
    value_shape shape = dimensions(parts[0]);
    for (size_t i = 1; i < parts.size() && axis < shape.size(); ++i) {
        shape[axis] = sluice::add(shape[axis], axis_of(dimensions(parts[i]), axis));
    }
    const value_number y = result(name, value(parts[0]).element_type, std::move(shape));
    add(SLUICE_OP_CONCAT, name, attributes, {parts.begin(), parts.end()}, {y});
    return y;
}

value_number program_builder::cast(const std::string& name, value_number x,
                                   sluice_element_type type) {
    const value_number y = result(name, type, dimensions(x));
    add(SLUICE_OP_CAST, name, std::monostate{}, {x}, {y});
    return y;
}

value_number program_builder::copy(const std::string& name, value_number x) {
    const value_number y = result(name, value(x).element_type, dimensions(x));
    add(SLUICE_OP_COPY, name, std::monostate{}, {x}, {y});
    return y;
}

value_number program_builder::dequantize(const std::string& name, value_number weight,
                                         sluice_element_type type) {
    const value_number y = result(name, type, dimensions(weight));
    add(SLUICE_OP_DEQUANTIZE, name, std::monostate{}, {weight}, {y});
    return y;
}

// ---- Elementwise ----

value_number program_builder::unary(const std::string& name, uint32_t function, value_number x,
                                    float a, float b) {
    auto attributes = SLUICE_INIT(sluice_unary_attributes);
    attributes.function = function;
    attributes.a = a;
    attributes.b = b;
    const value_number y = result(name, value(x).element_type, dimensions(x));
    add(SLUICE_OP_UNARY, name, attributes, {x}, {y});
    return y;
}

value_number program_builder::binary(const std::string& name, uint32_t function, value_number x,
                                     value_number y) {
    auto attributes = SLUICE_INIT(sluice_binary_attributes);
    attributes.function = function;
    const bool comparison = function >= SLUICE_BINARY_LESS;
    const value_number z = result(name, comparison ? SLUICE_BOOL : value(x).element_type,
                                  broadcast_shape(dimensions(x), dimensions(y), name));
    add(SLUICE_OP_BINARY, name, attributes, {x, y}, {z});
    return z;
}

value_number program_builder::select(const std::string& name, value_number condition,
                                     value_number x, value_number y) {
    value_shape shape = broadcast_shape(dimensions(condition),
                                        broadcast_shape(dimensions(x), dimensions(y), name), name);
    const value_number z = result(name, value(x).element_type, std::move(shape));
    add(SLUICE_OP_SELECT, name, std::monostate{}, {condition, x, y}, {z});
    return z;
}

value_number program_builder::fill(const std::string& name, sluice_element_type type,
                                   value_shape dimensions, float value) {
    auto attributes = SLUICE_INIT(sluice_fill_attributes);
    attributes.value = value;
    const value_number y = result(name, type, std::move(dimensions));
    add(SLUICE_OP_FILL, name, attributes, {}, {y});
    return y;
}

value_number program_builder::iota(const std::string& name, value_shape dimensions) {
    const value_number y = result(name, SLUICE_I32, std::move(dimensions));
    add(SLUICE_OP_IOTA, name, std::monostate{}, {}, {y});
    return y;
}

// ---- Along the last axis ----

value_number program_builder::softmax(const std::string& name, value_number x) {
    const value_number y = result(name, value(x).element_type, dimensions(x));
    add(SLUICE_OP_SOFTMAX, name, std::monostate{}, {x}, {y});
    return y;
}

value_number program_builder::reduce(const std::string& name, uint32_t function, value_number x) {
    auto attributes = SLUICE_INIT(sluice_reduce_attributes);
    attributes.function = function;
    const value_number y =
        result(name, value(x).element_type, with_last(dimensions(x), size::fixed(1)));
    add(SLUICE_OP_REDUCE, name, attributes, {x}, {y});
    return y;
}

topk_results program_builder::topk(const std::string& name, value_number x, int64_t count) {
    const value_shape shape = with_last(dimensions(x), size::fixed(count));
    topk_results results{};
    results.value = result(name + ".value", value(x).element_type, shape);
    results.index = result(name + ".index", SLUICE_I32, shape);
    add(SLUICE_OP_TOPK, name, std::monostate{}, {x}, {results.value, results.index});
    return results;
}

value_number program_builder::cumsum(const std::string& name, value_number x) {
    const value_number y = result(name, value(x).element_type, dimensions(x));
    add(SLUICE_OP_CUMSUM, name, std::monostate{}, {x}, {y});
    return y;
}

value_number program_builder::matmul(const std::string& name, value_number x, value_number y,
                                     sluice_element_type type) {
    value_shape shape =
        broadcast_shape(without_last(dimensions(x), 2), without_last(dimensions(y), 2), name);
    const value_shape& left = dimensions(x);
    shape.push_back(left.size() >= 2 ? left[left.size() - 2] : size::fixed(1));
    shape.push_back(dimensions(y).empty() ? size::fixed(1) : dimensions(y).back());
    const value_number z = result(name, type, std::move(shape));
    add(SLUICE_OP_MATMUL, name, std::monostate{}, {x, y}, {z});
    return z;
}

// ---- The next token ----

sample_results program_builder::sample(const std::string& name, value_number logits,
                                       uint32_t method) {
    auto attributes = SLUICE_INIT(sluice_sample_attributes);
    attributes.method = method;
    const value_shape rows = {axis_of(dimensions(logits), 0)};
    sample_results results{};
    results.token = result(name + ".token", SLUICE_I32, rows);
    results.log_probability = result(name + ".log_probability", SLUICE_F32, rows);
    add(SLUICE_OP_SAMPLE, name, attributes, {logits}, {results.token, results.log_probability});
    return results;
}

// ---- Statistics ----

program_builder::accumulate_results program_builder::accumulate(uint32_t kind,
                                                                const std::string& name,
                                                                std::vector<value_number> inputs,
                                                                uint32_t expert) {
    auto attributes = SLUICE_INIT(sluice_accumulate_attributes);
    attributes.expert = expert;
    accumulate_results results{};
    results.sum = result(name, SLUICE_F32, dimensions(inputs[2]));
    results.rows = result(name + ".rows", SLUICE_F32, {size::fixed(1)});
    add(kind, name, attributes, std::move(inputs), {results.sum, results.rows});
    return results;
}

program_builder::accumulate_results
program_builder::accumulate_gram(const std::string& name, value_number x, value_number index,
                                 value_number sum, value_number rows, uint32_t expert) {
    return accumulate(SLUICE_OP_ACCUMULATE_GRAM, name, {x, index, sum, rows}, expert);
}

program_builder::accumulate_results
program_builder::accumulate_abs_max(const std::string& name, value_number x, value_number index,
                                    value_number maximum, value_number rows, uint32_t expert) {
    return accumulate(SLUICE_OP_ACCUMULATE_ABS_MAX, name, {x, index, maximum, rows}, expert);
}

} // namespace sluice
