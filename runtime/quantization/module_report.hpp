// What became of the modules of a model that was quantized.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

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
    // |W - W'|^2 / |W|^2, weighted by the inputs where they are known, as the quantizer reports it;
    // and that of rounding to nearest, 0 where the quantizer does not tell.
    double error_relative = 0;
    double rounding_error_relative = 0;
    double token_count = 0; // that the module was calibrated with
    double damping = 0;
    bool fallback = false; // not as the settings asked; `note` says why
    std::string note;
};

struct quantization_report {
    std::vector<module_report> modules;
    uint64_t other_tensors = 0; // norms, biases and what the model does not use; copied
    uint64_t other_bytes = 0;
    uint64_t bytes_before = 0; // of all tensors
    uint64_t bytes_after = 0;
    uint64_t calibration_tokens = 0;
    uint64_t resumed_modules = 0; // taken over from an interrupted run
};

// Sizes, tokens, and all modules.
nlohmann::ordered_json to_json(const quantization_report& report);
// All members, by their names but for the kind, which stands by its name.
nlohmann::ordered_json to_json(const module_report& module);
// Of what to_json() made; fails with INVALID for anything else.
module_report module_report_from_json(const nlohmann::ordered_json& json);

} // namespace sluice
