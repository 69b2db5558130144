// Experts as grouped matrix products over rows that are sorted by expert.
#include "program/expansion.hpp"

namespace sluice {

namespace {

// x[row[p]] * weight[choice[p]] for each sorted place p, in x's type.
value_number weighted_rows(expansion& composite, value_number rows, const group_results& groups) {
    program_builder& build = composite.build;
    const dimension places = build.dimensions(groups.choice)[0];
    const value_number flat =
        build.reshape(composite.name("weight_flat"), composite.in(2), {places});
    const value_number sorted =
        build.gather_rows(composite.name("weight_sorted"), flat, groups.choice);
    const value_number column =
        build.reshape(composite.name("weight_column"), sorted, {places, size::fixed(1)});
    const value_number product =
        build.binary(composite.name("rows_weighted"), SLUICE_BINARY_MULTIPLY,
                     composite.f32_of(rows, "rows_f32"), column);
    return composite.cast(product, composite.type_in(0), "rows_rounded");
}

// What identity experts add: x times the sum of the row's weights on them; f32 [T, D].
value_number identity_experts(expansion& composite, int64_t expert_count) {
    program_builder& build = composite.build;
    const value_number is_identity =
        build.binary(composite.name("is_identity"), SLUICE_BINARY_GREATER_EQUAL, composite.in(1),
                     composite.integer("expert_count", 2, static_cast<float>(expert_count)));
    const value_number weights =
        build.select(composite.name("identity_weights"), is_identity, composite.in(2),
                     composite.constant("no_weight", 2, 0));
    const value_number sum =
        build.reduce(composite.name("identity_weight"), SLUICE_REDUCE_SUM, weights);
    return build.binary(composite.name("identity"), SLUICE_BINARY_MULTIPLY,
                        composite.f32(0, "x_f32"), sum);
}

} // namespace

std::vector<value_number> expand_moe_ffn(expansion& composite) {
    program_builder& build = composite.build;
    const auto& attributes = composite.attributes<sluice_moe_ffn_attributes>();
    const sluice_element_type type = composite.type_in(0);
    const int64_t expert_count = composite.shape_in(4)[0].offset;
    const group_results groups =
        build.group_rows(composite.name("groups"), composite.in(1), composite.in(3),
                         static_cast<uint32_t>(expert_count));
    value_number rows = build.gather_rows(composite.name("rows"), composite.in(0), groups.row);
    if (attributes.weight_on_input != 0) rows = weighted_rows(composite, rows, groups);

    const value_number gate = build.grouped_linear(composite.name("gate"), rows, groups.offset,
                                                   composite.in(4), composite.in(7), type);
    const value_number up = composite.has(5)
                                ? build.grouped_linear(composite.name("up"), rows, groups.offset,
                                                       composite.in(5), composite.in(8), type)
                                : value_none;
    auto activation = SLUICE_INIT(sluice_activation_attributes);
    activation.activation = attributes.activation;
    activation.gate_layout = attributes.gate_layout;
    activation.alpha = attributes.alpha;
    activation.clamp = attributes.clamp;
    const value_number activated =
        build.gated_activation(composite.name("activated"), gate, up, activation);
    const value_number down = build.grouped_linear(composite.name("down"), activated, groups.offset,
                                                   composite.in(6), composite.in(9), SLUICE_F32);
    const value_number weight = attributes.weight_on_input != 0 ? value_none : composite.in(2);
    if (attributes.zero_expert != SLUICE_ZERO_EXPERT_IDENTITY) {
        return {build.combine_rows(composite.name("y"), down, groups.place, weight,
                                   composite.type_out(0))};
    }
    const value_number combined =
        build.combine_rows(composite.name("combined"), down, groups.place, weight, SLUICE_F32);
    const value_number sum = build.binary(composite.name("y_f32"), SLUICE_BINARY_ADD, combined,
                                          identity_experts(composite, expert_count));
    return {composite.cast(sum, composite.type_out(0), "y")};
}

} // namespace sluice
