// DeepSeek-V3 and R1 (arXiv 2412.19437): latent attention; sigmoid scores, a bias that counts for
// the choice alone, groups scored by their two best members.
#include "model/families/config_reader.hpp"
#include "model/families/model_builder.hpp"

namespace sluice {

namespace {

constexpr std::string_view types[] = {"deepseek_v3"};

void read(const json_view& config, model_config& result) {
    read_latent_attention(config, result);
    require_value(config, "mlp_bias", false);
    read_experts(config, result);
    read_first_dense_layers(config, result);
    require_text(config, {"scoring_func"}, {"sigmoid"});
    require_text(config, {"topk_method"}, {"noaux_tc"});
    read_sigmoid_routing(config, result);
}

value_number feed_forward(model_builder& builder, uint32_t layer, value_number x) {
    return sparse_or_dense_block(builder, layer, x, expert_names{});
}

} // namespace

const model_family deepseek_v3_family = {"deepseek_v3", types, read, latent_attention_block,
                                         feed_forward};

} // namespace sluice
