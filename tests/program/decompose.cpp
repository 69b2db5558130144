// What decompositions keep and refuse. What they compute is in decompose_numeric.cpp and
// route_numeric.cpp.
#include "program/decompose.hpp"

#include "../base/error_check.hpp"
#include "model/model_program.hpp"
#include "program/operation_table.hpp"
#include "program/print.hpp"

namespace sluice {

namespace {

model_program model_of(const char* name, model_program_options options = {}) {
    const std::string path = fmt::format("{}/configs/{}.json", SLUICE_TEST_DATA_DIR, name);
    return build_model_program(load_model_config(path), options);
}

bool has_composites(const program& tested) {
    for (const auto& operation : tested.operations()) {
        if (is_composite(operation.kind)) return true;
    }
    return false;
}

} // namespace

TEST_CASE("every family decomposes to primitives, in both types") {
    for (const char* name : {"llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3",
                             "olmoe", "glm4_moe", "gpt_oss"}) {
        for (const sluice_element_type type : {SLUICE_F32, SLUICE_BF16}) {
            CAPTURE(name);
            model_program_options options;
            options.compute_type = type;
            options.cache_type = type;
            options.mla_form =
                type == SLUICE_F32 ? SLUICE_MLA_FORM_EXPANDED : SLUICE_MLA_FORM_ABSORBED;
            const model_program model = model_of(name, options);
            CHECK(has_composites(model.step));
            CHECK_FALSE(has_composites(decompose(model.step)));
        }
    }
}

TEST_CASE("values keep numbers, names and types") {
    const program source = model_of("deepseek_v3").step;
    const program expanded = decompose(source);
    REQUIRE(expanded.values().size() > source.values().size());
    for (value_number i = 0; i < source.values().size(); ++i) {
        const program_value& before = source.values()[i];
        const program_value& after = expanded.values()[i];
        CHECK(before.name == after.name);
        CHECK(before.kind == after.kind);
        CHECK(print_value_type(before) == print_value_type(after));
    }
    CHECK(expanded.outputs() == source.outputs());
}

TEST_CASE("roles of weights follow what is done with them") {
    const program source = model_of("deepseek_v3").step;
    const program expanded = decompose(source);
    const std::string key = "model.layers.0.self_attn.kv_b_proj.weight/key";
    CHECK(source.value(source.at(key)).weight_role == SLUICE_ROLE_LATENT);
    CHECK(expanded.value(expanded.at(key)).weight_role == SLUICE_ROLE_TENSOR);
}

TEST_CASE("what is kept stays as it is") {
    const program source = model_of("mixtral").step;
    const program same = decompose(source, [](uint32_t) { return true; });
    CHECK(print_program(same) == print_program(source));
    const program partly = decompose(source, [&](uint32_t operation) {
        return source.operations()[operation].kind == SLUICE_OP_ATTENTION;
    });
    size_t attentions = 0;
    for (const auto& operation : partly.operations()) {
        attentions += operation.kind == SLUICE_OP_ATTENTION ? 1 : 0;
        CHECK(operation.kind != SLUICE_OP_ROUTE);
    }
    CHECK(attentions == 3);
}

TEST_CASE("rerouting cannot be said in primitives") {
    model_program_options options;
    options.router = [](const sluice_router_request& request) {
        router_answer answer;
        answer.specification = *request.model;
        answer.specification->capacity_factor = 1.25f;
        answer.specification->capacity_policy = SLUICE_CAPACITY_REROUTE;
        return answer;
    };
    const program source = model_of("mixtral", options).step;
    test::check_error([&] { decompose(source); }, SLUICE_UNSUPPORTED,
                      {"layers.0.route", "must claim the composite route", "drop"});
    CHECK_NOTHROW(decompose(source, [&](uint32_t operation) {
        return source.operations()[operation].kind == SLUICE_OP_ROUTE;
    }));
}

} // namespace sluice
