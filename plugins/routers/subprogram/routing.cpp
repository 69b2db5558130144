#include "routing.hpp"

#include <limits>

namespace sluice::routers {
namespace {

using value = program_builder::value;

// Writes one routing. Values are named by the step of abi/router.h that they belong to.
class routing_writer {
  public:
    routing_writer(program_builder& program, const sluice_routing_specification& routing,
                   const routing_inputs& inputs)
        : program_(program), routing_(routing), inputs_(inputs), experts_(routing.expert_count),
          choices_(routing.choice_count) {}

    void write() {
        value logits = program_.input("logits", SLUICE_F32, rows(experts_));
        const value position = program_.input("position", SLUICE_I32, {size::tokens()});

        const bool score_before = routing_.score_stage == SLUICE_SCORE_BEFORE_CHOICE;
        if (routing_.logit_softcap > 0) logits = softcap(logits);
        const value scores = score_before ? score(logits, experts_, "scores") : logits;
        const value choice = is_hashed() ? scores : choices_of(scores);
        const value index = is_hashed() ? hashed() : best_of(choice);
        const bool from_score = routing_.weight_source == SLUICE_WEIGHT_FROM_SCORE;
        value weight = gather("chosen_scores", from_score ? scores : choice, index);
        if (!score_before)
            weight = score(only_chosen("logits_chosen", weight, index,
                                       -std::numeric_limits<float>::infinity()),
                           choices_, "weights_scored");
        weight = only_chosen("weight_chosen", weight, index, 0);
        weight = scaled(renormalized(weight), index);
        // Once more: a row without any expert was divided by a sum of zero.
        write_outputs(index, only_chosen("weight_final", weight, index, 0), position);
    }

  private:
    static std::vector<size> rows(int64_t width) { return {size::tokens(), size::of(width)}; }

    value unary(std::string_view name, uint32_t function, value x, const std::vector<size>& shape,
                float a = 0, float b = 0) {
        auto attributes = SLUICE_INIT(sluice_unary_attributes);
        attributes.function = function;
        attributes.a = a;
        attributes.b = b;
        return program_.operation(SLUICE_OP_UNARY, name, {x}, SLUICE_F32, shape, attributes);
    }
    value binary(std::string_view name, uint32_t function, value x, value y,
                 sluice_element_type type, const std::vector<size>& shape) {
        auto attributes = SLUICE_INIT(sluice_binary_attributes);
        attributes.function = function;
        return program_.operation(SLUICE_OP_BINARY, name, {x, y}, type, shape, attributes);
    }
    value reduce(std::string_view name, uint32_t function, value x,
                 const std::vector<size>& shape) {
        auto attributes = SLUICE_INIT(sluice_reduce_attributes);
        attributes.function = function;
        return program_.operation(SLUICE_OP_REDUCE, name, {x}, SLUICE_F32, shape, attributes);
    }
    value constant(std::string_view name, float number, sluice_element_type type = SLUICE_F32) {
        auto attributes = SLUICE_INIT(sluice_fill_attributes);
        attributes.value = number;
        return program_.operation(SLUICE_OP_FILL, name, {}, type, {size::of(1)}, attributes);
    }
    value reshape(std::string_view name, value x, sluice_element_type type,
                  const std::vector<size>& shape) {
        return program_.operation(SLUICE_OP_RESHAPE, name, {x}, type, shape);
    }
    value select(std::string_view name, value condition, value x, value y, sluice_element_type type,
                 const std::vector<size>& shape) {
        return program_.operation(SLUICE_OP_SELECT, name, {condition, x, y}, type, shape);
    }

    value gather(std::string_view name, value x, value index) {
        return program_.operation(SLUICE_OP_GATHER, name, {x, index}, SLUICE_F32, rows(choices_));
    }

    bool is_hashed() const { return inputs_.table_row_count != 0; }

    // Steps 3 and 4. scores [T, E] -> [T, E]
    value choices_of(value scores) {
        value choice = scores;
        if (inputs_.choice_bias) {
            const value bias = program_.input("choice_bias", SLUICE_F32, {size::of(experts_)});
            choice = binary("choice", SLUICE_BINARY_ADD, scores, bias, SLUICE_F32, rows(experts_));
        }
        return routing_.group_count > 1 ? mask_groups(choice) : choice;
    }

    // Step 5. choice [T, E] -> i32 [T, k]
    value best_of(value choice) {
        program_.operation(SLUICE_OP_TOPK, "best_choice", {choice}, SLUICE_F32, rows(choices_));
        return program_.further_output("best_index", SLUICE_I32, rows(choices_));
    }

    // table[token_id] in their place; -1 where the id or the entry is out of range. i32 [T, k]
    value hashed() {
        const int64_t row_count = inputs_.table_row_count;
        const value table =
            program_.input("table", SLUICE_I32, {size::of(row_count), size::of(choices_)});
        const value ids = program_.input("token_ids", SLUICE_I32, {size::tokens()});
        const value entry = program_.operation(SLUICE_OP_GATHER_ROWS, "entry", {table, ids},
                                               SLUICE_I32, rows(choices_));
        const value id = reshape("token_id_column", ids, SLUICE_I32, rows(1));
        const value known =
            binary("known", SLUICE_BINARY_AND, within("known_id", id, row_count, 1),
                   within("known_entry", entry, experts_, choices_), SLUICE_BOOL, rows(choices_));
        return select("hashed", known, entry, constant("unknown", -1, SLUICE_I32), SLUICE_I32,
                      rows(choices_));
    }

    // Whether 0 <= x < bound. x i32 [T, width] -> BOOL
    value within(const std::string& name, value x, int64_t bound, int64_t width) {
        const value first = constant(name + "_first", 0, SLUICE_I32);
        const value end = constant(name + "_end", static_cast<float>(bound), SLUICE_I32);
        const value from = binary(name + "_from_first", SLUICE_BINARY_GREATER_EQUAL, x, first,
                                  SLUICE_BOOL, rows(width));
        const value below =
            binary(name + "_below_end", SLUICE_BINARY_LESS, x, end, SLUICE_BOOL, rows(width));
        return binary(name, SLUICE_BINARY_AND, from, below, SLUICE_BOOL, rows(width));
    }

    // A hash table may choose no expert: `otherwise` in place of the weight there. weight [T, k]
    value only_chosen(const std::string& name, value weight, value index, float otherwise) {
        if (!is_hashed()) return weight;
        const value chosen =
            binary(name + "_where", SLUICE_BINARY_GREATER_EQUAL, index,
                   constant(name + "_first", 0, SLUICE_I32), SLUICE_BOOL, rows(choices_));
        return select(name, chosen, weight, constant(name + "_otherwise", otherwise), SLUICE_F32,
                      rows(choices_));
    }

    // Step 1. Divides by c, as the formula does: a factor of 1/c rounds differently.
    value softcap(value logits) {
        const value bound = constant("softcap", routing_.logit_softcap);
        const value ratio = binary("softcap_ratio", SLUICE_BINARY_DIVIDE, logits, bound, SLUICE_F32,
                                   rows(experts_));
        const value bent = unary("softcap_tanh", SLUICE_UNARY_TANH, ratio, rows(experts_));
        return unary("softcapped", SLUICE_UNARY_AFFINE, bent, rows(experts_),
                     routing_.logit_softcap);
    }

    // Steps 2 and 6. x [T, width]
    value score(value x, int64_t width, std::string_view name) {
        switch (routing_.score) {
        case SLUICE_SCORE_SOFTMAX:
            return program_.operation(SLUICE_OP_SOFTMAX, name, {x}, SLUICE_F32, rows(width));
        case SLUICE_SCORE_SIGMOID:
            return unary(name, SLUICE_UNARY_SIGMOID, x, rows(width));
        case SLUICE_SCORE_SQRT_SOFTPLUS: {
            const value soft = unary("softplus", SLUICE_UNARY_SOFTPLUS, x, rows(width));
            return unary(name, SLUICE_UNARY_SQRT, soft, rows(width));
        }
        default:
            return x;
        }
    }

    // Step 4. choice [T, E] -> [T, E] with the experts of other groups masked.
    value mask_groups(value choice) {
        const int64_t groups = routing_.group_count;
        const int64_t width = experts_ / groups;
        const int64_t kept_count = routing_.group_choice_count;
        const std::vector<size> grouped{size::tokens(), size::of(groups), size::of(width)};
        const std::vector<size> column{size::tokens(), size::of(groups), size::of(1)};
        const std::vector<size> matches{size::tokens(), size::of(groups), size::of(kept_count)};

        const value by_group = reshape("choice_by_group", choice, SLUICE_F32, grouped);
        const value worth =
            reshape("group_score", group_score(by_group, column), SLUICE_F32, rows(groups));
        program_.operation(SLUICE_OP_TOPK, "best_group_score", {worth}, SLUICE_F32,
                           rows(kept_count));
        const value kept = program_.further_output("best_group", SLUICE_I32, rows(kept_count));

        // A group is kept where its number is among the kept ones: [T, 1, kept] against [G, 1].
        const value kept_rows = reshape("best_group_row", kept, SLUICE_I32,
                                        {size::tokens(), size::of(1), size::of(kept_count)});
        const value numbers =
            program_.operation(SLUICE_OP_IOTA, "group_numbers", {}, SLUICE_I32, {size::of(groups)});
        const value number_column =
            reshape("group_number_column", numbers, SLUICE_I32, {size::of(groups), size::of(1)});
        const value match = binary("group_match", SLUICE_BINARY_EQUAL, kept_rows, number_column,
                                   SLUICE_BOOL, matches);
        const value zero = constant("zero", 0);
        const value match_one =
            select("group_match_one", match, constant("one", 1), zero, SLUICE_F32, matches);
        const value is_kept =
            binary("group_kept", SLUICE_BINARY_GREATER,
                   reduce("group_match_any", SLUICE_REDUCE_MAXIMUM, match_one, column), zero,
                   SLUICE_BOOL, column);

        const bool masks_with_zero = routing_.mask_value == SLUICE_MASK_ZERO;
        const value mask =
            constant("mask", masks_with_zero ? 0 : -std::numeric_limits<float>::infinity());
        const value masked =
            select("choice_masked_by_group", is_kept, by_group, mask, SLUICE_F32, grouped);
        return reshape("choice_masked", masked, SLUICE_F32, rows(experts_));
    }

    // by_group [T, G, E/G] -> [T, G, 1]
    value group_score(value by_group, const std::vector<size>& column) {
        if (routing_.group_score == SLUICE_GROUP_SCORE_MAX)
            return reduce("group_maximum", SLUICE_REDUCE_MAXIMUM, by_group, column);
        const std::vector<size> largest{size::tokens(), size::of(routing_.group_count),
                                        size::of(routing_.group_score_count)};
        const value top =
            program_.operation(SLUICE_OP_TOPK, "group_top", {by_group}, SLUICE_F32, largest);
        program_.further_output("group_top_index", SLUICE_I32, largest);
        return reduce("group_top_sum", SLUICE_REDUCE_SUM, top, column);
    }

    // Step 7. weight [T, k]
    value renormalized(value weight) {
        if (routing_.renormalize == SLUICE_RENORMALIZE_NONE) return weight;
        const std::vector<size> column = rows(1);
        const float epsilon = routing_.renormalize_epsilon;
        value sum = reduce("weight_sum", SLUICE_REDUCE_SUM, weight, column);
        if (routing_.renormalize == SLUICE_RENORMALIZE_CLAMP)
            sum = unary("weight_sum_clamped", SLUICE_UNARY_CLAMP, sum, column, epsilon,
                        std::numeric_limits<float>::infinity());
        else if (epsilon != 0)
            sum = unary("weight_sum_over_zero", SLUICE_UNARY_AFFINE, sum, column, 1, epsilon);
        return binary("weight_renormalized", SLUICE_BINARY_DIVIDE, weight, sum, SLUICE_F32,
                      rows(choices_));
    }

    // Step 8. weight, index [T, k]
    value scaled(value weight, value index) {
        const bool left_out = routing_.scale_condition == SLUICE_SCALE_NOT_RENORMALIZED
                              && routing_.renormalize != SLUICE_RENORMALIZE_NONE;
        if (routing_.scale != 1 && !left_out)
            weight =
                unary("weight_scaled", SLUICE_UNARY_AFFINE, weight, rows(choices_), routing_.scale);
        if (!inputs_.per_expert_scale) return weight;
        const value scales = program_.input("per_expert_scale", SLUICE_F32, {size::of(experts_)});
        return binary("weight_expert_scaled", SLUICE_BINARY_MULTIPLY, weight,
                      gather("expert_scale", scales, index), SLUICE_F32, rows(choices_));
    }

    // Padding, and the loads of the experts.
    void write_outputs(value index, value weight, value position) {
        const value position_column = reshape("position_column", position, SLUICE_I32, rows(1));
        const value valid = binary("row_valid", SLUICE_BINARY_GREATER_EQUAL, position_column,
                                   constant("first_position", 0, SLUICE_I32), SLUICE_BOOL, rows(1));
        const value final_index =
            select("index", valid, index, constant("no_expert", -1, SLUICE_I32), SLUICE_I32,
                   rows(choices_));
        const value final_weight =
            select("weight", valid, weight, constant("no_weight", 0), SLUICE_F32, rows(choices_));
        program_.output(final_index);
        program_.output(final_weight);
        program_.output(count(final_index));
        program_.output(constant("dropped", 0, SLUICE_I32));
    }

    // index [T, k] -> [E]: the lengths of the runs that group_rows sorts the choices into.
    value count(value index) {
        const std::vector<size> flat{size::tokens(routing_.choice_count)};
        program_.operation(SLUICE_OP_GROUP_ROWS, "sorted_row", {index}, SLUICE_I32, flat);
        program_.further_output("sorted_choice", SLUICE_I32, flat);
        program_.further_output("sorted_place", SLUICE_I32, rows(choices_));
        const value offset =
            program_.further_output("sorted_offset", SLUICE_I32, {size::of(experts_ + 1)});
        const value begin = slice("run_begin", offset, 0);
        const value end = slice("run_end", offset, 1);
        return binary("count", SLUICE_BINARY_SUBTRACT, end, begin, SLUICE_I32,
                      {size::of(experts_)});
    }
    value slice(std::string_view name, value offset, int64_t begin) {
        auto attributes = SLUICE_INIT(sluice_axis_attributes);
        attributes.axis = 0;
        attributes.begin = begin;
        return program_.operation(SLUICE_OP_SLICE, name, {offset}, SLUICE_I32, {size::of(experts_)},
                                  attributes);
    }

    program_builder& program_;
    const sluice_routing_specification& routing_;
    routing_inputs inputs_;
    int64_t experts_;
    int64_t choices_;
};

} // namespace

void build_routing(program_builder& program, const sluice_routing_specification& routing,
                   const routing_inputs& inputs) {
    routing_writer(program, routing, inputs).write();
}

} // namespace sluice::routers
