// The router "specification": the model's own routing, presets and overrides.
#include "routing_request.hpp"

#include <cstring>
#include <doctest/doctest.h>

using namespace sluice;
using namespace sluice::plugin_tests;

namespace {

sluice_routing_specification answer_of(const std::vector<std::string>& overrides,
                                       const sluice_routing_specification& model) {
    const auto router = open_plugin("router", "specification", overrides);
    const auto answer = ask(*router, request_of(model));
    REQUIRE(answer.specification.has_value());
    return *answer.specification;
}

bool same(const sluice_routing_specification& left, const sluice_routing_specification& right) {
    return std::memcmp(&left, &right, sizeof left) == 0;
}

} // namespace

TEST_CASE("without settings the model's own routing comes back") {
    CHECK(same(answer_of({}, deepseek_v3_routing()), deepseek_v3_routing()));
    const auto plain = plain_routing(8, 2);
    CHECK(same(answer_of({}, plain), plain));
}

TEST_CASE("the plain gate: softmax over all, the best two, not renormalised, with capacity") {
    const auto found =
        answer_of({"preset=plain_gate", "capacity_factor=1.25", "capacity_policy=reroute"},
                  deepseek_v3_routing());
    auto expected = plain_routing(256, 2);
    expected.capacity_factor = 1.25F;
    expected.capacity_policy = SLUICE_CAPACITY_REROUTE;
    CHECK(same(found, expected));
}

TEST_CASE("what a preset's formula does not have is ignored where the checkpoint has it") {
    const auto ignored = [](const std::vector<std::string>& settings) {
        const auto router = open_plugin("router", "specification", settings);
        return ask(*router, request_of(deepseek_v3_routing(), true)).ignored_inputs;
    };
    CHECK(ignored({}) == 0);
    CHECK(ignored({"preset=plain_gate"}) == SLUICE_ROUTER_INPUTS_ALL);
    CHECK(ignored({"preset=deepseek_v2"}) == SLUICE_ROUTER_INPUTS_ALL);
    CHECK(ignored({"preset=deepseek_v3"})
          == (SLUICE_ROUTER_INPUT_PER_EXPERT_SCALE | SLUICE_ROUTER_INPUT_TABLE));
    CHECK(ignored({"ignore_choice_bias=true"}) == SLUICE_ROUTER_INPUT_CHOICE_BIAS);
}

TEST_CASE("a host that cannot leave inputs out is told so") {
    const auto gate = open_plugin("router", "specification", {"preset=plain_gate"});
    const auto model = deepseek_v3_routing();
    const auto request = request_of(model, true);
    auto specification = SLUICE_INIT(sluice_routing_specification);
    auto answer = SLUICE_INIT(sluice_router_answer);
    answer.struct_size = offsetof(sluice_router_answer, ignored_inputs);
    answer.specification = &specification;
    auto error = SLUICE_INIT(sluice_error);
    CHECK(gate->router().describe(gate->handle(), &request, &answer, &error) == SLUICE_UNSUPPORTED);
    CHECK(text_of_array(error.message, sizeof error.message).find("ignores inputs")
          != std::string::npos);
}

TEST_CASE("presets fix the formula and keep the model's numbers") {
    auto model = plain_routing(160, 6);
    model.group_count = 8;
    model.group_choice_count = 3;
    model.scale = 16;

    const auto v2 = answer_of({"preset=deepseek_v2"}, model);
    CHECK(v2.group_score == SLUICE_GROUP_SCORE_MAX);
    CHECK(v2.mask_value == SLUICE_MASK_ZERO);
    CHECK(v2.renormalize == SLUICE_RENORMALIZE_NONE);
    CHECK(v2.scale == 16);
    CHECK(v2.group_choice_count == 3);

    const auto v3 = answer_of({"preset=deepseek_v3"}, model);
    CHECK(v3.group_score == SLUICE_GROUP_SCORE_TOPK_SUM);
    CHECK(v3.group_score_count == 2);
    CHECK(v3.score == SLUICE_SCORE_SIGMOID);
    CHECK(v3.renormalize_epsilon == 1e-20F);

    const auto glm = answer_of({"preset=glm4_moe"}, model);
    CHECK(glm.group_count == 0);
    CHECK(glm.score == SLUICE_SCORE_SIGMOID);
    CHECK(glm.scale == 16);

    const auto mixtral = answer_of({"preset=mixtral"}, plain_routing(8, 2));
    CHECK(mixtral.renormalize == SLUICE_RENORMALIZE_ADD);
    CHECK(mixtral.choice_count == 2);

    const auto gpt_oss = answer_of({"preset=gpt_oss"}, plain_routing(32, 4));
    CHECK(gpt_oss.score_stage == SLUICE_SCORE_AFTER_CHOICE);
    CHECK(gpt_oss.score == SLUICE_SCORE_SOFTMAX);
}

TEST_CASE("settings override single fields, and zero can be given") {
    auto model = deepseek_v3_routing();
    model.capacity_factor = 2;
    model.logit_softcap = 30;
    const auto found =
        answer_of({"top_k=3", "score=softmax", "group_count=1", "scale=0.5", "renormalize=clamp",
                   "renormalize_epsilon=0.001", "capacity_factor=0", "logit_softcap=0.0"},
                  model);
    CHECK(found.choice_count == 3);
    CHECK(found.score == SLUICE_SCORE_SOFTMAX);
    CHECK(found.group_count == 0);
    CHECK(found.scale == 0.5F);
    CHECK(found.renormalize == SLUICE_RENORMALIZE_CLAMP);
    CHECK(found.renormalize_epsilon == 0.001F);
    CHECK(found.capacity_factor == 0);
    CHECK(found.logit_softcap == 0);
    CHECK(found.weight_source == model.weight_source);
}

TEST_CASE("what cannot be is refused with the reason") {
    const auto refusal = [](const std::vector<std::string>& overrides) -> std::string {
        try {
            answer_of(overrides, deepseek_v3_routing());
            return "";
        } catch (const sluice::error& thrown) {
            CHECK(thrown.status() == SLUICE_INVALID);
            return thrown.what();
        }
    };
    CHECK(refusal({"group_count=7"}).find("does not divide the 256 experts") != std::string::npos);
    CHECK(refusal({"group_choice_count=9"}).find("group_choice_count is 9, expected 1 to")
          != std::string::npos);
    CHECK(refusal({"group_choice_count=1", "top_k=40"}).find("cannot give 40 choices")
          != std::string::npos);
    CHECK(refusal({"top_k=65"}).find("top_k") != std::string::npos);
    CHECK(refusal({"score=softmux"}).find("softmux") != std::string::npos);
    CHECK(refusal({"topk=2"}).find("top_k") != std::string::npos);

    const auto router = open_plugin("router", "specification");
    auto request = request_of(plain_routing(8, 2));
    request.model = nullptr;
    CHECK_THROWS_WITH_AS(ask(*router, request), doctest::Contains("name another preset"),
                         sluice::error);
    const auto gate = open_plugin("router", "specification", {"preset=plain_gate"});
    CHECK(ask(*gate, request).specification->choice_count == 2);
}
