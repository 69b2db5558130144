// A model's architecture, read from the config.json of a Hugging Face folder.
#pragma once

#include <sluice/abi/operations.h>
#include <sluice/abi/router.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

class json_view;

struct attention_config {
    uint32_t head_count = 0;
    uint32_t kv_head_count = 0;
    uint32_t head_dim = 0; // of grouped-query attention
    bool query_bias = false;
    bool key_value_bias = false;
    bool output_bias = false;
    bool sinks = false;
    enum class norm { none, head, full } query_key_norm = norm::none; // over a head, or all heads
    float clip_qkv = 0;                                               // 0: none
};

// Multi-head latent attention; kv_lora_rank 0: the model has none.
struct mla_config {
    uint32_t query_lora_rank = 0; // 0: one projection
    uint32_t kv_lora_rank = 0;
    uint32_t nope_head_dim = 0;
    uint32_t rope_head_dim = 0;
    uint32_t value_head_dim = 0;
};

struct moe_config {
    uint32_t expert_count = 0; // 0: the model is dense
    uint32_t expert_width = 0; // F of one routed expert
    uint32_t shared_width = 0; // F of all shared experts together; 0: none
    bool choice_bias = false;  // the checkpoint has e_score_correction_bias
    bool router_bias = false;  // the router's linear layer has a bias
    bool expert_bias = false;
    uint32_t gate_layout = SLUICE_GATE_SPLIT;
    sluice_routing_specification routing{};
};

struct layer_config {
    bool sparse = false; // routed experts instead of a dense MLP
    uint32_t window = 0; // tokens that attention sees; 0: all
};

struct model_config {
    std::string model_type;   // as in the file: "mistral"
    std::string family;       // the family that builds it: "llama"
    std::string architecture; // "MistralForCausalLM", or empty
    uint32_t vocabulary_size = 0;
    uint32_t hidden_size = 0;
    uint32_t layer_count = 0;
    uint32_t intermediate_size = 0;  // F of the dense MLPs
    uint32_t position_count_max = 0; // max_position_embeddings
    float norm_epsilon = 0;
    bool tied_embeddings = false;
    bool mlp_bias = false;
    sluice_activation_attributes activation{}; // of experts and dense MLPs
    attention_config attention;
    mla_config mla;
    moe_config moe;
    sluice_rope_attributes rope{}; // table is NULL; dimension is set
    float attention_scale = 0;     // with YaRN's squared mscale
    std::vector<layer_config> layers;
    sluice_element_type stored_type = SLUICE_BF16; // torch_dtype | dtype
    std::vector<int64_t> end_token_ids;            // eos_token_id: none, one or several
    std::optional<int64_t> begin_token_id;         // bos_token_id
    std::optional<int64_t> pad_token_id;
    // "gptq", "mxfp4", "fp8", or empty. The parameters are read with the checkpoint.
    std::string quantization;
};

// Reads and checks. Fails with SLUICE_INVALID for wrong or missing keys and SLUICE_UNSUPPORTED for
// models that this runtime does not compute; messages name file, key, value and what is supported.
model_config load_model_config(const std::filesystem::path& config_json);
// The same from what is parsed already, such as checkpoint::config().
model_config read_model_config(const json_view& config);
// The same from text; `origin` begins the messages.
model_config parse_model_config(std::string_view text, const std::string& origin);

// The model types that load, sorted.
std::vector<std::string> supported_model_types();

} // namespace sluice
