// From a checkpoint to a quantized one in the Hugging Face GPTQ layout, module by module.
#pragma once

#include "plugin/plugin_host.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace sluice {

struct quantize_options {
    std::filesystem::path target; // the folder to be written; made if it is not there
    bool overwrite = false;       // write into a folder that has files already
    // Called after each module of the model, from the calling thread.
    std::function<void(uint64_t done, uint64_t total)> on_progress;
};

// What became of one module.
struct module_report {
    std::string name;
    uint32_t kind = 0; // SLUICE_MODULE_*
    int64_t row_count = 0;
    int64_t column_count = 0;
    uint32_t bits = 16;     // of an element as it is stored now
    int64_t group_size = 0; // -1: the whole row; 0: not quantized
    bool is_quantized = false;
    bool is_symmetric = true;
    uint64_t bytes_before = 0;
    uint64_t bytes_after = 0;
    double error_relative = 0; // |W - W'|^2 / |W|^2, as the quantizer reports it
    bool fallback = false;     // not as the settings asked; `note` says why
    std::string note;
};

struct quantization_report {
    std::vector<module_report> modules;
    uint64_t other_tensors = 0; // norms, biases and what the model does not use; copied
    uint64_t other_bytes = 0;
    uint64_t bytes_before = 0; // of all tensors
    uint64_t bytes_after = 0;
};

// Reads the checkpoint in `source`, asks the quantizer which modules change and how, and writes
// model.safetensors, config.json and copies of the tokenizer's and the generation's files. One
// module is in memory at a time. The weights appear in the target whole or not at all, and
// config.json after them. Fails with INVALID for a target that has files (unless `overwrite`) or is
// the source, and for a checkpoint that is quantized already; with UNSUPPORTED for a quantizer that
// wants calibration statistics.
quantization_report quantize_checkpoint(const std::filesystem::path& source,
                                        const plugin_instance& quantizer,
                                        const quantize_options& options);

} // namespace sluice
