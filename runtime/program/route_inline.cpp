#include "program/route_inline.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "program/expansion.hpp"
#include "program/operation_table.hpp"
#include "program/print.hpp"
#include "program/rules.hpp"

#include <cmath>
#include <cstring>

namespace sluice {

namespace {

constexpr uint32_t expert_count_max = 4096;
constexpr uint32_t choice_count_max = 64;

// The names of a sub-program's inputs, and what they stand for.
struct router_operand_name {
    const char* input;
    value_number route_operands::*operand;
};
constexpr router_operand_name router_operands[] = {
    {"logits", &route_operands::logits},
    {"choice_bias", &route_operands::choice_bias},
    {"per_expert_scale", &route_operands::per_expert_scale},
    {"position", &route_operands::position},
    {"token_ids", &route_operands::token_ids},
    {"table", &route_operands::table},
};

// An input that a sub-program may have.
struct router_input {
    const char* name;
    sluice_element_type type;
    value_shape dimensions;
};

std::vector<router_input> router_inputs(const sluice_router_request& request) {
    const dimension experts = size::fixed(request.expert_count);
    std::vector<router_input> inputs = {
        {"logits", SLUICE_F32, {size::tokens(), experts}},
        {"position", SLUICE_I32, {size::tokens()}},
        {"token_ids", SLUICE_I32, {size::tokens()}},
    };
    if (request.has_choice_bias != 0) {
        inputs.push_back({"choice_bias", SLUICE_F32, {experts}});
    }
    if (request.has_per_expert_scale != 0) {
        inputs.push_back({"per_expert_scale", SLUICE_F32, {experts}});
    }
    if (request.table_row_count != 0) {
        const dimension rows = size::fixed(request.table_row_count);
        inputs.push_back({"table", SLUICE_I32, {rows, size::fixed(request.choice_count)}});
    }
    return inputs;
}

void check_router_input(const program_value& value, const std::vector<router_input>& known,
                        std::string_view origin) {
    std::vector<std::string> names;
    for (const router_input& input : known) names.emplace_back(input.name);
    if (value.kind == SLUICE_VALUE_INPUT && value.input != SLUICE_INPUT_CUSTOM) {
        fail(SLUICE_INVALID,
             "{}: the sub-program's input {} is a batch input; a router's inputs are custom ones "
             "by the names {}",
             origin, quote(value.name), join(names, ", "));
    }
    if (value.kind == SLUICE_VALUE_WEIGHT || value.kind == SLUICE_VALUE_STATE) {
        fail(SLUICE_INVALID,
             "{}: the sub-program has the {} {}; a router has neither weights nor "
             "caches",
             origin, value.kind == SLUICE_VALUE_WEIGHT ? "weight" : "cache", quote(value.name));
    }
    for (const router_input& input : known) {
        if (value.name != input.name) continue;
        if (value.element_type == input.type && same(value.dimensions, input.dimensions)) return;
        fail(SLUICE_INVALID, "{}: the sub-program's input {} must be {}{}, found {}", origin,
             quote(value.name), element_type_name(input.type), dimensions_text(input.dimensions),
             print_value_type(value));
    }
    fail(SLUICE_INVALID, "{}: the sub-program has the input {}; it can have {}{}", origin,
         quote(value.name), join(names, ", "), did_you_mean(value.name, names));
}

void check_router_outputs(const program& subprogram, uint32_t expert_count,
                          std::string_view origin) {
    const auto& outputs = subprogram.outputs();
    if (outputs.size() < 2 || outputs.size() > 4) {
        fail(SLUICE_INVALID,
             "{}: the sub-program has {} outputs, expected index, weight and perhaps count and "
             "dropped",
             origin, outputs.size());
    }
    const program_value& index = subprogram.value(outputs[0]);
    const bool index_fits = index.element_type == SLUICE_I32 && index.dimensions.size() == 2
                            && same(index.dimensions[0], size::tokens())
                            && is_fixed(index.dimensions[1])
                            && index.dimensions[1].offset <= choice_count_max;
    if (!index_fits) {
        fail(SLUICE_INVALID, "{}: output 0 (index) must be i32[T, k] with k up to {}, found {}",
             origin, choice_count_max, print_value_type(index));
    }
    const auto expect = [&](size_t number, const char* name, sluice_element_type type,
                            const value_shape& dimensions) {
        if (number >= outputs.size()) return;
        const program_value& value = subprogram.value(outputs[number]);
        if (value.element_type == type && same(value.dimensions, dimensions)) return;
        fail(SLUICE_INVALID, "{}: output {} ({}) must be {}{}, found {}", origin, number, name,
             element_type_name(type), dimensions_text(dimensions), print_value_type(value));
    };
    expect(1, "weight", SLUICE_F32, index.dimensions);
    expect(2, "count", SLUICE_I32, {size::fixed(expert_count)});
    expect(3, "dropped", SLUICE_I32, {size::fixed(1)});
}

void check_subprogram(const program& subprogram, const sluice_router_request& request,
                      std::string_view origin) {
    const auto known = router_inputs(request);
    for (const program_value& value : subprogram.values()) {
        if (value.kind != SLUICE_VALUE_RESULT) check_router_input(value, known, origin);
    }
    for (size_t i = 0; i < subprogram.operations().size(); ++i) {
        const program_operation& operation = subprogram.operations()[i];
        if (!is_composite(operation.kind)) continue;
        fail(SLUICE_INVALID, "{}: {}: a router's sub-program has primitives only", origin,
             operation_label(i, operation));
    }
    check_router_outputs(subprogram, request.expert_count, origin);
}

// The operand that a sub-program's input stands for, in the input's own type and shape.
value_number router_operand(program_builder& builder, const std::string& prefix,
                            const program_value& input, value_number operand) {
    if (operand == value_none) {
        fail(SLUICE_INVALID,
             "the router {} needs the input \"{}\", which this program does not give it", prefix,
             input.name);
    }
    const program_value& given = builder.value(operand);
    if (!same(given.dimensions, input.dimensions)) {
        fail(SLUICE_INVALID, "the router {} takes the input \"{}\" as {}, this program has {}",
             prefix, input.name, print_value_type(input), print_value_type(given));
    }
    if (given.kind == SLUICE_VALUE_WEIGHT) return builder.dequantize(prefix + input.name, operand);
    return given.element_type == input.element_type
               ? operand
               : builder.cast(prefix + input.name, operand, input.element_type);
}

// The sub-program's operations in the builder; returns the numbers of its outputs there.
std::vector<value_number> add_subprogram(program_builder& builder, const std::string& name,
                                         const route_operands& operands,
                                         const program& subprogram) {
    const std::string prefix = name + "/";
    std::vector<value_number> mapped(subprogram.values().size(), value_none);
    for (const auto& [input, operand] : router_operands) {
        const auto found = subprogram.find(input);
        if (!found || subprogram.value(*found).kind != SLUICE_VALUE_INPUT) continue;
        mapped[*found] =
            router_operand(builder, prefix, subprogram.value(*found), operands.*operand);
    }
    for (value_number i = 0; i < subprogram.values().size(); ++i) {
        const program_value& value = subprogram.values()[i];
        if (value.kind != SLUICE_VALUE_RESULT) continue;
        const std::string own = value.name.empty() ? fmt::format("{}", i) : value.name;
        mapped[i] = builder.result(prefix + own, value.element_type, value.dimensions);
    }
    for (program_operation operation : subprogram.operations()) {
        for (auto* numbers : {&operation.inputs, &operation.outputs}) {
            for (value_number& number : *numbers) {
                if (number != value_none) number = mapped[number];
            }
        }
        operation.name = prefix + operation.name;
        builder.append(std::move(operation));
    }
    std::vector<value_number> outputs;
    for (const value_number output : subprogram.outputs()) outputs.push_back(mapped[output]);
    return outputs;
}

route_operands without_ignored(route_operands operands, uint32_t ignored_inputs) {
    if ((ignored_inputs & SLUICE_ROUTER_INPUT_CHOICE_BIAS) != 0) operands.choice_bias = value_none;
    if ((ignored_inputs & SLUICE_ROUTER_INPUT_PER_EXPERT_SCALE) != 0) {
        operands.per_expert_scale = value_none;
    }
    if ((ignored_inputs & SLUICE_ROUTER_INPUT_TABLE) != 0) operands.table = value_none;
    return operands;
}

// One field of a semantic struct that is too long or too short for this runtime: see import.cpp.
sluice_routing_specification read_specification(const sluice_routing_specification* source,
                                                std::string_view origin) {
    if (source == nullptr) fail(SLUICE_INVALID, "{}: no specification was given", origin);
    const uint32_t size = source->struct_size;
    constexpr uint32_t size_max = 1u << 16;
    if (size < sizeof(uint32_t) || size > size_max) {
        fail(SLUICE_INVALID, "{}: the specification's struct_size is {}", origin, size);
    }
    sluice_routing_specification copy{};
    std::memcpy(&copy, source, std::min<size_t>(size, sizeof(copy)));
    const auto* bytes = reinterpret_cast<const unsigned char*>(source);
    for (size_t i = sizeof(copy); i < size; ++i) {
        if (bytes[i] == 0) continue;
        fail(SLUICE_UNSUPPORTED,
             "{}: the specification uses a field at byte {} that this runtime does not know",
             origin, i);
    }
    copy.struct_size = sizeof(copy);
    return copy;
}

} // namespace

void check_routing_specification(const sluice_routing_specification& routing,
                                 std::string_view origin) {
    const auto within = [&](uint32_t value, uint32_t min, uint32_t max, const char* field) {
        if (value >= min && value <= max) return;
        fail(SLUICE_INVALID, "{}: {} is {}, expected {} to {}", origin, field, value, min, max);
    };
    const auto known = [&](uint32_t value, uint32_t max, const char* field) {
        if (value <= max) return;
        fail(SLUICE_UNSUPPORTED, "{}: {} {} is not known; the known ones are 0 to {}", origin,
             field, value, max);
    };
    const auto from_zero = [&](float value, const char* field) {
        if (std::isfinite(value) && value >= 0) return;
        fail(SLUICE_INVALID, "{}: {} is {}, expected a number from 0", origin, field, value);
    };
    within(routing.expert_count, 1, expert_count_max, "expert_count");
    within(routing.choice_count, 1, std::min(routing.expert_count, choice_count_max),
           "choice_count");
    if (routing.group_count > 1) {
        if (routing.expert_count % routing.group_count != 0) {
            fail(SLUICE_INVALID, "{}: group_count is {}, expected a divisor of expert_count {}",
                 origin, routing.group_count, routing.expert_count);
        }
        const uint32_t members = routing.expert_count / routing.group_count;
        within(routing.group_choice_count, 1, routing.group_count, "group_choice_count");
        known(routing.group_score, SLUICE_GROUP_SCORE_TOPK_SUM, "group_score");
        if (routing.group_score == SLUICE_GROUP_SCORE_TOPK_SUM) {
            within(routing.group_score_count, 1, members, "group_score_count");
        }
        // A masked expert must never be needed to fill the k choices.
        within(routing.choice_count, 1, routing.group_choice_count * members, "choice_count");
    }
    known(routing.score, SLUICE_SCORE_IDENTITY, "score");
    known(routing.score_stage, SLUICE_SCORE_AFTER_CHOICE, "score_stage");
    known(routing.mask_value, SLUICE_MASK_ZERO, "mask_value");
    known(routing.weight_source, SLUICE_WEIGHT_FROM_CHOICE, "weight_source");
    known(routing.renormalize, SLUICE_RENORMALIZE_CLAMP, "renormalize");
    known(routing.scale_condition, SLUICE_SCALE_NOT_RENORMALIZED, "scale_condition");
    known(routing.capacity_policy, SLUICE_CAPACITY_REROUTE, "capacity_policy");
    from_zero(routing.renormalize_epsilon, "renormalize_epsilon");
    from_zero(routing.logit_softcap, "logit_softcap");
    from_zero(routing.capacity_factor, "capacity_factor");
    if (!std::isfinite(routing.scale) || routing.scale == 0) {
        fail(SLUICE_INVALID, "{}: scale is {}, expected a number other than 0 (1 for none)", origin,
             routing.scale);
    }
}

namespace {

sluice_routing_specification import_specification(const sluice_router_request& request,
                                                  const sluice_router_answer& answer,
                                                  std::string_view origin) {
    const auto specification = read_specification(answer.specification, origin);
    check_routing_specification(specification, origin);
    if (specification.expert_count != request.expert_count) {
        fail(SLUICE_INVALID, "{}: expert_count is {}, the model's layer {} has {} experts", origin,
             specification.expert_count, request.layer, request.expert_count);
    }
    return specification;
}

host_function_answer import_host_function(const sluice_router_request& request,
                                          const sluice_router_answer& answer,
                                          std::string_view origin) {
    host_function_answer function;
    function.choice_count = answer.choice_count != 0 ? answer.choice_count : request.choice_count;
    const uint32_t most = std::min(request.expert_count, choice_count_max);
    if (function.choice_count < 1 || function.choice_count > most) {
        fail(SLUICE_INVALID, "{}: choice_count is {}, expected 1 to {}", origin,
             function.choice_count, most);
    }
    if (answer.specification == nullptr || answer.specification->expert_count == 0) return function;
    function.computes = import_specification(request, answer, origin);
    if (function.computes->choice_count != function.choice_count) {
        fail(SLUICE_INVALID,
             "{}: the host function makes {} choices, the specification that it says it computes "
             "{}; both must be the same",
             origin, function.choice_count, function.computes->choice_count);
    }
    return function;
}

} // namespace

router_answer import_router_answer(const sluice_router_request& request,
                                   const sluice_router_answer& answer, std::string_view origin) {
    router_answer result;
    if (answer.form == SLUICE_ROUTER_SPECIFICATION || answer.form == SLUICE_ROUTER_HOST_FUNCTION) {
        result.ignored_inputs = answer.ignored_inputs;
        if ((result.ignored_inputs & ~SLUICE_ROUTER_INPUTS_ALL) != 0) {
            fail(SLUICE_UNSUPPORTED, "{}: ignored_inputs is {:#x}, the known ones are {:#x}",
                 origin, result.ignored_inputs, SLUICE_ROUTER_INPUTS_ALL);
        }
        if (answer.form == SLUICE_ROUTER_SPECIFICATION) {
            result.specification = import_specification(request, answer, origin);
        } else {
            result.host_function = import_host_function(request, answer, origin);
        }
        return result;
    }
    if (answer.form != SLUICE_ROUTER_SUBPROGRAM) {
        fail(SLUICE_UNSUPPORTED, "{}: a router's answer of form {} is not known", origin,
             answer.form);
    }
    if (answer.subprogram == nullptr) {
        fail(SLUICE_INVALID, "{}: the sub-program is missing (NULL)", origin);
    }
    result.subprogram = import_program(*answer.subprogram, origin);
    check_subprogram(*result.subprogram, request, origin);
    return result;
}

route_results add_router(program_builder& builder, const std::string& name,
                         const route_operands& operands, const router_answer& answer) {
    if (int(answer.specification.has_value()) + int(answer.subprogram.has_value())
            + int(answer.host_function.has_value())
        != 1) {
        fail(SLUICE_INVALID,
             "router {}: exactly one of specification, sub-program and host function is expected",
             quote(name));
    }
    if (answer.specification) {
        return builder.route(name, without_ignored(operands, answer.ignored_inputs),
                             *answer.specification);
    }
    if (answer.host_function) {
        auto sizes = SLUICE_INIT(sluice_routing_specification);
        sizes.expert_count = uint32_t(builder.dimensions(operands.logits).back().offset);
        sizes.choice_count = answer.host_function->choice_count;
        sizes.scale = 1;
        return builder.route(name, without_ignored(operands, answer.ignored_inputs), sizes,
                             SLUICE_OPERATION_HOST_FUNCTION);
    }
    const std::vector<value_number> outputs =
        add_subprogram(builder, name, operands, *answer.subprogram);
    const auto expert_count =
        static_cast<uint32_t>(builder.dimensions(operands.logits).back().offset);
    route_results results{};
    results.index = outputs.at(0);
    results.weight = outputs.at(1);
    results.count = outputs.size() > 2
                        ? outputs[2]
                        : count_choices(builder, name + "/", results.index, expert_count);
    results.dropped = outputs.size() > 3 ? outputs[3] : value_none;
    return results;
}

program replace_router(const program& source, uint32_t operation, const router_answer& answer) {
    if (operation >= source.operations().size()
        || source.operations()[operation].kind != SLUICE_OP_ROUTE) {
        fail(SLUICE_INVALID, "program {}: operation {} is no route", quote(source.name()),
             operation);
    }
    program_builder builder(source);
    for (uint32_t i = 0; i < source.operations().size(); ++i) {
        const program_operation& old = source.operations()[i];
        if (i != operation) {
            builder.append(old);
            continue;
        }
        const auto operand = [&](size_t index) {
            return index < old.inputs.size() ? old.inputs[index] : value_none;
        };
        const route_operands operands = {operand(0), operand(1), operand(2),
                                         operand(3), operand(4), operand(5)};
        const route_results results = add_router(builder, old.name, operands, answer);
        const value_number made[] = {results.index, results.weight, results.count, results.dropped};
        for (size_t output = 0; output < old.outputs.size(); ++output) {
            const value_number to = old.outputs[output];
            if (to == value_none) continue;
            value_number from = made[output];
            if (from == value_none) { // only `dropped` can be missing: nothing is ever dropped
                from = builder.fill(old.name + "/dropped", SLUICE_I32, {size::fixed(1)}, 0);
            }
            builder.redirect(from, to);
        }
    }
    return builder.finish();
}

} // namespace sluice
