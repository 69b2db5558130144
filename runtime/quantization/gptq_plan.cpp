#include "quantization/gptq_plan.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>

namespace sluice {

namespace {

// What the layout can hold of a format.
gptq_parameters parameters_of(const sluice_weight_format& format, const std::string& plugin,
                              const std::string& module) {
    const bool known_element = format.element_type == SLUICE_U4 || format.element_type == SLUICE_U8;
    const bool known_scale = format.scale_type == SLUICE_F16 || format.scale_type == SLUICE_BF16
                             || format.scale_type == SLUICE_F32;
    const bool known_zero =
        format.zero_point == SLUICE_ZERO_MIDDLE || format.zero_point == SLUICE_ZERO_GROUP;
    if (!known_element || !known_scale || !known_zero || format.group_rows > 1
        || format.group_index > 1 || format.global_scale_type != SLUICE_ELEMENT_UNKNOWN
        || format.group_columns > uint32_t(INT32_MAX)) {
        fail(SLUICE_UNSUPPORTED,
             "quantizer {}: plans {} elements with {} scales, {} rows a group and zero points of "
             "kind {} for {}; the GPTQ layout holds u4 and u8 with float scales of one row and "
             "middle or grouped zero points; choose other settings",
             quote(plugin), element_type_name(format.element_type),
             element_type_name(format.scale_type), std::max(1u, format.group_rows),
             format.zero_point, quote(module, 160));
    }
    gptq_parameters parameters;
    parameters.bits = format.element_type == SLUICE_U4 ? 4 : 8;
    parameters.group_size = format.group_columns == 0 ? -1 : int64_t(format.group_columns);
    parameters.symmetric = format.zero_point == SLUICE_ZERO_MIDDLE;
    parameters.activation_order = format.group_index != 0;
    return parameters;
}

// Why the layout has no place for the module; empty when it has.
std::string obstacle(const stored_module& module, const gptq_parameters& parameters) {
    if (module.kind == SLUICE_MODULE_EMBEDDING || module.kind == SLUICE_MODULE_ROUTER)
        return fmt::format("the GPTQ layout has no place for a quantized {}",
                           module_kind_name(module.kind));
    if (module.in_stack)
        return "all experts are one tensor, for which the GPTQ layout has no place";
    const int64_t lanes = 32 / int64_t(parameters.bits);
    if (module.row_count % lanes == 0 && module.column_count % lanes == 0) return {};
    return fmt::format("{} is no multiple of {}, the values of {} bits in a word",
                       shape_text(std::array{module.row_count, module.column_count}), lanes,
                       parameters.bits);
}

sluice_weight_format format_of(const module_format_configuration& rule) {
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = rule.bits == 4 ? SLUICE_U4 : SLUICE_U8;
    format.scale_type = SLUICE_F16;
    format.group_columns = rule.group_size == -1 ? 0 : uint32_t(rule.group_size);
    format.zero_point = rule.symmetric ? SLUICE_ZERO_MIDDLE : SLUICE_ZERO_GROUP;
    return format;
}

sluice_weight_format ask(const plugin_instance& quantizer, const stored_module& module,
                         sluice_element_type stored_type) {
    const sluice_module description = module_for_plugin(module, stored_type);
    auto format = SLUICE_INIT(sluice_weight_format);
    plugin_call call = quantizer.call("plan");
    call = quantizer.quantizer().plan(quantizer.handle(), &description, &format, call.error());
    return format;
}

module_plan plan_module(const plugin_instance& quantizer, const stored_module& module,
                        sluice_element_type stored_type, const module_format_configuration* rule) {
    module_plan plan;
    if (rule == nullptr) {
        plan.format = ask(quantizer, module, stored_type);
    } else if (rule->bits != 16 && module.column_count > 1) {
        plan.format = format_of(*rule);
    } else {
        plan.format = SLUICE_INIT(sluice_weight_format);
        plan.format.element_type = stored_type;
        return plan;
    }
    if (plan.format.scale_type == SLUICE_ELEMENT_UNKNOWN
        && is_plain_float(plan.format.element_type))
        return plan;
    const gptq_parameters parameters = parameters_of(plan.format, quantizer.id(), module.name);
    plan.kept_reason = obstacle(module, parameters);
    if (plan.kept_reason.empty()) plan.parameters = parameters;
    return plan;
}

// One weight of the program is one matrix, or one stack, in one format.
void settle_together(const module_list& list, std::vector<module_plan>& plans) {
    // A matrix can be part of several weights, so that keeping one may change the next.
    for (bool changed = true; changed;) {
        changed = false;
        for (const auto& members : list.together) {
            const auto& first = plans[members.front()].parameters;
            const auto other = std::find_if(members.begin(), members.end(), [&](size_t member) {
                return plans[member].parameters != first;
            });
            if (other == members.end()) continue;
            const size_t odd = first ? *other : members.front();
            for (const size_t member : members) {
                if (!plans[member].parameters) continue;
                plans[member].parameters.reset();
                plans[member].kept_reason =
                    fmt::format("one weight is stored in one way, and {} would not be stored alike",
                                list.modules[odd].name);
                changed = true;
            }
        }
    }
}

// "model\.layers\.\d+\.mlp\.experts\.\d+\.up_proj$"
std::string numberless_pattern(std::string_view name) {
    std::string numberless;
    const std::string exact = gptq_config::exact_pattern(name);
    for (size_t i = 0; i < exact.size();) {
        const auto is_digit = [&](size_t at) {
            return at < exact.size() && exact[at] >= '0' && exact[at] <= '9';
        };
        // Only whole components: "w1" is a name.
        const bool starts_component = i >= 2 && exact[i - 1] == '.' && exact[i - 2] == '\\';
        size_t end = i;
        while (is_digit(end)) ++end;
        if (starts_component && end > i && (exact[end] == '\\' || exact[end] == '$')) {
            numberless += "\\d+";
            i = end;
        } else {
            numberless += exact[i++];
        }
    }
    return numberless;
}

gptq_override override_of(std::string pattern, const std::optional<gptq_parameters>& wanted,
                          const gptq_parameters& defaults) {
    gptq_override entry;
    entry.pattern = std::move(pattern);
    entry.is_quantized = wanted.has_value();
    if (!wanted) return entry;
    if (wanted->bits != defaults.bits) entry.bits = wanted->bits;
    if (wanted->group_size != defaults.group_size) entry.group_size = wanted->group_size;
    if (wanted->symmetric != defaults.symmetric) entry.symmetric = wanted->symmetric;
    if (wanted->activation_order != defaults.activation_order)
        entry.activation_order = wanted->activation_order;
    return entry;
}

// What several modules are wanted to be; optional has no order of its own kind here.
using parameter_key = std::tuple<bool, uint32_t, int64_t, bool, bool>;
parameter_key key_of(const std::optional<gptq_parameters>& wanted) {
    if (!wanted) return {};
    return {true, wanted->bits, wanted->group_size, wanted->symmetric, wanted->activation_order};
}

// The most frequent of the plans; `quantized_only`: of those that quantize.
std::optional<gptq_parameters> commonest(const std::vector<module_plan>& plans,
                                         const std::vector<size_t>& members, bool quantized_only) {
    std::map<parameter_key, size_t> counts;
    std::optional<gptq_parameters> best;
    size_t best_count = 0;
    for (const size_t member : members) {
        const auto& wanted = plans[member].parameters;
        if (quantized_only && !wanted) continue;
        const size_t count = ++counts[key_of(wanted)];
        if (count <= best_count) continue;
        best_count = count;
        best = wanted;
    }
    return best;
}

// What makes all modules of one numberless name resolve as planned.
void add_overrides(gptq_config& config, const module_list& list,
                   const std::vector<module_plan>& plans, const std::string& pattern,
                   const std::vector<size_t>& members) {
    const gptq_parameters& defaults = config.defaults();
    const auto wanted_of = [&](size_t member) -> const auto& { return plans[member].parameters; };
    const auto usual = commonest(plans, members, false);
    const bool all_alike = std::all_of(members.begin(), members.end(),
                                       [&](size_t member) { return wanted_of(member) == usual; });
    if (all_alike) {
        if (usual != std::optional(defaults))
            config.add_override(override_of(pattern, usual, defaults));
        return;
    }
    // Exceptions stand before the rule; those that leave modules alone come first by themselves,
    // which is why a rule that does so cannot have exceptions.
    for (const size_t member : members) {
        if (wanted_of(member) == usual && usual) continue;
        config.add_override(override_of(gptq_config::exact_pattern(list.modules[member].name),
                                        wanted_of(member), defaults));
    }
    if (usual && usual != std::optional(defaults))
        config.add_override(override_of(pattern, usual, defaults));
}

// "mlp.experts.3.up_proj" of "model.layers.7.mlp.experts.3.up_proj".
std::string name_in_block(const std::string& name) {
    constexpr std::string_view prefix = "model.layers.";
    if (!name.starts_with(prefix)) return name;
    const size_t dot = name.find('.', prefix.size());
    return dot == std::string::npos ? name : name.substr(dot + 1);
}

} // namespace

sluice_module module_for_plugin(const stored_module& module, sluice_element_type stored_type) {
    auto description = SLUICE_INIT(sluice_module);
    description.kind = module.kind;
    description.row_count = module.row_count;
    description.column_count = module.column_count;
    description.name = text_view(module.name);
    description.layer = module.layer;
    description.stored_type = stored_type;
    return description;
}

std::vector<module_plan> plan_modules(const plugin_instance& quantizer, const module_list& list,
                                      const std::vector<sluice_element_type>& stored_types,
                                      const std::vector<module_format_configuration>& rules) {
    std::vector<bool> used(rules.size(), false);
    std::vector<module_plan> plans;
    for (size_t i = 0; i < list.modules.size(); ++i) {
        const module_format_configuration* found = nullptr;
        for (size_t r = 0; r < rules.size(); ++r) {
            if (!rules[r].pattern.matches(list.modules[i].name)) continue;
            found = &rules[r];
            used[r] = true;
        }
        plans.push_back(plan_module(quantizer, list.modules[i], stored_types[i], found));
    }
    for (size_t r = 0; r < rules.size(); ++r) {
        if (used[r]) continue;
        std::set<std::string> names;
        for (const stored_module& module : list.modules)
            names.insert(generalised_name(module.name));
        fail(SLUICE_INVALID, "{}: quantization.formats: {} matches no module of the model{}",
             rules[r].origin.text(), quote(rules[r].pattern.text(), 160),
             did_you_mean(rules[r].pattern.generalised(),
                          std::vector<std::string>(names.begin(), names.end())));
    }
    settle_together(list, plans);
    return plans;
}

gptq_config make_gptq_config(const module_list& list, const std::vector<module_plan>& plans) {
    std::vector<size_t> all(plans.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    const auto defaults = commonest(plans, all, true);
    if (!defaults) {
        fail(SLUICE_INVALID, "the quantizer with these settings leaves every module of this model "
                             "as it is; there is nothing to quantize");
    }
    const bool any_zero_points =
        std::any_of(plans.begin(), plans.end(), [](const module_plan& plan) {
            return plan.parameters && !plan.parameters->symmetric;
        });
    gptq_config config(*defaults, any_zero_points ? gptq_format::gptq_v2 : gptq_format::gptq);

    std::map<std::string, std::vector<size_t>> groups; // by numberless pattern
    std::vector<std::string> block_names;
    std::set<std::string> block_names_seen;
    for (const size_t i : all) {
        const stored_module& module = list.modules[i];
        // The layout knows without being told that embeddings stay.
        if (module.kind == SLUICE_MODULE_EMBEDDING || module.in_stack) continue;
        if (module.kind == SLUICE_MODULE_HEAD) config.set_lm_head(plans[i].parameters.has_value());
        if (module.kind != SLUICE_MODULE_HEAD || plans[i].parameters)
            groups[numberless_pattern(module.name)].push_back(i);
        if (!plans[i].parameters || module.kind == SLUICE_MODULE_HEAD) continue;
        const std::string name = name_in_block(module.name);
        if (block_names_seen.insert(name).second) block_names.push_back(name);
    }
    for (const auto& [pattern, members] : groups)
        add_overrides(config, list, plans, pattern, members);
    config.set_modules_in_block(std::move(block_names));

    for (const size_t i : all) {
        const stored_module& module = list.modules[i];
        if (module.kind == SLUICE_MODULE_EMBEDDING || module.in_stack) continue;
        if (config.resolve(module.name) != plans[i].parameters)
            fail(SLUICE_INTERNAL, "quantization_config does not say of {} what was planned",
                 quote(module.name, 160));
    }
    return config;
}

} // namespace sluice
