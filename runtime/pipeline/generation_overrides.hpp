// Which parameters of generation a stage or a request sets, over the configuration's defaults.
#pragma once

#include "config/configuration.hpp"
#include "engine/generation.hpp"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace sluice {

struct generation_overrides {
    std::optional<uint32_t> tokens_max;
    std::optional<double> temperature;
    std::optional<uint32_t> top_k;
    std::optional<double> top_p;
    std::optional<double> min_p;
    std::optional<double> repetition_penalty;
    std::optional<uint64_t> seed;
    std::optional<std::vector<std::string>> stop;
    std::optional<bool> end_tokens_stop;

    void apply_to(generation_parameters& parameters) const;
};

generation_parameters parameters_of(const generation_configuration& configuration);

// From the settings of a stage. Fails with SLUICE_INVALID, naming place and nearest name, for an
// unknown key, a wrong type or a value out of range.
generation_overrides overrides_from_settings(const configured_settings& settings,
                                             const std::string& stage);

} // namespace sluice
