#include "model/families/model_builder.hpp"

#include "base/error.hpp"

namespace sluice {

namespace {

// The residual stream: its sum so far, and what the last block adds to it. The addition itself is
// part of the next norm.
struct residual {
    value_number stream;              // f32 [T, D]
    value_number addend = value_none; // f32 [T, D]
};

value_number normed(model_builder& builder, const std::string& name, const std::string& tensor,
                    residual& sum) {
    auto attributes = SLUICE_INIT(sluice_rms_norm_attributes);
    attributes.epsilon = builder.config.norm_epsilon;
    const value_number weight = builder.vector(tensor, builder.config.hidden_size);
    const norm_results results = builder.build.rms_norm(name, sum.stream, weight, sum.addend,
                                                        attributes, builder.compute_type());
    if (results.sum != value_none) sum = {results.sum, value_none};
    return results.normed;
}

// The rows whose logits are wanted, through the final norm and the head: f32 [L, V].
value_number head(model_builder& builder, const residual& sum) {
    program_builder& build = builder.build;
    const model_config& config = builder.config;
    const value_number rows = build.batch_input(SLUICE_INPUT_LOGIT_ROWS);
    const value_number stream = build.gather_rows("head.stream", sum.stream, rows);
    const value_number addend = build.gather_rows("head.addend", sum.addend, rows);
    auto attributes = SLUICE_INIT(sluice_rms_norm_attributes);
    attributes.epsilon = config.norm_epsilon;
    const value_number weight = builder.vector("model.norm.weight", config.hidden_size);
    const value_number x = build
                               .rms_norm("head.norm", stream, weight, addend, attributes,
                                         builder.compute_type(), false)
                               .normed;
    const std::string module = config.tied_embeddings ? "model.embed_tokens" : "lm_head";
    return builder.linear("logits", x, module, config.vocabulary_size, false, SLUICE_F32);
}

} // namespace

model_program build_decoder(const model_family& family, const model_config& config,
                            const model_program_options& options) {
    model_builder builder(config, options);
    const value_number ids = builder.build.batch_input(SLUICE_INPUT_TOKEN_IDS);
    const value_number embedding =
        builder.matrix("model.embed_tokens", config.vocabulary_size, config.hidden_size);
    residual sum{builder.build.embed("embed", ids, embedding, SLUICE_F32)};
    for (uint32_t layer = 0; layer < config.layer_count; ++layer) {
        const value_number attention_input =
            normed(builder, layer_value(layer, "input_norm"),
                   layer_module(layer, "input_layernorm.weight"), sum);
        sum.addend = family.attention(builder, layer, attention_input);
        const value_number mlp_input =
            normed(builder, layer_value(layer, "post_attention_norm"),
                   layer_module(layer, "post_attention_layernorm.weight"), sum);
        sum.addend = family.feed_forward(builder, layer, mlp_input);
    }
    return builder.finish(head(builder, sum));
}

} // namespace sluice
