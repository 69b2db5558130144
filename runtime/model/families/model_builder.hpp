// What the families' layers are built with: the program so far and the weights it wants.
#pragma once

#include "model/families/family.hpp"
#include "model/model_program.hpp"
#include "program/builder.hpp"

#include <array>
#include <functional>
#include <span>
#include <string>
#include <unordered_set>

namespace sluice {

// "model.layers.3.self_attn.q_proj" for (3, "self_attn.q_proj").
std::string layer_module(uint32_t layer, std::string_view module);
// "layers.3.q" for (3, "q"): how values and operations are named.
std::string layer_value(uint32_t layer, std::string_view value);

// A vector that a layer's cache keeps for each token.
struct cache_part {
    uint32_t width = 0;
    uint32_t group = 0; // elements that share a scale where the cache is of whole numbers
};

class model_builder {
  public:
    model_builder(const model_config& configuration, const model_program_options& how);

    const model_config& config;
    const model_program_options& options;
    program_builder build;
    std::vector<routed_layer> routed_layers;

    sluice_element_type compute_type() const { return options.compute_type; }

    // ---- Weights; each may be asked for more than once ----
    // "<module>.weight" [rows, columns].
    value_number matrix(const std::string& module, int64_t rows, int64_t columns);
    // The tensor of that name, [width].
    value_number vector(const std::string& tensor, int64_t width);
    // "<module>.bias" if it is there, else value_none.
    value_number bias(const std::string& module, int64_t width, bool present);
    // A stack of matrices [slices.size(), rows, columns] (or vectors [.., rows] with columns 0).
    value_number stack(const std::string& name, int64_t rows, int64_t columns,
                       std::vector<weight_slice_request> slices);

    // linear(x, <module>.weight, <module>.bias) of that many outputs.
    value_number linear(const std::string& name, value_number x, const std::string& module,
                        int64_t outputs, bool has_bias, sluice_element_type type);
    // rms_norm over the whole row, or over runs of `group_width`.
    value_number norm(const std::string& name, value_number x, const std::string& tensor,
                      int64_t width, float epsilon, uint32_t group_width = 0);

    // ---- Caches ----
    value_number add_cache(uint32_t layer, std::span<const cache_part> parts);

    model_program finish(value_number logits);

  private:
    value_number request(weight_request wanted, std::span<const int64_t> dimensions);
    sluice_weight_format format_of(const std::string& tensor) const;

    std::vector<weight_request> requests_;
    std::unordered_set<value_number> requested_;
    uint32_t cache_group_count_ = 1;
};

// ---- Blocks: x [T, D] in the compute type -> f32 [T, D] ----

// Grouped-query attention (Ainslie et al. 2023) with what model_config.attention says: biases,
// norms of queries and keys, clipping, sinks, the layer's window.
value_number grouped_attention_block(model_builder& builder, uint32_t layer, value_number x);
// Multi-head latent attention (DeepSeek-V2, 2024), as model_config.mla says.
value_number latent_attention_block(model_builder& builder, uint32_t layer, value_number x);
// "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj".
value_number dense_mlp_block(model_builder& builder, uint32_t layer, value_number x);

// How a family names the tensors of its experts, below "model.layers.N.".
struct expert_names {
    std::string_view router = "mlp.gate";
    std::string_view choice_bias = "mlp.gate.e_score_correction_bias";
    std::string_view experts = "mlp.experts"; // then ".3.gate_proj"
    std::string_view gate = "gate_proj";
    std::string_view up = "up_proj";
    std::string_view down = "down_proj";
    std::string_view shared = "mlp.shared_experts";
};
// A router, routed experts and, where the configuration has them, shared experts.
value_number experts_block(model_builder& builder, uint32_t layer, value_number x,
                           const expert_names& names);
// The router alone; model_config.moe.router_bias says whether it has a bias.
route_results router_block(model_builder& builder, uint32_t layer, value_number x,
                           const expert_names& names);
// Experts where the layer is sparse, else a dense MLP.
value_number sparse_or_dense_block(model_builder& builder, uint32_t layer, value_number x,
                                   const expert_names& names);

// Embedding, layers with norms before attention and before the MLP, final norm and head.
model_program build_decoder(const model_family& family, const model_config& config,
                            const model_program_options& options);

} // namespace sluice
