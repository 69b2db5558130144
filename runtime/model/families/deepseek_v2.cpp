// DeepSeek-V2 (arXiv 2405.04434): latent attention; softmax routing, where the larger models first
// choose groups of experts by their best member.
#include "model/families/config_reader.hpp"
#include "model/families/model_builder.hpp"

namespace sluice {

namespace {

constexpr std::string_view types[] = {"deepseek_v2"};

void read(const json_view& config, model_config& result) {
    read_latent_attention(config, result);
    require_value(config, "mlp_bias", false);
    read_experts(config, result);
    read_first_dense_layers(config, result);
    require_text(config, {"scoring_func"}, {"softmax"});
    require_text(config, {"topk_method"}, {"greedy", "group_limited_greedy"});
    sluice_routing_specification& routing = result.moe.routing;
    routing.score = SLUICE_SCORE_SOFTMAX;
    if (config.text("topk_method", "greedy") == "group_limited_greedy") {
        read_expert_groups(config, result, SLUICE_GROUP_SCORE_MAX, SLUICE_MASK_ZERO);
    }
    // DeepSeek's own code scales only what it has not renormalised.
    routing.scale = static_cast<float>(config.number("routed_scaling_factor", 1e-6, 1e6, 1.0));
    if (config.boolean("norm_topk_prob", false) && routing.choice_count > 1) {
        routing.renormalize = SLUICE_RENORMALIZE_ADD;
        routing.renormalize_epsilon = 1e-20f;
        routing.scale_condition = SLUICE_SCALE_NOT_RENORMALIZED;
    }
}

value_number feed_forward(model_builder& builder, uint32_t layer, value_number x) {
    return sparse_or_dense_block(builder, layer, x, expert_names{});
}

} // namespace

const model_family deepseek_v2_family = {"deepseek_v2", types, read, latent_attention_block,
                                         feed_forward};

} // namespace sluice
