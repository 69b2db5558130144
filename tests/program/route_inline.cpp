// Routers' answers: specifications and sub-programs.
#include "program/route_inline.hpp"

#include "../base/error_check.hpp"
#include "model/model_program.hpp"
#include "plain_runner.hpp"
#include "program/decompose.hpp"
#include "program/print.hpp"

namespace sluice {

namespace {

constexpr uint32_t experts = 8;

sluice_router_request request_of(bool has_choice_bias = false) {
    auto request = SLUICE_INIT(sluice_router_request);
    request.expert_count = experts;
    request.choice_count = 2;
    request.has_choice_bias = has_choice_bias ? 1 : 0;
    return request;
}

// The two largest logits with their softmax over all experts, as a plugin would write it.
struct top_two {
    program_builder build{"top_two"};
    value_number logits =
        build.custom_input("logits", SLUICE_F32, {size::tokens(), size::fixed(experts)});
    topk_results best = build.topk("best", build.softmax("scores", logits), 2);

    top_two() {
        build.output(best.index);
        build.output(best.value);
    }
};

router_answer import(const program& subprogram, const sluice_router_request& request) {
    auto answer = SLUICE_INIT(sluice_router_answer);
    answer.form = SLUICE_ROUTER_SUBPROGRAM;
    answer.subprogram = subprogram.view();
    return import_router_answer(request, answer, "router test");
}

void refuses(top_two& router, const std::vector<std::string>& parts, bool has_choice_bias = false) {
    const program made = router.build.finish();
    test::check_error([&] { import(made, request_of(has_choice_bias)); }, SLUICE_INVALID, parts);
}

// A program with one route of the plain softmax specification.
struct routed_program {
    program_builder build{"routed"};
    value_number logits =
        build.custom_input("x", SLUICE_F32, {size::tokens(), size::fixed(experts)});
    route_results results;

    explicit routed_program(bool capacity = false) {
        auto routing = SLUICE_INIT(sluice_routing_specification);
        routing.expert_count = experts;
        routing.choice_count = 2;
        routing.scale = 1;
        routing.capacity_factor = capacity ? 1.0f : 0.0f;
        results = build.route("layers.0.route", {logits}, routing);
        build.output(results.index);
        build.output(results.weight);
        build.output(results.count);
    }
};

struct routed_values {
    test::integers index, count;
    test::floats weight;
};

routed_values run(const program& made, const routed_program& source) {
    test::plain_runner runner(made, {0, 5, 1, 1, 1});
    test::floats logits;
    for (int i = 0; i < 5 * int(experts); ++i) logits.push_back(float((i * 7) % 13) / 4);
    runner.set("x", logits);
    runner.run();
    return {runner.integer_values(source.results.index),
            runner.integer_values(source.results.count),
            runner.float_values(source.results.weight)};
}

} // namespace

TEST_CASE("a sub-program in place of route computes the same") {
    routed_program source;
    const program with_route = source.build.finish();
    const program subprogram = top_two().build.finish();
    const router_answer answer = import(subprogram, request_of());
    const program replaced = replace_router(with_route, 0, answer);
    CHECK(replaced.outputs() == with_route.outputs());
    for (const auto& operation : replaced.operations()) CHECK(operation.kind != SLUICE_OP_ROUTE);
    CHECK(replaced.operations()[0].name == "layers.0.route/scores");
    const routed_values expected = run(decompose(with_route), source);
    const routed_values found = run(replaced, source);
    CHECK(found.index == expected.index);
    CHECK(found.weight == expected.weight);
    CHECK(found.count == expected.count); // the sub-program gives none, so it is counted
}

TEST_CASE("a router that drops nothing says so") {
    routed_program source(true);
    const program with_route = source.build.finish();
    const program subprogram = top_two().build.finish();
    const program replaced = replace_router(with_route, 0, import(subprogram, request_of()));
    test::plain_runner runner(replaced, {0, 5, 1, 1, 1});
    runner.set("x", test::floats(5 * experts, 1.0f));
    runner.run();
    CHECK(runner.integer_values(source.results.dropped) == test::integers{0});
}

TEST_CASE("another specification in place of the old one") {
    routed_program source;
    const program with_route = source.build.finish();
    router_answer answer;
    answer.specification = SLUICE_INIT(sluice_routing_specification);
    answer.specification->expert_count = experts;
    answer.specification->choice_count = 2;
    answer.specification->scale = 1;
    answer.specification->score = SLUICE_SCORE_SIGMOID;
    const program replaced = replace_router(with_route, 0, answer);
    CHECK(print_program(replaced).find("score sigmoid") != std::string::npos);
    test::check_error([&] { replace_router(with_route, 1, answer); }, SLUICE_INVALID,
                      {"operation 1 is no route"});
    test::check_error([&] { replace_router(with_route, 0, router_answer{}); }, SLUICE_INVALID,
                      {"exactly one"});
}

TEST_CASE("a model takes a sub-program, with the bias of its checkpoint") {
    program_builder build("biased");
    const value_number logits =
        build.custom_input("logits", SLUICE_F32, {size::tokens(), size::fixed(16)});
    const value_number bias = build.custom_input("choice_bias", SLUICE_F32, {size::fixed(16)});
    const value_number choice = build.binary(
        "choice", SLUICE_BINARY_ADD, build.unary("scores", SLUICE_UNARY_SIGMOID, logits), bias);
    const topk_results best = build.topk("best", choice, 2);
    build.output(best.index);
    build.output(best.value);
    const program router = build.finish();
    const auto config =
        load_model_config(std::string(SLUICE_TEST_DATA_DIR) + "/configs/deepseek_v3.json");
    model_program_options options;
    options.router = [&](const sluice_router_request& request) {
        CHECK(request.has_choice_bias == 1);
        CHECK(request.model->score == SLUICE_SCORE_SIGMOID);
        return import(router, request);
    };
    const model_program model = build_model_program(config, options);
    const program& step = model.step;
    REQUIRE(model.routed_layers.size() == 2);
    CHECK(model.routed_layers[0].layer == 1);
    CHECK(print_value_type(step.value(model.routed_layers[0].count)) == "i32[16]");
    const std::string text = print_program(step);
    CHECK(text.find("%layers.1.route/choice_bias = dequantize("
                    "@model.layers.1.mlp.gate.e_score_correction_bias) : f32[16]")
          != std::string::npos);
    // Without a bias in the checkpoint the same router cannot be used.
    auto unbiased = request_of();
    unbiased.expert_count = 16;
    test::check_error([&] { import(router, unbiased); }, SLUICE_INVALID, {"choice_bias"});
}

TEST_CASE("sub-programs that are no routers are refused") {
    {
        top_two router;
        router.build.custom_input("logit", SLUICE_F32, {size::tokens(), size::fixed(experts)});
        refuses(router, {"\"logit\"", "did you mean \"logits\""});
    }
    {
        top_two router;
        router.build.custom_input("choice_bias", SLUICE_F32, {size::fixed(experts)});
        refuses(router, {"choice_bias"});
    }
    {
        top_two router;
        router.build.custom_input("choice_bias", SLUICE_F32, {size::fixed(experts + 1)});
        refuses(router, {"choice_bias", "f32[8]", "f32[9]"}, true);
    }
    {
        top_two router;
        router.build.batch_input(SLUICE_INPUT_POSITION);
        refuses(router, {"batch input"});
    }
    {
        top_two router;
        const int64_t shape[] = {experts, experts};
        auto format = SLUICE_INIT(sluice_weight_format);
        format.element_type = SLUICE_F32;
        router.build.linear("l", router.logits, router.build.weight("w", shape, format), value_none,
                            SLUICE_F32);
        refuses(router, {"weight", "\"w\""});
    }
    {
        top_two router;
        auto routing = SLUICE_INIT(sluice_routing_specification);
        routing.expert_count = experts;
        routing.choice_count = 2;
        routing.scale = 1;
        router.build.route("r", {router.logits}, routing);
        refuses(router, {"primitives only", "route"});
    }
    {
        top_two router;
        router.build.output(router.best.index); // as the count
        refuses(router, {"output 2 (count)", "i32[8]", "i32[T, 2]"});
    }
    {
        program_builder build("short");
        build.output(
            build.custom_input("logits", SLUICE_F32, {size::tokens(), size::fixed(experts)}));
        const program made = build.finish();
        test::check_error([&] { import(made, request_of()); }, SLUICE_INVALID, {"1 outputs"});
    }
}

TEST_CASE("answers that are none are refused") {
    const auto request = request_of();
    auto answer = SLUICE_INIT(sluice_router_answer);
    const auto refuses_answer = [&](sluice_status status, const char* part) {
        test::check_error([&] { import_router_answer(request, answer, "router test"); }, status,
                          {"router test", part});
    };
    refuses_answer(SLUICE_INVALID, "no specification");
    auto routing = SLUICE_INIT(sluice_routing_specification);
    routing.expert_count = experts + 1;
    routing.choice_count = 1;
    routing.scale = 1;
    answer.specification = &routing;
    refuses_answer(SLUICE_INVALID, "expert_count is 9");
    routing.expert_count = experts;
    CHECK(import_router_answer(request, answer, "router test").specification.has_value());
    answer.form = SLUICE_ROUTER_SUBPROGRAM;
    refuses_answer(SLUICE_INVALID, "NULL");
    answer.form = 7;
    refuses_answer(SLUICE_UNSUPPORTED, "form 7");
    answer.form = SLUICE_ROUTER_SPECIFICATION;
    struct longer_specification {
        sluice_routing_specification known;
        uint32_t unknown[4];
    } longer{routing, {0, 0, 1, 0}};
    longer.known.struct_size = sizeof(longer);
    answer.specification = &longer.known;
    refuses_answer(SLUICE_UNSUPPORTED, "does not know");
}

} // namespace sluice
