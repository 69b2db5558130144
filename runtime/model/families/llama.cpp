// Llama 2 and 3 (Meta), and Mistral 7B, which differs in its sliding window alone.
#include "model/families/config_reader.hpp"
#include "model/families/model_builder.hpp"

namespace sluice {

namespace {

constexpr std::string_view types[] = {"llama", "mistral"};

void read(const json_view& config, model_config& result) {
    read_grouped_attention(config, result);
    read_rope(config, result, result.attention.head_dim);
    if (result.model_type == "mistral") {
        read_windows(config, result, read_sliding_window(config));
        return;
    }
    const bool bias = config.boolean("attention_bias", false);
    result.attention.query_bias = bias;
    result.attention.key_value_bias = bias;
    result.attention.output_bias = bias;
    result.mlp_bias = config.boolean("mlp_bias", false);
}

} // namespace

const model_family llama_family = {"llama", types, read, grouped_attention_block, dense_mlp_block};

} // namespace sluice
