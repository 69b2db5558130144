// GLM-4.5 (Zhipu AI): grouped-query attention that turns a part of each head, DeepSeek-V3's
// routing.
#include "model/families/config_reader.hpp"
#include "model/families/model_builder.hpp"

namespace sluice {

namespace {

constexpr std::string_view types[] = {"glm4_moe"};

void read(const json_view& config, model_config& result) {
    read_grouped_attention(config, result);
    read_rope(config, result, result.attention.head_dim);
    const bool bias = config.boolean("attention_bias", false);
    result.attention.query_bias = bias;
    result.attention.key_value_bias = bias;
    if (config.boolean("use_qk_norm", false)) {
        result.attention.query_key_norm = attention_config::norm::head;
    }
    read_experts(config, result);
    read_first_dense_layers(config, result);
    read_sigmoid_routing(config, result);
}

value_number feed_forward(model_builder& builder, uint32_t layer, value_number x) {
    return sparse_or_dense_block(builder, layer, x, expert_names{});
}

} // namespace

const model_family glm4_moe_family = {"glm4_moe", types, read, grouped_attention_block,
                                      feed_forward};

} // namespace sluice
