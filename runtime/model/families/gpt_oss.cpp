// gpt-oss (OpenAI): attention sinks, windows in every other layer, experts with biases and
// interleaved gate and up, stored in MXFP4 or bf16.
#include "model/families/config_reader.hpp"
#include "model/families/model_builder.hpp"

#include "base/error.hpp"

namespace sluice {

namespace {

constexpr std::string_view types[] = {"gpt_oss"};

constexpr expert_names names = {.router = "mlp.router",
                                .choice_bias = "",
                                .experts = "",
                                .gate = "",
                                .up = "",
                                .down = "",
                                .shared = ""};

void read(const json_view& config, model_config& result) {
    read_grouped_attention(config, result);
    read_rope(config, result, result.attention.head_dim);
    const bool bias = config.boolean("attention_bias", true);
    result.attention.query_bias = bias;
    result.attention.key_value_bias = bias;
    result.attention.output_bias = bias;
    result.attention.sinks = true;
    const auto window = read_sliding_window(config);
    if (window && !config.find("layer_types")) {
        for (uint32_t layer = 0; layer < result.layer_count; layer += 2) {
            result.layers[layer].window = *window;
        }
    } else {
        read_windows(config, result, window);
    }
    read_experts(config, result);
    set_all_sparse(result);
    result.moe.router_bias = true;
    result.moe.expert_bias = true;
    result.moe.gate_layout = SLUICE_GATE_INTERLEAVED;
    result.moe.routing.score = SLUICE_SCORE_SOFTMAX;
    result.moe.routing.score_stage = SLUICE_SCORE_AFTER_CHOICE;
    require_text(config, {"hidden_act"}, {"silu"});
    result.activation.activation = SLUICE_ACTIVATION_SWIGLU_OAI;
    result.activation.alpha = 1.702f;
    result.activation.clamp = static_cast<float>(config.number("swiglu_limit", 0.0, 1e6, 7.0));
}

// A projection of all experts, which is one tensor.
value_number expert_stack(model_builder& builder, uint32_t layer, const char* projection,
                          int64_t rows, int64_t columns) {
    const bool packed = builder.config.quantization == "mxfp4";
    const std::string name =
        layer_module(layer, fmt::format("mlp.experts.{}{}", projection,
                                        packed && columns != 0 ? "_blocks" : ""));
    const uint32_t count = builder.config.moe.expert_count;
    std::vector<weight_slice_request> slices;
    for (uint32_t expert = 0; expert < count; ++expert) {
        weight_slice_request slice;
        slice.tensor = name;
        slice.matrix = expert;
        slice.stack_size = count;
        slice.stored_rows = rows;
        slice.stored_columns = columns;
        slice.row_count = rows;
        slice.stored_transposed = !packed && columns != 0;
        slices.push_back(std::move(slice));
    }
    return builder.stack(name, rows, columns, std::move(slices));
}

value_number feed_forward(model_builder& builder, uint32_t layer, value_number x) {
    const int64_t hidden = builder.config.hidden_size;
    const int64_t width = builder.config.moe.expert_width;
    const route_results routed = router_block(builder, layer, x, names);
    moe_operands operands{};
    operands.x = x;
    operands.index = routed.index;
    operands.weight = routed.weight;
    operands.gate = expert_stack(builder, layer, "gate_up_proj", 2 * width, hidden);
    operands.down = expert_stack(builder, layer, "down_proj", hidden, width);
    operands.gate_bias = expert_stack(builder, layer, "gate_up_proj_bias", 2 * width, 0);
    operands.down_bias = expert_stack(builder, layer, "down_proj_bias", hidden, 0);
    auto attributes = SLUICE_INIT(sluice_moe_ffn_attributes);
    attributes.activation = builder.config.activation.activation;
    attributes.alpha = builder.config.activation.alpha;
    attributes.clamp = builder.config.activation.clamp;
    attributes.gate_layout = builder.config.moe.gate_layout;
    return builder.build.moe_ffn(layer_value(layer, "experts"), operands, attributes, SLUICE_F32);
}

} // namespace

const model_family gpt_oss_family = {"gpt_oss", types, read, grouped_attention_block, feed_forward};

} // namespace sluice
