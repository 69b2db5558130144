// Takes a model through calibration text unit by unit, and hands out what each matrix multiplies.
// Matrices that were replaced count: what is collected later is collected from the model as it will
// be. One unit's matrices and one set of activations are in memory at a time.
#pragma once

#include "quantization/input_statistics.hpp"
#include "quantization/model_units.hpp"
#include "quantization/overlay_checkpoint.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace sluice {

struct calibration_options {
    std::vector<std::vector<int32_t>> windows; // token sequences, each run by itself
    // Experts that see fewer rows also get the statistics of all of their layer's rows, or of this
    // many evenly among them.
    uint32_t few_rows = 2048;
    uint32_t prior_rows_max = 4096;
    bool weigh_by_router = true; // an expert's rows count by the square of their routing weights
};

// What a module's inputs were.
struct module_inputs {
    second_moments own;
    second_moments prior; // of all rows; empty where the own ones are enough
    double row_count = 0; // of the module's own rows
};

// Not for several threads at once.
class calibrator {
  public:
    // The model was built to compute in float32 with the model's own routing; it and the list
    // outlive the calibrator. `backend` runs everything.
    calibrator(const model_program& model, const module_list& list,
               std::shared_ptr<const checkpoint> files, std::shared_ptr<plugin_instance> backend,
               calibration_options options);

    uint32_t unit_count() const { return uint32_t(units_.size()); }
    // Of a module that find_module_uses() knows; others belong to the first.
    uint32_t unit_of(size_t module) const;

    // Calls `quantize` for each of the modules, all of the current unit, in an order in which none
    // depends on a later one. What it returns, [rows, columns], replaces the module.
    using quantize_function =
        std::function<std::vector<float>(size_t module, const module_inputs& inputs)>;
    void calibrate(std::span<const size_t> modules, const quantize_function& quantize);
    // For modules of the current unit that were quantized before.
    void replace(size_t module, std::vector<float> values);
    // Computes the unit with what was replaced, forgets that, and goes on to the next.
    void advance();

  private:
    using rows_by_name = std::map<std::string, row_array>;

    // Modules whose rows are computed at once: none depends on another.
    struct stage {
        std::vector<size_t> modules;
        std::vector<std::string> values;
    };

    std::vector<stage> stages_of(std::span<const size_t> modules) const;
    rows_by_name compute(const std::vector<std::string>& outputs);
    void calibrate_dense(const stage& which, const rows_by_name& rows,
                         const quantize_function& quantize);
    void calibrate_experts(const stage& which, uint32_t operation, const rows_by_name& rows,
                           const quantize_function& quantize);
    void quantize_one(size_t module, const module_inputs& inputs,
                      const quantize_function& quantize);
    second_moments moments(const module_use& use, const row_array& x,
                           std::span<const uint32_t> rows, std::span<const float> factor);
    weight_request matrix_request(value_number weight, uint32_t matrix) const;
    std::string name_of(value_number value) const { return model_.step.value(value).name; }
    const program_operation& operation_of(const module_use& use) const {
        return model_.step.operations()[use.operation];
    }

    const model_program& model_;
    const module_list& list_;
    std::shared_ptr<overlay_checkpoint> files_;
    std::shared_ptr<plugin_instance> backend_;
    calibration_options options_;
    uint32_t rows_max_ = 1; // the longest window
    std::vector<model_unit> units_;
    std::vector<std::optional<module_use>> uses_; // by module
    uint32_t unit_ = 0;                           // the current one
    rows_by_name inputs_;                         // of the unit, all windows one after another
    moment_collector moments_;
};

} // namespace sluice
