// sluice bench --prompt: one text with and without [speculation], in turns.
#pragma once

#include "config/configuration.hpp"
#include "engine/loaded_model.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <memory>
#include <string>

namespace sluice::command {

struct speculation_bench_options {
    std::string prompt;
    uint32_t decode_tokens = 128; // that follow the first one
    uint32_t repetitions = 3;
};

// Generates the same text with two engines that share a model, and compares medians. Parameters of
// sampling are the configuration's; the text ends by its length alone. A configuration without a
// method is measured with "prompt_lookup".
nlohmann::ordered_json speculation_bench(const std::shared_ptr<const loaded_model>& model,
                                         configuration configuration, plugin_host& plugins,
                                         const speculation_bench_options& options);
void print_speculation_bench(const nlohmann::ordered_json& report);

} // namespace sluice::command
