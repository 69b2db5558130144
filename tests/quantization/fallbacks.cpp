// What cannot be quantized, what is refused, and layouts that are not one tensor a module.
#include "base/error_check.hpp"
#include "quantization/quantizer_fixture.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <random>

using namespace sluice;
using namespace sluice::test;

namespace {

namespace fs = std::filesystem;

std::vector<float> random_values(size_t count) {
    static std::mt19937 generator(5);
    std::normal_distribution<float> normal(0.0f, 0.1f);
    std::vector<float> values(count);
    for (float& value : values) value = normal(generator);
    return values;
}

// A dense model of one layer whose feed-forward width is 20: no multiple of 8, but of 4.
void write_narrow_model(const fs::path& folder) {
    auto json = nlohmann::ordered_json::parse(read_text(golden_folder("llama") / "config.json"));
    json["num_hidden_layers"] = 1;
    json["hidden_size"] = 32;
    json["intermediate_size"] = 20;
    json["num_attention_heads"] = 2;
    json["num_key_value_heads"] = 2;
    json["head_dim"] = 16;
    json["vocab_size"] = 64;
    json["tie_word_embeddings"] = false;
    std::ofstream(folder / "config.json") << json.dump();
    tensors_by_name tensors;
    const auto matrix = [&](const std::string& name, int64_t rows, int64_t columns) {
        tensors.add(name + ".weight", {rows, columns}, random_values(size_t(rows * columns)));
    };
    const auto vector = [&](const std::string& name) {
        tensors.add(name + ".weight", {32}, std::vector<float>(32, 1.0f));
    };
    matrix("model.embed_tokens", 64, 32);
    matrix("lm_head", 64, 32);
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
        matrix(std::string("model.layers.0.self_attn.") + name, 32, 32);
    matrix("model.layers.0.mlp.gate_proj", 20, 32);
    matrix("model.layers.0.mlp.up_proj", 20, 32);
    matrix("model.layers.0.mlp.down_proj", 32, 20);
    vector("model.norm");
    vector("model.layers.0.input_layernorm");
    vector("model.layers.0.post_attention_layernorm");
    tensors.write(folder);
}

const module_report& report_of(const quantization_report& report, const std::string& name) {
    for (const auto& module : report.modules)
        if (module.name == name) return module;
    FAIL("no report of ", name);
    return report.modules.front();
}

} // namespace

TEST_CASE("sizes that do not fill words keep their bits, and the report says so") {
    const temporary_directory source;
    const temporary_directory target;
    write_narrow_model(source.path());
    const auto four = quantizer_fixture({"group_size=32"}).run(source.path(), target.path());
    const auto& gate = report_of(four, "model.layers.0.mlp.gate_proj");
    CHECK(!gate.is_quantized);
    CHECK(gate.fallback);
    CHECK(gate.note.find("[20, 32] is no multiple of 8") != std::string::npos);
    CHECK(gate.bits == 32);
    CHECK(gate.bytes_after == gate.bytes_before);
    CHECK(!report_of(four, "model.layers.0.mlp.down_proj").is_quantized);
    CHECK(report_of(four, "model.layers.0.self_attn.q_proj").is_quantized);
    CHECK(open_checkpoint(target.path())->contains("model.layers.0.mlp.gate_proj.weight"));

    const temporary_directory second;
    const auto eight =
        quantizer_fixture({"group_size=32", "mlp=8"}).run(source.path(), second.path());
    CHECK(report_of(eight, "model.layers.0.mlp.gate_proj").is_quantized);
    CHECK(open_checkpoint(second.path())->contains("model.layers.0.mlp.gate_proj.qweight"));
}

TEST_CASE("experts stored as one tensor are taken apart") {
    const auto original = open_checkpoint(golden_folder("qwen3_moe"));
    const temporary_directory fused;
    tensors_by_name tensors;
    std::map<std::string, std::vector<std::string>> stacks; // fused name -> rows, in order
    for (const auto& name : original->names())
        if (name.find(".experts.") == std::string::npos) tensors.add(*original->find(name));
    const auto config = load_model_config(golden_folder("qwen3_moe") / "config.json");
    for (uint32_t layer = 0; layer < config.layer_count; ++layer) {
        const auto prefix = fmt::format("model.layers.{}.mlp.experts.", layer);
        for (uint32_t expert = 0; expert < config.moe.expert_count; ++expert) {
            for (const char* part : {"gate_proj", "up_proj"})
                stacks[prefix + "gate_up_proj"].push_back(
                    fmt::format("{}{}.{}.weight", prefix, expert, part));
            stacks[prefix + "down_proj"].push_back(
                fmt::format("{}{}.down_proj.weight", prefix, expert));
        }
    }
    for (const auto& [name, parts] : stacks) {
        const auto first = *original->find(parts.front());
        tensors_by_name::tensor stack{first.element_type, {}, {}};
        for (const auto& part : parts) {
            const auto view = *original->find(part);
            stack.bytes.insert(stack.bytes.end(), view.bytes.begin(), view.bytes.end());
        }
        const int64_t experts = config.moe.expert_count;
        const int64_t rows = first.shape[0] * int64_t(parts.size()) / experts;
        stack.shape = {experts, rows, first.shape[1]};
        tensors.all[name] = std::move(stack);
    }
    tensors.write(fused.path());
    fs::copy_file(golden_folder("qwen3_moe") / "config.json", fused.path() / "config.json");

    const temporary_directory from_fused;
    const temporary_directory from_plain;
    const quantizer_fixture fixture({});
    fixture.run(fused.path(), from_fused.path());
    fixture.run(golden_folder("qwen3_moe"), from_plain.path());
    CHECK(read_text(from_fused.path() / "config.json")
          == read_text(from_plain.path() / "config.json"));
    const auto left = open_checkpoint(from_fused.path());
    const auto right = open_checkpoint(from_plain.path());
    REQUIRE(left->names() == right->names());
    for (const auto& name : left->names()) {
        const auto a = left->find(name), b = right->find(name);
        CHECK_MESSAGE(
            std::equal(a->bytes.begin(), a->bytes.end(), b->bytes.begin(), b->bytes.end()), name);
    }

    // With the experts left alone the stack stays as it was.
    const temporary_directory kept;
    quantizer_fixture({"experts=16"}).run(fused.path(), kept.path());
    CHECK(open_checkpoint(kept.path())->contains("model.layers.0.mlp.experts.gate_up_proj"));
}

TEST_CASE("a checkpoint in shards gives the same file as one in a piece") {
    const temporary_directory sharded;
    tensors_by_name halves[2];
    nlohmann::json map;
    const auto original = open_checkpoint(golden_folder("llama"));
    size_t count = 0;
    for (const auto& name : original->names()) {
        const size_t half = count++ % 2;
        halves[half].add(*original->find(name));
        map[name] = half == 0 ? "a.safetensors" : "b.safetensors";
    }
    for (size_t half = 0; half < 2; ++half) {
        halves[half].write(sharded.path());
        fs::rename(sharded.path() / "model.safetensors",
                   sharded.path() / (half == 0 ? "a.safetensors" : "b.safetensors"));
    }
    sharded.write("model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
    fs::copy_file(golden_folder("llama") / "config.json", sharded.path() / "config.json");
    const temporary_directory from_shards;
    const temporary_directory from_one;
    const quantizer_fixture fixture({});
    fixture.run(sharded.path(), from_shards.path());
    fixture.run(golden_folder("llama"), from_one.path());
    const auto bytes = read_text(from_shards.path() / "model.safetensors");
    CHECK(bytes.size() > 100'000);
    CHECK(bytes == read_text(from_one.path() / "model.safetensors"));
}

TEST_CASE("a folder with files is written only when that is allowed") {
    const temporary_directory target;
    target.write("notes.txt", "mine");
    const quantizer_fixture fixture({});
    check_error([&] { fixture.run(golden_folder("llama"), target.path()); }, SLUICE_INVALID,
                {target.path().string(), "has files already", "--force"});
    CHECK(!fs::exists(target.path() / "model.safetensors"));
    CHECK_NOTHROW(fixture.run(golden_folder("llama"), target.path(), true));
    CHECK(fs::exists(target.path() / "model.safetensors"));
    CHECK(read_text(target.path() / "notes.txt") == "mine");
    CHECK_NOTHROW(fixture.run(golden_folder("llama"), target.path() / "new" / "folder"));
}

TEST_CASE("a model neither replaces itself nor is quantized twice") {
    const temporary_directory source;
    write_narrow_model(source.path());
    const quantizer_fixture fixture({});
    check_error([&] { fixture.run(source.path(), source.path(), true); }, SLUICE_INVALID,
                {"cannot replace the one it is made from"});
    const temporary_directory target;
    const temporary_directory again;
    fixture.run(source.path(), target.path());
    check_error([&] { fixture.run(target.path(), again.path()); }, SLUICE_INVALID,
                {"quantized already", "16-bit weights"});
    const auto file = target.write("file", "x");
    check_error([&] { fixture.run(source.path(), file); }, SLUICE_INVALID,
                {"expected a folder", "found a file"});
}

TEST_CASE("a checkpoint that lacks a tensor is named, and nothing is left behind") {
    const temporary_directory source;
    const temporary_directory target;
    write_narrow_model(source.path());
    tensors_by_name tensors;
    {
        const auto weights = open_checkpoint(source.path());
        for (const auto& name : weights->names())
            if (name != "model.layers.0.mlp.up_proj.weight") tensors.add(*weights->find(name));
    }
    tensors.write(source.path());
    check_error([&] { quantizer_fixture({}).run(source.path(), target.path() / "out"); },
                SLUICE_INVALID, {"model.layers.0.mlp.up_proj.weight"});
    CHECK(!fs::exists(target.path() / "out" / "model.safetensors"));
    CHECK(!fs::exists(target.path() / "out" / "config.json"));
}
