// Every operation of a backend against the reference, over random cases.
#include "backend_checks.hpp"

#include "checks.hpp"
#include "direct.hpp"
#include "generators.hpp"
#include "tolerance.hpp"

#include "base/element_type.hpp"
#include "program/decompose.hpp"
#include "program/operation_table.hpp"

#include <algorithm>

namespace sluice::checker {

sluice_backend_properties properties_of(plugin_instance& plugin) {
    auto properties = SLUICE_INIT(sluice_backend_properties);
    plugin_call call = plugin.call("properties");
    call = plugin.backend().properties(plugin.handle(), &properties, call.error());
    return properties;
}

bool has_activations(plugin_instance& plugin, sluice_element_type type) {
    return (properties_of(plugin).activation_types >> type & 1U) != 0;
}

bool has_cache_of(plugin_instance& plugin, const generator& of) {
    return of.cache_type == SLUICE_ELEMENT_UNKNOWN
           || (properties_of(plugin).cache_types >> of.cache_type & 1U) != 0;
}

operation_case draw_case(context& with, const generator& of, const case_kind& kind,
                         uint32_t number) {
    auto random = with.random(fmt::format("{} {} {} {}", of.name, kind.type, kind.format, number));
    draw drawn{random, kind.type, weight_format_named(kind.format).format, number};
    return of.make(drawn);
}

namespace {

// What decides how far two runs may be apart.
struct compared {
    uint32_t operation;
    sluice_element_type activations;
    uint32_t activation_bits;
};

// Compares the outputs of all steps. `what` names the two sides.
void compare_runs(const std::string& what, const operation_case& given, const compared& by,
                  const std::vector<step_outputs>& expected,
                  const std::vector<step_outputs>& found) {
    for (size_t step = 0; step < found.size(); ++step)
        for (size_t output = 0; output < found[step].size(); ++output) {
            const program_value& value = given.made.value(given.made.outputs()[output]);
            compare(
                fmt::format("{}, step {}, output {}", what, step, value.name),
                expected[step][output], found[step][output],
                tolerance_of(by.operation, by.activations, value.element_type, by.activation_bits));
        }
}

// Whether the composite under test is refused; a refused primitive is a failure.
bool refuses_composite(plugin_instance& plugin, const operation_case& given, const generator& of,
                       std::string& reason) {
    const auto refused = first_refusal(plugin, given.made);
    if (!refused) return false;
    const program_operation& operation = given.made.operations()[refused->operation];
    require(is_composite(operation.kind), "{} is a primitive, but it is not claimed: {}",
            operation_name(operation.kind), refused->reason);
    require(operation.kind == of.kind, "{} refuses {}: {}", plugin.id(), operation.name,
            refused->reason);
    require(!refused->reason.empty(), "{} is not claimed, without a reason", of.name);
    reason = refused->reason;
    return true;
}

// Against the formula itself, where it is short enough to be written down.
void check_formula(const std::string& label, const operation_case& given, const compared& by,
                   const std::vector<step_outputs>& found) {
    std::vector<step_outputs> expected;
    for (const auto& step : given.steps) {
        auto outputs = direct_outputs(given, step);
        if (!outputs) return;
        expected.push_back(std::move(*outputs));
    }
    compare_runs(label + " against the formula", given, by, expected, found);
}

// One case: the plugin against the formula and the reference; a composite also against its own
// decomposition.
bool check_case(context& with, const generator& of, const case_kind& kind, uint32_t number,
                std::string& refusal) {
    const operation_case given = draw_case(with, of, kind, number);
    const std::string label = fmt::format("case {}", number);
    const bool composite = is_composite(of.kind);
    if (refuses_composite(with.plugin(), given, of, refusal)) {
        // Its primitives still have to say what the composite means.
        if (!why_not_decomposable(given.made.operations().back())) {
            const operation_case primitive = with_program(given, decompose(given.made));
            check_formula(label + " decomposed", given,
                          {of.kind, kind.type, activation_bits(with.plugin(), primitive.made)},
                          run_case(with.plugin(), primitive));
        }
        return false;
    }
    const auto found = run_case(with.plugin(), given);
    compared by{of.kind, kind.type, activation_bits(with.plugin(), given.made)};
    check_formula(label, given, by, found);
    std::optional<program> expanded;
    try {
        expanded = decompose(given.made);
    } catch (const error& thrown) {
        // Rerouting over capacity: no program of primitives says it; the formula does.
        if (SLUICE_STATUS_CLASS(thrown.status()) != SLUICE_UNSUPPORTED) throw;
        return true;
    }
    const operation_case primitive = with_program(given, *expanded);
    const auto expected = run_case(with.oracle(), with_plain_weights(primitive));
    compare_runs(label + " against the reference", given, by, expected, found);
    if (composite) {
        const auto by_parts = run_case(with.plugin(), primitive);
        by.activation_bits =
            std::max(by.activation_bits, activation_bits(with.plugin(), primitive.made));
        compare_runs(label + " against its decomposition", given, by, by_parts, found);
    }
    return true;
}

std::string check_operation(context& with, const generator& of, const case_kind& kind) {
    if (!has_activations(with.plugin(), kind.type))
        skip_check("{} is none of its types of activations", element_type_name(kind.type));
    if (!has_cache_of(with.plugin(), of))
        skip_check("it keeps no caches in {}", element_type_name(of.cache_type));
    const named_format& format = weight_format_named(kind.format);
    uint32_t refused = 0;
    std::string reason;
    for (uint32_t number = 0; number < with.options().iterations; ++number) {
        try {
            if (!check_case(with, of, kind, number, reason)) ++refused;
        } catch (const error& thrown) {
            // Formats beyond the plain ones are an offer.
            const bool unsupported = SLUICE_STATUS_CLASS(thrown.status()) == SLUICE_UNSUPPORTED;
            if (!unsupported || format.required || !of.uses_weight_format)
                fail_check("case {}: {}", number, thrown.what());
            skip_check("{}", thrown.what());
        }
    }
    const uint32_t cases = with.options().iterations;
    if (refused == cases) skip_check("not claimed, so it is decomposed: {}", reason);
    return refused == 0 ? fmt::format("{} cases", cases)
                        : fmt::format("{} cases, {} not claimed ({})", cases, refused, reason);
}

} // namespace

std::vector<check> operation_checks() {
    std::vector<check> checks;
    for (const auto& of : all_generators())
        for (const auto& format : weight_formats()) {
            if (!of.uses_weight_format && format.name != "f32") continue;
            for (const sluice_element_type type : {SLUICE_F32, SLUICE_BF16, SLUICE_F16}) {
                if (!of.uses_type && type != SLUICE_F32) continue;
                // Quantized weights meet the types that models compute in.
                if (!format.required && type == SLUICE_F16) continue;
                std::string name = fmt::format("backend: {}", of.name);
                if (of.uses_type) name += fmt::format(", {}", element_type_name(type));
                if (of.uses_weight_format) name += fmt::format(", weights {}", format.name);
                const case_kind kind{type, format.name};
                checks.push_back(
                    {name, [of, kind](context& with) { return check_operation(with, of, kind); }});
            }
        }
    return checks;
}

std::vector<check> backend_checks() {
    std::vector<check> checks;
    for (const auto& list : {behaviour_checks(), growth_checks(), operation_checks()})
        checks.insert(checks.end(), list.begin(), list.end());
    return checks;
}

} // namespace sluice::checker
