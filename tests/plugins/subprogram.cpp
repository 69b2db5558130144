// The router "subprogram": what its programs compute is what the specification says.
#include "routing_request.hpp"

#include "backend_checks/runner.hpp"
#include "routing_oracle.hpp"

#include <doctest/doctest.h>
#include <random>

using namespace sluice;
using namespace sluice::plugin_tests;

namespace {

constexpr int64_t rows = 24;
constexpr uint32_t words = 10;

struct given_numbers {
    std::vector<float> logits; // [rows, experts]
    std::vector<float> bias;   // [experts]
    std::vector<float> scale;  // [experts]
    std::vector<int32_t> position;
    std::vector<int32_t> token_ids;
    std::vector<int32_t> table; // [words, choices]
};

// What the checkpoint gives besides the logits.
struct given_inputs {
    bool bias = false;
    bool scale = false;
    bool table = false;
};

given_numbers draw_numbers(const sluice_routing_specification& routing, uint64_t seed) {
    std::mt19937_64 random(seed);
    given_numbers made;
    made.logits = checker::normal_numbers(random, rows * routing.expert_count, 2);
    // All equal in one row: ties go to the lower number.
    std::fill_n(made.logits.begin() + 3 * routing.expert_count, routing.expert_count, 0.25F);
    made.bias = checker::normal_numbers(random, routing.expert_count, 0.2F);
    made.scale = checker::normal_numbers(random, routing.expert_count, 1);
    for (int32_t row = 0; row < rows; ++row) {
        made.position.push_back(row % 7 == 5 ? -1 : row);
        made.token_ids.push_back(row % (int32_t(words) + 2) - 1); // also one below and one beyond
    }
    for (uint32_t i = 0; i < words * routing.choice_count; ++i)
        made.table.push_back(static_cast<int32_t>(i * 5 % routing.expert_count));
    // Entries that are no experts; a word that has none at all.
    made.table.back() = static_cast<int32_t>(routing.expert_count);
    std::fill_n(made.table.begin(), routing.choice_count, -1);
    return made;
}

checker::step_outputs run_subprogram(const program& subprogram,
                                     const sluice_routing_specification& routing,
                                     const given_numbers& numbers) {
    checker::operation_case given(subprogram);
    auto& step = given.add_step();
    step.token_count = rows;
    const int64_t experts = routing.expert_count;
    const auto bind = [&](const char* name, checker::host_tensor tensor) {
        if (const auto value = subprogram.find(name)) step.custom.emplace(*value, tensor);
    };
    bind("logits", checker::host_tensor::floats({rows, experts}, numbers.logits));
    bind("choice_bias", checker::host_tensor::floats({experts}, numbers.bias));
    bind("per_expert_scale", checker::host_tensor::floats({experts}, numbers.scale));
    bind("position", checker::host_tensor::integers({rows}, numbers.position));
    bind("token_ids", checker::host_tensor::integers({rows}, numbers.token_ids));
    bind("table", checker::host_tensor::integers({words, routing.choice_count}, numbers.table));
    static const auto reference = open_plugin("backend", "reference");
    return checker::run_case(*reference, given).at(0);
}

void check_against_formula(const sluice_routing_specification& routing, const given_inputs& has,
                           uint64_t seed) {
    const auto router = open_plugin("router", "subprogram");
    auto request = request_of(routing, has.bias);
    request.has_per_expert_scale = has.scale ? 1 : 0;
    request.table_row_count = has.table ? words : 0;
    const auto answer = ask(*router, request);
    REQUIRE(answer.subprogram.has_value());
    const auto numbers = draw_numbers(routing, seed);
    const auto found = run_subprogram(*answer.subprogram, routing, numbers);
    const std::vector<float> none;
    const std::vector<int32_t> no_table;
    const auto expected = checker::route_directly(
        routing, {numbers.logits, has.bias ? numbers.bias : none, has.scale ? numbers.scale : none,
                  numbers.position, numbers.token_ids, has.table ? numbers.table : no_table});
    CHECK(found[0].as_integers() == expected.index);
    const auto weight = found[1].as_floats();
    for (size_t i = 0; i < weight.size(); ++i)
        CHECK(weight[i] == doctest::Approx(expected.weight[i]).epsilon(1e-5));
    CHECK(found[2].as_integers() == expected.count);
    CHECK(found[3].as_integers() == std::vector<int32_t>{0});
}

} // namespace

TEST_CASE("sub-programs compute the families' routing") {
    SUBCASE("softmax over all") { check_against_formula(plain_routing(64, 6), {}, 1); }
    SUBCASE("softmax, renormalised") {
        auto routing = plain_routing(8, 2);
        routing.renormalize = SLUICE_RENORMALIZE_ADD;
        check_against_formula(routing, {}, 2);
    }
    SUBCASE("groups by their best expert, masked with zero, scaled") {
        auto routing = plain_routing(160, 6);
        routing.group_count = 8;
        routing.group_choice_count = 3;
        routing.mask_value = SLUICE_MASK_ZERO;
        routing.scale = 16;
        check_against_formula(routing, {}, 3);
    }
    SUBCASE("biased sigmoid, groups by their two best, renormalised and scaled") {
        check_against_formula(deepseek_v3_routing(), {.bias = true}, 4);
    }
    SUBCASE("softmax over the chosen") {
        auto routing = plain_routing(32, 4);
        routing.score_stage = SLUICE_SCORE_AFTER_CHOICE;
        check_against_formula(routing, {}, 5);
    }
    SUBCASE("square root of softplus, softcap, clamped sum, scale left out") {
        auto routing = plain_routing(12, 3);
        routing.score = SLUICE_SCORE_SQRT_SOFTPLUS;
        routing.logit_softcap = 3;
        routing.renormalize = SLUICE_RENORMALIZE_CLAMP;
        routing.renormalize_epsilon = 4; // larger than most sums
        routing.scale = 2;
        routing.scale_condition = SLUICE_SCALE_NOT_RENORMALIZED;
        check_against_formula(routing, {.bias = true}, 6);
    }
    SUBCASE("identity, weights from the biased choice") {
        auto routing = plain_routing(10, 10);
        routing.score = SLUICE_SCORE_IDENTITY;
        routing.weight_source = SLUICE_WEIGHT_FROM_CHOICE;
        check_against_formula(routing, {.bias = true}, 7);
    }
    SUBCASE("one expert") { check_against_formula(plain_routing(1, 1), {}, 8); }
    SUBCASE("scaled by expert") {
        auto routing = plain_routing(16, 3);
        routing.scale = 2;
        check_against_formula(routing, {.bias = true, .scale = true}, 9);
    }
    SUBCASE("hash table, softmax of the chosen, renormalised") {
        auto routing = plain_routing(16, 3);
        routing.score_stage = SLUICE_SCORE_AFTER_CHOICE;
        routing.renormalize = SLUICE_RENORMALIZE_ADD;
        check_against_formula(routing, {.scale = true, .table = true}, 10);
    }
    SUBCASE("hash table, weights from what would be a biased choice") {
        auto routing = deepseek_v3_routing();
        routing.weight_source = SLUICE_WEIGHT_FROM_CHOICE;
        check_against_formula(routing, {.bias = true, .table = true}, 11);
    }
}

TEST_CASE("a different routing gives different choices") {
    // The comparison above would catch a program that ignores its groups.
    const auto numbers = draw_numbers(deepseek_v3_routing(), 4);
    auto ungrouped = deepseek_v3_routing();
    ungrouped.group_count = 0;
    checker::routing_inputs inputs;
    inputs.logits = numbers.logits;
    inputs.choice_bias = numbers.bias;
    inputs.position = numbers.position;
    CHECK(checker::route_directly(deepseek_v3_routing(), inputs).index
          != checker::route_directly(ungrouped, inputs).index);
}

TEST_CASE("layers that route alike share one program; capacity is refused") {
    const auto router = open_plugin("router", "subprogram");
    const auto model = plain_routing(16, 2);
    const auto describe = [&](const sluice_router_request& request) {
        auto specification = SLUICE_INIT(sluice_routing_specification);
        auto answer = SLUICE_INIT(sluice_router_answer);
        answer.specification = &specification;
        plugin_call call = router->call("describe");
        call = router->router().describe(router->handle(), &request, &answer, call.error());
        return answer.subprogram;
    };
    const auto* const first = describe(request_of(model));
    CHECK(first == describe(request_of(model)));
    CHECK(first != describe(request_of(model, true)));
    auto limited = model;
    limited.capacity_factor = 1;
    try {
        describe(request_of(limited));
        FAIL("capacity was accepted");
    } catch (const sluice::error& thrown) {
        CHECK(thrown.status() == SLUICE_UNSUPPORTED);
        CHECK(std::string(thrown.what()).find("use the router 'specification'")
              != std::string::npos);
    }
}
