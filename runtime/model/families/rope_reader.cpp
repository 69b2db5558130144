// Rotary embeddings from config.json, in the newer form (rope_parameters) and the older one
// (rope_theta beside rope_scaling), and what of them goes into latent attention's scale.
#include "base/error.hpp"
#include "base/text.hpp"
#include "model/families/config_reader.hpp"

#include <cmath>

namespace sluice {

namespace {

constexpr double base_default = 10000.0;
constexpr double base_max = 1e12;
constexpr double length_max = 1e9;

// The scaling's object, whichever form; nothing when there is none.
std::optional<json_view> scaling_of(const json_view& config) {
    const auto newer = config.object_if_present("rope_parameters");
    const auto older = config.object_if_present("rope_scaling");
    if (newer && newer->find("full_attention")) {
        newer->fail_unsupported("rope parameters that differ by layer type are not supported");
    }
    return newer ? newer : older;
}

double base_of(const json_view& config, const std::optional<json_view>& scaling) {
    if (scaling && scaling->find("rope_theta")) {
        return scaling->number("rope_theta", 1.0001, base_max);
    }
    return config.number("rope_theta", 1.0001, base_max, base_default);
}

std::string type_of(const std::optional<json_view>& scaling) {
    if (!scaling) return "default";
    const auto type = find_alias(*scaling, {"rope_type", "type"});
    return type ? std::string(type->as_text()) : "default";
}

double original_length_of(const json_view& config, const json_view& scaling) {
    return scaling.number("original_max_position_embeddings", 1, length_max,
                          config.number("original_max_position_embeddings", 1, length_max,
                                        config.number("max_position_embeddings")));
}

void read_llama3(const json_view& config, const json_view& scaling, sluice_rope_attributes& rope) {
    rope.scaling = SLUICE_ROPE_LLAMA3;
    rope.factor = scaling.number("factor", 1, 1e6);
    rope.low_frequency_factor = scaling.number("low_freq_factor", 1e-6, 1e6);
    rope.high_frequency_factor = scaling.number("high_freq_factor", 1e-6, 1e6);
    rope.original_length = original_length_of(config, scaling);
    if (rope.high_frequency_factor <= rope.low_frequency_factor) {
        scaling.at("high_freq_factor")
            .fail_expected(
                fmt::format("a number over low_freq_factor {}", rope.low_frequency_factor));
    }
}

void read_yarn(const json_view& config, const json_view& scaling, sluice_rope_attributes& rope) {
    rope.scaling = SLUICE_ROPE_YARN;
    rope.original_length = original_length_of(config, scaling);
    rope.factor = scaling.number("factor", 1e-3, 1e6,
                                 config.number("max_position_embeddings") / rope.original_length);
    rope.beta_fast = scaling.number("beta_fast", 1e-6, 1e6, 32);
    rope.beta_slow = scaling.number("beta_slow", 1e-6, 1e6, 1);
    rope.truncate_bounds = scaling.boolean("truncate", true) ? 0 : 2;
    const double mscale = scaling.number("mscale", 0.0, 1e3, 0.0);
    const double mscale_all = scaling.number("mscale_all_dim", 0.0, 1e3, 0.0);
    const double ratio = mscale != 0 && mscale_all != 0 ? yarn_mscale(rope.factor, mscale)
                                                              / yarn_mscale(rope.factor, mscale_all)
                                                        : yarn_mscale(rope.factor, 1);
    const double magnitude = scaling.number("attention_factor", 1e-6, 1e6, ratio);
    rope.magnitude = magnitude == 1 ? 0.0f : static_cast<float>(magnitude);
}

} // namespace

double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

void read_rope(const json_view& config, model_config& result, uint32_t width) {
    const auto scaling = scaling_of(config);
    sluice_rope_attributes& rope = result.rope;
    rope = SLUICE_INIT(sluice_rope_attributes);
    rope.base = base_of(config, scaling);
    const double whole = config.number("partial_rotary_factor", 0.0, 1.0, 1.0);
    const double share =
        scaling ? scaling->number("partial_rotary_factor", 0.0, 1.0, whole) : whole;
    rope.dimension = static_cast<uint32_t>(share * width);
    if (rope.dimension == 0 || rope.dimension % 2 != 0) {
        fail(SLUICE_INVALID,
             "{}: the rotary embedding turns {} of {} elements a head, expected an even number; "
             "see head_dim (or qk_rope_head_dim) and partial_rotary_factor",
             config.source(), rope.dimension, width);
    }
    const std::string type = type_of(scaling);
    if (type == "default") return;
    if (type == "linear") {
        rope.scaling = SLUICE_ROPE_LINEAR;
        rope.factor = scaling->number("factor", 1e-3, 1e6);
        return;
    }
    if (type == "llama3") return read_llama3(config, *scaling, rope);
    if (type == "yarn") return read_yarn(config, *scaling, rope);
    scaling->fail_unsupported(fmt::format(
        "the rope type {} is not supported; supported are default, linear, llama3 and yarn",
        quote(type)));
}

void read_latent_attention(const json_view& config, model_config& result) {
    constexpr int64_t rank_max = 1 << 16;
    mla_config& mla = result.mla;
    result.attention.head_count = read_count(config, {"num_attention_heads"}, 4096);
    result.attention.kv_head_count = result.attention.head_count;
    mla.query_lora_rank = read_count(config, {"q_lora_rank"}, rank_max, 0);
    mla.kv_lora_rank = read_count(config, {"kv_lora_rank"}, rank_max);
    mla.nope_head_dim = read_count(config, {"qk_nope_head_dim"}, rank_max);
    mla.rope_head_dim = read_count(config, {"qk_rope_head_dim"}, rank_max);
    mla.value_head_dim = read_count(config, {"v_head_dim"}, rank_max);
    const bool bias = config.boolean("attention_bias", false);
    result.attention.query_bias = bias;
    result.attention.key_value_bias = bias;
    result.attention.output_bias = bias;
    read_rope(config, result, mla.rope_head_dim);
    result.rope.interleaved = config.boolean("rope_interleave", true) ? 1 : 0;
    double scale = 1.0 / std::sqrt(double(mla.nope_head_dim) + mla.rope_head_dim);
    const auto scaling = scaling_of(config);
    if (result.rope.scaling == SLUICE_ROPE_YARN) {
        const double mscale_all = scaling->number("mscale_all_dim", 0.0, 1e3, 0.0);
        const double mscale = mscale_all == 0 ? 1.0 : yarn_mscale(result.rope.factor, mscale_all);
        scale *= mscale * mscale;
    }
    result.attention_scale = static_cast<float>(scale);
}

} // namespace sluice
