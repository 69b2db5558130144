// OLMoE (arXiv 2409.02060): norms of queries and keys over all heads together; softmax routing
// without renormalisation; no dense layers.
#include "model/families/config_reader.hpp"
#include "model/families/model_builder.hpp"

namespace sluice {

namespace {

constexpr std::string_view types[] = {"olmoe"};

void read(const json_view& config, model_config& result) {
    read_grouped_attention(config, result);
    read_rope(config, result, result.attention.head_dim);
    const bool bias = config.boolean("attention_bias", false);
    result.attention.query_bias = bias;
    result.attention.key_value_bias = bias;
    result.attention.output_bias = bias;
    result.attention.query_key_norm = attention_config::norm::full;
    result.attention.clip_qkv = static_cast<float>(config.number("clip_qkv", 0.0, 1e6, 0.0));
    read_experts(config, result);
    set_all_sparse(result);
    result.moe.routing.score = SLUICE_SCORE_SOFTMAX;
    if (config.boolean("norm_topk_prob", false)) {
        result.moe.routing.renormalize = SLUICE_RENORMALIZE_ADD;
    }
}

value_number feed_forward(model_builder& builder, uint32_t layer, value_number x) {
    return experts_block(builder, layer, x, expert_names{});
}

} // namespace

const model_family olmoe_family = {"olmoe", types, read, grouped_attention_block, feed_forward};

} // namespace sluice
