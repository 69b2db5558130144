// Mixtral (Mistral AI): softmax over all experts, the best two, renormalised.
#include "model/families/config_reader.hpp"
#include "model/families/model_builder.hpp"

namespace sluice {

namespace {

constexpr std::string_view types[] = {"mixtral"};

constexpr expert_names names = {
    .router = "block_sparse_moe.gate",
    .choice_bias = "",
    .experts = "block_sparse_moe.experts",
    .gate = "w1",
    .up = "w3",
    .down = "w2",
    .shared = "",
};

void read(const json_view& config, model_config& result) {
    read_grouped_attention(config, result);
    read_rope(config, result, result.attention.head_dim);
    read_windows(config, result, read_sliding_window(config));
    read_experts(config, result);
    set_all_sparse(result);
    result.moe.routing.score = SLUICE_SCORE_SOFTMAX;
    result.moe.routing.renormalize = SLUICE_RENORMALIZE_ADD;
}

value_number feed_forward(model_builder& builder, uint32_t layer, value_number x) {
    return experts_block(builder, layer, x, names);
}

} // namespace

const model_family mixtral_family = {"mixtral", types, read, grouped_attention_block, feed_forward};

} // namespace sluice
