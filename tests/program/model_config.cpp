// What config.json says, and what is refused of it.
#include "model/model_config.hpp"

#include "../base/error_check.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <fstream>

namespace sluice {

namespace {

using json = nlohmann::ordered_json;

json config_of(const char* name) {
    std::ifstream stream(std::string(SLUICE_TEST_DATA_DIR) + "/configs/" + name + ".json");
    return json::parse(stream);
}

model_config parse(const json& config) { return parse_model_config(config.dump(), "config.json"); }

void refuses(const char* name, const std::function<void(json&)>& change, sluice_status status,
             const std::vector<std::string>& parts) {
    CAPTURE(name);
    json config = config_of(name);
    change(config);
    test::check_error([&] { parse(config); }, status, parts);
}

} // namespace

TEST_CASE("the six golden models and three more") {
    const model_config llama = parse(config_of("llama"));
    CHECK(llama.attention.head_dim == 32);
    CHECK(llama.rope.scaling == SLUICE_ROPE_LLAMA3);
    CHECK(llama.rope.original_length == 64);
    CHECK(llama.rope.base == 500000);
    CHECK(llama.end_token_ids == std::vector<int64_t>{1});
    CHECK_FALSE(llama.pad_token_id.has_value());

    const model_config qwen3_moe = parse(config_of("qwen3_moe"));
    CHECK(qwen3_moe.moe.routing.renormalize == SLUICE_RENORMALIZE_ADD);
    CHECK(qwen3_moe.attention.query_key_norm == attention_config::norm::head);

    const model_config v2 = parse(config_of("deepseek_v2"));
    CHECK(v2.mla.query_lora_rank == 0);
    CHECK(v2.moe.routing.group_score == SLUICE_GROUP_SCORE_MAX);
    CHECK(v2.moe.routing.mask_value == SLUICE_MASK_ZERO);
    CHECK(v2.moe.routing.scale == 1.5f);
    CHECK_FALSE(v2.layers[0].sparse);
    CHECK(v2.layers[1].sparse);

    const model_config v3 = parse(config_of("deepseek_v3"));
    const double mscale = 0.1 * std::log(4.0) + 1;
    CHECK(v3.attention_scale == doctest::Approx(mscale * mscale / std::sqrt(48.0)));
    CHECK(v3.rope.magnitude == 0); // the ratio of the mscales is 1
    CHECK(v3.moe.choice_bias);
    CHECK(v3.moe.routing.group_score_count == 2);

    const model_config gpt_oss = parse(config_of("gpt_oss"));
    CHECK(gpt_oss.layers[0].window == 128);
    CHECK(gpt_oss.layers[1].window == 0);
    CHECK(gpt_oss.rope.truncate_bounds == 2);
    CHECK(gpt_oss.rope.magnitude == doctest::Approx(0.1 * std::log(32.0) + 1));
    CHECK(gpt_oss.moe.routing.score_stage == SLUICE_SCORE_AFTER_CHOICE);

    const model_config glm = parse(config_of("glm4_moe"));
    CHECK(glm.rope.dimension == 64);
    CHECK(glm.attention.query_bias);
    CHECK_FALSE(glm.attention.output_bias);
    CHECK(glm.end_token_ids.size() == 3);
    CHECK(parse(config_of("olmoe")).attention.query_key_norm == attention_config::norm::full);
}

TEST_CASE("older keys say the same as newer ones") {
    json config = config_of("deepseek_v3");
    const model_config newer = parse(config);
    config["rope_scaling"] = config["rope_parameters"];
    config["rope_scaling"]["type"] = "yarn";
    config["rope_scaling"].erase("rope_type");
    config["rope_scaling"].erase("rope_theta");
    config["rope_theta"] = 10000.0;
    config.erase("rope_parameters");
    config["torch_dtype"] = config["dtype"];
    config.erase("dtype");
    const model_config older = parse(config);
    CHECK(older.rope.factor == newer.rope.factor);
    CHECK(older.rope.base == newer.rope.base);
    CHECK(older.rope.beta_fast == newer.rope.beta_fast);
    CHECK(older.attention_scale == newer.attention_scale);
    CHECK(older.stored_type == newer.stored_type);

    json aliases = config_of("qwen3_moe");
    aliases["num_experts"] = aliases["num_local_experts"];
    CHECK(parse(aliases).moe.expert_count == 8);
    aliases["num_experts"] = 16;
    test::check_error([&] { parse(aliases); }, SLUICE_INVALID,
                      {"num_experts", "num_local_experts", "differently"});
}

TEST_CASE("DeepSeek-V2 scales what it has not renormalised, as its own code does") {
    json config = config_of("deepseek_v2");
    config["norm_topk_prob"] = true;
    const model_config renormalised = parse(config);
    CHECK(renormalised.moe.routing.renormalize == SLUICE_RENORMALIZE_ADD);
    CHECK(renormalised.moe.routing.scale_condition == SLUICE_SCALE_NOT_RENORMALIZED);
}

TEST_CASE("YaRN's mscales") {
    // DeepSeek-V2-Lite: factor 40, both mscales 0.707.
    json config = config_of("deepseek_v2");
    config["rope_parameters"] = {{"rope_type", "yarn"},
                                 {"rope_theta", 10000},
                                 {"factor", 40},
                                 {"mscale", 0.707},
                                 {"mscale_all_dim", 0.707},
                                 {"original_max_position_embeddings", 4096}};
    const model_config lite = parse(config);
    CHECK(lite.attention_scale * std::sqrt(48.0) == doctest::Approx(1.590).epsilon(0.001));
    CHECK(lite.rope.magnitude == 0);
    config["rope_parameters"]["mscale"] = 1.0;
    CHECK(parse(config).rope.magnitude
          == doctest::Approx((0.1 * std::log(40.0) + 1) / (0.0707 * std::log(40.0) + 1)));
    config["rope_parameters"]["attention_factor"] = 1.25;
    CHECK(parse(config).rope.magnitude == 1.25f);
}

TEST_CASE("layers: windows, dense ones among sparse ones") {
    json mistral = config_of("llama");
    mistral["model_type"] = "mistral";
    mistral["sliding_window"] = 32;
    const model_config windowed = parse(mistral);
    CHECK(windowed.family == "llama");
    CHECK(windowed.layers[2].window == 32);

    json qwen3 = config_of("qwen3");
    qwen3["use_sliding_window"] = true;
    qwen3["sliding_window"] = 16;
    qwen3["max_window_layers"] = 1;
    qwen3.erase("layer_types");
    CHECK(parse(qwen3).layers[0].window == 0);
    CHECK(parse(qwen3).layers[1].window == 16);
    qwen3["use_sliding_window"] = false;
    CHECK(parse(qwen3).layers[1].window == 0);

    json qwen3_moe = config_of("qwen3_moe");
    qwen3_moe["decoder_sparse_step"] = 2;
    CHECK_FALSE(parse(qwen3_moe).layers[0].sparse);
    CHECK(parse(qwen3_moe).layers[1].sparse);
    qwen3_moe["decoder_sparse_step"] = 1;
    qwen3_moe["mlp_only_layers"] = {1};
    CHECK(parse(qwen3_moe).layers[0].sparse);
    CHECK_FALSE(parse(qwen3_moe).layers[1].sparse);
}

TEST_CASE("what is not computed is refused, not ignored") {
    const auto unsupported = SLUICE_UNSUPPORTED;
    const auto invalid = SLUICE_INVALID;
    refuses("llama", [](json& c) { c["model_type"] = "llama4"; }, unsupported,
            {"model_type", "llama4", "deepseek_v3", "qwen3_moe", "did you mean \"llama\""});
    refuses("llama", [](json& c) { c.erase("model_type"); }, invalid, {"model_type"});
    refuses("llama", [](json& c) { c["hidden_act"] = "mish"; }, unsupported,
            {"hidden_act", "mish", "silu"});
    refuses("llama", [](json& c) { c["dtype"] = "float64"; }, unsupported, {"dtype", "float64"});
    refuses("llama", [](json& c) { c["rope_parameters"]["rope_type"] = "dynamic"; }, unsupported,
            {"dynamic", "yarn"});
    refuses("llama",
            [](json& c) {
                c["rope_parameters"] = {{"full_attention", json::object()}};
            },
            unsupported, {"differ by layer type"});
    refuses("llama",
            [](json& c) {
                c["quantization_config"] = {{"quant_method", "awq"}};
            },
            unsupported, {"quant_method", "awq", "gptq"});
    refuses("llama",
            [](json& c) {
                c["quantization_config"] = {{"quant_method", "mxfp4"}};
            },
            unsupported, {"gpt_oss"});
    refuses("qwen3_moe", [](json& c) { c["use_sliding_window"] = true; }, unsupported,
            {"use_sliding_window"});
    refuses("qwen3", [](json& c) { c["layer_types"][1] = "chunked_attention"; }, unsupported,
            {"layer_types[1]", "chunked_attention"});
    refuses("qwen3", [](json& c) { c["layer_types"][1] = "sliding_attention"; }, invalid,
            {"layer_types[1]", "sliding_window"});
    refuses("qwen3", [](json& c) { c["layer_types"] = {"full_attention"}; }, invalid,
            {"layer_types", "3 layer types"});
    refuses("deepseek_v2", [](json& c) { c["topk_method"] = "noaux_tc"; }, unsupported,
            {"topk_method", "noaux_tc"});
    refuses("deepseek_v2", [](json& c) { c["scoring_func"] = "sigmoid"; }, unsupported,
            {"scoring_func"});
    refuses("deepseek_v3", [](json& c) { c["scoring_func"] = "softmax"; }, unsupported,
            {"scoring_func"});
}

TEST_CASE("sizes that do not fit are refused by key") {
    const auto invalid = SLUICE_INVALID;
    refuses("llama", [](json& c) { c["num_hidden_layers"] = 0; }, invalid, {"num_hidden_layers"});
    refuses("llama", [](json& c) { c["num_hidden_layers"] = 1e9; }, invalid, {"num_hidden_layers"});
    refuses("llama", [](json& c) { c["hidden_size"] = -128; }, invalid, {"hidden_size"});
    refuses("llama", [](json& c) { c["vocab_size"] = "512"; }, invalid, {"vocab_size", "text"});
    refuses("llama", [](json& c) { c["num_key_value_heads"] = 3; }, invalid,
            {"num_key_value_heads", "divisor"});
    refuses("llama", [](json& c) { c["head_dim"] = 33; }, invalid, {"33", "even"});
    refuses("llama", [](json& c) { c["rms_norm_eps"] = 2.0; }, invalid, {"rms_norm_eps"});
    refuses("llama", [](json& c) { c["eos_token_id"] = 512; }, invalid, {"eos_token_id"});
    refuses("llama", [](json& c) { c["rope_parameters"]["high_freq_factor"] = 0.5; }, invalid,
            {"high_freq_factor", "low_freq_factor"});
    refuses("llama", [](json& c) { c["rope_parameters"].erase("factor"); }, invalid, {"factor"});
    refuses("mixtral", [](json& c) { c.erase("num_local_experts"); }, invalid,
            {"num_local_experts"});
    refuses("mixtral", [](json& c) { c["num_experts_per_tok"] = 9; }, invalid,
            {"num_experts_per_tok"});
    refuses("deepseek_v3", [](json& c) { c["n_group"] = 3; }, invalid, {"n_group", "divisor"});
    refuses("deepseek_v3", [](json& c) { c["topk_group"] = 5; }, invalid, {"topk_group"});
    refuses("deepseek_v3", [](json& c) { c.erase("kv_lora_rank"); }, invalid, {"kv_lora_rank"});
    refuses("qwen3_moe", [](json& c) { c["mlp_only_layers"] = {3}; }, invalid, {"mlp_only_layers"});
}

} // namespace sluice
