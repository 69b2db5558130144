// Which modules of a model are written quantized, in the terms of the GPTQ layout, and the
// quantization_config that says so.
#pragma once

#include "config/configuration.hpp"
#include "model/gptq_config.hpp"
#include "plugin/plugin_host.hpp"
#include "quantization/module_list.hpp"

#include <optional>
#include <string>
#include <vector>

namespace sluice {

struct module_plan {
    sluice_weight_format format{};             // what the quantizer answered
    std::optional<gptq_parameters> parameters; // nothing: the module stays as it is
    // Why a module stays although the quantizer would change it; empty when it would not.
    std::string kept_reason;
};

// As the quantizer sees a module.
sluice_module module_for_plugin(const stored_module& module, sluice_element_type stored_type);

// Asks the quantizer about every module that no rule decides; one plan for each. Fails with
// UNSUPPORTED for formats that the GPTQ layout cannot hold. Modules that the layout has no place
// for stay as they are, and so do all that make up one weight with such a module. `stored_types`:
// of the checkpoint, by module. Where several rules match, the last one counts; one that matches
// nothing is INVALID.
std::vector<module_plan> plan_modules(const plugin_instance& quantizer, const module_list& list,
                                      const std::vector<sluice_element_type>& stored_types,
                                      const std::vector<module_format_configuration>& rules = {});

// The configuration that resolves every module as planned: the commonest parameters for the model,
// and few patterns for what differs.
gptq_config make_gptq_config(const module_list& list, const std::vector<module_plan>& plans);

} // namespace sluice
