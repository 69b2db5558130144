// Where the time of a step goes, by kind of operation.
#pragma once

#include "engine/loaded_model.hpp"

#include <nlohmann/json.hpp>

#include <memory>

namespace sluice::command {

// Runs a prompt of random tokens, then `batch` of them with a few single tokens after each, and
// adds up what the backend measured in the last step of either, over the layers: {"prefill":
// [{"operation", "count", "seconds"}...], "decode": [...]}, longest first. Operations that a
// backend runs together count at the last of them. Fails where the backend takes no profile.
nlohmann::ordered_json profile_report(const std::shared_ptr<const loaded_model>& model,
                                      uint32_t prompt_tokens, uint32_t batch);

void print_profile(const nlohmann::ordered_json& report);

} // namespace sluice::command
