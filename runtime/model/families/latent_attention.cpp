#include "model/families/model_builder.hpp"

namespace sluice {

namespace {

// The norms of the low-rank vectors have an epsilon of their own in the reference implementations,
// which config.json does not say.
constexpr float low_rank_epsilon = 1e-6f;
// Elements of a latent that share a scale in a cache of whole numbers.
constexpr uint32_t latent_group = 128;

struct query {
    value_number nope; // f [T, H, n]
    value_number pe;   // f [T, H, r], turned
};

query queries(model_builder& builder, uint32_t layer, value_number x) {
    program_builder& build = builder.build;
    const mla_config& mla = builder.config.mla;
    const int64_t heads = builder.config.attention.head_count;
    const int64_t head_width = int64_t(mla.nope_head_dim) + mla.rope_head_dim;
    value_number q = value_none;
    if (mla.query_lora_rank == 0) {
        q = builder.linear(layer_value(layer, "q"), x, layer_module(layer, "self_attn.q_proj"),
                           heads * head_width, false, builder.compute_type());
    } else {
        const value_number low = builder.linear(
            layer_value(layer, "q_a"), x, layer_module(layer, "self_attn.q_a_proj"),
            mla.query_lora_rank, builder.config.attention.query_bias, builder.compute_type());
        const value_number normed =
            builder.norm(layer_value(layer, "q_a_norm"), low,
                         layer_module(layer, "self_attn.q_a_layernorm.weight"), mla.query_lora_rank,
                         low_rank_epsilon);
        q = builder.linear(layer_value(layer, "q"), normed,
                           layer_module(layer, "self_attn.q_b_proj"), heads * head_width, false,
                           builder.compute_type());
    }
    const value_number by_head =
        build.reshape(layer_value(layer, "q_heads"), q,
                      {size::tokens(), size::fixed(heads), size::fixed(head_width)});
    const value_number nope =
        build.slice(layer_value(layer, "q_nope"), by_head, 2, 0, size::fixed(mla.nope_head_dim));
    const value_number pe = build.slice(layer_value(layer, "q_pe"), by_head, 2, mla.nope_head_dim,
                                        size::fixed(mla.rope_head_dim));
    return {nope, build.rope(layer_value(layer, "q_pe_rope"), pe,
                             build.batch_input(SLUICE_INPUT_POSITION), builder.config.rope)};
}

// Writes the normalised latent and the turned shared key.
value_number write_cache(model_builder& builder, uint32_t layer, value_number x) {
    program_builder& build = builder.build;
    const mla_config& mla = builder.config.mla;
    const value_number joint = builder.linear(
        layer_value(layer, "kv_a"), x, layer_module(layer, "self_attn.kv_a_proj_with_mqa"),
        int64_t(mla.kv_lora_rank) + mla.rope_head_dim, builder.config.attention.key_value_bias,
        builder.compute_type());
    const value_number latent =
        build.slice(layer_value(layer, "latent"), joint, 1, 0, size::fixed(mla.kv_lora_rank));
    const value_number normed = builder.norm(layer_value(layer, "latent_norm"), latent,
                                             layer_module(layer, "self_attn.kv_a_layernorm.weight"),
                                             mla.kv_lora_rank, low_rank_epsilon);
    const value_number key = build.slice(layer_value(layer, "k_pe"), joint, 1, mla.kv_lora_rank,
                                         size::fixed(mla.rope_head_dim));
    const value_number one_head =
        build.reshape(layer_value(layer, "k_pe_head"), key,
                      {size::tokens(), size::fixed(1), size::fixed(mla.rope_head_dim)});
    const value_number turned =
        build.rope(layer_value(layer, "k_pe_rope"), one_head,
                   build.batch_input(SLUICE_INPUT_POSITION), builder.config.rope);
    const uint32_t group = mla.kv_lora_rank % latent_group == 0 ? latent_group : mla.kv_lora_rank;
    const value_number cache =
        builder.add_cache(layer, std::array{cache_part{mla.kv_lora_rank, group},
                                            cache_part{mla.rope_head_dim, mla.rope_head_dim}});
    return build.kv_write(layer_value(layer, "cache_written"), cache, std::array{normed, turned});
}

// Rows of kv_b_proj [H * (n + dv), R], which has the rows of W_uk and W_uv of each head in turn.
value_number up_projection(model_builder& builder, uint32_t layer, const char* suffix,
                           int64_t first, int64_t rows) {
    const mla_config& mla = builder.config.mla;
    const int64_t heads = builder.config.attention.head_count;
    const int64_t head_rows = int64_t(mla.nope_head_dim) + mla.value_head_dim;
    const std::string tensor = layer_module(layer, "self_attn.kv_b_proj.weight");
    std::vector<weight_slice_request> slices;
    for (int64_t head = 0; head < heads; ++head) {
        weight_slice_request slice;
        slice.tensor = tensor;
        slice.stored_rows = heads * head_rows;
        slice.stored_columns = mla.kv_lora_rank;
        slice.row_begin = head * head_rows + first;
        slice.row_count = rows;
        slices.push_back(std::move(slice));
    }
    return builder.stack(tensor + suffix, rows, mla.kv_lora_rank, std::move(slices));
}

} // namespace

value_number latent_attention_block(model_builder& builder, uint32_t layer, value_number x) {
    program_builder& build = builder.build;
    const mla_config& mla = builder.config.mla;
    const query q = queries(builder, layer, x);
    const value_number cache = write_cache(builder, layer, x);
    const value_number key_up = up_projection(builder, layer, "/key", 0, mla.nope_head_dim);
    const value_number value_up =
        up_projection(builder, layer, "/value", mla.nope_head_dim, mla.value_head_dim);
    auto attributes = SLUICE_INIT(sluice_mla_attention_attributes);
    attributes.scale = builder.config.attention_scale;
    attributes.form = builder.options.mla_form;
    const value_number o =
        build.mla_attention(layer_value(layer, "attention"), q.nope, q.pe, cache, key_up, value_up,
                            attributes, builder.compute_type());
    const int64_t width = int64_t(builder.config.attention.head_count) * mla.value_head_dim;
    const value_number rows = build.reshape(layer_value(layer, "attention_rows"), o,
                                            {size::tokens(), size::fixed(width)});
    return builder.linear(layer_value(layer, "o"), rows, layer_module(layer, "self_attn.o_proj"),
                          builder.config.hidden_size, builder.config.attention.output_bias,
                          SLUICE_F32);
}

} // namespace sluice
