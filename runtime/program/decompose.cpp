#include "program/decompose.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "program/expansion.hpp"
#include "program/operation_table.hpp"
#include "program/rules.hpp"

namespace sluice {

namespace {

std::vector<value_number> expand(expansion& composite, uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_GATED_MLP:
        return expand_gated_mlp(composite);
    case SLUICE_OP_ATTENTION:
        return expand_attention(composite);
    case SLUICE_OP_MLA_ATTENTION:
        return expand_mla_attention(composite);
    case SLUICE_OP_ROUTE:
        return expand_route(composite);
    case SLUICE_OP_MOE_FFN:
        return expand_moe_ffn(composite);
    case SLUICE_OP_SAMPLE:
        return expand_sample(composite);
    default:
        fail(SLUICE_INTERNAL, "there is no expansion of {}", operation_name(kind));
    }
}

} // namespace

std::optional<std::string> why_not_decomposable(const program_operation& operation) {
    const auto* routing = std::get_if<sluice_routing_specification>(&operation.attributes);
    if (routing != nullptr && routing->capacity_factor > 0
        && routing->capacity_policy == SLUICE_CAPACITY_REROUTE) {
        return "a route that reroutes over capacity visits its rows one after the other, which "
               "primitives cannot say; the backend must claim the composite route, or the "
               "router's capacity policy be drop";
    }
    return std::nullopt;
}

program decompose(const program& source, const operation_predicate& keep) {
    program_builder builder(source);
    for (uint32_t i = 0; i < source.operations().size(); ++i) {
        const program_operation& operation = source.operations()[i];
        if (!is_composite(operation.kind) || is_host_function(operation) || keep(i)) {
            builder.append(operation);
            continue;
        }
        if (const auto reason = why_not_decomposable(operation)) {
            fail(SLUICE_UNSUPPORTED, "program {}: {}: {}", quote(source.name()),
                 operation_label(i, operation), *reason);
        }
        builder.place(operation.placement);
        expansion composite(builder, operation);
        const std::vector<value_number> results = expand(composite, operation.kind);
        for (size_t output = 0; output < operation.outputs.size(); ++output) {
            if (operation.outputs[output] == value_none) continue;
            builder.redirect(results.at(output), operation.outputs[output]);
        }
    }
    return builder.finish();
}

program decompose(const program& source) {
    return decompose(source, [](uint32_t) { return false; });
}

} // namespace sluice
