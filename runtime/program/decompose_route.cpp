// Routing step by step as router.h numbers the steps.
#include "program/expansion.hpp"

#include <sluice/abi/router.h>

namespace sluice {

namespace {

class route_expansion {
  public:
    explicit route_expansion(expansion& composite)
        : composite_(composite), build_(composite.build),
          routing_(composite.attributes<sluice_routing_specification>()),
          rows_(composite.shape_in(0)[0]) {}

    std::vector<value_number> expand();

  private:
    std::string name(const std::string& part) const { return composite_.name(part.c_str()); }
    value_number score(value_number x, const char* part);
    value_number capped_logits();
    value_number group_scores(value_number choice);
    value_number mask_groups(value_number choice);
    value_number hashed_experts();
    value_number within(value_number x, const std::string& of, float bound);
    value_number only_chosen(value_number weight, value_number index, const std::string& of,
                             float otherwise);
    value_number weigh(value_number index, value_number scores, value_number choice);
    value_number valid_rows();
    value_number choices_by_rank(value_number index);
    value_number capacity(value_number valid);
    value_number within_capacity(value_number index, value_number valid, value_number& dropped);

    expansion& composite_;
    program_builder& build_;
    const sluice_routing_specification& routing_;
    dimension rows_;
};

value_number route_expansion::score(value_number x, const char* part) {
    switch (routing_.score) {
    case SLUICE_SCORE_SOFTMAX:
        return build_.softmax(name(part), x);
    case SLUICE_SCORE_SIGMOID:
        return build_.unary(name(part), SLUICE_UNARY_SIGMOID, x);
    case SLUICE_SCORE_SQRT_SOFTPLUS:
        return build_.unary(name(part), SLUICE_UNARY_SQRT,
                            build_.unary(name("softplus"), SLUICE_UNARY_SOFTPLUS, x));
    default:
        return x;
    }
}

value_number route_expansion::capped_logits() {
    const value_number logits = composite_.in(0);
    if (!(routing_.logit_softcap > 0)) return logits;
    const value_number cap = composite_.constant("softcap", 2, routing_.logit_softcap);
    const value_number ratio = build_.binary(name("capped_by"), SLUICE_BINARY_DIVIDE, logits, cap);
    const value_number tanh = build_.unary(name("capped_tanh"), SLUICE_UNARY_TANH, ratio);
    return build_.binary(name("capped"), SLUICE_BINARY_MULTIPLY, tanh, cap);
}

// f32 [T, G, E/G] -> [T, G, 1].
value_number route_expansion::group_scores(value_number choice) {
    if (routing_.group_score == SLUICE_GROUP_SCORE_MAX) {
        return build_.reduce(name("group_scores"), SLUICE_REDUCE_MAXIMUM, choice);
    }
    const topk_results best = build_.topk(name("group_best"), choice, routing_.group_score_count);
    return build_.reduce(name("group_scores"), SLUICE_REDUCE_SUM, best.value);
}

// Step 4: choice f32 [T, E] with the experts of the groups that do not stay at the mask value.
value_number route_expansion::mask_groups(value_number choice) {
    const dimension groups = size::fixed(routing_.group_count);
    const dimension members = size::fixed(routing_.expert_count / routing_.group_count);
    const dimension one = size::fixed(1);
    const value_number grouped = build_.reshape(name("grouped"), choice, {rows_, groups, members});
    const value_number scores =
        build_.reshape(name("group_score_rows"), group_scores(grouped), {rows_, groups});
    const topk_results best = build_.topk(name("groups"), scores, routing_.group_choice_count);
    // Group g stays when one of the chosen is g: [T, G, 1] against [T, 1, chosen].
    const value_number chosen = build_.reshape(
        name("groups_chosen"), best.index, {rows_, one, size::fixed(routing_.group_choice_count)});
    const value_number numbers = build_.reshape(
        name("group_column"), build_.iota(name("group_numbers"), {groups}), {groups, one});
    const value_number hits =
        build_.binary(name("group_hits"), SLUICE_BINARY_EQUAL, chosen, numbers);
    const value_number hit_count =
        build_.reduce(name("group_hit_count"), SLUICE_REDUCE_SUM,
                      build_.cast(name("group_hits_i32"), hits, SLUICE_I32));
    const value_number stays = build_.binary(name("group_stays"), SLUICE_BINARY_GREATER, hit_count,
                                             composite_.integer("no_hits", 3, 0));
    const float mask =
        routing_.mask_value == SLUICE_MASK_ZERO ? 0.0f : -std::numeric_limits<float>::infinity();
    const value_number masked =
        build_.select(name("grouped_masked"), stays, grouped, composite_.constant("mask", 3, mask));
    return build_.reshape(name("choice_masked"), masked,
                          {rows_, size::fixed(routing_.expert_count)});
}

// BOOL, of x's shape: whether 0 <= x < bound. `of` names x.
value_number route_expansion::within(value_number x, const std::string& of, float bound) {
    const value_number from = build_.binary(name(of + "_from_first"), SLUICE_BINARY_GREATER_EQUAL,
                                            x, composite_.integer((of + "_first").c_str(), 2, 0));
    const value_number below = build_.binary(name(of + "_below_end"), SLUICE_BINARY_LESS, x,
                                             composite_.integer((of + "_end").c_str(), 2, bound));
    return build_.binary(name(of + "_within"), SLUICE_BINARY_AND, from, below);
}

// table[token_id], with -1 where the id or the entry is out of range: i32 [T, k].
value_number route_expansion::hashed_experts() {
    const value_number id =
        build_.reshape(name("token_id"), composite_.in(4), {rows_, size::fixed(1)});
    const value_number entry =
        build_.gather_rows(name("entry"), composite_.in(5), composite_.in(4));
    const value_number known =
        build_.binary(name("hashed_known"), SLUICE_BINARY_AND,
                      within(id, "token_id", static_cast<float>(composite_.shape_in(5)[0].offset)),
                      within(entry, "entry", static_cast<float>(routing_.expert_count)));
    return build_.select(name("hashed"), known, entry, composite_.integer("unknown", 2, -1));
}

// A hash table may choose no expert: `otherwise` in place of the weight there. f32 [T, k].
value_number route_expansion::only_chosen(value_number weight, value_number index,
                                          const std::string& of, float otherwise) {
    if (!composite_.has(5)) return weight;
    const value_number chosen =
        build_.binary(name(of + "_has_expert"), SLUICE_BINARY_GREATER_EQUAL, index,
                      composite_.integer((of + "_first_expert").c_str(), 2, 0));
    return build_.select(name(of + "_chosen"), chosen, weight,
                         composite_.constant((of + "_otherwise").c_str(), 2, otherwise));
}

// Steps 6 to 8: f32 [T, k].
value_number route_expansion::weigh(value_number index, value_number scores, value_number choice) {
    const bool from_score = routing_.weight_source == SLUICE_WEIGHT_FROM_SCORE;
    value_number weight = build_.gather(name("chosen"), from_score ? scores : choice, index);
    if (routing_.score_stage == SLUICE_SCORE_AFTER_CHOICE) {
        const float least = -std::numeric_limits<float>::infinity();
        weight = score(only_chosen(weight, index, "logit", least), "chosen_scores");
    }
    weight = only_chosen(weight, index, "score", 0);
    if (routing_.renormalize != SLUICE_RENORMALIZE_NONE) {
        const value_number sum = build_.reduce(name("sum"), SLUICE_REDUCE_SUM, weight);
        const uint32_t function = routing_.renormalize == SLUICE_RENORMALIZE_ADD
                                      ? SLUICE_BINARY_ADD
                                      : SLUICE_BINARY_MAXIMUM;
        const value_number divisor =
            build_.binary(name("divisor"), function, sum,
                          composite_.constant("epsilon", 2, routing_.renormalize_epsilon));
        weight = build_.binary(name("renormalized"), SLUICE_BINARY_DIVIDE, weight, divisor);
    }
    const bool scaled = routing_.scale_condition == SLUICE_SCALE_ALWAYS
                        || routing_.renormalize == SLUICE_RENORMALIZE_NONE;
    if (scaled && routing_.scale != 1.0f) {
        weight = build_.unary(name("scaled"), SLUICE_UNARY_AFFINE, weight, routing_.scale);
    }
    if (composite_.has(2)) {
        const value_number scales =
            build_.gather(name("expert_scales"), composite_.f32(2, "per_expert_scale"), index);
        weight = build_.binary(name("expert_scaled"), SLUICE_BINARY_MULTIPLY, weight, scales);
    }
    // Once more: a row without any expert was divided by a sum of zero.
    return only_chosen(weight, index, "weight", 0);
}

// BOOL [T, 1]; value_none where no row is padding.
value_number route_expansion::valid_rows() {
    if (!composite_.has(3)) return value_none;
    const value_number column =
        build_.reshape(name("position"), composite_.in(3), {rows_, size::fixed(1)});
    return build_.binary(name("valid"), SLUICE_BINARY_GREATER_EQUAL, column,
                         composite_.integer("first_position", 2, 0));
}

// index i32 [T, k] -> [k * T]: all first choices in the order of the rows, then the second ones.
value_number route_expansion::choices_by_rank(value_number index) {
    const value_number turned = build_.transpose(name("by_rank"), index, std::array{1u, 0u});
    return build_.reshape(name("by_rank_flat"), turned, {multiply(rows_, routing_.choice_count)});
}

// ceil(capacity_factor * rows * k / E), in float32 and in that order: f32 [1].
value_number route_expansion::capacity(value_number valid) {
    const value_number ones =
        valid == value_none
            ? build_.fill(name("valid_f32"), SLUICE_F32, {rows_}, 1)
            : build_.reshape(name("valid_row"), build_.cast(name("valid_f32"), valid, SLUICE_F32),
                             {rows_});
    value_number value = build_.reduce(name("valid_count"), SLUICE_REDUCE_SUM, ones);
    value = build_.unary(name("capacity_factored"), SLUICE_UNARY_AFFINE, value,
                         routing_.capacity_factor);
    value = build_.unary(name("capacity_chosen"), SLUICE_UNARY_AFFINE, value,
                         static_cast<float>(routing_.choice_count));
    value = build_.binary(
        name("capacity_shared"), SLUICE_BINARY_DIVIDE, value,
        composite_.constant("expert_count", 1, static_cast<float>(routing_.expert_count)));
    return build_.unary(name("capacity"), SLUICE_UNARY_CEIL, value);
}

// Step 9, DROP: BOOL [T, k], and the number of assignments that are dropped, i32 [1].
value_number route_expansion::within_capacity(value_number index, value_number valid,
                                              value_number& dropped) {
    const dimension experts = size::fixed(routing_.expert_count);
    const dimension chosen = multiply(rows_, routing_.choice_count);
    const dimension one = size::fixed(1);
    const value_number numbers = build_.reshape(
        name("expert_column"), build_.iota(name("expert_numbers"), {experts}), {experts, one});
    const value_number hits = build_.binary(name("hits"), SLUICE_BINARY_EQUAL,
                                            choices_by_rank(index), numbers); // [E, k T]
    const value_number marks = build_.cast(name("hits_i32"), hits, SLUICE_I32);
    // The how-manieth of its expert each assignment is, from 1; 0 for those without an expert.
    const value_number running = build_.cumsum(name("running"), marks);
    const value_number own =
        build_.binary(name("running_own"), SLUICE_BINARY_MULTIPLY, running, marks);
    const value_number turned = build_.transpose(name("running_turned"), own, std::array{1u, 0u});
    const value_number ordinal = build_.reshape(
        name("ordinal"), build_.reduce(name("ordinal_sum"), SLUICE_REDUCE_SUM, turned), {chosen});
    const value_number over =
        build_.binary(name("over"), SLUICE_BINARY_GREATER,
                      build_.cast(name("ordinal_f32"), ordinal, SLUICE_F32), capacity(valid));
    const value_number over_marks = build_.cast(name("over_i32"), over, SLUICE_I32);
    dropped = build_.reduce(name("dropped"), SLUICE_REDUCE_SUM, over_marks);
    const value_number rows = build_.transpose(
        name("over_rows"),
        build_.reshape(name("over_ranks"), over_marks, {size::fixed(routing_.choice_count), rows_}),
        std::array{1u, 0u});
    return build_.binary(name("kept"), SLUICE_BINARY_EQUAL, rows,
                         composite_.integer("not_over", 2, 0));
}

std::vector<value_number> route_expansion::expand() {
    const bool before = routing_.score_stage == SLUICE_SCORE_BEFORE_CHOICE;
    const value_number logits = capped_logits();
    const value_number scores = before ? score(logits, "scores") : logits;
    value_number choice = scores;
    value_number index = value_none;
    if (composite_.has(5)) {
        index = hashed_experts();
    } else {
        if (composite_.has(1)) {
            choice = build_.binary(name("choice"), SLUICE_BINARY_ADD, scores,
                                   composite_.f32(1, "choice_bias"));
        }
        if (routing_.group_count > 1) choice = mask_groups(choice);
        index = build_.topk(name("best"), choice, routing_.choice_count).index;
    }
    value_number weight = weigh(index, scores, choice);
    const value_number none = composite_.integer("no_expert", 2, -1);
    const value_number zero = composite_.constant("no_weight", 2, 0);
    const value_number valid = valid_rows();
    if (valid != value_none) {
        index = build_.select(name("index_valid"), valid, index, none);
        weight = build_.select(name("weight_valid"), valid, weight, zero);
    }
    value_number dropped = value_none;
    if (routing_.capacity_factor > 0) {
        const value_number kept = within_capacity(index, valid, dropped);
        index = build_.select(name("index_kept"), kept, index, none);
        weight = build_.select(name("weight_kept"), kept, weight, zero);
    } else if (composite_.wants(3)) {
        dropped = composite_.integer("dropped", 1, 0);
    }
    const value_number count = composite_.wants(2) ? count_choices(build_, composite_.name(""),
                                                                   index, routing_.expert_count)
                                                   : value_none;
    return {index, weight, count, dropped};
}

} // namespace

value_number count_choices(program_builder& builder, const std::string& prefix, value_number index,
                           uint32_t expert_count) {
    const value_shape shape = builder.dimensions(index); // [T, k]
    const dimension experts = size::fixed(expert_count);
    const value_number flat =
        builder.reshape(prefix + "choices", index, {multiply(shape[0], shape[1].offset)});
    const value_number numbers =
        builder.reshape(prefix + "count_column", builder.iota(prefix + "count_numbers", {experts}),
                        {experts, size::fixed(1)});
    const value_number hits =
        builder.binary(prefix + "count_hits", SLUICE_BINARY_EQUAL, flat, numbers); // [E, T k]
    const value_number marks = builder.cast(prefix + "count_marks", hits, SLUICE_I32);
    const value_number sums = builder.reduce(prefix + "count_sums", SLUICE_REDUCE_SUM, marks);
    return builder.reshape(prefix + "count", sums, {experts});
}

std::vector<value_number> expand_route(expansion& composite) {
    return route_expansion(composite).expand();
}

} // namespace sluice
