// From a checkpoint to a quantized one in the Hugging Face GPTQ layout, module by module.
#pragma once

#include "plugin/plugin_host.hpp"
#include "quantization/calibrator.hpp"
#include "quantization/gptq_plan.hpp"
#include "quantization/module_report.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace sluice {

struct quantize_options {
    std::filesystem::path target; // the folder to be written; made if it is not there
    bool overwrite = false;       // write into a folder that has files already
    std::vector<module_format_configuration> formats; // before what the quantizer says

    // For quantizers that want statistics of the modules' inputs.
    std::shared_ptr<plugin_instance> backend; // runs the model
    calibration_options calibration;
    // An expert that sees fewer tokens is an error, unless that is allowed.
    uint32_t expert_tokens_min = 0;
    // Settings of the quantizer, in any words: an interrupted run goes on only where they are the
    // same.
    std::string settings;

    // Called after each module of the model, from the calling thread.
    std::function<void(uint64_t done, uint64_t total)> on_progress;
};

// Reads the checkpoint in `source`, asks the quantizer which modules change and how, and writes
// model.safetensors, config.json, quantization_report.json and copies of the tokenizer's and the
// generation's files. The weights appear in the target whole or not at all, and config.json after
// them.
//
// A quantizer that wants statistics is given them layer by layer, those of later layers from the
// quantized earlier ones; one layer is in memory at a time. What is done is kept in the target's
// folder "partial", from which an interrupted run with the same model, text and settings goes on.
//
// Fails with INVALID for a target that has files (unless `overwrite`) or is the source, for a
// checkpoint that is quantized already, for experts that saw too few tokens, and where a quantizer
// wants statistics and there is no text.
quantization_report quantize_checkpoint(const std::filesystem::path& source,
                                        const plugin_instance& quantizer,
                                        const quantize_options& options);

} // namespace sluice
