// A quantized checkpoint loads again, computes what its dequantized weights compute, and stays near
// the original.
#include "engine/logits_runner.hpp"
#include "model/gptq_layout.hpp"
#include "quantization/quantizer_fixture.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace sluice;
using namespace sluice::test;

namespace {

namespace fs = std::filesystem;

std::vector<float> logits_of(const fs::path& model, std::span<const int32_t> tokens) {
    auto configured = golden_configuration("llama", "reference");
    configured.model.path = model;
    const loaded_golden loaded(std::move(configured));
    return logits_runner(loaded.model).forward(tokens);
}

// The same model with every quantized module as a plain f32 matrix.
void write_dequantized(const fs::path& quantized, const fs::path& target) {
    const auto weights = open_checkpoint(quantized);
    const auto config = *gptq_config::of(*weights);
    tensors_by_name plain;
    for (const auto& name : weights->names()) {
        if (name.ends_with(".qweight")) {
            const auto prefix = name.substr(0, name.rfind('.'));
            const auto packed = weights->find(name);
            const auto bits = config.resolve(prefix)->bits;
            const int64_t rows = packed->shape[1];
            const int64_t columns = packed->shape[0] * 32 / bits;
            std::vector<float> values(size_t(rows * columns));
            gptq_dequantize(open_gptq_module(*weights, config, prefix, rows, columns), 0, rows, 0,
                            columns, values);
            plain.add(prefix + ".weight", {rows, columns}, values);
        } else if (!name.ends_with(".qzeros") && !name.ends_with(".scales")
                   && !name.ends_with(".g_idx")) {
            plain.add(*weights->find(name));
        }
    }
    plain.write(target);
    auto json = weights->config().to_json();
    json.erase("quantization_config");
    std::ofstream(target / "config.json") << json.dump(2);
}

void check_round_trip(const std::string& family, const std::vector<std::string>& settings) {
    CAPTURE(family);
    const temporary_directory quantized;
    const temporary_directory plain;
    quantizer_fixture(settings).run(golden_folder(family), quantized.path());
    write_dequantized(quantized.path(), plain.path());
    const auto golden = read_golden(family);
    const auto expected = logits_of(plain.path(), golden.tokens[0]);
    const auto found = logits_of(quantized.path(), golden.tokens[0]);
    CHECK(largest_difference(found, expected) < 1e-3f);
    // It is another model than the original: the comparison above is not of equal files.
    const std::span<const float> original(golden.logits[0]);
    CHECK(largest_difference(found, original) > 1e-3f);
}

} // namespace

TEST_CASE("a quantized model computes what its dequantized weights compute") {
    check_round_trip("mixtral", {"group_size=64"});
    check_round_trip("deepseek_v3", {"group_size=32", "symmetric=false", "head=8"});
    check_round_trip("qwen3_moe", {"group_size=-1", "attention=4"});
}

TEST_CASE("8 bits of a dense model stay near the golden logits") {
    const temporary_directory target;
    auto settings = all_eight_bits();
    settings.push_back("group_size=32");
    quantizer_fixture(settings).run(golden_folder("llama"), target.path());
    const auto golden = read_golden("llama");
    const auto found = logits_of(target.path(), golden.tokens[0]);
    CHECK(largest_difference(found, golden.logits[0]) < 0.5f);
}

TEST_CASE("every weight is within half a step of the original") {
    const temporary_directory target;
    const auto report =
        quantizer_fixture({"scale_search=false"}).run(golden_folder("mixtral"), target.path());
    const auto original = open_checkpoint(golden_folder("mixtral"));
    const auto written = open_checkpoint(target.path());
    const auto config = *gptq_config::of(*written);
    size_t checked = 0;
    for (const auto& module : report.modules) {
        if (!module.is_quantized) continue;
        const auto packed =
            open_gptq_module(*written, config, module.name, module.row_count, module.column_count);
        const auto weights =
            original->tensor(module.name + ".weight", {module.row_count, module.column_count})
                .to_f32();
        std::vector<float> values(weights.size());
        gptq_dequantize(packed, 0, module.row_count, 0, module.column_count, values);
        double error_squared = 0, weight_squared = 0;
        float worst = 0; // in steps
        for (size_t i = 0; i < values.size(); ++i) {
            const auto n = int64_t(i) / module.column_count;
            const auto k = int64_t(i) % module.column_count;
            const float difference = std::fabs(values[i] - weights[i]);
            worst = std::max(worst, difference / packed.scale(n, packed.group_of(k)));
            error_squared += double(difference) * difference;
            weight_squared += double(weights[i]) * weights[i];
        }
        CHECK_MESSAGE(worst < 0.51f, module.name);
        CHECK(module.error_relative
              == doctest::Approx(error_squared / weight_squared).epsilon(1e-3));
        ++checked;
    }
    CHECK(checked == 3 * (4 + 8 * 3)); // layers of attention and experts
}

TEST_CASE("what is not quantized is copied byte for byte, and the files go along") {
    const temporary_directory target;
    const auto report = quantizer_fixture({}).run(golden_folder("deepseek_v3"), target.path());
    const auto original = open_checkpoint(golden_folder("deepseek_v3"));
    const auto written = open_checkpoint(target.path());
    size_t copied = 0;
    for (const auto& name : original->names()) {
        const auto before = original->find(name);
        const auto after = written->find(name);
        if (!after) continue;
        ++copied;
        CHECK(after->element_type == before->element_type);
        CHECK(after->shape == before->shape);
        CHECK(std::equal(before->bytes.begin(), before->bytes.end(), after->bytes.begin(),
                         after->bytes.end()));
    }
    size_t quantized = 0;
    for (const auto& module : report.modules) quantized += module.is_quantized ? 1 : 0;
    CHECK(copied + quantized == original->names().size());
    CHECK(written->contains("model.norm.weight"));
    CHECK(written->contains("model.layers.1.mlp.gate.weight"));
    CHECK(report.bytes_before == original->size_bytes());
    CHECK(report.bytes_after == written->size_bytes());
    uint64_t bytes_after = report.other_bytes;
    for (const auto& module : report.modules) bytes_after += module.bytes_after;
    CHECK(bytes_after == report.bytes_after);
    CHECK(read_text(target.path() / "generation_config.json")
          == read_text(golden_folder("deepseek_v3") / "generation_config.json"));

    const auto before =
        nlohmann::json::parse(read_text(golden_folder("deepseek_v3") / "config.json"));
    auto after = nlohmann::json::parse(read_text(target.path() / "config.json"));
    const auto quantization = after["quantization_config"];
    after.erase("quantization_config");
    CHECK(after == before);
    for (const char* key : {"bits", "group_size", "desc_act", "sym", "lm_head", "quant_method",
                            "checkpoint_format", "pack_dtype", "dynamic", "meta"})
        CHECK_MESSAGE(quantization.contains(key), key);
}
