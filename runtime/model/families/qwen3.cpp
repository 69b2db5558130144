// Qwen3 (Alibaba), dense: norms of queries and keys over each head.
#include "model/families/config_reader.hpp"
#include "model/families/model_builder.hpp"

namespace sluice {

namespace {

constexpr std::string_view types[] = {"qwen3"};

void read(const json_view& config, model_config& result) {
    read_grouped_attention(config, result);
    read_rope(config, result, result.attention.head_dim);
    const bool bias = config.boolean("attention_bias", false);
    result.attention.query_bias = bias;
    result.attention.key_value_bias = bias;
    result.attention.output_bias = bias;
    result.attention.query_key_norm = attention_config::norm::head;
    const auto window =
        config.boolean("use_sliding_window", false) ? read_sliding_window(config) : std::nullopt;
    read_windows(config, result, window);
    if (!window || config.find("layer_types")) return;
    // Without layer_types the first max_window_layers layers see everything.
    const int64_t first = config.integer("max_window_layers", 0, 1 << 20, 28);
    for (uint32_t layer = 0; layer < result.layer_count && layer < first; ++layer) {
        result.layers[layer].window = 0;
    }
}

} // namespace

const model_family qwen3_family = {"qwen3", types, read, grouped_attention_block, dense_mlp_block};

} // namespace sluice
