// The small golden models, loaded through real plugins.
#pragma once

#include "api/runtime.hpp"
#include "engine/kv_pool.hpp"
#include "engine/model_runner.hpp"
#include "engine/scheduler.hpp"
#include "model/safetensors.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace sluice::test {

inline const std::vector<std::string> golden_families{"llama",     "qwen3",       "mixtral",
                                                      "qwen3_moe", "deepseek_v2", "deepseek_v3"};

inline std::filesystem::path golden_folder(const std::string& family) {
    return std::filesystem::path(SLUICE_TEST_DATA_DIR) / "models" / family;
}

inline std::string golden_toml(const std::string& family, const std::string& backend) {
    return fmt::format(R"(backend = "{}"
router = "specification"
plugin_folders = ["{}"]
[model]
path = "{}"
[engine]
tokens_per_step_max = 64
sequences_max = 4
context_tokens_max = 128
cache_tokens = 1024
tokens_per_block = 8
worker_count = 2
)",
                       backend, SLUICE_PLUGIN_BUILD_DIR, golden_folder(family).string());
}

inline configuration golden_configuration(const std::string& family, const std::string& backend,
                                          const std::vector<std::string>& overrides = {}) {
    return configuration_from_text(golden_toml(family, backend), std::filesystem::current_path(),
                                   "test", overrides);
}

// Host, plugins and model; without an engine.
struct loaded_golden {
    configuration settings;
    std::shared_ptr<host_services> services;
    std::unique_ptr<plugin_host> plugins;
    std::shared_ptr<const loaded_model> model;

    explicit loaded_golden(configuration configured, const model_load_options& options = {})
        : settings(std::move(configured)), services(make_host_services(settings)),
          plugins(make_plugin_host(settings, services)),
          model(loaded_model::load(settings, *plugins, services, options)) {}
};

struct golden_file {
    std::vector<std::vector<int32_t>> tokens; // [2][40]
    std::vector<std::vector<float>> logits;   // [2][40 * vocabulary]
    std::vector<int32_t> greedy;              // [16], after tokens[0]
};

inline golden_file read_golden(const std::string& family) {
    const auto file = safetensors_file::open(golden_folder(family) / "golden.safetensors");
    const tensor_view ids = file->tensor(*file->find_entry("input_ids"));
    const tensor_view logits = file->tensor(*file->find_entry("logits"));
    const tensor_view greedy = file->tensor(*file->find_entry("greedy"));
    const auto rows = size_t(ids.shape.at(0));
    const auto columns = size_t(ids.shape.at(1));
    const auto width = size_t(logits.shape.at(2));
    const auto* numbers = reinterpret_cast<const int32_t*>(ids.bytes.data());
    const auto* values = reinterpret_cast<const float*>(logits.bytes.data());
    golden_file golden;
    for (size_t row = 0; row < rows; ++row) {
        golden.tokens.emplace_back(numbers + row * columns, numbers + (row + 1) * columns);
        golden.logits.emplace_back(values + row * columns * width,
                                   values + (row + 1) * columns * width);
    }
    const auto* continuation = reinterpret_cast<const int32_t*>(greedy.bytes.data());
    golden.greedy.assign(continuation, continuation + greedy.elements());
    return golden;
}

// Runs the first golden sequence and its continuation, whose tokens the backend must choose.
inline void check_continuation(model_runner& runner, const std::string& family) {
    kv_pool pool(runner.pool_options());
    scheduler plans({64, 4}, pool);
    const golden_file golden = read_golden(family);
    scheduled_request request;
    request.tokens = golden.tokens[0];
    request.tokens_max = uint32_t(request.tokens.size() + golden.greedy.size());
    plans.add(1, request);
    for (const int32_t expected : golden.greedy) {
        runner.run(plans.plan());
        plans.complete();
        CHECK(runner.greedy()[0].token == expected);
        plans.append(1, expected);
    }
}

inline float largest_difference(std::span<const float> left, std::span<const float> right) {
    float largest = left.size() == right.size() ? 0.0f : INFINITY;
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
        const float difference = std::fabs(left[i] - right[i]);
        largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
    }
    return largest;
}

} // namespace sluice::test
