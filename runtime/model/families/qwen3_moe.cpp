// Qwen3 MoE (Alibaba): Qwen3's attention, experts in every layer or every few.
#include "model/families/config_reader.hpp"
#include "model/families/model_builder.hpp"

#include <algorithm>

namespace sluice {

namespace {

constexpr std::string_view types[] = {"qwen3_moe"};

void read(const json_view& config, model_config& result) {
    read_grouped_attention(config, result);
    read_rope(config, result, result.attention.head_dim);
    const bool bias = config.boolean("attention_bias", false);
    result.attention.query_bias = bias;
    result.attention.key_value_bias = bias;
    result.attention.output_bias = bias;
    result.attention.query_key_norm = attention_config::norm::head;
    // Which layers it would mean differs between versions of the reference implementation.
    require_value(config, "use_sliding_window", false);
    read_experts(config, result);
    result.moe.routing.score = SLUICE_SCORE_SOFTMAX;
    if (config.boolean("norm_topk_prob", false)) {
        result.moe.routing.renormalize = SLUICE_RENORMALIZE_ADD;
    }
    const int64_t step = config.integer("decoder_sparse_step", 1, 1 << 20, 1);
    std::vector<int64_t> dense;
    if (const auto layers = config.array_if_present("mlp_only_layers")) {
        dense = layers->as_integer_list(0, int64_t(result.layer_count) - 1, result.layer_count);
    }
    for (int64_t layer = 0; layer < result.layer_count; ++layer) {
        const bool named = std::find(dense.begin(), dense.end(), layer) != dense.end();
        result.layers[static_cast<size_t>(layer)].sparse = !named && (layer + 1) % step == 0;
    }
}

value_number feed_forward(model_builder& builder, uint32_t layer, value_number x) {
    return sparse_or_dense_block(builder, layer, x, expert_names{});
}

} // namespace

const model_family qwen3_moe_family = {"qwen3_moe", types, read, grouped_attention_block,
                                       feed_forward};

} // namespace sluice
