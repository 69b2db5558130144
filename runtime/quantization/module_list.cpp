#include "quantization/module_list.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <map>
#include <optional>
#include <set>

namespace sluice {

namespace {

constexpr std::string_view layer_prefix = "model.layers.";

// Kinds of the weights by what the program's operations do with them.
class kind_finder {
  public:
    explicit kind_finder(const model_program& model) : model_(model) {
        for (const routed_layer& layer : model.routed_layers) routed_layers_.insert(layer.layer);
        const auto& operations = model.step.operations();
        // What follows a linear layer decides what it is, so the operations are seen twice.
        for (const program_operation& operation : operations) note_neighbours(operation);
        for (const program_operation& operation : operations) {
            for (const value_number input : operation.inputs) {
                if (input == value_none) continue;
                const program_value& value = model.step.value(input);
                if (value.kind == SLUICE_VALUE_WEIGHT) note(input, kind_of(operation, value));
            }
        }
    }

    uint32_t kind(value_number weight) const {
        const auto found = kinds_.find(weight);
        return found == kinds_.end() ? SLUICE_MODULE_NORM : found->second;
    }

  private:
    void note_neighbours(const program_operation& operation) {
        if (operation.kind == SLUICE_OP_ROUTE) router_logits_.insert(operation.inputs[0]);
        if (operation.kind != SLUICE_OP_GATED_ACTIVATION) return;
        mlp_values_.insert(operation.inputs.begin(), operation.inputs.end());
        mlp_values_.insert(operation.outputs.begin(), operation.outputs.end());
    }

    uint32_t kind_of(const program_operation& operation, const program_value& weight) const {
        switch (operation.kind) {
        case SLUICE_OP_EMBED:
            return SLUICE_MODULE_EMBEDDING;
        case SLUICE_OP_MOE_FFN:
            return SLUICE_MODULE_EXPERT;
        case SLUICE_OP_MLA_ATTENTION:
            return SLUICE_MODULE_ATTENTION;
        case SLUICE_OP_ROUTE:
            return SLUICE_MODULE_ROUTER;
        case SLUICE_OP_GATED_MLP: {
            // Beside routed experts, a feed-forward layer of its own is the shared one.
            const auto layer = layer_number(weight.name, layer_prefix);
            return layer && routed_layers_.count(*layer) != 0 ? SLUICE_MODULE_SHARED_EXPERT
                                                              : SLUICE_MODULE_MLP;
        }
        case SLUICE_OP_LINEAR:
            return kind_of_linear(operation);
        default:
            return SLUICE_MODULE_NORM;
        }
    }

    uint32_t kind_of_linear(const program_operation& operation) const {
        const value_number result = operation.outputs[0];
        if (result == model_.logits) return SLUICE_MODULE_HEAD;
        if (router_logits_.count(result) != 0) return SLUICE_MODULE_ROUTER;
        const bool in_mlp =
            mlp_values_.count(result) != 0 || mlp_values_.count(operation.inputs[0]) != 0;
        return in_mlp ? SLUICE_MODULE_MLP : SLUICE_MODULE_ATTENTION;
    }

    // A tied head is the embedding, whichever is met first.
    void note(value_number weight, uint32_t kind) {
        uint32_t& known = kinds_.emplace(weight, kind).first->second;
        if (kind == SLUICE_MODULE_EMBEDDING) known = kind;
    }

    const model_program& model_;
    std::set<uint32_t> routed_layers_;
    std::set<value_number> router_logits_;
    std::set<value_number> mlp_values_;
    std::map<value_number, uint32_t> kinds_;
};

stored_module module_of(const weight_request& weight, const weight_slice_request& slice,
                        uint32_t kind) {
    stored_module module;
    module.name = module_name(slice.tensor);
    module.kind = kind;
    module.layer = layer_number(slice.tensor, layer_prefix).value_or(0);
    module.row_count = slice.stored_rows;
    module.column_count = slice.stored_columns;
    module.in_stack = slice.stack_size != 0;
    module.request.name = module.name;
    // Files that hold all experts of a layer in one tensor are read by the number of them.
    module.request.matrix_count = weight.matrix_count;
    module.request.row_count = slice.stored_rows;
    module.request.column_count = slice.stored_columns;
    weight_slice_request whole = slice;
    whole.row_begin = 0;
    whole.row_count = slice.stored_rows;
    whole.row_step = 1;
    whole.column_begin = 0;
    module.request.slices = {std::move(whole)};
    return module;
}

} // namespace

module_list list_modules(const model_program& model) {
    const kind_finder kinds(model);
    module_list list;
    std::map<std::string, size_t> known;
    for (const weight_request& weight : model.weights) {
        std::set<size_t> members;
        for (const weight_slice_request& slice : weight.slices) {
            if (slice.stored_columns == 0) continue;
            // A stack in one tensor is one module.
            const auto [found, is_new] = known.emplace(slice.tensor, list.modules.size());
            if (is_new) list.modules.push_back(module_of(weight, slice, kinds.kind(weight.value)));
            members.insert(found->second);
        }
        if (!members.empty()) list.together.emplace_back(members.begin(), members.end());
    }
    return list;
}

std::string module_name(const std::string& tensor) { return without_suffix(tensor, ".weight"); }

std::optional<uint32_t> layer_number(std::string_view name, std::string_view prefix) {
    if (!name.starts_with(prefix)) return std::nullopt;
    const std::string_view rest = name.substr(prefix.size());
    const auto number = parse_integer(rest.substr(0, rest.find('.')));
    if (!number || *number < 0 || *number > UINT32_MAX) return std::nullopt;
    return static_cast<uint32_t>(*number);
}

std::string_view module_kind_name(uint32_t kind) {
    constexpr std::string_view names[] = {
        "", "embedding", "head", "attention", "mlp", "shared expert", "expert", "router", "norm"};
    return kind < std::size(names) ? names[kind] : "unknown";
}

} // namespace sluice
