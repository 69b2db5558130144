// The gptq quantizer from text to a checkpoint that runs: better than rounding, resumed where it
// was interrupted, mixed as rules say.
#include "base/error_check.hpp"
#include "base/mapped_file.hpp"
#include "engine/logits_runner.hpp"
#include "model/gptq_layout.hpp"
#include "quantization/quantizer_fixture.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

using namespace sluice;
using namespace sluice::test;

namespace {

namespace fs = std::filesystem;

constexpr auto family = "qwen3_moe";

quantize_options options_for(const quantizer_fixture& fixture, const fs::path& target) {
    quantize_options options;
    options.target = target;
    options.backend = fixture.backend();
    options.settings = "test";
    for (const auto& tokens : read_golden(family).tokens)
        options.calibration.windows.emplace_back(tokens.begin(), tokens.end());
    return options;
}

quantization_report run(const quantizer_fixture& fixture, const quantize_options& options) {
    return quantize_checkpoint(golden_folder(family), fixture.plugin(), options);
}

// Of the logits, from the golden ones.
double mean_difference(const fs::path& model) {
    auto configured = golden_configuration(family, "reference");
    configured.model.path = model;
    const loaded_golden loaded(std::move(configured));
    const auto golden = read_golden(family);
    double sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < golden.tokens.size(); ++i) {
        const auto logits = logits_runner(loaded.model).forward(golden.tokens[i]);
        for (size_t k = 0; k < logits.size(); ++k)
            sum += std::abs(double(logits[k]) - double(golden.logits[i][k]));
        count += logits.size();
    }
    return sum / double(count);
}

const module_report& report_of(const quantization_report& report, std::string_view part) {
    const auto found =
        std::find_if(report.modules.begin(), report.modules.end(), [&](const auto& module) {
            return module.name.find(part) != std::string::npos;
        });
    REQUIRE(found != report.modules.end());
    return *found;
}

} // namespace

TEST_CASE("gptq loses less than rounding, by its own report, module by module") {
    const quantizer_fixture fixture({"attention=4", "group_size=32"}, "gptq");
    const temporary_directory target;
    const auto report = run(fixture, options_for(fixture, target.path()));
    CHECK(report.calibration_tokens > 0);
    double lost = 0, lost_by_rounding = 0;
    size_t quantized = 0;
    for (const auto& module : report.modules) {
        if (!module.is_quantized) continue;
        CAPTURE(module.name);
        ++quantized;
        CHECK(module.damping >= 0.01);
        CHECK(module.rounding_error_relative > 0);
        lost += module.error_relative;
        lost_by_rounding += module.rounding_error_relative;
    }
    CHECK(quantized > 10);
    CHECK(lost < 0.9 * lost_by_rounding);
    CHECK(!fs::exists(target.path() / "partial"));
    const auto written =
        nlohmann::ordered_json::parse(read_text(target.path() / "quantization_report.json"));
    CHECK(written == to_json(report));

    const temporary_directory rounded;
    quantizer_fixture({"attention=4", "group_size=32"}).run(golden_folder(family), rounded.path());
    CHECK(mean_difference(target.path()) < 0.9 * mean_difference(rounded.path()));
}

TEST_CASE("an interrupted run goes on and ends as one that was not") {
    const quantizer_fixture fixture({}, "gptq");
    const temporary_directory whole, parts;
    run(fixture, options_for(fixture, whole.path()));
    quantize_options options = options_for(fixture, parts.path());
    options.on_progress = [](uint64_t done, uint64_t total) {
        if (done == total - 2) throw error(SLUICE_CANCELLED, "stopped");
    };
    CHECK_THROWS(run(fixture, options));
    CHECK(!fs::exists(parts.path() / "model.safetensors"));

    // Not with other settings.
    quantize_options others = options_for(fixture, parts.path());
    others.settings = "others";
    check_error([&] { run(fixture, others); }, SLUICE_INVALID, {"interrupted run with another"});

    options.on_progress = {};
    const auto report = run(fixture, options);
    CHECK(report.resumed_modules > 0);
    CHECK(std::ranges::equal(mapped_file::open(whole.path() / "model.safetensors")->bytes(),
                             mapped_file::open(parts.path() / "model.safetensors")->bytes()));
    CHECK(!fs::exists(parts.path() / "partial"));
}

TEST_CASE("an expert that sees too few tokens is an error, which can be allowed") {
    const quantizer_fixture fixture({}, "gptq");
    const temporary_directory target;
    quantize_options options = options_for(fixture, target.path());
    options.expert_tokens_min = 100000;
    check_error([&] { run(fixture, options); }, SLUICE_INVALID,
                {"tokens of the calibration text came to"});
    options.expert_tokens_min = 0;
    options.calibration.windows = {{1, 2}}; // most experts see nothing
    options.overwrite = true;
    const auto report = run(fixture, options);
    const auto unseen = std::count_if(report.modules.begin(), report.modules.end(), [](auto& each) {
        return each.kind == SLUICE_MODULE_EXPERT && each.token_count == 0;
    });
    CHECK(unseen > 0);
    for (const auto& module : report.modules) CHECK(!module.fallback); // the layer's tokens served
}

TEST_CASE("rules decide before the quantizer") {
    const quantizer_fixture fixture({}, "gptq");
    const temporary_directory target;
    quantize_options options = options_for(fixture, target.path());
    options.formats = {{name_pattern("model.layers.*.self_attn.**"), 8, 32, false, {}},
                       {name_pattern("model.layers.0.mlp.experts.**"), 16, 64, true, {}},
                       {name_pattern("model.layers.*.self_attn.o_proj"), 16, 64, true, {}}};
    const auto report = run(fixture, options);
    CHECK(report_of(report, "layers.0.self_attn.q_proj").bits == 8);
    CHECK(!report_of(report, "layers.0.self_attn.q_proj").is_symmetric);
    CHECK(!report_of(report, "layers.0.self_attn.o_proj").is_quantized);
    CHECK(!report_of(report, "layers.0.mlp.experts").is_quantized);
    CHECK(report_of(report, "layers.1.mlp.experts").bits == 4);

    const temporary_directory other;
    options.target = other.path();
    options.formats = {{name_pattern("model.layers.*.attention.**"), 8, 32, true, {}}};
    check_error([&] { run(fixture, options); }, SLUICE_INVALID, {"matches no module"});
}
