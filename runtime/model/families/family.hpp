// A model family: how its config.json is read and what its layers are made of. One file a family.
#pragma once

#include "base/json.hpp"
#include "model/model_config.hpp"
#include "program/program.hpp"

#include <span>
#include <string_view>

namespace sluice {

class model_builder;

struct model_family {
    std::string_view name;
    std::span<const std::string_view> model_types; // of config.json
    // Fills what is not common to all; see config_reader.hpp.
    void (*read)(const json_view& config, model_config& result);
    // x [T, D] in the compute type -> f32 [T, D], to be added to the residual stream.
    value_number (*attention)(model_builder& builder, uint32_t layer, value_number x);
    value_number (*feed_forward)(model_builder& builder, uint32_t layer, value_number x);
};

extern const model_family llama_family;
extern const model_family qwen3_family;
extern const model_family mixtral_family;
extern const model_family qwen3_moe_family;
extern const model_family deepseek_v2_family;
extern const model_family deepseek_v3_family;
extern const model_family olmoe_family;
extern const model_family glm4_moe_family;
extern const model_family gpt_oss_family;

std::span<const model_family* const> model_families();
// nullptr where no family has the model type.
const model_family* find_model_family(std::string_view model_type);

} // namespace sluice
