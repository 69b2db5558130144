// The matrices of a model that a quantizer is asked about, with the part that each plays. Read off
// the program, so that every family that has one can be quantized, whatever it calls its tensors.
#pragma once

#include "model/model_program.hpp"

#include <sluice/abi/quantizer.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// One stored matrix [rows, columns] of N outputs and K inputs.
struct stored_module {
    std::string name;         // "model.layers.3.mlp.experts.5.up_proj"
    uint32_t kind = 0;        // SLUICE_MODULE_*
    uint32_t layer = 0;       // 0 outside of the layers
    int64_t row_count = 0;    // N
    int64_t column_count = 0; // K
    weight_request request;   // the whole matrix, for bind_weight
    bool in_stack = false;    // the model's own layout has all experts in one tensor
};

struct module_list {
    std::vector<stored_module> modules; // in the program's order; each once
    // Modules that one weight of the program is made of: they must be stored alike.
    std::vector<std::vector<size_t>> together;
};

// Vectors (norms, biases) are left out. `model` was built with the model's own routing.
module_list list_modules(const model_program& model);

// "model.layers.3.mlp.up_proj" for the tensor of its weight.
std::string module_name(const std::string& tensor);
// 3 for "layers.3.attention" and the prefix "layers."; nothing for names with none.
std::optional<uint32_t> layer_number(std::string_view name, std::string_view prefix);

// "embedding", "head", "attention", "mlp", "shared expert", "expert", "router", "norm".
std::string_view module_kind_name(uint32_t kind);

} // namespace sluice
