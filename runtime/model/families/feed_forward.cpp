// Dense MLPs, routers and experts.
#include "model/families/model_builder.hpp"

#include "base/error.hpp"

namespace sluice {

namespace {

// W_down (activation(W_gate x) * W_up x) of the modules "<prefix>.gate_proj" and so on.
value_number gated_mlp(model_builder& builder, const std::string& name, value_number x,
                       const std::string& prefix, int64_t width) {
    const int64_t hidden = builder.config.hidden_size;
    const value_number gate = builder.matrix(prefix + ".gate_proj", width, hidden);
    const value_number up = builder.matrix(prefix + ".up_proj", width, hidden);
    const value_number down = builder.matrix(prefix + ".down_proj", hidden, width);
    return builder.build.gated_mlp(name, x, gate, up, down, builder.config.activation, SLUICE_F32);
}

// The same with biases, which the composite has no operands for.
value_number gated_mlp_with_biases(model_builder& builder, uint32_t layer, value_number x,
                                   const std::string& prefix, int64_t width) {
    const sluice_element_type type = builder.compute_type();
    const value_number gate =
        builder.linear(layer_value(layer, "mlp.gate"), x, prefix + ".gate_proj", width, true, type);
    const value_number up =
        builder.linear(layer_value(layer, "mlp.up"), x, prefix + ".up_proj", width, true, type);
    const value_number activated = builder.build.gated_activation(
        layer_value(layer, "mlp.activated"), gate, up, builder.config.activation);
    return builder.linear(layer_value(layer, "mlp"), activated, prefix + ".down_proj",
                          builder.config.hidden_size, true, SLUICE_F32);
}

// One projection of all experts: [E, rows, columns].
value_number expert_stack(model_builder& builder, uint32_t layer, const expert_names& names,
                          std::string_view projection, int64_t rows, int64_t columns) {
    const std::string experts = layer_module(layer, names.experts);
    std::vector<weight_slice_request> slices;
    for (uint32_t expert = 0; expert < builder.config.moe.expert_count; ++expert) {
        weight_slice_request slice;
        slice.tensor = fmt::format("{}.{}.{}.weight", experts, expert, projection);
        slice.stored_rows = rows;
        slice.stored_columns = columns;
        slice.row_count = rows;
        slices.push_back(std::move(slice));
    }
    return builder.stack(fmt::format("{}.{}.weight", experts, projection), rows, columns,
                         std::move(slices));
}

router_answer ask_router(model_builder& builder, uint32_t layer) {
    const moe_config& moe = builder.config.moe;
    if (!builder.options.router) return {moe.routing, std::nullopt};
    auto request = SLUICE_INIT(sluice_router_request);
    request.layer = layer;
    request.expert_count = moe.expert_count;
    request.choice_count = moe.routing.choice_count;
    request.hidden_size = builder.config.hidden_size;
    request.has_choice_bias = moe.choice_bias ? 1 : 0;
    request.model_type = {builder.config.model_type.data(), builder.config.model_type.size()};
    request.model = &moe.routing;
    return builder.options.router(request);
}

} // namespace

value_number dense_mlp_block(model_builder& builder, uint32_t layer, value_number x) {
    const std::string prefix = layer_module(layer, "mlp");
    const int64_t width = builder.config.intermediate_size;
    if (builder.config.mlp_bias) return gated_mlp_with_biases(builder, layer, x, prefix, width);
    return gated_mlp(builder, layer_value(layer, "mlp"), x, prefix, width);
}

route_results router_block(model_builder& builder, uint32_t layer, value_number x,
                           const expert_names& names) {
    const moe_config& moe = builder.config.moe;
    route_operands operands{};
    operands.logits =
        builder.linear(layer_value(layer, "router"), x, layer_module(layer, names.router),
                       moe.expert_count, moe.router_bias, SLUICE_F32);
    const router_answer answer = ask_router(builder, layer);
    if (moe.choice_bias && answer.takes_choice_bias()) {
        operands.choice_bias =
            builder.vector(layer_module(layer, names.choice_bias), moe.expert_count);
    }
    operands.position = builder.build.batch_input(SLUICE_INPUT_POSITION);
    if (answer.takes_token_ids()) {
        operands.token_ids = builder.build.batch_input(SLUICE_INPUT_TOKEN_IDS);
    }
    const route_results routed =
        add_router(builder.build, layer_value(layer, "route"), operands, answer);
    builder.routed_layers.push_back({layer, routed.count, routed.dropped});
    return routed;
}

value_number experts_block(model_builder& builder, uint32_t layer, value_number x,
                           const expert_names& names) {
    const model_config& config = builder.config;
    const int64_t hidden = config.hidden_size;
    const int64_t width = config.moe.expert_width;
    const route_results routed = router_block(builder, layer, x, names);
    moe_operands operands{};
    operands.x = x;
    operands.index = routed.index;
    operands.weight = routed.weight;
    operands.gate = expert_stack(builder, layer, names, names.gate, width, hidden);
    operands.up = expert_stack(builder, layer, names, names.up, width, hidden);
    operands.down = expert_stack(builder, layer, names, names.down, hidden, width);
    auto attributes = SLUICE_INIT(sluice_moe_ffn_attributes);
    attributes.activation = config.activation.activation;
    const value_number experts =
        builder.build.moe_ffn(layer_value(layer, "experts"), operands, attributes, SLUICE_F32);
    if (config.moe.shared_width == 0) return experts;
    const value_number shared =
        gated_mlp(builder, layer_value(layer, "shared_experts"), x,
                  layer_module(layer, names.shared), config.moe.shared_width);
    return builder.build.binary(layer_value(layer, "mlp"), SLUICE_BINARY_ADD, experts, shared);
}

value_number sparse_or_dense_block(model_builder& builder, uint32_t layer, value_number x,
                                   const expert_names& names) {
    return builder.config.layers[layer].sparse ? experts_block(builder, layer, x, names)
                                               : dense_mlp_block(builder, layer, x);
}

} // namespace sluice
