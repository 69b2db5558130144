#include "presets.hpp"

#include <algorithm>
#include <array>

namespace sluice::routers {
namespace {

using specification = sluice_routing_specification;

// What a family fixes; everything else stays the model's.
struct family {
    std::string_view name;
    void (*apply)(specification& routing);
    uint32_t inputs = 0; // SLUICE_ROUTER_INPUT_* that its formula has
};

void plain(specification& routing) {
    routing.group_count = 0;
    routing.group_choice_count = 0;
    routing.group_score = SLUICE_GROUP_SCORE_MAX;
    routing.group_score_count = 0;
    routing.score = SLUICE_SCORE_SOFTMAX;
    routing.score_stage = SLUICE_SCORE_BEFORE_CHOICE;
    routing.mask_value = SLUICE_MASK_MINUS_INFINITY;
    routing.weight_source = SLUICE_WEIGHT_FROM_SCORE;
    routing.renormalize = SLUICE_RENORMALIZE_NONE;
    routing.renormalize_epsilon = 0.0F;
    routing.scale = 1.0F;
    routing.scale_condition = SLUICE_SCALE_ALWAYS;
    routing.logit_softcap = 0.0F;
}

// The gate of Shazeer et al. 2017 without noise: softmax over all, masked to the best two. Capacity
// stays unlimited unless capacity_factor is set.
void plain_gate(specification& routing) {
    plain(routing);
    routing.choice_count = std::min(2U, routing.expert_count);
}

void softmax_renormalized(specification& routing) {
    plain(routing);
    routing.renormalize = SLUICE_RENORMALIZE_ADD;
}

// DeepSeek-V2, section 2.1.2 ("group_limited_greedy"): the best expert speaks for its group, and
// the scale replaces renormalisation. The softmax is positive, so masking with zero is safe.
void deepseek_v2(specification& routing) {
    const specification model = routing;
    plain(routing);
    routing.group_count = model.group_count;
    routing.group_choice_count = model.group_choice_count;
    routing.mask_value = SLUICE_MASK_ZERO;
    routing.scale = model.scale;
}

// DeepSeek-V3, section 2.1.2 ("noaux_tc"): the bias takes part in the choice only; a group is worth
// its two best.
void deepseek_v3(specification& routing) {
    const specification model = routing;
    plain(routing);
    routing.group_count = model.group_count;
    routing.group_choice_count = model.group_choice_count;
    routing.group_score = SLUICE_GROUP_SCORE_TOPK_SUM;
    routing.group_score_count = 2;
    routing.score = SLUICE_SCORE_SIGMOID;
    routing.renormalize = SLUICE_RENORMALIZE_ADD;
    routing.renormalize_epsilon = 1e-20F;
    routing.scale = model.scale;
}

// As DeepSeek-V3 with all experts in one group.
void sigmoid_ungrouped(specification& routing) {
    deepseek_v3(routing);
    routing.group_count = 0;
    routing.group_choice_count = 0;
    routing.group_score = SLUICE_GROUP_SCORE_MAX;
    routing.group_score_count = 0;
}

void gpt_oss(specification& routing) {
    plain(routing);
    routing.score_stage = SLUICE_SCORE_AFTER_CHOICE;
}

void llama4(specification& routing) {
    plain(routing);
    routing.score = SLUICE_SCORE_SIGMOID;
    routing.score_stage = SLUICE_SCORE_AFTER_CHOICE;
}

constexpr std::array families{
    family{"model", [](specification&) {}, SLUICE_ROUTER_INPUTS_ALL},
    family{"plain_gate", plain_gate},
    family{"mixtral", softmax_renormalized},
    family{"qwen2_moe", plain},
    family{"qwen3_moe", softmax_renormalized},
    family{"olmoe", plain},
    family{"deepseek_v2", deepseek_v2},
    family{"deepseek_v3", deepseek_v3, SLUICE_ROUTER_INPUT_CHOICE_BIAS},
    family{"glm4_moe", sigmoid_ungrouped, SLUICE_ROUTER_INPUT_CHOICE_BIAS},
    family{"minimax_m2", sigmoid_ungrouped, SLUICE_ROUTER_INPUT_CHOICE_BIAS},
    family{"gpt_oss", gpt_oss},
    family{"llama4", llama4},
};

// Where the runtime does not know the model's own routing: the sizes and nothing else.
specification sizes_alone(const plugin::router_request& request) {
    specification routing = SLUICE_INIT(sluice_routing_specification);
    routing.expert_count = request.expert_count;
    routing.choice_count = request.choice_count;
    routing.scale = 1.0F;
    return routing;
}

} // namespace

std::vector<std::string_view> preset_names() {
    std::vector<std::string_view> names;
    for (const auto& each : families) names.push_back(each.name);
    return names;
}

plugin::router_answer preset(std::string_view name, const plugin::router_request& request) {
    if (name == "model" && !request.has_model)
        plugin::fail(SLUICE_INVALID, "preset 'model' needs the model's own routing, and layer ",
                     request.layer, " of model type '", request.model_type,
                     "' gives none; name another preset");
    specification routing = request.has_model ? request.model : sizes_alone(request);
    const auto* const found = std::find_if(families.begin(), families.end(),
                                           [&](const family& each) { return each.name == name; });
    if (found == families.end()) plugin::fail(SLUICE_INVALID, "there is no preset '", name, "'");
    found->apply(routing);
    return {routing, SLUICE_ROUTER_INPUTS_ALL & ~found->inputs};
}

} // namespace sluice::routers
