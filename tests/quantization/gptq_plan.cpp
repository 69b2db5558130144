#include "quantization/gptq_plan.hpp"

#include "base/json.hpp"
#include "model/model_config.hpp"
#include "quantization/quantizer_fixture.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <set>

using namespace sluice;
using namespace sluice::test;

namespace {

struct planned {
    module_list list;
    std::vector<module_plan> plans;
};

planned plan_golden(const std::string& family, const std::vector<std::string>& settings) {
    const quantizer_fixture fixture(settings);
    const auto config = load_model_config(golden_folder(family) / "config.json");
    planned result{list_modules(build_model_program(config, {})), {}};
    result.plans =
        plan_modules(fixture.plugin(), result.list,
                     std::vector<sluice_element_type>(result.list.modules.size(), SLUICE_BF16));
    return result;
}

// The configuration read back from its own JSON says of every module what was planned.
void check_config(const planned& what, const gptq_config& config) {
    const auto json = config.to_json("test:1").dump();
    const auto read_back = gptq_config::parse(parse_json(json, "test"));
    for (size_t i = 0; i < what.plans.size(); ++i) {
        const auto& module = what.list.modules[i];
        if (module.kind == SLUICE_MODULE_EMBEDDING) continue;
        CHECK_MESSAGE(read_back.resolve(module.name) == what.plans[i].parameters, module.name);
    }
}

size_t index_of(const module_list& list, const std::string& name) {
    for (size_t i = 0; i < list.modules.size(); ++i)
        if (list.modules[i].name == name) return i;
    FAIL("no module ", name);
    return 0;
}

} // namespace

TEST_CASE("bits by kind become a few patterns") {
    const auto what = plan_golden("deepseek_v3", {"experts=4", "attention=8", "group_size=32"});
    const auto config = make_gptq_config(what.list, what.plans);
    check_config(what, config);
    CHECK(config.defaults().bits == 4);
    CHECK(config.defaults().group_size == 32);
    CHECK(config.format() == gptq_format::gptq);
    CHECK(!config.lm_head());
    const auto json = config.to_json("test:1");
    CHECK(json["dynamic"].size() < 12); // not one a module
    CHECK(json["quant_method"] == "gptq");
    const auto& names = json["modules_in_block_to_quantize"][0];
    const std::set<std::string> block(names.begin(), names.end());
    CHECK(block.count("mlp.experts.3.up_proj") == 1);
    CHECK(block.count("self_attn.kv_b_proj") == 1);
    CHECK(block.count("mlp.gate") == 0);
}

TEST_CASE("zero points of their own are written as gptq_v2") {
    const auto what = plan_golden("mixtral", {"symmetric=false"});
    const auto config = make_gptq_config(what.list, what.plans);
    check_config(what, config);
    CHECK(config.format() == gptq_format::gptq_v2);
    CHECK(!config.defaults().symmetric);
}

TEST_CASE("the head is quantized where it is asked for and not tied") {
    const auto what = plan_golden("mixtral", {"head=8"});
    CHECK(make_gptq_config(what.list, what.plans).lm_head());
    check_config(what, make_gptq_config(what.list, what.plans));
}

TEST_CASE("exceptions among modules of one name stand before the rule") {
    auto what = plan_golden("mixtral", {});
    const size_t odd = index_of(what.list, "model.layers.1.self_attn.q_proj");
    const size_t kept = index_of(what.list, "model.layers.2.self_attn.o_proj");
    what.plans[odd].parameters->bits = 4;
    what.plans[odd].parameters->group_size = 128;
    what.plans[kept].parameters.reset();
    check_config(what, make_gptq_config(what.list, what.plans));

    // And where most are left alone.
    for (size_t i = 0; i < what.plans.size(); ++i)
        if (what.list.modules[i].kind == SLUICE_MODULE_ATTENTION && i != odd)
            what.plans[i].parameters.reset();
    check_config(what, make_gptq_config(what.list, what.plans));
}

TEST_CASE("embeddings and routers stay, with a reason") {
    const auto what = plan_golden("mixtral", {"embedding=8", "router=4"});
    const auto& embedding = what.plans[index_of(what.list, "model.embed_tokens")];
    CHECK(!embedding.parameters);
    CHECK(embedding.kept_reason.find("embedding") != std::string::npos);
    const auto& router = what.plans[index_of(what.list, "model.layers.0.block_sparse_moe.gate")];
    CHECK(!router.parameters);
    CHECK(router.kept_reason.find("router") != std::string::npos);
    check_config(what, make_gptq_config(what.list, what.plans));
}

TEST_CASE("a quantizer that leaves everything alone is an error") {
    const auto what =
        plan_golden("mixtral", {"experts=16", "attention=16", "mlp=16", "shared_experts=16"});
    CHECK_THROWS_WITH_AS(make_gptq_config(what.list, what.plans),
                         doctest::Contains("nothing to quantize"), error);
}
