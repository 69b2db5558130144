#include "base/error.hpp"
#include "model/families/model_builder.hpp"

namespace sluice {

namespace {

// Projection, norm, clipping: f [T, heads * head_dim].
value_number projected(model_builder& builder, uint32_t layer, value_number x, const char* letter,
                       uint32_t head_count, bool has_bias, bool has_norm) {
    const attention_config& attention = builder.config.attention;
    const int64_t width = int64_t(head_count) * attention.head_dim;
    const std::string module = layer_module(layer, fmt::format("self_attn.{}", letter));
    value_number y = builder.linear(layer_value(layer, letter), x, module + "_proj", width,
                                    has_bias, builder.compute_type());
    if (has_norm && attention.query_key_norm != attention_config::norm::none) {
        const bool by_head = attention.query_key_norm == attention_config::norm::head;
        const int64_t norm_width = by_head ? attention.head_dim : width;
        y = builder.norm(layer_value(layer, fmt::format("{}_norm", letter)), y,
                         module + "_norm.weight", norm_width, builder.config.norm_epsilon,
                         by_head ? attention.head_dim : 0);
    }
    if (attention.clip_qkv > 0) {
        y = builder.build.unary(layer_value(layer, fmt::format("{}_clipped", letter)),
                                SLUICE_UNARY_CLAMP, y, -attention.clip_qkv, attention.clip_qkv);
    }
    return y;
}

value_number turned(model_builder& builder, uint32_t layer, value_number x, const char* letter,
                    uint32_t head_count) {
    program_builder& build = builder.build;
    const value_number heads = build.reshape(
        layer_value(layer, fmt::format("{}_heads", letter)), x,
        {size::tokens(), size::fixed(head_count), size::fixed(builder.config.attention.head_dim)});
    return build.rope(layer_value(layer, fmt::format("{}_rope", letter)), heads,
                      build.batch_input(SLUICE_INPUT_POSITION), builder.config.rope);
}

} // namespace

value_number grouped_attention_block(model_builder& builder, uint32_t layer, value_number x) {
    program_builder& build = builder.build;
    const attention_config& attention = builder.config.attention;
    const uint32_t heads = attention.head_count;
    const uint32_t kv_heads = attention.kv_head_count;
    const value_number q = projected(builder, layer, x, "q", heads, attention.query_bias, true);
    const value_number k =
        projected(builder, layer, x, "k", kv_heads, attention.key_value_bias, true);
    const value_number v =
        projected(builder, layer, x, "v", kv_heads, attention.key_value_bias, false);
    const value_number q_turned = turned(builder, layer, q, "q", heads);
    const value_number k_turned = turned(builder, layer, k, "k", kv_heads);

    const uint32_t kv_width = kv_heads * attention.head_dim;
    const cache_part part{kv_width, attention.head_dim}; // keys, and values likewise
    const value_number cache = builder.add_cache(layer, std::array{part, part});
    const value_number written =
        build.kv_write(layer_value(layer, "cache_written"), cache, std::array{k_turned, v});

    auto attributes = SLUICE_INIT(sluice_attention_attributes);
    attributes.kv_heads = kv_heads;
    attributes.scale = builder.config.attention_scale;
    attributes.window = builder.config.layers[layer].window;
    const value_number sinks = attention.sinks
                                   ? builder.vector(layer_module(layer, "self_attn.sinks"), heads)
                                   : value_none;
    const value_number o =
        build.attention(layer_value(layer, "attention"), {q_turned, written, sinks}, attributes,
                        builder.compute_type());
    const int64_t width = int64_t(heads) * attention.head_dim;
    const value_number rows = build.reshape(layer_value(layer, "attention_rows"), o,
                                            {size::tokens(), size::fixed(width)});
    return builder.linear(layer_value(layer, "o"), rows, layer_module(layer, "self_attn.o_proj"),
                          builder.config.hidden_size, attention.output_bias, SLUICE_F32);
}

} // namespace sluice
