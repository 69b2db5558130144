#include "quantization/model_units.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <map>

namespace sluice {

namespace {

std::vector<model_unit> units_without_values(const program& step) {
    std::vector<model_unit> units(1);
    std::optional<uint32_t> current;
    const auto& operations = step.operations();
    for (uint32_t i = 0; i < operations.size(); ++i) {
        const auto layer = layer_number(operations[i].name, "layers.");
        if (layer != current) {
            const bool follows =
                layer ? *layer == (current ? *current + 1 : 0) : current.has_value();
            if (!follows || (layer && !current && units.size() > 1))
                fail(SLUICE_UNSUPPORTED,
                     "calibration goes through a model layer by layer, but operation {} does not "
                     "follow the layer before it",
                     quote(operations[i].name));
            units.back().operation_end = i;
            units.push_back({i, 0, {}, {}});
            current = layer;
        }
    }
    units.back().operation_end = uint32_t(operations.size());
    return units;
}

// Operations that write and last read each value.
struct value_span {
    uint32_t written = UINT32_MAX;
    uint32_t last_read = 0;
};

std::vector<value_span> spans_of(const program& step) {
    std::vector<value_span> spans(step.values().size());
    for (uint32_t i = 0; i < step.operations().size(); ++i) {
        for (const value_number input : step.operations()[i].inputs)
            if (input != value_none) spans[input].last_read = i;
        for (const value_number output : step.operations()[i].outputs)
            if (output != value_none) spans[output].written = i;
    }
    return spans;
}

bool has_rows(const program_value& value) {
    return !value.dimensions.empty() && same(value.dimensions[0], size::tokens());
}

class use_finder {
  public:
    use_finder(const model_program& model, const module_list& list) : step_(model.step) {
        for (size_t i = 0; i < list.modules.size(); ++i) by_name_[list.modules[i].name] = i;
        for (const weight_request& weight : model.weights) requests_[weight.value] = &weight;
        uses_.resize(list.modules.size());
        for (uint32_t i = 0; i < step_.operations().size(); ++i) visit(i);
    }
    std::vector<std::optional<module_use>> take() { return std::move(uses_); }

  private:
    void visit(uint32_t number) {
        const program_operation& operation = step_.operations()[number];
        const auto& in = operation.inputs;
        const auto direct = [&](value_number rows) {
            module_use use;
            use.operation = number;
            use.rows = rows;
            return use;
        };
        const auto feed_forward = [&](size_t gate, std::optional<uint32_t> expert) {
            module_use use = direct(in[0]);
            use.expert = expert;
            note(in[gate], use);
            note(in[gate + 1], use);
            use.is_down = true;
            note(in[gate + 2], use);
        };
        switch (operation.kind) {
        case SLUICE_OP_LINEAR:
            note(in[1], direct(in[0]));
            break;
        case SLUICE_OP_GATED_MLP:
            feed_forward(1, std::nullopt);
            break;
        case SLUICE_OP_MOE_FFN:
            feed_forward(4, 0);
            break;
        case SLUICE_OP_MLA_ATTENTION:
            note(in[3], direct(latent_of(in[2])));
            note(in[4], direct(latent_of(in[2])));
            break;
        default:
            break;
        }
    }

    // What was written to the state as its first part.
    value_number latent_of(value_number state) const {
        for (const program_operation& operation : step_.operations()) {
            if (operation.kind == SLUICE_OP_KV_WRITE && operation.outputs[0] == state)
                return operation.inputs[2];
        }
        fail(SLUICE_INTERNAL, "nothing writes the state {}", step_.value(state).name);
    }

    // `use.expert` is set where the weight is a stack of experts.
    void note(value_number weight, module_use use) {
        const auto found = requests_.find(weight);
        if (found == requests_.end()) return;
        const weight_request& request = *found->second;
        const size_t slices_per_matrix = request.slices.size() / request.matrix_count;
        for (size_t i = 0; i < request.slices.size(); ++i) {
            const auto module = by_name_.find(module_name(request.slices[i].tensor));
            if (module == by_name_.end() || uses_[module->second]) continue;
            if (use.expert) use.expert = uint32_t(i / slices_per_matrix);
            uses_[module->second] = use;
        }
    }

    const program& step_;
    std::map<std::string, size_t> by_name_;
    std::map<value_number, const weight_request*> requests_;
    std::vector<std::optional<module_use>> uses_;
};

} // namespace

std::vector<model_unit> cut_into_units(const program& step) {
    std::vector<model_unit> units = units_without_values(step);
    const std::vector<value_span> spans = spans_of(step);
    for (size_t u = 1; u < units.size(); ++u) {
        const uint32_t cut = units[u].operation_begin;
        for (value_number i = 0; i < spans.size(); ++i) {
            const program_value& value = step.value(i);
            if (value.kind != SLUICE_VALUE_RESULT) continue;
            if (spans[i].written >= cut || spans[i].last_read < cut) continue;
            if (!has_rows(value))
                fail(SLUICE_UNSUPPORTED,
                     "calibration goes through a model layer by layer, but {} passes between "
                     "layers and has no row for each token",
                     quote(value.name));
            units[u].inputs.push_back(value.name);
        }
        units[u - 1].outputs = units[u].inputs;
    }
    return units;
}

std::vector<std::optional<module_use>> find_module_uses(const model_program& model,
                                                        const module_list& list) {
    return use_finder(model, list).take();
}

} // namespace sluice
