// Routers' answers: specifications and sub-programs.
#include "program/route_inline.hpp"

#include "../base/error_check.hpp"
#include "model/model_program.hpp"
#include "plain_runner.hpp"
#include "program/decompose.hpp"
#include "program/operation_table.hpp"
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

program build_top_two() {
    top_two made;
    return made.build.finish();
}

router_answer import(const program& subprogram, const sluice_router_request& request) {
    auto answer = SLUICE_INIT(sluice_router_answer);
    answer.form = SLUICE_ROUTER_SUBPROGRAM;
    answer.subprogram = subprogram.view();
    return import_router_answer(request, answer, "router test");
}

// The same by a hash table, scaled by expert.
struct hashed_two {
    program_builder build{"hashed_two"};

    hashed_two() {
        const auto input = [&](const char* name, sluice_element_type type, value_shape shape) {
            return build.custom_input(name, type, std::move(shape));
        };
        const value_number logits =
            input("logits", SLUICE_F32, {size::tokens(), size::fixed(experts)});
        const value_number ids = input("token_ids", SLUICE_I32, {size::tokens()});
        const value_number table = input("table", SLUICE_I32, {size::fixed(3), size::fixed(2)});
        const value_number scales = input("per_expert_scale", SLUICE_F32, {size::fixed(experts)});
        const value_number index = build.gather_rows("index", table, ids);
        const value_number scores = build.gather("chosen", build.softmax("scores", logits), index);
        build.output(index);
        build.output(build.binary("weight", SLUICE_BINARY_MULTIPLY, scores,
                                  build.gather("scale", scales, index)));
    }
};

sluice_router_request hashed_request() {
    auto request = request_of();
    request.has_per_expert_scale = 1;
    request.table_row_count = 3;
    return request;
}

// A program with one route that has every input.
struct route_with_all {
    program_builder build{"routed"};
    route_operands operands{};
    route_results results;

    explicit route_with_all(int64_t words = 3) {
        const dimension width = size::fixed(experts);
        operands.logits = build.custom_input("x", SLUICE_F32, {size::tokens(), width});
        operands.choice_bias = build.custom_input("bias", SLUICE_F32, {width});
        // Not in the type that the sub-program's input has.
        operands.per_expert_scale =
            build.cast("scale_bf16", build.custom_input("scale", SLUICE_F32, {width}), SLUICE_BF16);
        operands.token_ids = build.custom_input("ids", SLUICE_I32, {size::tokens()});
        operands.table =
            build.custom_input("table", SLUICE_I32, {size::fixed(words), size::fixed(2)});
        results = build.route("layers.0.route", operands, plain_routing());
        build.output(results.index);
        build.output(results.weight);
    }

    static sluice_routing_specification plain_routing() {
        auto routing = SLUICE_INIT(sluice_routing_specification);
        routing.expert_count = experts;
        routing.choice_count = 2;
        routing.scale = 1;
        return routing;
    }
};

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

TEST_CASE("a sub-program reads the scales of experts and the hash table") {
    route_with_all source;
    const program with_route = source.build.finish();
    const program subprogram = hashed_two().build.finish();
    const program replaced = replace_router(with_route, 1, import(subprogram, hashed_request()));
    const auto run_one = [&](const program& made) {
        test::plain_runner runner(made, {0, 4, 1, 1, 1});
        test::floats logits;
        for (int i = 0; i < 4 * int(experts); ++i) logits.push_back(float((i * 7) % 13) / 4);
        runner.set("x", logits);
        runner.set("bias", test::floats(experts, 5.0f));
        runner.set("scale", test::floats{1, 2, 0.5f, 3, 1, 4, 2, 1});
        runner.set("ids", test::integers{2, 0, 1, 0});
        runner.set("table", test::integers{0, 1, 2, 3, 7, 5});
        runner.run();
        return std::pair(runner.integer_values(source.results.index),
                         runner.float_values(source.results.weight));
    };
    const auto found = run_one(replaced);
    CHECK(found.first == test::integers{7, 5, 0, 1, 2, 3, 0, 1});
    CHECK(found == run_one(decompose(with_route)));
    // Only where the request has them, and only in its sizes.
    test::check_error([&] { import(subprogram, request_of()); }, SLUICE_INVALID, {"\"table\""});
    auto unscaled = hashed_request();
    unscaled.has_per_expert_scale = 0;
    test::check_error([&] { import(subprogram, unscaled); }, SLUICE_INVALID,
                      {"\"per_expert_scale\""});
    auto longer = hashed_request();
    longer.table_row_count = 4;
    test::check_error([&] { import(subprogram, longer); }, SLUICE_INVALID,
                      {"\"table\"", "i32[4, 2]", "i32[3, 2]"});
    route_with_all other(5);
    const program with_other = other.build.finish();
    test::check_error([&] { replace_router(with_other, 1, import(subprogram, hashed_request())); },
                      SLUICE_INVALID, {"\"table\" as i32[3, 2]", "i32[5, 2]"});
}

TEST_CASE("a specification is routed without the inputs that it ignores") {
    route_with_all source;
    const program with_route = source.build.finish();
    router_answer answer;
    answer.specification = route_with_all::plain_routing();
    const auto operands = [&] {
        return replace_router(with_route, 1, answer).operations().at(1).inputs;
    };
    CHECK(operands() == with_route.operations().at(1).inputs);
    answer.ignored_inputs = SLUICE_ROUTER_INPUT_CHOICE_BIAS;
    CHECK(operands().at(1) == value_none);
    CHECK(operands().at(2) == source.operands.per_expert_scale);
    answer.ignored_inputs = SLUICE_ROUTER_INPUTS_ALL;
    for (const size_t input : {1, 2, 5}) {
        CHECK((input >= operands().size() || operands()[input] == value_none));
    }
}

TEST_CASE("a model routed without the choice bias does not read it") {
    const auto config =
        load_model_config(std::string(SLUICE_TEST_DATA_DIR) + "/configs/deepseek_v3.json");
    const auto text_of_model = [&](uint32_t ignored_inputs) {
        model_program_options options;
        options.router = [&](const sluice_router_request& request) {
            router_answer answer;
            answer.specification = *request.model;
            answer.ignored_inputs = ignored_inputs;
            return answer;
        };
        return print_program(build_model_program(config, options).step);
    };
    CHECK(text_of_model(0).find("e_score_correction_bias") != std::string::npos);
    CHECK(text_of_model(SLUICE_ROUTER_INPUT_CHOICE_BIAS).find("e_score_correction_bias")
          == std::string::npos);
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

TEST_CASE("a host function is one route that no expansion touches") {
    auto request = request_of(true);
    auto computes = SLUICE_INIT(sluice_routing_specification);
    auto answer = SLUICE_INIT(sluice_router_answer);
    answer.form = SLUICE_ROUTER_HOST_FUNCTION;
    answer.specification = &computes;
    const auto imported = [&] { return import_router_answer(request, answer, "router test"); };
    CHECK(imported().host_function->choice_count == 2);
    CHECK_FALSE(imported().host_function->computes.has_value());
    CHECK(imported().takes_choice_bias());
    CHECK(imported().takes_token_ids());
    answer.choice_count = 3;
    answer.ignored_inputs = SLUICE_ROUTER_INPUT_CHOICE_BIAS;
    CHECK(imported().host_function->choice_count == 3);
    CHECK_FALSE(imported().takes_choice_bias());

    program_builder build("host");
    route_operands operands{};
    operands.logits =
        build.custom_input("logits", SLUICE_F32, {size::tokens(), size::fixed(experts)});
    operands.position = build.batch_input(SLUICE_INPUT_POSITION);
    const route_results routed = add_router(build, "route", operands, imported());
    for (const value_number output : {routed.index, routed.weight, routed.count, routed.dropped}) {
        build.output(output);
    }
    const program made = build.finish();
    REQUIRE(made.operations().size() == 1);
    CHECK(is_host_function(made.operations()[0]));
    CHECK(made.operations()[0].kind == SLUICE_OP_ROUTE);
    CHECK(print_operation(made, 0).find("choose 3 of 8, by host function") != std::string::npos);
    CHECK(decompose(made).operations().size() == 1);
    CHECK(is_host_function(import_program(*made.view(), "again").operations()[0]));
    // Only a route can be one.
    program_contents contents = build_top_two().contents();
    contents.operations[0].flags |= SLUICE_OPERATION_HOST_FUNCTION;
    test::check_error([&] { const program wrong(contents); }, SLUICE_UNSUPPORTED, {"flags"});

    const auto refuses_answer = [&](const char* part) {
        test::check_error([&] { imported(); }, SLUICE_INVALID, {"router test", part});
    };
    answer.choice_count = experts + 1;
    refuses_answer("choice_count is 9, expected 1 to 8");
    answer.choice_count = 3;
    computes.expert_count = experts;
    computes.choice_count = 2;
    computes.scale = 1;
    refuses_answer("makes 3 choices");
    computes.choice_count = 3;
    CHECK(imported().host_function->computes.has_value());
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
    answer.ignored_inputs = SLUICE_ROUTER_INPUT_CHOICE_BIAS;
    CHECK(import_router_answer(request, answer, "router test").ignored_inputs
          == SLUICE_ROUTER_INPUT_CHOICE_BIAS);
    answer.ignored_inputs = 0x100;
    refuses_answer(SLUICE_UNSUPPORTED, "ignored_inputs is 0x100");
    answer.ignored_inputs = 0;
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
