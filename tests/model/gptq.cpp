#include "model/gptq_config.hpp"
#include "model/gptq_layout.hpp"

#include "../base/error_check.hpp"
#include "../base/temporary_directory.hpp"

#include "base/atomic_file.hpp"
#include "base/element_type.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cstring>
#include <random>

using namespace sluice;
using test::check_error;

namespace {

constexpr int64_t fixture_outputs = 8, fixture_inputs = 40;

std::vector<std::string> fixture_modules() {
    std::vector<std::string> names;
    for (const char* bits : {"bits4", "bits8"}) {
        for (const char* symmetry : {"symmetric", "asymmetric"}) {
            for (const char* order : {"plain", "ordered"}) {
                names.push_back(std::string("model.layers.0.") + bits + "_" + symmetry + "_"
                                + order);
            }
        }
    }
    return names;
}

template <typename T>
std::vector<T> values_of(const tensor_view& tensor) {
    std::vector<T> values(tensor.bytes.size() / sizeof(T));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
}

gptq_config parse(const std::string& text) {
    return gptq_config::parse(parse_json("{\"quantization_config\":" + text + "}", "config.json")
                                  .at("quantization_config"));
}

} // namespace

TEST_CASE("modules packed by another program unpack to the values it packed") {
    for (const char* form : {"gptq", "gptq_v2"}) {
        std::filesystem::path folder = std::filesystem::path(SLUICE_TEST_DATA_DIR) / "gptq" / form;
        auto model = open_checkpoint(folder);
        auto expected = safetensors_file::open(folder / "expected.safetensors");
        auto expected_tensor = [&](const std::string& name) {
            return expected->tensor(*expected->find_entry(name));
        };
        gptq_config config = *gptq_config::of(*model);
        CHECK((config.format() == gptq_format::gptq_v2) == (std::string(form) == "gptq_v2"));
        CHECK(!config.resolve("model.layers.0.gate"));
        for (const std::string& name : fixture_modules()) {
            INFO(name);
            REQUIRE(has_gptq_module(*model, name));
            gptq_module module =
                open_gptq_module(*model, config, name, fixture_outputs, fixture_inputs);
            CHECK(module.parameters.bits == (name.find("bits8") != std::string::npos ? 8 : 4));
            CHECK(module.parameters.symmetric == (name.find("asym") == std::string::npos));
            CHECK(module.has_sequential_groups() == (name.find("plain") != std::string::npos));
            CHECK(module.groups == 3); // the last of 8 features only
            gptq_unpacked unpacked = gptq_unpack(module);
            CHECK(unpacked.quantized == values_of<uint8_t>(expected_tensor(name + ".q")));
            CHECK(unpacked.zeros == values_of<uint8_t>(expected_tensor(name + ".zeros")));
            std::vector<float> weight(fixture_outputs * fixture_inputs);
            gptq_dequantize(module, 0, fixture_outputs, 0, fixture_inputs, weight);
            CHECK(weight == expected_tensor(name + ".weight").to_f32());
            std::vector<float> part(2 * 5);
            gptq_dequantize(module, 3, 5, 30, 35, part);
            for (size_t i = 0; i < part.size(); ++i) {
                CHECK(part[i] == weight[(3 + i / 5) * fixture_inputs + 30 + i % 5]);
            }
            // And packs back to the same words.
            gptq_packed packed =
                gptq_pack(module.parameters, config.format(), fixture_outputs, fixture_inputs,
                          unpacked.quantized, unpacked.zeros, unpacked.scales,
                          module.scales.element_type, unpacked.group_index);
            CHECK(packed.qweight == values_of<int32_t>(module.qweight));
            CHECK(packed.qzeros == values_of<int32_t>(module.qzeros));
            CHECK(packed.scales == values_of<std::byte>(module.scales));
            CHECK(packed.g_idx == values_of<int32_t>(*module.g_idx));
        }
        CHECK(!has_gptq_module(*model, "model.layers.0.gate"));
    }
}

TEST_CASE("a borrowed zero point of format gptq is undone over the whole word") {
    // Zero points 0 and 5 to 11 with one subtracted from every lane of the word: 0 borrows.
    uint32_t word = 0;
    for (uint32_t lane = 1; lane < 8; ++lane) word |= (lane + 4) << (4 * lane);
    std::vector<int32_t> words = {int32_t(word - 0x11111111u)};
    gptq_module module;
    module.output_features = 8;
    module.input_features = 8;
    module.groups = 1;
    module.qzeros.bytes = std::as_bytes(std::span(words));
    CHECK(module.zero_point(0, 0) == 0);
    for (int64_t n = 1; n < 8; ++n) CHECK(module.zero_point(n, 0) == n + 4);
}

TEST_CASE("a written checkpoint is read back with its configuration") {
    test::temporary_directory folder;
    std::mt19937 random(7);
    gptq_config config({4, 64, true, false}, gptq_format::gptq);
    config.add_override({".*\\.down_proj$", true, 8, -1, {}, {}});
    config.add_override({gptq_config::exact_pattern("lm_head"), false, {}, {}, {}, {}});
    config.set_modules_in_block({"up_proj", "down_proj"});
    struct case_data {
        std::string name;
        int64_t outputs, inputs;
        std::vector<uint8_t> quantized, zeros;
        std::vector<float> scales;
    };
    std::vector<case_data> cases;
    safetensors_writer writer(folder.path() / "model.safetensors");
    for (const char* name : {"model.layers.3.mlp.up_proj", "model.layers.3.mlp.down_proj"}) {
        case_data item{name, 16, 192, {}, {}, {}};
        gptq_parameters parameters = *config.resolve(name);
        int64_t groups = gptq_group_count(parameters.group_size, item.inputs);
        uint32_t levels = 1u << parameters.bits;
        for (int64_t i = 0; i < item.outputs * item.inputs; ++i) {
            item.quantized.push_back(uint8_t(random() % levels));
        }
        for (int64_t i = 0; i < item.outputs * groups; ++i) {
            item.zeros.push_back(uint8_t(1 + random() % (levels - 1)));
            item.scales.push_back(bf16_to_f32(uint16_t(0x3c00 + random() % 64)));
        }
        declare_gptq_module(writer, name, parameters, item.outputs, item.inputs, SLUICE_BF16);
        cases.push_back(std::move(item));
    }
    for (const case_data& item : cases) {
        append_gptq_module(writer, item.name,
                           gptq_pack(*config.resolve(item.name), config.format(), item.outputs,
                                     item.inputs, item.quantized, item.zeros, item.scales,
                                     SLUICE_BF16));
    }
    writer.finish();
    nlohmann::ordered_json json = {{"quantization_config", config.to_json("sluice:0.1.0")}};
    write_file_atomically(folder.path() / "config.json", json.dump());

    auto model = open_checkpoint(folder.path());
    gptq_config read = *gptq_config::of(*model);
    CHECK(read.to_json("sluice:0.1.0") == config.to_json("sluice:0.1.0"));
    for (const case_data& item : cases) {
        gptq_module module = open_gptq_module(*model, read, item.name, item.outputs, item.inputs);
        gptq_unpacked unpacked = gptq_unpack(module);
        CHECK(unpacked.quantized == item.quantized);
        CHECK(unpacked.zeros == item.zeros);
        CHECK(unpacked.scales == item.scales);
        CHECK(module.has_sequential_groups());
    }
    CHECK(!read.resolve("lm_head"));
    CHECK(!read.resolve("model.layers.3.self_attn.q_proj"));
}

TEST_CASE("the configuration has the keys that other engines look for") {
    gptq_config config({8, 32, false, true}, gptq_format::gptq_v2);
    config.add_override({"lm_head", false, {}, {}, {}, {}});
    nlohmann::ordered_json json = config.to_json("sluice:0.1.0");
    CHECK(json.dump()
          == R"({"bits":8,"dynamic":{"-:lm_head":{}},"group_size":32,"desc_act":true,"sym":false,)"
             R"("lm_head":false,"quant_method":"gptq","checkpoint_format":"gptq_v2",)"
             R"("pack_dtype":"int32","meta":{"quantizer":["sluice:0.1.0"]}})");
}

TEST_CASE("the dynamic map resolves as GPTQModel does") {
    gptq_config config = parse(R"({"bits": 4, "group_size": 128, "quant_method": "gptq",
        "dynamic": {
            "model\\.layers\\.1\\.": {"bits": 8},
            "+:.*\\.down_proj": {"group_size": 32, "sym": false, "desc_act": true, "mse": 2.4},
            "-:.*self_attn": {}
        }})");
    CHECK(config.resolve("model.layers.0.mlp.up_proj") == gptq_parameters{4, 128, true, false});
    CHECK(config.resolve("model.layers.0.mlp.down_proj") == gptq_parameters{4, 32, false, true});
    CHECK(config.resolve("model.layers.1.mlp.down_proj")->bits == 8); // the first match only
    CHECK(config.resolve("model.layers.1.mlp.down_proj")->group_size == 128);
    CHECK(!config.resolve("model.layers.1.self_attn.q_proj")); // negative ones first
    CHECK(config.resolve("x.model.layers.1.up")->bits == 4);   // matched from the beginning
    CHECK(!config.resolve("lm_head"));                         // only when lm_head is true
    CHECK(parse(R"({"bits": 4, "quant_method": "gptq", "lm_head": true, "dynamic": false})")
              .resolve("lm_head"));
}

TEST_CASE("modules_in_block_to_quantize leaves the others alone, in both of its forms") {
    for (const char* list :
         {R"([["self_attn.q_proj"], ["mlp.up_proj"]])", R"(["self_attn.q_proj", "mlp.up_proj"])"}) {
        gptq_config config = parse(std::string(R"({"bits": 4, "quant_method": "gptq",
            "modules_in_block_to_quantize": )")
                                   + list + "}");
        CHECK(config.resolve("model.layers.0.mlp.up_proj"));
        CHECK(!config.resolve("model.layers.0.mlp.down_proj"));
    }
}

TEST_CASE("an exact pattern matches its module only") {
    std::string name = "model.layers.0.mlp.experts.1(+x)";
    gptq_config config({4, 128, true, false}, gptq_format::gptq);
    config.add_override({gptq_config::exact_pattern(name), true, 8, {}, {}, {}});
    CHECK(config.resolve(name)->bits == 8);
    CHECK(config.resolve(name + "0")->bits == 4);
    CHECK(config.resolve("model_layers.0.mlp.experts.1(+x)")->bits == 4);
}

TEST_CASE("a pattern that runs away is stopped") {
    gptq_config config({4, 128, true, false}, gptq_format::gptq);
    config.add_override({"(a+)+$", true, 8, {}, {}, {}});
    check_error([&] { config.resolve(std::string(60, 'a') + "b"); }, SLUICE_INVALID,
                {"dynamic[\"(a+)+$\"]", "match limit"});
}

TEST_CASE("values that do not fit are refused when packing") {
    std::vector<uint8_t> q(64, 3), zeros(8, 8);
    std::vector<float> scales(8, 0.5f);
    gptq_parameters parameters{4, -1, true, false};
    auto pack = [&](gptq_format format = gptq_format::gptq, int64_t n = 8, int64_t k = 8,
                    sluice_element_type type = SLUICE_F16, std::vector<int32_t> groups = {}) {
        gptq_pack(parameters, format, n, k, q, zeros, scales, type, groups);
    };
    pack();
    check_error([&] { pack(gptq_format::gptq, 8, 12); }, SLUICE_INVALID, {"multiples of 8", "12"});
    check_error([&] { pack(gptq_format::gptq, 16); }, SLUICE_INVALID, {"expected 128 values"});
    check_error([&] { pack(gptq_format::gptq, 8, 8, SLUICE_I8); }, SLUICE_INVALID, {"i8"});
    check_error([&] { pack(gptq_format::gptq, 8, 8, SLUICE_F16, std::vector<int32_t>(8, 1)); },
                SLUICE_INVALID, {"expected 0 to 0, found 1"});
    zeros[3] = 0;
    check_error([&] { pack(); }, SLUICE_INVALID, {"zero points[3]", "1 to 15"});
    pack(gptq_format::gptq_v2);
    zeros[3] = 16;
    check_error([&] { pack(gptq_format::gptq_v2); }, SLUICE_INVALID, {"zero points[3]", "16"});
    zeros[3] = 8, q[9] = 16;
    check_error([&] { pack(); }, SLUICE_INVALID, {"quantized values[9]", "0 to 15", "16"});
    q[9] = 3, scales[2] = 70000;
    check_error([&] { pack(); }, SLUICE_INVALID, {"scales[2, 0]", "f16"});
    pack(gptq_format::gptq, 8, 8, SLUICE_BF16);
    scales[2] = std::numeric_limits<float>::quiet_NaN();
    check_error([&] { pack(gptq_format::gptq, 8, 8, SLUICE_F32); }, SLUICE_INVALID, {"finite"});
    scales[2] = 1, parameters.bits = 3;
    check_error([&] { pack(); }, SLUICE_UNSUPPORTED, {"bits", "3"});
}
