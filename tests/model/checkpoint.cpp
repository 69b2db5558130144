#include "model/checkpoint.hpp"
#include "model/dummy_checkpoint.hpp"

#include "../base/error_check.hpp"
#include "../base/temporary_directory.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <numeric>

using namespace sluice;
using test::check_error;

namespace {

void write_shard(const std::filesystem::path& path,
                 const std::vector<std::pair<std::string, std::vector<float>>>& tensors) {
    safetensors_writer writer(path);
    for (const auto& [name, values] : tensors) {
        writer.declare(name, SLUICE_F32, {int64_t(values.size())});
    }
    for (const auto& [name, values] : tensors) {
        writer.append(name, std::as_bytes(std::span(values)));
    }
    writer.finish();
}

} // namespace

TEST_CASE("a single-file checkpoint") {
    test::temporary_directory folder;
    folder.write("config.json", R"({"hidden_size": 4})");
    write_shard(folder.path() / "model.safetensors",
                {{"model.norm.weight", {1, 2}}, {"model.embed_tokens.weight", {3}}});
    auto model = open_checkpoint(folder.path());
    CHECK(!model->is_dummy());
    CHECK(model->config().integer("hidden_size", 1, 9) == 4);
    CHECK(!model->generation_config());
    CHECK(model->names()
          == std::vector<std::string>{"model.embed_tokens.weight", "model.norm.weight"});
    CHECK(model->contains("model.norm.weight"));
    CHECK(!model->contains("model.norm"));
    CHECK(model->tensor("model.norm.weight", {2}).to_f32() == std::vector<float>{1, 2});
    CHECK(model->find("model.embed_tokens.weight")->to_f32() == std::vector<float>{3});
    CHECK(!model->find("absent"));
    CHECK(model->size_bytes() == 12);
    CHECK(model->totals().at("F32").tensors == 2);
    CHECK(model->totals().at("F32").elements == 3);
    tensor_view view = model->tensor("model.norm.weight", {2});
    CHECK(view.file == (folder.path() / "model.safetensors").string());
    model.reset();
    CHECK(view.to_f32() == std::vector<float>{1, 2});
    // config.json itself names the folder too.
    CHECK(open_checkpoint(folder.path() / "config.json")->names().size() == 2);
}

TEST_CASE("a tensor that is missing or misshapen is named with what there is") {
    test::temporary_directory folder;
    folder.write("config.json", "{}");
    write_shard(folder.path() / "model.safetensors",
                {{"model.layers.0.q_proj.weight", {1, 2}}, {"lm_head.weight", {3}}});
    auto model = open_checkpoint(folder.path());
    check_error([&] { model->tensor("model.layers.0.q_prj.weight", {2}); }, SLUICE_INVALID,
                {folder.path().string(), "model.layers.0.q_prj.weight\" [2]",
                 "did you mean \"model.layers.0.q_proj.weight\""});
    check_error(
        [&] {
            model->tensor("model.layers.0.q_proj.weight", {2, 1});
        },
        SLUICE_INVALID,
        {"model.safetensors", "model.layers.0.q_proj.weight", "[2, 1]", "found [2]"});
}

TEST_CASE("a sharded checkpoint, with symbolic links as in the hub's cache") {
    test::temporary_directory folder, blobs;
    folder.write("config.json", "{}");
    folder.write("generation_config.json", R"({"eos_token_id": 1})");
    write_shard(blobs.path() / "blob", {{"a", {1}}, {"unlisted", {9}}});
    std::filesystem::create_symlink(blobs.path() / "blob", folder.path() / "m-1.safetensors");
    write_shard(folder.path() / "m-2.safetensors", {{"b", {2, 3}}});
    folder.write("model.safetensors.index.json",
                 R"({"metadata": {"total_size": 12},
                     "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}})");
    auto model = open_checkpoint(folder.path());
    CHECK(model->names() == std::vector<std::string>{"a", "b"});
    CHECK(model->tensor("a", {1}).to_f32() == std::vector<float>{1});
    CHECK(model->tensor("b", {2}).to_f32() == std::vector<float>{2, 3});
    CHECK(!model->contains("unlisted"));
    CHECK(model->size_bytes() == 12);
    CHECK(model->generation_config()->integer("eos_token_id", 0, 9) == 1);
}

TEST_CASE("a dummy checkpoint makes any tensor, repeatably, in little memory") {
    test::temporary_directory folder;
    folder.write("config.json", R"({"tie_word_embeddings": true})");
    for (sluice_element_type type : {SLUICE_F32, SLUICE_F16, SLUICE_BF16}) {
        CAPTURE(type);
        auto model = make_dummy_checkpoint(folder.path(), type);
        CHECK(model->is_dummy());
        std::vector<float> values = model->tensor("q_proj.weight", {64, 512}).to_f32();
        auto again = make_dummy_checkpoint(folder.path() / "config.json", type);
        again->tensor("other.weight", {1000, 1000}); // the order of requests does not matter
        CHECK(again->tensor("q_proj.weight", {64, 512}).to_f32() == values);
        CHECK(model->tensor("k_proj.weight", {64, 512}).to_f32() != values);
        double sum = 0, squares = 0;
        for (float value : values) sum += value, squares += double(value) * value;
        double mean = sum / double(values.size());
        CHECK(std::abs(mean) < 0.001);
        CHECK(std::sqrt(squares / double(values.size())) == doctest::Approx(0.02).epsilon(0.05));
        std::vector<float> norm = model->tensor("model.norm.weight", {512}).to_f32();
        CHECK(std::accumulate(norm.begin(), norm.end(), 0.0) / 512
              == doctest::Approx(1).epsilon(0.01));
        // One buffer: views of a thousand tensors lie within the largest and its offset.
        std::vector<tensor_view> views;
        views.push_back(model->tensor("large.weight", {1024, 1024}));
        auto low = reinterpret_cast<uintptr_t>(views[0].bytes.data());
        auto high = low;
        for (int i = 0; i < 1000; ++i) {
            views.push_back(model->tensor(fmt::format("w{}.weight", i), {1000, 1000}));
            auto at = reinterpret_cast<uintptr_t>(views.back().bytes.data());
            CHECK(at % 16 == 0);
            low = std::min(low, at), high = std::max(high, at + views.back().bytes.size());
        }
        CHECK(high - low < 3 * views[0].bytes.size());
    }
}

TEST_CASE("what a dummy checkpoint contains follows its rule") {
    test::temporary_directory folder;
    folder.write("config.json", R"({"tie_word_embeddings": true})");
    auto model = make_dummy_checkpoint(folder.path(), SLUICE_BF16);
    CHECK(model->contains("model.layers.0.self_attn.q_proj.weight"));
    CHECK(!model->contains("lm_head.weight"));
    for (const char* name : {"q_proj.bias", "q_proj.qweight", "q_proj.scales", "q_proj.g_idx",
                             "q_proj.weight_scale_inv", "mlp.experts.gate_up_proj"}) {
        CHECK(!model->contains(name));
    }
    CHECK(model->tensor("q_proj.bias", {8}).elements() == 8); // denied, yet made when asked for
    CHECK(!model->find("q_proj.weight"));
    CHECK(model->names().empty());
    CHECK(model->size_bytes() == 0);
    folder.write("config.json", "{}");
    CHECK(make_dummy_checkpoint(folder.path(), SLUICE_BF16)->contains("lm_head.weight"));
    check_error(
        [&] {
            model->tensor("a.weight", {1 << 20, 1 << 20});
        },
        SLUICE_EXHAUSTED, {"a.weight", "at most 16.0 GiB", "config.json"});
    check_error([&] { model->tensor("a.weight", {-1}); }, SLUICE_EXHAUSTED, {"[-1]"});
    check_error([&] { make_dummy_checkpoint(folder.path(), SLUICE_I8); }, SLUICE_INVALID, {"i8"});
    check_error([&] { make_dummy_checkpoint(folder.path() / "x", SLUICE_F32); }, SLUICE_UNAVAILABLE,
                {"no such folder"});
}
