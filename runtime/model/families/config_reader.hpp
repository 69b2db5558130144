// What the families' readings of config.json share. All fail naming file, key and value; values
// that would change what is computed and are not understood are refused, never ignored.
#pragma once

#include "base/json.hpp"
#include "model/model_config.hpp"

#include <initializer_list>
#include <optional>
#include <string_view>

namespace sluice {

// The key under whichever of its names it has; fails when two names disagree. Nothing when missing.
std::optional<json_view> find_alias(const json_view& config,
                                    std::initializer_list<std::string_view> names);
// An integer 1 to `max` under one of the names; fails when missing.
uint32_t read_count(const json_view& config, std::initializer_list<std::string_view> names,
                    int64_t max);
uint32_t read_count(const json_view& config, std::initializer_list<std::string_view> names,
                    int64_t max, uint32_t default_value); // which may be 0

// Sizes, types, special tokens: what every family has. Called first, for all.
void read_common(const json_view& config, model_config& result);

// Heads; `heads * head_dim` need not be the hidden size. Sets attention_scale.
void read_grouped_attention(const json_view& config, model_config& result);
// Latent attention with its rope; sets attention_scale with YaRN's squared mscale.
void read_latent_attention(const json_view& config, model_config& result);

// rope_parameters, or rope_theta with rope_scaling, for the first
// `width * partial_rotary_factor` elements of a head.
void read_rope(const json_view& config, model_config& result, uint32_t width);

// YaRN's get_mscale(factor, mscale).
double yarn_mscale(double factor, double mscale);

// expert_count, choice_count and a specification of softmax over all experts; shared experts.
void read_experts(const json_view& config, model_config& result);
// n_group and topk_group, where they are given and over 1.
void read_expert_groups(const json_view& config, model_config& result, uint32_t group_score,
                        uint32_t mask_value);
// DeepSeek-V3's routing: sigmoid scores, e_score_correction_bias, groups by their best two.
void read_sigmoid_routing(const json_view& config, model_config& result);
// first_k_dense_replace and moe_layer_freq.
void read_first_dense_layers(const json_view& config, model_config& result);
void set_all_sparse(model_config& result);

// The window of each layer from sliding_window, and layer_types where they are given.
void read_windows(const json_view& config, model_config& result,
                  std::optional<uint32_t> sliding_window);
// sliding_window as a size; nothing when null, or use_sliding_window is there and false.
std::optional<uint32_t> read_sliding_window(const json_view& config);

// Fails unless the key is missing or has this value.
void require_value(const json_view& config, std::string_view key, bool value);
void require_text(const json_view& config, std::initializer_list<std::string_view> names,
                  std::initializer_list<std::string_view> allowed);

} // namespace sluice
