// Parameters and bytes, against what the models' makers publish.
#include "model/model_program.hpp"

#include <doctest/doctest.h>

#include <fmt/format.h>

namespace sluice {

namespace {

parameter_account account_of(const char* name) {
    const auto config =
        load_model_config(fmt::format("{}/configs/{}.json", SLUICE_TEST_DATA_DIR, name));
    return account_parameters(config, build_model_program(config, {}));
}

} // namespace

TEST_CASE("parameters of known models") {
    // OLMoE-1B-7B: 6.9 billion, 1.3 billion active (with the embedding, which is counted as one row
    // here).
    const parameter_account olmoe = account_of("olmoe");
    CHECK(olmoe.parameter_count == 6919161856);
    CHECK(olmoe.active_parameter_count + uint64_t(50303) * 2048 == 1282017280);
    CHECK(olmoe.size_bytes == 2 * olmoe.parameter_count);
    CHECK(olmoe.types.size() == 1);
    // GLM-4.5: 355 billion with the layer that predicts further tokens, 32 billion active.
    const parameter_account glm = account_of("glm4_moe");
    CHECK(double(glm.parameter_count) == doctest::Approx(352.8e9).epsilon(0.001));
    CHECK(double(glm.active_parameter_count) == doctest::Approx(32.9e9).epsilon(0.01));
    // gpt-oss-20b: 20.9 billion, 3.6 billion active, 12.8 GiB.
    const parameter_account gpt_oss = account_of("gpt_oss");
    CHECK(double(gpt_oss.parameter_count) == doctest::Approx(20.9e9).epsilon(0.002));
    CHECK(double(gpt_oss.active_parameter_count) == doctest::Approx(3.6e9).epsilon(0.02));
    CHECK(double(gpt_oss.size_bytes) / (1 << 30) == doctest::Approx(12.8).epsilon(0.01));
}

TEST_CASE("rows of a step share what they read") {
    const auto config =
        load_model_config(fmt::format("{}/configs/olmoe.json", SLUICE_TEST_DATA_DIR));
    const model_program model = build_model_program(config, {});
    const parameter_account account = account_parameters(config, model);
    CHECK(step_bytes(config, model, 1) == doctest::Approx(double(account.bytes_per_token)));
    // 8 of 64 experts, three matrices of 2048 by 1024 in each of 16 layers: two rows miss an expert
    // with a chance of 49 in 64.
    const double experts = 2.0 * 16 * 64 * 3 * 2048 * 1024;
    CHECK(step_bytes(config, model, 2) - step_bytes(config, model, 1)
          == doctest::Approx(experts * (15.0 / 64 - 8.0 / 64)).epsilon(1e-4));
    CHECK(step_bytes(config, model, 4096)
          == doctest::Approx(double(account.size_bytes)).epsilon(0.03));
}

TEST_CASE("a latent cache is small") {
    // (64 + 16) f32 values a token in each of 3 layers.
    CHECK(account_of("deepseek_v3").cache_bytes_per_token == 3 * 80 * 4);
    // keys and values of 2 heads of 32.
    CHECK(account_of("llama").cache_bytes_per_token == 3 * 2 * 2 * 32 * 4);
}

TEST_CASE("bytes of formats") {
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = SLUICE_BF16;
    CHECK(weight_bytes(format, 10, 100) == 2000);
    format.element_type = SLUICE_U4;
    format.layout = SLUICE_WEIGHT_GPTQ;
    format.scale_type = SLUICE_F16;
    format.group_columns = 64;
    format.zero_point = SLUICE_ZERO_GROUP;
    format.group_index = 1;
    // codes, scales, zero points of two groups a row, group numbers.
    CHECK(weight_bytes(format, 8, 128) == 512 + 32 + 8 + 512);
    format = SLUICE_INIT(sluice_weight_format);
    format.element_type = SLUICE_F8_E4M3;
    format.scale_type = SLUICE_F32;
    format.group_rows = 128;
    format.group_columns = 128;
    CHECK(weight_bytes(format, 200, 300) == 60000 + 2 * 3 * 4);
}

} // namespace sluice
