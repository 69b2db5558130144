#include "model/families/config_reader.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cmath>

namespace sluice {

namespace {

constexpr int64_t size_max = 1 << 20; // of hidden states, MLPs
constexpr int64_t layers_max = 4096;
constexpr int64_t heads_max = 4096;
constexpr int64_t head_dim_max = 65536;
constexpr int64_t vocabulary_max = 1 << 24;
constexpr int64_t experts_max = 4096;

uint32_t activation_of(const json_view& name) {
    const std::string_view text = name.as_text();
    if (text == "silu" || text == "swish") return SLUICE_ACTIVATION_SILU;
    if (text == "gelu") return SLUICE_ACTIVATION_GELU_ERF;
    if (text == "gelu_pytorch_tanh" || text == "gelu_new") return SLUICE_ACTIVATION_GELU_TANH;
    if (text == "relu") return SLUICE_ACTIVATION_RELU;
    if (text == "relu2") return SLUICE_ACTIVATION_RELU_SQUARED;
    name.fail_unsupported(fmt::format(
        "the activation {} is not supported; supported are silu, gelu, gelu_pytorch_tanh, relu "
        "and relu2",
        quote(text)));
}

std::vector<int64_t> token_ids(const json_view& value, int64_t vocabulary) {
    if (!value.is_array()) return {value.as_integer(0, vocabulary - 1)};
    return value.as_integer_list(0, vocabulary - 1, 64);
}

void read_special_tokens(const json_view& config, model_config& result) {
    const int64_t vocabulary = result.vocabulary_size;
    if (const auto end = config.find("eos_token_id")) {
        result.end_token_ids = token_ids(*end, vocabulary);
    }
    if (const auto begin = config.find("bos_token_id")) {
        result.begin_token_id = begin->as_integer(0, vocabulary - 1);
    }
    if (const auto pad = config.find("pad_token_id")) {
        const int64_t id = pad->as_integer(-1, vocabulary - 1); // some files say -1 for none
        if (id >= 0) result.pad_token_id = id;
    }
}

void read_quantization(const json_view& config, model_config& result) {
    const auto quantization = config.object_if_present("quantization_config");
    if (!quantization) return;
    result.quantization = quantization->text("quant_method");
    for (const std::string_view known : {"gptq", "mxfp4", "fp8"}) {
        if (result.quantization == known) return;
    }
    quantization->at("quant_method")
        .fail_unsupported(
            fmt::format("the quantization {} is not supported; supported are gptq, mxfp4 and fp8",
                        quote(result.quantization)));
}

} // namespace

std::optional<json_view> find_alias(const json_view& config,
                                    std::initializer_list<std::string_view> names) {
    std::optional<json_view> found;
    std::string_view found_name;
    for (const std::string_view name : names) {
        const auto value = config.find(name);
        if (!value) continue;
        if (found && found->describe() != value->describe()) {
            fail(SLUICE_INVALID, "{}: \"{}\" and \"{}\" say the same thing differently: {} and {}",
                 config.source(), found_name, name, found->describe(), value->describe());
        }
        found = value;
        found_name = name;
    }
    return found;
}

uint32_t read_count(const json_view& config, std::initializer_list<std::string_view> names,
                    int64_t max) {
    if (const auto value = find_alias(config, names)) {
        return static_cast<uint32_t>(value->as_integer(1, max));
    }
    std::vector<std::string> listed(names.begin(), names.end());
    fail(SLUICE_INVALID, "{}: the key {} is missing; expected an integer from 1 to {}",
         config.source(), join(listed, " or "), max);
}

uint32_t read_count(const json_view& config, std::initializer_list<std::string_view> names,
                    int64_t max, uint32_t default_value) {
    const auto value = find_alias(config, names);
    if (!value) return default_value;
    return static_cast<uint32_t>(value->as_integer(default_value == 0 ? 0 : 1, max));
}

void read_common(const json_view& config, model_config& result) {
    result.hidden_size = read_count(config, {"hidden_size"}, size_max);
    result.layer_count = read_count(config, {"num_hidden_layers"}, layers_max);
    result.vocabulary_size = read_count(config, {"vocab_size"}, vocabulary_max);
    result.intermediate_size = read_count(config, {"intermediate_size"}, size_max);
    result.position_count_max =
        read_count(config, {"max_position_embeddings"}, std::numeric_limits<int32_t>::max());
    result.norm_epsilon = static_cast<float>(config.number("rms_norm_eps", 0.0, 1.0));
    result.tied_embeddings = config.boolean("tie_word_embeddings", false);
    result.activation = SLUICE_INIT(sluice_activation_attributes);
    result.activation.activation = activation_of(config.at("hidden_act"));
    result.layers.assign(result.layer_count, layer_config{});
    read_quantization(config, result);
    // A missing key means float32, except that MXFP4 goes with bf16.
    result.stored_type = result.quantization == "mxfp4" ? SLUICE_BF16 : SLUICE_F32;
    if (const auto type = find_alias(config, {"dtype", "torch_dtype"})) {
        const auto known = element_type_from_name(type->as_text());
        if (!known || (*known != SLUICE_F32 && *known != SLUICE_F16 && *known != SLUICE_BF16)) {
            type->fail_unsupported(fmt::format("the type {} is not supported; supported are "
                                               "float32, float16 and bfloat16",
                                               quote(type->as_text())));
        }
        result.stored_type = *known;
    }
    read_special_tokens(config, result);
}

void read_grouped_attention(const json_view& config, model_config& result) {
    attention_config& attention = result.attention;
    attention.head_count = read_count(config, {"num_attention_heads"}, heads_max);
    attention.kv_head_count =
        read_count(config, {"num_key_value_heads"}, heads_max, attention.head_count);
    if (attention.head_count % attention.kv_head_count != 0) {
        config.at("num_key_value_heads")
            .fail_expected(
                fmt::format("a divisor of num_attention_heads {}", attention.head_count));
    }
    const uint32_t even_share = result.hidden_size / attention.head_count;
    if (!config.find("head_dim") && result.hidden_size % attention.head_count != 0) {
        config.at("num_attention_heads")
            .fail_expected(fmt::format("a divisor of hidden_size {}, as there is no head_dim",
                                       result.hidden_size));
    }
    attention.head_dim = read_count(config, {"head_dim"}, head_dim_max, std::max(1u, even_share));
    result.attention_scale = static_cast<float>(1.0 / std::sqrt(double(attention.head_dim)));
}

void read_experts(const json_view& config, model_config& result) {
    moe_config& moe = result.moe;
    moe.expert_count =
        read_count(config, {"n_routed_experts", "num_experts", "num_local_experts"}, experts_max);
    moe.routing = SLUICE_INIT(sluice_routing_specification);
    moe.routing.expert_count = moe.expert_count;
    moe.routing.choice_count =
        read_count(config, {"num_experts_per_tok", "moe_topk", "experts_per_token"},
                   std::min<int64_t>(moe.expert_count, 64));
    moe.routing.group_count = 1;
    moe.routing.scale = 1;
    const uint32_t shared_count = read_count(config, {"n_shared_experts"}, 1024, 0);
    moe.expert_width =
        read_count(config, {"moe_intermediate_size"}, size_max, result.intermediate_size);
    moe.shared_width = shared_count * moe.expert_width;
}

void read_expert_groups(const json_view& config, model_config& result, uint32_t group_score,
                        uint32_t mask_value) {
    sluice_routing_specification& routing = result.moe.routing;
    routing.group_count = read_count(config, {"n_group"}, experts_max, 1);
    if (routing.group_count == 1) return;
    routing.group_choice_count = read_count(config, {"topk_group"}, routing.group_count);
    routing.group_score = group_score;
    routing.group_score_count = group_score == SLUICE_GROUP_SCORE_TOPK_SUM ? 2 : 0;
    routing.mask_value = mask_value;
    if (routing.expert_count % routing.group_count != 0) {
        config.at("n_group").fail_expected(
            fmt::format("a divisor of the number of experts {}", routing.expert_count));
    }
}

void read_sigmoid_routing(const json_view& config, model_config& result) {
    sluice_routing_specification& routing = result.moe.routing;
    routing.score = SLUICE_SCORE_SIGMOID;
    result.moe.choice_bias = true;
    // Biased scores can be negative, so that zero would not keep experts of other groups out.
    read_expert_groups(config, result, SLUICE_GROUP_SCORE_TOPK_SUM, SLUICE_MASK_MINUS_INFINITY);
    routing.scale = static_cast<float>(config.number("routed_scaling_factor", 1e-6, 1e6, 1.0));
    if (config.boolean("norm_topk_prob", true)) {
        routing.renormalize = SLUICE_RENORMALIZE_ADD;
        routing.renormalize_epsilon = 1e-20f;
    }
}

void read_first_dense_layers(const json_view& config, model_config& result) {
    const int64_t dense = config.integer("first_k_dense_replace", 0, layers_max, 0);
    const int64_t step = config.integer("moe_layer_freq", 1, layers_max, 1);
    for (uint32_t layer = 0; layer < result.layer_count; ++layer) {
        result.layers[layer].sparse = layer >= dense && layer % step == 0;
    }
}

void set_all_sparse(model_config& result) {
    for (layer_config& layer : result.layers) layer.sparse = true;
}

std::optional<uint32_t> read_sliding_window(const json_view& config) {
    if (!config.boolean("use_sliding_window", true)) return std::nullopt;
    const auto window = config.find("sliding_window");
    if (!window) return std::nullopt;
    return static_cast<uint32_t>(window->as_integer(1, std::numeric_limits<int32_t>::max()));
}

void read_windows(const json_view& config, model_config& result,
                  std::optional<uint32_t> sliding_window) {
    const auto types = config.array_if_present("layer_types");
    if (!types) {
        for (layer_config& layer : result.layers) layer.window = sliding_window.value_or(0);
        return;
    }
    if (types->size() != result.layer_count) {
        types->fail_expected(fmt::format("{} layer types, one a layer", result.layer_count));
    }
    for (uint32_t layer = 0; layer < result.layer_count; ++layer) {
        const json_view type = (*types)[layer];
        if (type.as_text() == "full_attention") continue;
        if (type.as_text() != "sliding_attention") {
            type.fail_unsupported(fmt::format("the layer type {} is not supported; supported are "
                                              "full_attention and sliding_attention",
                                              quote(type.as_text())));
        }
        if (!sliding_window) type.fail_expected("full_attention, as there is no sliding_window");
        result.layers[layer].window = *sliding_window;
    }
}

void require_value(const json_view& config, std::string_view key, bool value) {
    const auto found = config.find(key);
    if (!found || found->as_boolean() == value) return;
    found->fail_unsupported(
        fmt::format("{} is not supported for this model type, only {}", !value, value));
}

void require_text(const json_view& config, std::initializer_list<std::string_view> names,
                  std::initializer_list<std::string_view> allowed) {
    const auto found = find_alias(config, names);
    if (!found) return;
    if (std::find(allowed.begin(), allowed.end(), found->as_text()) != allowed.end()) return;
    const std::vector<std::string> listed(allowed.begin(), allowed.end());
    found->fail_unsupported(fmt::format("{} is not supported for this model type, only {}",
                                        quote(found->as_text()), join(listed, " or ")));
}

} // namespace sluice
