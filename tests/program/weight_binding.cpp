// From checkpoints in all the layouts that exist to weights, decoded and compared value by value.
#include "model/weight_binding.hpp"

#include "../base/error_check.hpp"
#include "../base/temporary_directory.hpp"
#include "base/element_type.hpp"
#include "model/checkpoint.hpp"
#include "model/dummy_checkpoint.hpp"
#include "model/expert_spread.hpp"
#include "model/gptq_layout.hpp"
#include "model/safetensors.hpp"
#include "plain_runner.hpp"

#include <nlohmann/json.hpp>
#include <plain/weight.hpp>

#include <cmath>
#include <cstring>
#include <fstream>

namespace sluice {

namespace {

using json = nlohmann::ordered_json;

// A model of one family cut down to two small layers.
json small_config(const char* name) {
    std::ifstream stream(std::string(SLUICE_TEST_DATA_DIR) + "/configs/" + name + ".json");
    json config = json::parse(stream);
    config["hidden_size"] = 64;
    config["intermediate_size"] = 32;
    config["num_hidden_layers"] = 2;
    config["vocab_size"] = 16;
    config["eos_token_id"] = 1;
    config["pad_token_id"] = nullptr;
    config.erase("layer_types");
    return config;
}

using stored_tensor = std::pair<std::vector<int64_t>, std::vector<std::byte>>;

// A checkpoint in the making: tensors by name, with their types.
class checkpoint_maker {
  public:
    explicit checkpoint_maker(json config) : config_(std::move(config)) {}

    template <typename Element>
    void add(const std::string& name, sluice_element_type type, std::vector<int64_t> shape,
             const std::vector<Element>& values) {
        std::vector<std::byte> bytes(values.size() * sizeof(Element));
        std::memcpy(bytes.data(), values.data(), bytes.size());
        tensors_[name] = {type, {std::move(shape), std::move(bytes)}};
    }
    void add_bf16(const std::string& name, std::vector<int64_t> shape,
                  const std::vector<float>& values) {
        std::vector<uint16_t> halves;
        for (const float value : values) halves.push_back(f32_to_bf16(value));
        add(name, SLUICE_BF16, std::move(shape), halves);
    }

    std::shared_ptr<const checkpoint> open() {
        folder_.write("config.json", config_.dump());
        safetensors_writer writer(folder_.path() / "model.safetensors");
        for (const auto& [name, tensor] : tensors_) {
            writer.declare(name, tensor.first, tensor.second.first);
        }
        for (const auto& [name, tensor] : tensors_) writer.append(name, tensor.second.second);
        writer.finish();
        return open_checkpoint(folder_.path());
    }

    const json& config() const { return config_; }

  private:
    json config_;
    test::temporary_directory folder_;
    std::map<std::string, std::pair<sluice_element_type, stored_tensor>> tensors_;
};

// Values that say where they come from, all of them exact in bf16.
float value_at(const std::string& tensor, int64_t index) {
    const auto seed = static_cast<int64_t>(std::hash<std::string>{}(tensor) % 97);
    return static_cast<float>((index * 7 + seed) % 251 - 125) / 64;
}

std::vector<float> values_of(const std::string& tensor, int64_t count) {
    std::vector<float> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(value_at(tensor, i));
    return values;
}

int64_t columns_of(const weight_slice_request& slice) {
    return std::max<int64_t>(1, slice.stored_columns);
}

// Every plain tensor that the model wants, except those that `skip` names.
void add_plain_tensors(checkpoint_maker& maker, const model_program& model,
                       const std::function<bool(const std::string&)>& skip) {
    for (const weight_request& request : model.weights) {
        for (const weight_slice_request& slice : request.slices) {
            if (skip(slice.tensor)) continue;
            std::vector<int64_t> shape = {slice.stored_rows};
            if (slice.stored_columns != 0) shape.push_back(slice.stored_columns);
            if (slice.stored_transposed) std::swap(shape[0], shape[1]);
            if (slice.stack_size != 0) shape.insert(shape.begin(), slice.stack_size);
            maker.add_bf16(slice.tensor, shape,
                           values_of(slice.tensor, int64_t(*element_count(shape))));
        }
    }
}

std::vector<float> decoded(const bound_weight& weight) {
    const sluice_host table = test::one_worker_host();
    const plugin::host host(&table);
    const auto values = plain::decode(host, *weight.source());
    const int64_t count = values->matrix_count * values->row_count * values->column_count;
    const float* begin = values->values.as<float>();
    return {begin, begin + count};
}

model_program build(const json& config, const checkpoint* weights) {
    model_program_options options;
    if (weights != nullptr) options.weight_format = weight_formats_of(*weights);
    return build_model_program(parse_model_config(config.dump(), "config.json"), options);
}

const weight_request& request_of(const model_program& model, const std::string& name) {
    for (const weight_request& request : model.weights) {
        if (request.name == name) return request;
    }
    FAIL("no weight is named ", name);
    return model.weights.front();
}

bound_weight bind_named(const checkpoint& weights, const model_program& model,
                        const std::string& name) {
    const weight_request& request = request_of(model, name);
    return bind_weight(weights, request, model.step.value(request.value).weight_format);
}

} // namespace

TEST_CASE("plain tensors, and slices of them") {
    json config = small_config("deepseek_v3");
    config["n_routed_experts"] = 4;
    config["n_group"] = 2;
    config["num_experts_per_tok"] = 1;
    config["moe_intermediate_size"] = 8;
    checkpoint_maker maker(config);
    add_plain_tensors(maker, build(config, nullptr), [](const std::string&) { return false; });
    const auto files = maker.open();
    const model_program model = build(config, files.get());
    for (const weight_request& request : model.weights) {
        CAPTURE(request.name);
        const std::vector<float> found =
            decoded(bind_weight(*files, request, model.step.value(request.value).weight_format));
        std::vector<float> expected;
        for (const weight_slice_request& slice : request.slices) {
            for (int64_t row = 0; row < slice.row_count; ++row) {
                for (int64_t column = 0; column < request.column_count; ++column) {
                    expected.push_back(value_at(
                        slice.tensor, (slice.row_begin + row) * columns_of(slice) + column));
                }
            }
        }
        CHECK(found == expected);
    }
    // The rows of head 1: n = 32 of keys, then v = 32 of values, in kv_b_proj [4 * 64, 64].
    const std::string tensor = "model.layers.0.self_attn.kv_b_proj.weight";
    const std::vector<float> key = decoded(bind_named(*files, model, tensor + "/key"));
    const std::vector<float> value = decoded(bind_named(*files, model, tensor + "/value"));
    CHECK(key[(1 * 32 + 3) * 64 + 5] == value_at(tensor, (64 + 3) * 64 + 5));
    CHECK(value[(1 * 32 + 3) * 64 + 5] == value_at(tensor, (64 + 32 + 3) * 64 + 5));
}

TEST_CASE("experts stored as one tensor") {
    const json config = small_config("mixtral");
    checkpoint_maker maker(config);
    const auto is_expert = [](const std::string& name) {
        return name.find(".experts.") != std::string::npos;
    };
    add_plain_tensors(maker, build(config, nullptr), is_expert);
    for (int layer = 0; layer < 2; ++layer) {
        const std::string prefix = fmt::format("model.layers.{}.block_sparse_moe.experts.", layer);
        maker.add_bf16(prefix + "gate_up_proj", {8, 64, 64},
                       values_of(prefix + "gate_up_proj", 8 * 64 * 64));
        maker.add_bf16(prefix + "down_proj", {8, 64, 32},
                       values_of(prefix + "down_proj", 8 * 64 * 32));
    }
    const auto files = maker.open();
    const model_program model = build(config, files.get());
    const std::string prefix = "model.layers.1.block_sparse_moe.experts.";
    const std::vector<float> gate = decoded(bind_named(*files, model, prefix + "w1.weight"));
    const std::vector<float> up = decoded(bind_named(*files, model, prefix + "w3.weight"));
    const std::vector<float> down = decoded(bind_named(*files, model, prefix + "w2.weight"));
    REQUIRE(gate.size() == 8 * 32 * 64);
    for (int64_t e = 0; e < 8; ++e) {
        for (int64_t i = 0; i < 32 * 64; ++i) {
            const auto at = static_cast<size_t>(e * 32 * 64 + i);
            REQUIRE(gate[at] == value_at(prefix + "gate_up_proj", e * 64 * 64 + i));
            REQUIRE(up[at] == value_at(prefix + "gate_up_proj", e * 64 * 64 + 32 * 64 + i));
            REQUIRE(down[at] == value_at(prefix + "down_proj", e * 64 * 32 + i));
        }
    }
    // Some experts alone, as a model that is spread over several backends wants them.
    std::map<uint32_t, std::vector<uint32_t>> experts;
    for (uint32_t i = 0; i < model.step.operations().size(); ++i) {
        if (model.step.operations()[i].name != "layers.1.experts") continue;
        experts[i] = {1, 0, 0, 1, 0, 0, 0, 2};
    }
    const spread_program spread = spread_experts(model.step, model.weights, experts);
    CHECK(spread.weights.size() == model.weights.size() - 3 + 9);
    const auto bound = [&](const std::string& name) {
        for (const weight_request& request : spread.weights) {
            if (request.name != name) continue;
            return decoded(
                bind_weight(*files, request, spread.step.value(request.value).weight_format));
        }
        FAIL("no weight ", name);
        return std::vector<float>{};
    };
    const std::vector<float> part = bound(prefix + "w3.weight[0,3]");
    REQUIRE(part.size() == 2 * 32 * 64);
    for (size_t i = 0; i < 32 * 64; ++i) {
        REQUIRE(part[i] == up[i]);
        REQUIRE(part[32 * 64 + i] == up[3 * 32 * 64 + i]);
    }
    CHECK(bound(prefix + "w1.weight[1-2,4-6]").size() == 5 * 32 * 64);
    REQUIRE(spread.constants.size() == 3);
    const std::vector<int32_t> map{0, -1, -1, 1, -1, -1, -1, -1};
    CHECK(spread.constants[1].values == map);
    const auto& sum = spread.step.operations().back();
    CHECK(sum.placement == 0);
    CHECK(spread.step.value(spread.step.at("layers.1.experts[0,3]")).dimensions.size() == 2);
}

namespace {

// Adds a GPTQ module [n, k] in groups of 16 and returns its real values.
std::vector<float> add_gptq_module(checkpoint_maker& maker, const std::string& name, int64_t n,
                                   int64_t k, uint32_t bits, bool by_index) {
    gptq_parameters parameters;
    parameters.bits = bits;
    parameters.group_size = 16;
    const int64_t groups = gptq_group_count(16, k);
    std::vector<uint8_t> quantized;
    std::vector<uint8_t> zeros;
    std::vector<float> scales;
    std::vector<int32_t> group_index;
    const int64_t codes = 1 << bits;
    for (int64_t i = 0; i < n * k; ++i) {
        quantized.push_back(static_cast<uint8_t>((i * 5 + int64_t(name.size())) % codes));
    }
    for (int64_t i = 0; i < n * groups; ++i) {
        zeros.push_back(static_cast<uint8_t>(1 + i % (codes - 1)));
        scales.push_back(static_cast<float>(1 + i % 7) / 64);
    }
    for (int64_t i = 0; i < k; ++i) {
        group_index.push_back(static_cast<int32_t>(by_index ? i % groups : i / 16));
    }
    const gptq_packed packed = gptq_pack(parameters, gptq_format::gptq, n, k, quantized, zeros,
                                         scales, SLUICE_F16, group_index);
    const int64_t lanes = 32 / int64_t(bits);
    maker.add(name + ".qweight", SLUICE_I32, {k / lanes, n}, packed.qweight);
    maker.add(name + ".qzeros", SLUICE_I32, {groups, n / lanes}, packed.qzeros);
    maker.add(name + ".scales", SLUICE_F16, {groups, n}, packed.scales);
    maker.add(name + ".g_idx", SLUICE_I32, {k}, packed.g_idx);
    std::vector<float> values;
    for (int64_t row = 0; row < n; ++row) {
        for (int64_t column = 0; column < k; ++column) {
            const auto g =
                static_cast<size_t>(row * groups + group_index[static_cast<size_t>(column)]);
            const auto at = static_cast<size_t>(row * k + column);
            values.push_back(float(int(quantized[at]) - int(zeros[g])) * scales[g]);
        }
    }
    return values;
}

} // namespace

TEST_CASE("GPTQ modules, whole and sliced, in order and by index") {
    for (const uint32_t bits : {4u, 8u}) {
        for (const bool by_index : {false, true}) {
            CAPTURE(bits);
            CAPTURE(by_index);
            json config = small_config("deepseek_v3");
            config["n_routed_experts"] = 4;
            config["n_group"] = 2;
            config["num_experts_per_tok"] = 1;
            config["moe_intermediate_size"] = 16;
            config["quantization_config"] = {
                {"quant_method", "gptq"}, {"bits", bits}, {"group_size", 16},
                {"desc_act", by_index},   {"sym", false}, {"checkpoint_format", "gptq"}};
            checkpoint_maker maker(config);
            const std::string kv_b = "model.layers.0.self_attn.kv_b_proj";
            const auto is_quantized = [&](const std::string& name) {
                return name == kv_b + ".weight"
                       || name.find("layers.1.mlp.experts.") != std::string::npos;
            };
            add_plain_tensors(maker, build(config, nullptr), is_quantized);
            const auto kv_values = add_gptq_module(maker, kv_b, 4 * 64, 64, bits, by_index);
            std::vector<float> gate_values;
            for (int expert = 0; expert < 4; ++expert) {
                const std::string prefix = fmt::format("model.layers.1.mlp.experts.{}.", expert);
                const auto gate =
                    add_gptq_module(maker, prefix + "gate_proj", 16, 64, bits, by_index);
                gate_values.insert(gate_values.end(), gate.begin(), gate.end());
                add_gptq_module(maker, prefix + "up_proj", 16, 64, bits, by_index);
                add_gptq_module(maker, prefix + "down_proj", 64, 16, bits, by_index);
            }
            const auto files = maker.open();
            const model_program model = build(config, files.get());
            const std::string gate_name = "model.layers.1.mlp.experts.gate_proj.weight";
            const sluice_weight_format format =
                model.step.value(request_of(model, gate_name).value).weight_format;
            CHECK(format.layout == SLUICE_WEIGHT_GPTQ);
            CHECK(format.element_type == (bits == 4 ? SLUICE_U4 : SLUICE_U8));
            CHECK(format.group_columns == 16);
            CHECK(format.zero_point == SLUICE_ZERO_GROUP_LESS_ONE);
            CHECK(format.group_index == (by_index ? 1 : 0));
            CHECK(decoded(bind_named(*files, model, gate_name)) == gate_values);
            const std::vector<float> value =
                decoded(bind_named(*files, model, kv_b + ".weight/value"));
            for (size_t head = 0; head < 4; ++head) {
                for (size_t i = 0; i < 32 * 64; ++i) {
                    REQUIRE(value[head * 32 * 64 + i] == kv_values[(head * 64 + 32) * 64 + i]);
                }
            }
        }
    }
}

TEST_CASE("gpt-oss in MXFP4 and in bf16") {
    json config = small_config("gpt_oss");
    config["num_local_experts"] = 4;
    config["num_experts_per_tok"] = 2;
    config["experts_per_token"] = 2;
    const auto is_expert = [](const std::string& name) {
        return name.find("experts.gate_up_proj_blocks") != std::string::npos
               || name.find("experts.down_proj_blocks") != std::string::npos;
    };
    checkpoint_maker maker(config);
    add_plain_tensors(maker, build(config, nullptr), is_expert);
    constexpr int64_t experts = 4, rows = 64, columns = 64; // gate and up: 2 * 32 rows
    std::vector<uint8_t> blocks;
    std::vector<uint8_t> scales;
    for (int64_t i = 0; i < experts * rows * columns / 2; ++i) {
        blocks.push_back(static_cast<uint8_t>(i * 37 + i / 256));
    }
    for (int64_t i = 0; i < experts * rows * columns / 32; ++i) {
        scales.push_back(static_cast<uint8_t>(120 + i % 9));
    }
    for (int layer = 0; layer < 2; ++layer) {
        const std::string prefix = fmt::format("model.layers.{}.mlp.experts.", layer);
        maker.add(prefix + "gate_up_proj_blocks", SLUICE_U8, {experts, rows, 2, 16}, blocks);
        maker.add(prefix + "gate_up_proj_scales", SLUICE_U8, {experts, rows, 2}, scales);
        maker.add(prefix + "down_proj_blocks", SLUICE_U8, {experts, 64, 1, 16},
                  std::vector<uint8_t>(experts * 64 * 16, 0x21));
        maker.add(prefix + "down_proj_scales", SLUICE_U8, {experts, 64, 1},
                  std::vector<uint8_t>(experts * 64, 127));
    }
    const auto files = maker.open();
    const model_program model = build(config, files.get());
    const std::string prefix = "model.layers.1.mlp.experts.";
    const std::vector<float> gate =
        decoded(bind_named(*files, model, prefix + "gate_up_proj_blocks"));
    REQUIRE(gate.size() == experts * rows * columns);
    for (size_t i = 0; i < gate.size(); ++i) {
        const uint8_t both = blocks[i / 2];
        const float code = f4_e2m1_to_f32(i % 2 == 0 ? both & 15 : both >> 4);
        REQUIRE(gate[i] == std::ldexp(code, int(scales[i / 32]) - 127));
    }
    const std::vector<float> down = decoded(bind_named(*files, model, prefix + "down_proj_blocks"));
    CHECK(down[0] == 0.5f); // the low half of 0x21
    CHECK(down[1] == 1.0f);
    const std::vector<float> bias =
        decoded(bind_named(*files, model, prefix + "gate_up_proj_bias"));
    CHECK(bias[2 * 64 + 5] == value_at(prefix + "gate_up_proj_bias", 2 * 64 + 5));

    json plain = config;
    plain.erase("quantization_config");
    checkpoint_maker plain_maker(plain);
    add_plain_tensors(plain_maker, build(plain, nullptr), [](const std::string&) { return false; });
    const auto plain_files = plain_maker.open();
    const model_program plain_model = build(plain, plain_files.get());
    const std::vector<float> stored =
        decoded(bind_named(*plain_files, plain_model, prefix + "down_proj"));
    for (int64_t e = 0; e < experts; ++e) { // stored as [K, N]
        for (int64_t n = 0; n < 64; ++n) {
            for (int64_t k = 0; k < 32; ++k) {
                REQUIRE(stored[static_cast<size_t>((e * 64 + n) * 32 + k)]
                        == value_at(prefix + "down_proj", (e * 32 + k) * 64 + n));
            }
        }
    }
}

TEST_CASE("FP8 blocks") {
    json config = small_config("llama");
    config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {16, 32}}};
    checkpoint_maker maker(config);
    const std::string name = "model.layers.1.mlp.down_proj.weight"; // [64, 32]
    add_plain_tensors(maker, build(config, nullptr),
                      [&](const std::string& tensor) { return tensor == name; });
    std::vector<uint8_t> codes;
    for (int i = 0; i < 64 * 32; ++i) codes.push_back(static_cast<uint8_t>(i % 0x7f));
    maker.add(name, SLUICE_F8_E4M3, {64, 32}, codes);
    maker.add(name + "_scale_inv", SLUICE_F32, {4, 1}, std::vector<float>{1, 2, 0.5f, 4});
    const auto files = maker.open();
    const model_program model = build(config, files.get());
    const std::vector<float> found = decoded(bind_named(*files, model, name));
    const float scales[] = {1, 2, 0.5f, 4};
    for (size_t i = 0; i < found.size(); ++i) {
        REQUIRE(found[i] == f8_e4m3_to_f32(codes[i]) * scales[i / 32 / 16]);
    }
}

TEST_CASE("dummy weights for every family") {
    for (const char* name : {"llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3",
                             "olmoe", "glm4_moe", "gpt_oss"}) {
        CAPTURE(name);
        const json config = small_config(name);
        test::temporary_directory folder;
        folder.write("config.json", config.dump());
        const auto files = make_dummy_checkpoint(folder.path(), SLUICE_BF16);
        const model_program model = build(config, files.get());
        for (const weight_request& request : model.weights) {
            CAPTURE(request.name);
            const bound_weight weight =
                bind_weight(*files, request, model.step.value(request.value).weight_format);
            CHECK(weight.source()->matrix_count == request.matrix_count);
            CHECK(weight.source()->format->element_type == SLUICE_BF16);
        }
    }
}

TEST_CASE("checkpoints that lack something say what") {
    const json config = small_config("llama");
    const std::string name = "model.layers.1.mlp.up_proj.weight";
    const auto with = [&](const std::function<void(checkpoint_maker&)>& add, sluice_status status,
                          const std::vector<std::string>& parts) {
        checkpoint_maker maker(config);
        add_plain_tensors(maker, build(config, nullptr),
                          [&](const std::string& tensor) { return tensor == name; });
        add(maker);
        const auto files = maker.open();
        test::check_error(
            [&] {
                const model_program model = build(config, files.get());
                bind_named(*files, model, name);
            },
            status, parts);
    };
    with([](checkpoint_maker&) {}, SLUICE_INVALID, {name, "did you mean", "up_proj"});
    with(
        [&](checkpoint_maker& maker) {
            maker.add_bf16(name, {64, 32}, values_of(name, 2048));
        },
        SLUICE_INVALID, {name, "[32, 64]", "[64, 32]"});
    with(
        [&](checkpoint_maker& maker) {
            maker.add(name, SLUICE_I32, {32, 64}, std::vector<int32_t>(2048));
        },
        SLUICE_UNSUPPORTED, {name, "i32"});
    with(
        [&](checkpoint_maker& maker) {
            maker.add(name, SLUICE_F8_E4M3, {32, 64}, std::vector<uint8_t>(2048));
        },
        SLUICE_INVALID, {"_scale_inv"});
    with(
        [&](checkpoint_maker& maker) {
            add_gptq_module(maker, "model.layers.1.mlp.up_proj", 32, 64, 4, false);
        },
        SLUICE_INVALID, {"up_proj", "quantization_config"});
}

TEST_CASE("experts of one layer must be stored alike") {
    const json config = small_config("qwen3_moe");
    json changed = config;
    changed["moe_intermediate_size"] = 16;
    checkpoint_maker maker(changed);
    const std::string odd = "model.layers.0.mlp.experts.3.up_proj.weight";
    add_plain_tensors(maker, build(changed, nullptr),
                      [&](const std::string& tensor) { return tensor == odd; });
    maker.add(odd, SLUICE_F32, {16, 64}, std::vector<float>(16 * 64));
    const auto files = maker.open();
    const model_program model = build(changed, files.get());
    test::check_error(
        [&] { bind_named(*files, model, "model.layers.0.mlp.experts.up_proj.weight"); },
        SLUICE_INVALID, {odd, "bf16", "f32"});
}

} // namespace sluice
