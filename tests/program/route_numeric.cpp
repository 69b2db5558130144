// The decomposition of route against a literal transcription of the steps in abi/router.h, over
// many random specifications.
#include "plain_runner.hpp"
#include "program/builder.hpp"
#include "program/decompose.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace sluice {

namespace {

using test::floats;
using test::integers;

constexpr int64_t rows = 23;

struct route_case {
    sluice_routing_specification routing = SLUICE_INIT(sluice_routing_specification);
    floats logits, bias, expert_scale; // [rows, E], [E], [E]; the latter may be empty
    integers position, token_ids;      // [rows]
    integers table;                    // [V, k], may be empty
    int64_t vocabulary = 11;
};

struct routed {
    integers index, count;
    floats weight;
    int32_t dropped = 0;
};

float score_of_one(uint32_t score, float x) {
    if (score == SLUICE_SCORE_SIGMOID) return 1 / (1 + std::exp(-x));
    if (score == SLUICE_SCORE_SQRT_SOFTPLUS) return std::sqrt(std::log1p(std::exp(x)));
    return x;
}

floats scores_of(uint32_t score, const floats& x) {
    floats y(x.size());
    if (score != SLUICE_SCORE_SOFTMAX) {
        for (size_t i = 0; i < x.size(); ++i) y[i] = score_of_one(score, x[i]);
        return y;
    }
    const float largest = *std::max_element(x.begin(), x.end());
    float sum = 0;
    for (const float value : x) sum += std::exp(value - largest);
    for (size_t i = 0; i < x.size(); ++i) y[i] = std::exp(x[i] - largest) / sum;
    return y;
}

// The numbers of the `count` largest, in falling order, ties to the lower number.
std::vector<size_t> best(const floats& values, size_t count) {
    std::vector<size_t> order(values.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return values[a] > values[b]; });
    order.resize(count);
    return order;
}

void mask_groups(const sluice_routing_specification& routing, floats& choice) {
    const size_t members = routing.expert_count / routing.group_count;
    floats group_scores;
    for (size_t group = 0; group < routing.group_count; ++group) {
        const floats own(choice.begin() + static_cast<ptrdiff_t>(group * members),
                         choice.begin() + static_cast<ptrdiff_t>((group + 1) * members));
        float sum = 0;
        const size_t counted =
            routing.group_score == SLUICE_GROUP_SCORE_MAX ? 1 : routing.group_score_count;
        for (const size_t member : best(own, counted)) sum += own[member];
        group_scores.push_back(sum);
    }
    const auto stay = best(group_scores, routing.group_choice_count);
    for (size_t expert = 0; expert < choice.size(); ++expert) {
        if (std::find(stay.begin(), stay.end(), expert / members) != stay.end()) continue;
        choice[expert] =
            routing.mask_value == SLUICE_MASK_ZERO ? 0 : -std::numeric_limits<float>::infinity();
    }
}

// Steps 1 to 8 for one row.
void route_row(const route_case& given, size_t row, integers& index, floats& weight) {
    const auto& routing = given.routing;
    const size_t experts = routing.expert_count;
    floats l(given.logits.begin() + static_cast<ptrdiff_t>(row * experts),
             given.logits.begin() + static_cast<ptrdiff_t>((row + 1) * experts));
    if (routing.logit_softcap > 0) {
        for (float& x : l) x = routing.logit_softcap * std::tanh(x / routing.logit_softcap);
    }
    const bool before = routing.score_stage == SLUICE_SCORE_BEFORE_CHOICE;
    const floats s = before ? scores_of(routing.score, l) : l;
    floats choice = s;
    if (!given.table.empty()) {
        const auto line = static_cast<size_t>(given.token_ids[row]) * routing.choice_count;
        for (size_t j = 0; j < routing.choice_count; ++j) index.push_back(given.table[line + j]);
    } else {
        for (size_t e = 0; e < given.bias.size(); ++e) choice[e] += given.bias[e];
        if (routing.group_count > 1) mask_groups(routing, choice);
        for (const size_t expert : best(choice, routing.choice_count)) {
            index.push_back(static_cast<int32_t>(expert));
        }
    }
    floats w;
    for (const int32_t expert : index) {
        const auto e = static_cast<size_t>(expert);
        w.push_back(routing.weight_source == SLUICE_WEIGHT_FROM_SCORE ? s[e] : choice[e]);
    }
    if (!before) w = scores_of(routing.score, w);
    float sum = 0;
    for (const float x : w) sum += x;
    for (size_t j = 0; j < w.size(); ++j) {
        if (routing.renormalize == SLUICE_RENORMALIZE_ADD) {
            w[j] /= sum + routing.renormalize_epsilon;
        } else if (routing.renormalize == SLUICE_RENORMALIZE_CLAMP) {
            w[j] /= std::max(sum, routing.renormalize_epsilon);
        }
        if (routing.renormalize == SLUICE_RENORMALIZE_NONE
            || routing.scale_condition == SLUICE_SCALE_ALWAYS) {
            w[j] *= routing.scale;
        }
        if (!given.expert_scale.empty()) w[j] *= given.expert_scale[static_cast<size_t>(index[j])];
    }
    weight = w;
}

// Step 9, DROP.
void apply_capacity(const route_case& given, routed& result) {
    const auto& routing = given.routing;
    const auto valid = std::count_if(given.position.begin(), given.position.end(),
                                     [](int32_t position) { return position >= 0; });
    const auto capacity = static_cast<int64_t>(std::ceil(
        routing.capacity_factor * static_cast<float>(valid)
        * static_cast<float>(routing.choice_count) / static_cast<float>(routing.expert_count)));
    std::vector<int64_t> taken(routing.expert_count, 0);
    for (size_t rank = 0; rank < routing.choice_count; ++rank) {
        for (size_t row = 0; row < rows; ++row) {
            const size_t at = row * routing.choice_count + rank;
            if (result.index[at] < 0) continue;
            if (taken[static_cast<size_t>(result.index[at])]++ < capacity) continue;
            result.index[at] = -1;
            result.weight[at] = 0;
            ++result.dropped;
        }
    }
}

routed route_literally(const route_case& given) {
    routed result;
    for (size_t row = 0; row < rows; ++row) {
        integers index;
        floats weight;
        route_row(given, row, index, weight);
        if (given.position[row] < 0) {
            std::fill(index.begin(), index.end(), -1);
            std::fill(weight.begin(), weight.end(), 0.0f);
        }
        result.index.insert(result.index.end(), index.begin(), index.end());
        result.weight.insert(result.weight.end(), weight.begin(), weight.end());
    }
    if (given.routing.capacity_factor > 0) apply_capacity(given, result);
    result.count.assign(given.routing.expert_count, 0);
    for (const int32_t expert : result.index) {
        if (expert >= 0) ++result.count[static_cast<size_t>(expert)];
    }
    return result;
}

routed route_by_primitives(const route_case& given) {
    const auto& routing = given.routing;
    const dimension experts = size::fixed(routing.expert_count);
    program_builder build("route");
    route_operands operands{};
    operands.logits = build.custom_input("logits", SLUICE_F32, {size::tokens(), experts});
    operands.position = build.custom_input("position", SLUICE_I32, {size::tokens()});
    if (!given.bias.empty()) {
        operands.choice_bias = build.custom_input("bias", SLUICE_F32, {experts});
    }
    if (!given.expert_scale.empty()) {
        operands.per_expert_scale = build.custom_input("expert_scale", SLUICE_F32, {experts});
    }
    if (!given.table.empty()) {
        operands.token_ids = build.custom_input("token_ids", SLUICE_I32, {size::tokens()});
        operands.table =
            build.custom_input("table", SLUICE_I32,
                               {size::fixed(given.vocabulary), size::fixed(routing.choice_count)});
    }
    const route_results results = build.route("route", operands, routing);
    const program made = decompose(build.finish());

    test::plain_runner runner(made, {0, static_cast<uint32_t>(rows), 1, 1, 1});
    runner.set("logits", given.logits);
    runner.set("position", given.position);
    if (!given.bias.empty()) runner.set("bias", given.bias);
    if (!given.expert_scale.empty()) runner.set("expert_scale", given.expert_scale);
    if (!given.table.empty()) {
        runner.set("token_ids", given.token_ids);
        runner.set("table", given.table);
    }
    runner.run(2);
    routed found;
    found.index = runner.integer_values(results.index);
    found.weight = runner.float_values(results.weight);
    found.count = runner.integer_values(results.count);
    if (results.dropped != value_none) found.dropped = runner.integer_values(results.dropped)[0];
    return found;
}

void compare(const route_case& given) {
    const routed expected = route_literally(given);
    const routed found = route_by_primitives(given);
    CHECK(found.index == expected.index);
    CHECK(found.count == expected.count);
    CHECK(found.dropped == expected.dropped);
    REQUIRE(found.weight.size() == expected.weight.size());
    for (size_t i = 0; i < found.weight.size(); ++i) {
        const float tolerance = 2e-5f * std::max(1.0f, std::abs(expected.weight[i]));
        CHECK(std::abs(found.weight[i] - expected.weight[i]) <= tolerance);
    }
}

class case_maker {
  public:
    explicit case_maker(uint32_t seed) : random_(seed) {}

    route_case make() {
        route_case made;
        auto& routing = made.routing;
        const uint32_t groups = one_in(2) ? 1 : between(2, 4);
        const uint32_t members = between(2, 6);
        routing.expert_count = groups * members;
        routing.group_count = groups;
        uint32_t reachable = routing.expert_count;
        if (groups > 1) {
            routing.group_choice_count = between(1, groups);
            routing.group_score = between(0, 1);
            if (routing.group_score == SLUICE_GROUP_SCORE_TOPK_SUM) {
                routing.group_score_count = between(1, members);
            }
            routing.mask_value = between(0, 1);
            reachable = routing.group_choice_count * members;
        }
        routing.choice_count = between(1, std::min(reachable, 5u));
        routing.score = between(0, 3);
        routing.score_stage = between(0, 1);
        routing.scale = one_in(2) ? 1.0f : 2.5f;
        routing.scale_condition = between(0, 1);
        routing.logit_softcap = one_in(4) ? 3.0f : 0.0f;
        make_inputs(made);
        // Weights that may be negative have sums near zero, and masked ones are no numbers.
        const bool positive = routing.score != SLUICE_SCORE_IDENTITY;
        const bool masked_matters = groups > 1 && routing.mask_value == SLUICE_MASK_ZERO;
        if (positive) routing.renormalize = between(0, 2);
        routing.renormalize_epsilon = one_in(2) ? 1e-20f : 1e-3f;
        const bool unmasked = groups == 1 || !masked_matters;
        if (unmasked && (made.bias.empty() || routing.renormalize == 0)) {
            routing.weight_source = between(0, 1);
        }
        if (one_in(3)) routing.capacity_factor = one_in(2) ? 0.5f : 1.1f;
        return made;
    }

  private:
    void make_inputs(route_case& made) {
        const auto& routing = made.routing;
        std::normal_distribution<float> normal;
        for (size_t i = 0; i < rows * routing.expert_count; ++i) {
            // Whole numbers now and then, so that ties are frequent.
            const float x = 2 * normal(random_);
            made.logits.push_back(one_in(3) ? std::round(x) : x);
        }
        if (one_in(2)) {
            for (size_t e = 0; e < routing.expert_count; ++e) {
                made.bias.push_back(0.5f * normal(random_));
            }
        }
        if (one_in(4)) {
            for (size_t e = 0; e < routing.expert_count; ++e) {
                made.expert_scale.push_back(1 + 0.1f * normal(random_));
            }
        }
        for (int32_t row = 0; row < rows; ++row) {
            made.position.push_back(one_in(6) ? -1 : row);
            made.token_ids.push_back(
                static_cast<int32_t>(between(0, uint32_t(made.vocabulary) - 1)));
        }
        if (!one_in(6)) return;
        made.bias.clear();
        for (int64_t token = 0; token < made.vocabulary; ++token) {
            floats lots(routing.expert_count);
            for (float& lot : lots) lot = normal(random_);
            for (const size_t expert : best(lots, routing.choice_count)) {
                made.table.push_back(static_cast<int32_t>(expert));
            }
        }
    }

    uint32_t between(uint32_t low, uint32_t high) {
        return std::uniform_int_distribution<uint32_t>(low, high)(random_);
    }
    bool one_in(uint32_t count) { return between(1, count) == 1; }

    std::mt19937 random_;
};

} // namespace

TEST_CASE("random specifications route as router.h says") {
    for (uint32_t seed = 0; seed < 400; ++seed) {
        CAPTURE(seed);
        compare(case_maker(seed).make());
    }
}

TEST_CASE("ties go to the lower expert and the lower group") {
    route_case given;
    given.routing.expert_count = 8;
    given.routing.choice_count = 3;
    given.routing.group_count = 4;
    given.routing.group_choice_count = 2;
    given.routing.score = SLUICE_SCORE_SIGMOID;
    given.routing.scale = 1;
    given.logits.assign(rows * 8, 0.25f);
    for (int32_t row = 0; row < rows; ++row) given.position.push_back(row);
    compare(given);
    const routed found = route_by_primitives(given);
    CHECK(integers(found.index.begin(), found.index.begin() + 3) == integers{0, 1, 2});
}

TEST_CASE("capacity drops the last choices first") {
    // All rows want experts 0 and 1; each takes ceil(0.5 * 23 * 2 / 4) = 6 rows.
    route_case given;
    given.routing.expert_count = 4;
    given.routing.choice_count = 2;
    given.routing.score = SLUICE_SCORE_SOFTMAX;
    given.routing.scale = 1;
    given.routing.capacity_factor = 0.5f;
    for (int32_t row = 0; row < rows; ++row) {
        given.position.push_back(row);
        given.logits.insert(given.logits.end(), {3, 2, 1, 0});
    }
    compare(given);
    const routed found = route_by_primitives(given);
    CHECK(found.count == integers{6, 6, 0, 0});
    CHECK(found.dropped == 2 * (rows - 6));
    CHECK(found.index[2 * 5] == 0);
    CHECK(found.index[2 * 6] == -1);
}

} // namespace sluice
