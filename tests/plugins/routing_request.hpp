// Asking routers.
#pragma once

#include "opened_plugin.hpp"

#include "program/route_inline.hpp"

namespace sluice::plugin_tests {

inline sluice_routing_specification plain_routing(uint32_t experts, uint32_t choices) {
    auto routing = SLUICE_INIT(sluice_routing_specification);
    routing.expert_count = experts;
    routing.choice_count = choices;
    routing.scale = 1;
    return routing;
}

// DeepSeek-V3's: 256 experts in 8 groups, of which 4 stay, 8 choices.
inline sluice_routing_specification deepseek_v3_routing() {
    auto routing = plain_routing(256, 8);
    routing.group_count = 8;
    routing.group_choice_count = 4;
    routing.group_score = SLUICE_GROUP_SCORE_TOPK_SUM;
    routing.group_score_count = 2;
    routing.score = SLUICE_SCORE_SIGMOID;
    routing.renormalize = SLUICE_RENORMALIZE_ADD;
    routing.renormalize_epsilon = 1e-20F;
    routing.scale = 2.5F;
    return routing;
}

inline sluice_router_request request_of(const sluice_routing_specification& model,
                                        bool has_choice_bias = false) {
    auto request = SLUICE_INIT(sluice_router_request);
    request.expert_count = model.expert_count;
    request.choice_count = model.choice_count;
    request.hidden_size = 64;
    request.has_choice_bias = has_choice_bias ? 1 : 0;
    request.model_type = text_view("test");
    request.model = &model;
    return request;
}

// Throws sluice::error with the router's message where it refuses.
inline router_answer ask(plugin_instance& router, const sluice_router_request& request) {
    auto specification = SLUICE_INIT(sluice_routing_specification);
    auto answer = SLUICE_INIT(sluice_router_answer);
    answer.specification = &specification;
    plugin_call call = router.call("describe");
    call = router.router().describe(router.handle(), &request, &answer, call.error());
    return import_router_answer(request, answer, router.id());
}

} // namespace sluice::plugin_tests
