#include "quantization/calibrator.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "program/slice.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

namespace sluice {

namespace {

uint32_t longest(const std::vector<std::vector<int32_t>>& windows) {
    size_t most = 0;
    for (const auto& window : windows) most = std::max(most, window.size());
    if (most == 0)
        fail(SLUICE_INVALID, "calibration needs text: expected one token at least, found none");
    return uint32_t(most);
}

row_array empty_rows(const program_value& value) {
    row_array made;
    made.type = value.element_type;
    made.width = 1;
    for (size_t axis = 1; axis < value.dimensions.size(); ++axis)
        made.width *= value.dimensions[axis].offset;
    return made;
}

std::vector<uint32_t> all_rows(size_t count) {
    std::vector<uint32_t> rows(count);
    std::iota(rows.begin(), rows.end(), 0u);
    return rows;
}

// At most so many, evenly among all.
std::vector<uint32_t> some_rows(size_t count, size_t count_max) {
    if (count <= count_max) return all_rows(count);
    std::vector<uint32_t> rows(count_max);
    for (size_t i = 0; i < count_max; ++i) rows[i] = uint32_t(i * count / count_max);
    return rows;
}

// The rows that an expert is chosen for, and their weights.
struct expert_rows {
    std::vector<uint32_t> rows;
    std::vector<float> weights;
};

std::vector<expert_rows> rows_by_expert(const row_array& index, const row_array& weight,
                                        size_t expert_count) {
    std::vector<expert_rows> experts(expert_count);
    for (size_t row = 0; row < index.row_count(); ++row) {
        for (int64_t choice = 0; choice < index.width; ++choice) {
            int32_t expert = 0;
            float share = 0;
            std::memcpy(&expert, index.row(row) + choice * 4, sizeof expert);
            std::memcpy(&share, weight.row(row) + choice * 4, sizeof share);
            if (expert < 0 || size_t(expert) >= expert_count) continue;
            experts[size_t(expert)].rows.push_back(uint32_t(row));
            experts[size_t(expert)].weights.push_back(share);
        }
    }
    return experts;
}

sluice_activation_attributes activation_of(const program_operation& operation) {
    if (operation.kind == SLUICE_OP_GATED_MLP)
        return std::get<sluice_activation_attributes>(operation.attributes);
    const auto& experts = std::get<sluice_moe_ffn_attributes>(operation.attributes);
    auto made = SLUICE_INIT(sluice_activation_attributes);
    made.activation = experts.activation;
    made.gate_layout = experts.gate_layout;
    made.alpha = experts.alpha;
    made.clamp = experts.clamp;
    return made;
}

} // namespace

calibrator::calibrator(const model_program& model, const module_list& list,
                       std::shared_ptr<const checkpoint> files,
                       std::shared_ptr<plugin_instance> backend, calibration_options options)
    : model_(model), list_(list), files_(std::make_shared<overlay_checkpoint>(std::move(files))),
      backend_(std::move(backend)), options_(std::move(options)),
      rows_max_(longest(options_.windows)), units_(cut_into_units(model.step)),
      uses_(find_module_uses(model, list)), moments_(backend_, files_, rows_max_) {}

uint32_t calibrator::unit_of(size_t module) const {
    if (!uses_[module]) return 0;
    const uint32_t operation = uses_[module]->operation;
    for (uint32_t u = 0; u < units_.size(); ++u)
        if (operation < units_[u].operation_end) return u;
    return 0;
}

// ---- Running ----

calibrator::rows_by_name calibrator::compute(const std::vector<std::string>& outputs) {
    const model_unit& unit = units_[unit_];
    part_runner runner(backend_, files_, slice_program(model_.step, outputs, unit.inputs),
                       model_.weights, rows_max_);
    const program& part = runner.part();
    const uint32_t tokens_per_block =
        part.states().empty() ? 1 : part.states().front().tokens_per_block;
    rows_by_name results;
    for (const std::string& name : outputs) results[name] = empty_rows(part.value(part.at(name)));
    size_t first = 0;
    for (const std::vector<int32_t>& window : options_.windows) {
        for (const auto& [name, rows] : inputs_) {
            const auto number = part.find(name);
            if (!number) continue; // only a later unit reads it
            runner.write(name, {rows.row(first), window.size() * rows.row_bytes()});
        }
        runner.run(plan_of_one_sequence(window, tokens_per_block));
        for (auto& [name, rows] : results) {
            rows.bytes.resize((first + window.size()) * rows.row_bytes());
            runner.read(name, std::span(rows.bytes).subspan(first * rows.row_bytes()));
        }
        first += window.size();
    }
    return results;
}

void calibrator::advance() {
    const std::vector<std::string>& wanted = units_[unit_].outputs;
    if (!wanted.empty()) {
        std::vector<std::string> computed;
        rows_by_name passed;
        for (const std::string& name : wanted) {
            const auto found = inputs_.find(name);
            if (found == inputs_.end())
                computed.push_back(name);
            else
                passed[name] = std::move(found->second);
        }
        rows_by_name results = compute(computed);
        results.merge(passed);
        inputs_ = std::move(results);
    }
    files_->clear();
    ++unit_;
}

void calibrator::replace(size_t module, std::vector<float> values) {
    const stored_module& replaced = list_.modules[module];
    files_->replace(replaced.request.slices.front().tensor, replaced.row_count,
                    replaced.column_count, std::move(values));
}

// ---- Calibrating ----

// Operations in their order; one joins the stage before it unless its rows come from an operation
// of that stage or one after it.
std::vector<calibrator::stage> calibrator::stages_of(std::span<const size_t> modules) const {
    std::vector<size_t> ordered(modules.begin(), modules.end());
    std::stable_sort(ordered.begin(), ordered.end(), [&](size_t left, size_t right) {
        return uses_[left]->operation < uses_[right]->operation;
    });
    const auto& operations = model_.step.operations();
    std::vector<uint32_t> writer(model_.step.values().size(), 0);
    for (uint32_t i = 0; i < operations.size(); ++i)
        for (const value_number output : operations[i].outputs)
            if (output != value_none) writer[output] = i;
    std::vector<stage> stages;
    std::vector<std::set<std::string>> values;
    uint32_t stage_begin = 0;
    for (const size_t module : ordered) {
        const module_use& use = *uses_[module];
        if (stages.empty() || writer[use.rows] >= stage_begin) {
            stages.emplace_back();
            values.emplace_back();
            stage_begin = use.operation;
        }
        stages.back().modules.push_back(module);
        values.back().insert(name_of(use.rows));
        if (!use.expert) continue;
        values.back().insert(name_of(operation_of(use).inputs[1]));
        values.back().insert(name_of(operation_of(use).inputs[2]));
    }
    for (size_t i = 0; i < stages.size(); ++i)
        stages[i].values.assign(values[i].begin(), values[i].end());
    return stages;
}

void calibrator::calibrate(std::span<const size_t> modules, const quantize_function& quantize) {
    for (const stage& each : stages_of(modules)) {
        const rows_by_name rows = compute(each.values);
        calibrate_dense(each, rows, quantize);
        std::set<uint32_t> with_experts;
        for (const size_t module : each.modules)
            if (uses_[module]->expert) with_experts.insert(uses_[module]->operation);
        for (const uint32_t operation : with_experts)
            calibrate_experts(each, operation, rows, quantize);
    }
}

void calibrator::quantize_one(size_t module, const module_inputs& inputs,
                              const quantize_function& quantize) {
    replace(module, quantize(module, inputs));
}

second_moments calibrator::moments(const module_use& use, const row_array& x,
                                   std::span<const uint32_t> rows, std::span<const float> factor) {
    if (!use.is_down) return moments_.of_rows(x, rows, factor);
    const program_operation& operation = operation_of(use);
    const size_t first = use.expert ? 4 : 1;
    const weight_request gate = matrix_request(operation.inputs[first], use.expert.value_or(0));
    weight_request up;
    inner_layer layer;
    layer.gate = &gate;
    if (operation.inputs[first + 1] != value_none) {
        up = matrix_request(operation.inputs[first + 1], use.expert.value_or(0));
        layer.up = &up;
    }
    layer.activation = activation_of(operation);
    return moments_.of_inner(layer, x, rows, factor);
}

// One matrix of a weight, by itself.
weight_request calibrator::matrix_request(value_number weight, uint32_t matrix) const {
    const auto found =
        std::find_if(model_.weights.begin(), model_.weights.end(),
                     [&](const weight_request& request) { return request.value == weight; });
    if (found == model_.weights.end())
        fail(SLUICE_INTERNAL, "no weight is value {} of the model", weight);
    weight_request single = *found;
    const size_t per_matrix = single.slices.size() / single.matrix_count;
    single.slices.assign(found->slices.begin() + ptrdiff_t(matrix * per_matrix),
                         found->slices.begin() + ptrdiff_t((matrix + 1) * per_matrix));
    single.stored_matrix_count =
        found->stored_matrix_count != 0 ? found->stored_matrix_count : found->matrix_count;
    single.matrix_count = 1;
    single.stacked = false;
    return single;
}

// Matrices that share their rows share their moments, which are kept for one value at a time.
void calibrator::calibrate_dense(const stage& which, const rows_by_name& rows,
                                 const quantize_function& quantize) {
    std::map<std::string, module_inputs> known;
    for (const size_t module : which.modules) {
        const module_use& use = *uses_[module];
        if (use.expert) continue;
        const row_array& x = rows.at(name_of(use.rows));
        module_inputs down;
        module_inputs& inputs = use.is_down ? down : known[name_of(use.rows)];
        if (inputs.row_count == 0) {
            inputs.own = moments(use, x, all_rows(x.row_count()), {});
            inputs.row_count = inputs.own.row_count;
        }
        quantize_one(module, inputs, quantize);
    }
}

void calibrator::calibrate_experts(const stage& which, uint32_t operation, const rows_by_name& rows,
                                   const quantize_function& quantize) {
    const program_operation& layer = model_.step.operations()[operation];
    const row_array& x = rows.at(name_of(layer.inputs[0]));
    // By expert; gate and up before down.
    std::map<uint32_t, std::vector<size_t>> modules;
    for (const size_t module : which.modules)
        if (uses_[module]->operation == operation)
            modules[*uses_[module]->expert].push_back(module);
    const auto experts =
        rows_by_expert(rows.at(name_of(layer.inputs[1])), rows.at(name_of(layer.inputs[2])),
                       size_t(modules.rbegin()->first) + 1);
    const std::vector<uint32_t> prior_rows = some_rows(x.row_count(), options_.prior_rows_max);
    second_moments shared_prior;
    for (auto& [expert, of_expert] : modules) {
        const expert_rows& own = experts[expert];
        std::stable_sort(of_expert.begin(), of_expert.end(), [&](size_t left, size_t right) {
            return uses_[left]->is_down < uses_[right]->is_down;
        });
        std::span<const float> factor;
        if (options_.weigh_by_router) factor = own.weights;
        module_inputs inputs;
        for (size_t i = 0; i < of_expert.size(); ++i) {
            const module_use& use = *uses_[of_expert[i]];
            // Gate and up have the same inputs.
            if (i == 0 || use.is_down) {
                inputs = {};
                inputs.own = moments(use, x, own.rows, factor);
                inputs.row_count = double(own.rows.size());
                if (own.rows.size() < options_.few_rows) {
                    // Gate's and up's is that of every expert.
                    if (!use.is_down && shared_prior.gram.empty())
                        shared_prior = moments(use, x, prior_rows, {});
                    inputs.prior = use.is_down ? moments(use, x, prior_rows, {}) : shared_prior;
                }
            }
            quantize_one(of_expert[i], inputs, quantize);
        }
    }
}

} // namespace sluice
