#include "quantization/module_list.hpp"

#include "engine/model_fixture.hpp"
#include "model/model_config.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

using namespace sluice;
using namespace sluice::test;

namespace {

module_list modules_of(const std::filesystem::path& config_json) {
    return list_modules(build_model_program(load_model_config(config_json), {}));
}

std::map<std::string, std::string> kinds_of(const module_list& list) {
    std::map<std::string, std::string> kinds;
    for (const auto& module : list.modules) kinds[module.name] = module_kind_name(module.kind);
    return kinds;
}

std::map<std::string, size_t> counts_of(const module_list& list) {
    std::map<std::string, size_t> counts;
    for (const auto& module : list.modules) ++counts[std::string(module_kind_name(module.kind))];
    return counts;
}

std::filesystem::path config_of(const std::string& family) {
    return std::filesystem::path(SLUICE_TEST_DATA_DIR) / "configs" / (family + ".json");
}

} // namespace

TEST_CASE("a dense model has attention, feed-forward layers, embedding and head") {
    const auto list = modules_of(golden_folder("llama") / "config.json");
    auto kinds = kinds_of(list);
    CHECK(kinds["model.embed_tokens"] == "embedding");
    CHECK(kinds["model.layers.0.self_attn.q_proj"] == "attention");
    CHECK(kinds["model.layers.0.self_attn.o_proj"] == "attention");
    CHECK(kinds["model.layers.1.mlp.down_proj"] == "mlp");
    for (const auto& [name, kind] : kinds) CHECK_MESSAGE(!name.ends_with("norm"), name);
    const auto counts = counts_of(list);
    CHECK(counts.count("expert") == 0);
    CHECK(counts.count("router") == 0);
}

TEST_CASE("experts, shared experts, routers and latent attention are told apart") {
    const auto list = modules_of(golden_folder("deepseek_v3") / "config.json");
    auto kinds = kinds_of(list);
    CHECK(kinds["model.layers.0.mlp.gate_proj"] == "mlp"); // the first layer is dense
    CHECK(kinds["model.layers.1.mlp.gate"] == "router");
    CHECK(kinds["model.layers.1.mlp.experts.0.gate_proj"] == "expert");
    CHECK(kinds["model.layers.1.mlp.shared_experts.down_proj"] == "shared expert");
    CHECK(kinds["model.layers.1.self_attn.kv_a_proj_with_mqa"] == "attention");
    CHECK(kinds["model.layers.1.self_attn.kv_b_proj"] == "attention");
    CHECK(kinds["lm_head"] == "head");
    // One stored matrix, although the program cuts two weights out of it.
    const auto config = load_model_config(golden_folder("deepseek_v3") / "config.json");
    for (const auto& module : list.modules) {
        if (!module.name.ends_with("kv_b_proj")) continue;
        CHECK(module.row_count
              == config.attention.head_count
                     * (config.mla.nope_head_dim + config.mla.value_head_dim));
        CHECK(module.request.slices.size() == 1);
        CHECK(module.request.slices[0].row_count == module.row_count);
    }
}

TEST_CASE("names of other families lead to the same kinds") {
    auto mixtral = kinds_of(modules_of(golden_folder("mixtral") / "config.json"));
    CHECK(mixtral["model.layers.0.block_sparse_moe.gate"] == "router");
    CHECK(mixtral["model.layers.0.block_sparse_moe.experts.7.w2"] == "expert");
    const auto gpt_oss = modules_of(config_of("gpt_oss"));
    auto kinds = kinds_of(gpt_oss);
    CHECK(kinds["model.layers.0.mlp.router"] == "router");
    CHECK(counts_of(gpt_oss)["expert"] > 0);
    for (const auto& module : gpt_oss.modules)
        CHECK(module.in_stack == (module.kind == SLUICE_MODULE_EXPERT));
}

TEST_CASE("every family's modules have a kind, a shape and a layer") {
    for (const char* family : {"deepseek_v2", "deepseek_v3", "glm4_moe", "gpt_oss", "llama",
                               "mixtral", "olmoe", "qwen3", "qwen3_moe"}) {
        CAPTURE(family);
        const auto config = load_model_config(config_of(family));
        const auto list = list_modules(build_model_program(config, {}));
        CHECK(!list.modules.empty());
        std::vector<uint32_t> layers;
        for (const auto& module : list.modules) {
            CAPTURE(module.name);
            CHECK(module.kind != SLUICE_MODULE_NORM);
            CHECK(module.row_count > 0);
            CHECK(module.column_count > 0);
            CHECK(module.layer < config.layer_count);
            layers.push_back(module.layer);
        }
        std::sort(layers.begin(), layers.end());
        layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
        CHECK(layers.size() == config.layer_count);
        auto counts = counts_of(list);
        CHECK(counts["embedding"] == 1);
        CHECK(counts["head"] == (config.tied_embeddings ? 0 : 1));
        CHECK(counts["router"]
              == size_t(std::count_if(config.layers.begin(), config.layers.end(),
                                      [](const auto& layer) { return layer.sparse; })));
    }
}

TEST_CASE("modules of one weight are listed together") {
    const auto list = modules_of(golden_folder("mixtral") / "config.json");
    bool found = false;
    for (const auto& members : list.together) {
        const auto& first = list.modules[members.front()];
        if (first.kind != SLUICE_MODULE_EXPERT) continue;
        found = true;
        CHECK(members.size() == 8);
        for (const size_t member : members) CHECK(list.modules[member].layer == first.layer);
    }
    CHECK(found);
}
