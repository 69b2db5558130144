// One module through a quantizer plugin and into the GPTQ layout.
#pragma once

#include "model/checkpoint.hpp"
#include "model/gptq_layout.hpp"
#include "model/weight_binding.hpp"
#include "plugin/plugin_host.hpp"
#include "quantization/calibrator.hpp"
#include "quantization/gptq_plan.hpp"
#include "quantization/module_report.hpp"

#include <vector>

namespace sluice {

struct quantized_module {
    gptq_packed packed;
    module_report report;
};

class module_quantizer {
  public:
    // All outlive it.
    module_quantizer(const plugin_instance& quantizer, const checkpoint& weights,
                     const weight_format_function& format_of, gptq_format format)
        : quantizer_(quantizer), weights_(weights), format_of_(format_of), format_(format) {}

    // inputs: nullptr where the quantizer wants none. The plan has parameters.
    quantized_module quantize(const stored_module& module, const module_plan& plan,
                              const module_inputs* inputs) const;
    // What the packed values stand for, float32 [rows, columns].
    std::vector<float> values(const stored_module& module, const module_plan& plan,
                              const gptq_packed& packed) const;
    // Name, shape and size before; as if the module were kept.
    module_report describe(const stored_module& module) const;

  private:
    sluice_element_type stored_type(const stored_module& module) const {
        return format_of_(module.request.slices.front().tensor).element_type;
    }
    std::vector<float> read_matrix(const stored_module& module) const;

    const plugin_instance& quantizer_;
    const checkpoint& weights_;
    const weight_format_function& format_of_;
    gptq_format format_;
};

} // namespace sluice
