// The router of specifications: the model's own routing or a named one, with settings to override.
#include "presets.hpp"

namespace sluice::routers {
namespace {

// The choices of an enumeration's setting: "model" leaves it alone, the others are its values in
// rising order.
const std::vector<std::string_view> score_names{"model", "softmax", "sigmoid", "sqrt_softplus",
                                                "identity"};
const std::vector<std::string_view> score_stage_names{"model", "before", "after"};
const std::vector<std::string_view> group_score_names{"model", "max", "topk_sum"};
const std::vector<std::string_view> mask_value_names{"model", "minus_infinity", "zero"};
const std::vector<std::string_view> weight_source_names{"model", "score", "choice"};
const std::vector<std::string_view> renormalize_names{"model", "none", "add", "clamp"};
const std::vector<std::string_view> scale_condition_names{"model", "always", "not_renormalized"};
const std::vector<std::string_view> capacity_policy_names{"model", "drop", "reroute"};

plugin::schema declare_settings() {
    plugin::schema schema;
    schema
        .text("preset", "Routing to start from: the model's own, or a family's.", "model",
              preset_names())
        .integer("top_k", "Experts a token goes to; 0: the preset's.", 0, 0, 64)
        .text("score", "Function that turns logits into scores.", "model", score_names)
        .text("score_stage", "Whether scores are taken before or after the choice.", "model",
              score_stage_names)
        .integer("group_count", "Equal groups that experts lie in; 1: no groups; 0: the preset's.",
                 0, 0, 4096)
        .integer("group_choice_count", "Groups that a token may use; 0: the preset's.", 0, 0, 4096)
        .text("group_score", "What a group is worth: its best expert, or the sum of its best.",
              "model", group_score_names)
        .integer("group_score_count", "Experts in the sum of topk_sum; 0: the preset's.", 0, 0,
                 4096)
        .text("mask_value", "What the choice of an expert outside the groups becomes.", "model",
              mask_value_names)
        .text("weight_source", "Whether weights come from scores or from biased choices.", "model",
              weight_source_names)
        .text("renormalize", "How weights are divided by their sum.", "model", renormalize_names)
        .number("renormalize_epsilon",
                "Added to the sum, or its least value; unless given, the "
                "preset's.",
                0.0, 0.0, 1.0)
        .number("scale", "Factor on the weights; 0: the preset's.", 0.0, 0.0, 1e6)
        .text("scale_condition", "Whether renormalised weights are scaled too.", "model",
              scale_condition_names)
        .number("logit_softcap",
                "Bound c of c tanh(logit / c), 0 for none; unless given, the "
                "preset's.",
                0.0, 0.0, 1e6)
        .number("capacity_factor",
                "Share of an even load that an expert takes at most, 0 for "
                "unlimited; unless given, the preset's.",
                0.0, 0.0, 4096.0)
        .text("capacity_policy", "What happens to a choice that finds its expert full.", "model",
              capacity_policy_names)
        .boolean("ignore_choice_bias",
                 "Whether the checkpoint's bias of choices takes no part, whatever the preset.",
                 false);
    return schema;
}

// The settings, held as a list of changes to a specification.
class overrides {
  public:
    explicit overrides(const plugin::settings& settings) {
        using routing = sluice_routing_specification;
        name(settings, "score", score_names, &routing::score);
        name(settings, "score_stage", score_stage_names, &routing::score_stage);
        name(settings, "group_score", group_score_names, &routing::group_score);
        name(settings, "mask_value", mask_value_names, &routing::mask_value);
        name(settings, "weight_source", weight_source_names, &routing::weight_source);
        name(settings, "renormalize", renormalize_names, &routing::renormalize);
        name(settings, "scale_condition", scale_condition_names, &routing::scale_condition);
        name(settings, "capacity_policy", capacity_policy_names, &routing::capacity_policy);
        count(settings, "top_k", &routing::choice_count);
        count(settings, "group_count", &routing::group_count);
        count(settings, "group_choice_count", &routing::group_choice_count);
        count(settings, "group_score_count", &routing::group_score_count);
        number(settings, "renormalize_epsilon", &routing::renormalize_epsilon);
        number(settings, "logit_softcap", &routing::logit_softcap);
        number(settings, "capacity_factor", &routing::capacity_factor);
        if (settings.number("scale") != 0.0) number(settings, "scale", &routing::scale);
    }

    void apply(sluice_routing_specification& routing) const {
        for (const auto& each : integers_) routing.*each.first = each.second;
        for (const auto& each : numbers_) routing.*each.first = each.second;
        if (routing.group_count <= 1) {
            routing.group_count = 0;
            routing.group_choice_count = 0;
            routing.group_score_count = 0;
        }
    }

  private:
    using integer_field = uint32_t sluice_routing_specification::*;
    using number_field = float sluice_routing_specification::*;

    void name(const plugin::settings& settings, std::string_view setting,
              const std::vector<std::string_view>& names, integer_field field) {
        const std::string_view given = settings.text(setting);
        for (size_t i = 1; i < names.size(); ++i)
            if (names[i] == given) integers_.emplace_back(field, static_cast<uint32_t>(i - 1));
    }
    void count(const plugin::settings& settings, std::string_view setting, integer_field field) {
        const int64_t given = settings.integer(setting);
        if (given != 0) integers_.emplace_back(field, static_cast<uint32_t>(given));
    }
    void number(const plugin::settings& settings, std::string_view setting, number_field field) {
        if (settings.given(setting))
            numbers_.emplace_back(field, static_cast<float>(settings.number(setting)));
    }

    std::vector<std::pair<integer_field, uint32_t>> integers_;
    std::vector<std::pair<number_field, float>> numbers_;
};

class specification_router {
  public:
    static const plugin::definition& define() {
        static const plugin::definition definition{
            .id = "specification",
            .kind = SLUICE_KIND_ROUTER,
            .version = "0.1.0",
            .summary =
                "Routes as the model's own configuration says, as a named family does, or as "
                "its settings say.",
            .settings = declare_settings(),
            .extensions = {SLUICE_ROUTER_EXTENSION}};
        return definition;
    }

    static const void* extension(std::string_view id) {
        return id == SLUICE_ROUTER_EXTENSION ? plugin::router_table<specification_router>()
                                             : nullptr;
    }

    specification_router(plugin::host /*host*/, const plugin::settings& settings)
        : preset_(settings.text("preset")), overrides_(settings),
          ignores_choice_bias_(settings.boolean("ignore_choice_bias")) {}

    plugin::router_answer describe(const plugin::router_request& request) const {
        plugin::router_answer answer = preset(preset_, request);
        auto& routing = std::get<sluice_routing_specification>(answer.form);
        overrides_.apply(routing);
        plugin::check_specification(routing);
        if (ignores_choice_bias_) answer.ignored_inputs |= SLUICE_ROUTER_INPUT_CHOICE_BIAS;
        return answer;
    }

  private:
    std::string preset_;
    overrides overrides_;
    bool ignores_choice_bias_;
};

} // namespace
} // namespace sluice::routers

SLUICE_PLUGIN(sluice::routers::specification_router)
