// Cases of routing and experts.
#include "generators.hpp"

#include <algorithm>

namespace sluice::checker {
namespace {

int64_t whole_bytes(draw& with, int64_t any) {
    return with.format.scale_type == 0 ? any : (any + 7) / 8 * 8;
}

// Choices [rows, k]: different experts in a row, now and then none.
std::vector<int32_t> draw_choices(draw& with, uint32_t rows, int64_t choices, int64_t experts) {
    std::vector<int32_t> drawn;
    std::vector<int32_t> order(static_cast<size_t>(experts));
    for (uint32_t row = 0; row < rows; ++row) {
        for (size_t e = 0; e < order.size(); ++e) order[e] = static_cast<int32_t>(e);
        std::shuffle(order.begin(), order.end(), with.random);
        for (int64_t j = 0; j < choices; ++j)
            drawn.push_back(with.between(0, 9) == 0 ? -1 : order[static_cast<size_t>(j)]);
    }
    return drawn;
}

// From experts to local ones: some are elsewhere (-1).
value_number draw_map(case_builder& to, int64_t experts, int64_t local) {
    std::vector<int32_t> map(static_cast<size_t>(experts), -1);
    for (int64_t e = 0; e < local; ++e) map[static_cast<size_t>(e)] = static_cast<int32_t>(e);
    std::shuffle(map.begin(), map.end(), to.with().random);
    return to.tensor({fixed(experts)}, host_tensor::integers({experts}, map));
}

void draw_groups(draw& with, sluice_routing_specification& routing, int64_t group_width) {
    routing.group_choice_count = static_cast<uint32_t>(with.between(1, routing.group_count));
    routing.group_score = with.coin() ? SLUICE_GROUP_SCORE_MAX : SLUICE_GROUP_SCORE_TOPK_SUM;
    routing.mask_value = with.coin() ? SLUICE_MASK_ZERO : SLUICE_MASK_MINUS_INFINITY;
    if (routing.group_score == SLUICE_GROUP_SCORE_TOPK_SUM)
        routing.group_score_count = static_cast<uint32_t>(with.between(1, group_width));
}

sluice_routing_specification draw_routing(draw& with) {
    auto routing = SLUICE_INIT(sluice_routing_specification);
    const int64_t groups = with.coin() ? 1 : with.between(2, 6);
    const int64_t group_width = with.between(2, 12);
    routing.expert_count = static_cast<uint32_t>(groups * group_width);
    routing.group_count = static_cast<uint32_t>(groups);
    int64_t reachable = groups * group_width;
    if (groups > 1) {
        draw_groups(with, routing, group_width);
        reachable = routing.group_choice_count * group_width;
    }
    routing.choice_count = static_cast<uint32_t>(with.between(1, std::min<int64_t>(reachable, 9)));
    routing.score = static_cast<uint32_t>(with.between(0, 3));
    routing.score_stage = static_cast<uint32_t>(with.between(0, 1));
    routing.weight_source = static_cast<uint32_t>(with.between(0, 1));
    // Sums of scores that may be negative would be near zero at times, and every bit noise.
    const bool positive =
        routing.score != SLUICE_SCORE_IDENTITY && routing.weight_source == SLUICE_WEIGHT_FROM_SCORE;
    routing.renormalize = positive ? static_cast<uint32_t>(with.between(0, 2)) : 0;
    routing.renormalize_epsilon = with.coin() ? 1e-9F : 0.25F;
    routing.scale = with.coin() ? 1.0F : 2.5F;
    routing.scale_condition = static_cast<uint32_t>(with.between(0, 1));
    routing.logit_softcap = with.coin() ? 0.0F : 4.0F;
    if (with.between(0, 3) == 0) {
        routing.capacity_factor = 0.5F + 0.25F * static_cast<float>(with.between(0, 4));
        routing.capacity_policy = static_cast<uint32_t>(with.between(0, 1));
    }
    return routing;
}

// Equally spaced numbers in a random order in each row: rounding cannot change which are larger.
// One row in four is all equal instead, for the rule of ties.
std::vector<float> draw_logits(draw& with, int64_t rows, int64_t experts) {
    std::vector<float> logits;
    std::vector<float> row(static_cast<size_t>(experts));
    for (int64_t t = 0; t < rows; ++t) {
        const bool ties = with.between(0, 3) == 0;
        for (size_t e = 0; e < row.size(); ++e)
            row[e] = ties ? 0.5F : 5 * static_cast<float>(e) / static_cast<float>(experts) - 2;
        std::shuffle(row.begin(), row.end(), with.random);
        logits.insert(logits.end(), row.begin(), row.end());
    }
    return logits;
}

// A hash table, and tokens to look up: now and then an entry is no expert and a token not in the
// table.
void draw_table(case_builder& to, const sluice_routing_specification& routing,
                route_operands& operands) {
    draw& with = to.with();
    const int64_t words = with.between(1, 12);
    std::vector<int32_t> table = draw_choices(with, static_cast<uint32_t>(words),
                                              routing.choice_count, routing.expert_count);
    if (with.coin()) table.back() = static_cast<int32_t>(routing.expert_count);
    operands.table = to.tensor({fixed(words), fixed(routing.choice_count)},
                               host_tensor::integers({words, routing.choice_count}, table));
    auto ids = whole_numbers(with.random, to.rows(), static_cast<int32_t>(words));
    if (ids.size() > 2) {
        ids[1] = -1;
        ids[2] = static_cast<int32_t>(words);
    }
    to.step().token_ids = std::move(ids);
    operands.token_ids = to.program().batch_input(SLUICE_INPUT_TOKEN_IDS);
}

operation_case route(draw& with) {
    case_builder to(with, with.rows());
    const sluice_routing_specification routing = draw_routing(with);
    const int64_t experts = routing.expert_count;
    route_operands operands{};
    operands.logits =
        to.tensor({tokens(), fixed(experts)},
                  host_tensor::floats(to.sizes({tokens(), fixed(experts)}),
                                      draw_logits(with, to.sizes({tokens()})[0], experts)));
    if (with.coin()) {
        // Much smaller than the distance of logits, or a row of ties would no longer be one.
        std::vector<float> bias(static_cast<size_t>(experts));
        for (size_t e = 0; e < bias.size(); ++e) bias[e] = 0.0625F * static_cast<float>(e % 3);
        operands.choice_bias = to.vector(std::move(bias));
    }
    if (with.coin()) operands.per_expert_scale = to.vector(experts, 1);
    if (with.between(0, 3) == 0) draw_table(to, routing, operands);
    operands.position = to.program().batch_input(SLUICE_INPUT_POSITION);
    const auto made = to.program().route("route", operands, routing);
    return to.finish({made.index, made.weight, made.count, made.dropped});
}

// Experts of rows `x`, which are `hidden` wide.
value_number draw_experts(case_builder& to, value_number x, int64_t hidden, int64_t inner) {
    draw& with = to.with();
    auto attributes = SLUICE_INIT(sluice_moe_ffn_attributes);
    attributes.activation =
        static_cast<uint32_t>(with.between(SLUICE_ACTIVATION_SILU, SLUICE_ACTIVATION_SWIGLU_OAI));
    attributes.gate_layout =
        static_cast<uint32_t>(with.between(SLUICE_GATE_SPLIT, SLUICE_GATE_INTERLEAVED));
    attributes.alpha = 1.702F;
    attributes.clamp = with.coin() ? 1.5F : 0.0F;
    attributes.weight_on_input = with.coin() ? 1 : 0;
    const bool split = attributes.gate_layout == SLUICE_GATE_SPLIT;
    const int64_t local = with.between(1, 9);
    const bool has_map = with.coin();
    const int64_t experts = local + with.between(0, 4);
    if (!has_map && experts > local)
        attributes.zero_expert = static_cast<uint32_t>(
            with.between(SLUICE_ZERO_EXPERT_IDENTITY, SLUICE_ZERO_EXPERT_ZERO));
    const int64_t choices = with.between(1, experts);

    moe_operands operands{};
    operands.x = x;
    operands.index = to.row_integers({tokens(), fixed(choices)},
                                     draw_choices(with, to.rows(), choices, experts));
    operands.weight = to.floats({tokens(), fixed(choices)}, SLUICE_F32);
    if (has_map) operands.expert_map = draw_map(to, experts, local);
    const int64_t gate_rows = split ? inner : 2 * inner;
    operands.gate = to.weight({local, gate_rows, hidden}, 0.1F);
    if (split) operands.up = to.weight({local, inner, hidden}, 0.1F);
    operands.down = to.weight({local, hidden, inner}, 0.1F);
    if (with.coin()) {
        operands.gate_bias = to.vectors(local, gate_rows);
        if (split) operands.up_bias = to.vectors(local, inner);
        operands.down_bias = to.vectors(local, hidden);
    }
    return to.program().moe_ffn("experts", operands, attributes, with.type);
}

operation_case moe_ffn(draw& with) {
    case_builder to(with, with.rows());
    // One row and many columns: room that was sized by rows would be too small.
    const int64_t hidden = whole_bytes(with, with.between(1, with.number == 1 ? 900 : 150));
    const int64_t inner = whole_bytes(with, with.between(1, 70));
    const value_number x = to.floats({tokens(), fixed(hidden)});
    return to.finish({draw_experts(to, x, hidden, inner)});
}

// Beside a gated layer of the same rows, as backends may run both together.
operation_case shared_experts(draw& with) {
    case_builder to(with, with.rows());
    auto& program = to.program();
    const bool is_even = with.between(0, 3) != 0; // what fast kernels want
    const int64_t hidden =
        is_even ? 64 * with.between(1, 3) : whole_bytes(with, with.between(1, 150));
    const auto inner = [&] {
        return is_even ? 64 * with.between(1, 2) : whole_bytes(with, with.between(1, 70));
    };
    const value_number x = to.floats({tokens(), fixed(hidden)});
    const value_number routed = draw_experts(to, x, hidden, inner());
    auto attributes = SLUICE_INIT(sluice_activation_attributes);
    attributes.activation = SLUICE_ACTIVATION_SILU;
    const int64_t shared_inner = inner();
    const value_number gate = to.weight({shared_inner, hidden}, 0.1F);
    const value_number up = to.weight({shared_inner, hidden}, 0.1F);
    const value_number down = to.weight({hidden, shared_inner}, 0.1F);
    const value_number shared =
        program.gated_mlp("shared", x, gate, up, down, attributes, with.type);
    const bool is_first = with.coin();
    return to.finish({program.binary("y", SLUICE_BINARY_ADD, is_first ? shared : routed,
                                     is_first ? routed : shared)});
}

operation_case group_rows(draw& with) {
    case_builder to(with, with.rows());
    const int64_t local = with.between(1, 9);
    const bool has_map = with.coin();
    const int64_t experts = has_map ? local + with.between(0, 5) : local;
    const int64_t choices = with.between(1, experts);
    const value_number index = to.row_integers({tokens(), fixed(choices)},
                                               draw_choices(with, to.rows(), choices, experts));
    const value_number map = has_map ? draw_map(to, experts, local) : value_none;
    const auto made = to.program().group_rows("grouped", index, map, static_cast<uint32_t>(local));
    return to.finish({made.row, made.choice, made.place, made.offset});
}

operation_case grouped_linear(draw& with) {
    case_builder to(with, with.rows());
    const int64_t experts = with.between(1, 7);
    const int64_t choices = with.between(1, 3);
    const int64_t in = whole_bytes(with, with.between(1, 150));
    const int64_t out = whole_bytes(with, with.between(1, with.number == 1 ? 900 : 90));
    // Experts own neighbouring places; some own none, and the last places belong to nobody.
    const int64_t owned = to.rows() * with.between(0, choices);
    std::vector<int32_t> offset{0, static_cast<int32_t>(owned)};
    for (int64_t e = 1; e < experts; ++e)
        offset.push_back(static_cast<int32_t>(with.between(0, owned)));
    std::sort(offset.begin(), offset.end());
    const value_number x = to.floats({tokens(static_cast<uint32_t>(choices)), fixed(in)});
    const value_number offsets =
        to.tensor({fixed(experts + 1)}, host_tensor::integers({experts + 1}, offset));
    const value_number weight = to.weight({experts, out, in}, 0.1F);
    const value_number bias = with.coin() ? to.vectors(experts, out) : value_none;
    return to.finish({to.program().grouped_linear("y", x, offsets, weight, bias, with.type)});
}

operation_case combine_rows(draw& with) {
    case_builder to(with, with.rows());
    const int64_t choices = with.between(1, 5);
    const auto places = static_cast<int64_t>(to.rows()) * choices;
    const value_number y =
        to.floats({tokens(static_cast<uint32_t>(choices)), fixed(with.between(1, 80))});
    std::vector<int32_t> place;
    for (int64_t i = 0; i < places; ++i)
        place.push_back(static_cast<int32_t>(with.between(-1, places - 1)));
    const value_number where = to.row_integers({tokens(), fixed(choices)}, place);
    const value_number weight =
        with.coin() ? to.floats({tokens(), fixed(choices)}, SLUICE_F32) : value_none;
    return to.finish({to.program().combine_rows("o", y, where, weight, with.type)});
}

} // namespace

std::vector<generator> expert_generators() {
    return {{SLUICE_OP_ROUTE, "route", false, true, route},
            {SLUICE_OP_MOE_FFN, "moe_ffn", true, true, moe_ffn},
            {SLUICE_OP_MOE_FFN, "shared_experts", true, true, shared_experts},
            {SLUICE_OP_GROUP_ROWS, "group_rows", false, false, group_rows},
            {SLUICE_OP_GROUPED_LINEAR, "grouped_linear", true, true, grouped_linear},
            {SLUICE_OP_COMBINE_ROWS, "combine_rows", false, true, combine_rows}};
}

} // namespace sluice::checker
