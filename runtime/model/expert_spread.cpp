#include "model/expert_spread.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "config/name_pattern.hpp"
#include "program/builder.hpp"

#include <algorithm>

namespace sluice {

namespace {

constexpr size_t map_operand = 3;
constexpr size_t first_weight_operand = 4;

class spreader {
  public:
    spreader(const program& source, const std::vector<weight_request>& weights)
        : source_(source), requests_(weights), builder_(source) {}

    spread_program spread(const std::map<uint32_t, std::vector<uint32_t>>& experts) {
        for (uint32_t i = 0; i < source_.operations().size(); ++i) {
            const auto found = experts.find(i);
            if (found == experts.end()) {
                builder_.append(source_.operations()[i]);
            } else {
                spread_operation(source_.operations()[i], found->second);
            }
        }
        spread_program result{builder_.finish(), {}, std::move(constants_)};
        for (const weight_request& request : requests_) {
            if (std::find(cut_.begin(), cut_.end(), request.value) == cut_.end()) {
                result.weights.push_back(request);
            }
        }
        result.weights.insert(result.weights.end(), added_.begin(), added_.end());
        return result;
    }

  private:
    void spread_operation(const program_operation& operation,
                          const std::vector<uint32_t>& placements) {
        check(operation);
        std::map<uint32_t, std::vector<uint32_t>> parts; // expert numbers by placement
        for (uint32_t expert = 0; expert < placements.size(); ++expert) {
            parts[placements[expert]].push_back(expert);
        }
        value_number sum = value_none;
        size_t left = parts.size();
        for (const auto& [placement, numbers] : parts) {
            const value_number partial =
                part_of(operation, placement, numbers, uint32_t(placements.size()));
            --left;
            sum = sum == value_none ? partial : added(operation, sum, partial, left == 0);
        }
        for (size_t i = first_weight_operand; i < operation.inputs.size(); ++i) {
            if (operation.inputs[i] != value_none) cut_.push_back(operation.inputs[i]);
        }
    }

    void check(const program_operation& operation) const {
        const auto& attributes = std::get<sluice_moe_ffn_attributes>(operation.attributes);
        if (operation.inputs.size() > map_operand && operation.inputs[map_operand] != value_none) {
            fail(SLUICE_UNSUPPORTED, "{} has an expert map already; its experts cannot be spread",
                 quote(operation.name));
        }
        if (attributes.zero_expert != SLUICE_ZERO_EXPERT_NONE) {
            fail(SLUICE_UNSUPPORTED,
                 "{} has zero-computation experts, which no expert map can name; place the whole "
                 "operation",
                 quote(operation.name));
        }
    }

    value_number part_of(program_operation operation, uint32_t placement,
                         const std::vector<uint32_t>& numbers, uint32_t expert_count) {
        const std::string suffix = fmt::format("[{}]", ranges_text(numbers));
        operation.name += suffix;
        operation.placement = placement;
        operation.inputs[map_operand] = map_input(suffix, numbers, expert_count);
        for (size_t i = first_weight_operand; i < operation.inputs.size(); ++i) {
            if (operation.inputs[i] == value_none) continue;
            operation.inputs[i] = weight_part(operation.inputs[i], suffix, numbers);
        }
        const program_value& whole = source_.value(operation.outputs.at(0));
        operation.outputs[0] =
            builder_.result(operation.name, whole.element_type, whole.dimensions);
        const value_number result = operation.outputs[0];
        builder_.append(std::move(operation));
        return result;
    }

    value_number added(const program_operation& operation, value_number left, value_number right,
                       bool is_last) {
        const program_value whole = source_.value(operation.outputs[0]);
        program_operation sum;
        sum.kind = SLUICE_OP_BINARY;
        auto attributes = SLUICE_INIT(sluice_binary_attributes);
        attributes.function = SLUICE_BINARY_ADD;
        sum.attributes = attributes;
        sum.name = operation.name;
        sum.placement = operation.placement;
        sum.inputs = {left, right};
        sum.outputs = {is_last ? operation.outputs[0]
                               : builder_.result(operation.name + "/partial", whole.element_type,
                                                 whole.dimensions)};
        const value_number result = sum.outputs[0];
        builder_.append(std::move(sum));
        return result;
    }

    // Layers that are spread alike share one map.
    value_number map_input(const std::string& suffix, const std::vector<uint32_t>& numbers,
                           uint32_t expert_count) {
        std::vector<int32_t> map(expert_count, -1);
        for (size_t slot = 0; slot < numbers.size(); ++slot) map[numbers[slot]] = int32_t(slot);
        for (const constant_input& constant : constants_) {
            if (constant.values == map) return constant.value;
        }
        const value_number value =
            builder_.custom_input(fmt::format("expert_map{}/{}", suffix, expert_count), SLUICE_I32,
                                  {size::fixed(int64_t(expert_count))});
        constants_.push_back({value, std::move(map)});
        return value;
    }

    // The experts' matrices out of a stack of all.
    value_number weight_part(value_number stack, const std::string& suffix,
                             const std::vector<uint32_t>& numbers) {
        const auto found =
            std::find_if(requests_.begin(), requests_.end(),
                         [&](const weight_request& each) { return each.value == stack; });
        if (found == requests_.end() || !found->stacked) {
            fail(SLUICE_INTERNAL, "the weight {} is no stack of experts",
                 quote(source_.value(stack).name));
        }
        weight_request part = *found;
        const size_t slices = found->slices.size() / found->matrix_count;
        part.name += suffix;
        part.matrix_count = uint32_t(numbers.size());
        part.stored_matrix_count =
            found->stored_matrix_count != 0 ? found->stored_matrix_count : found->matrix_count;
        part.slices.clear();
        for (const uint32_t number : numbers) {
            const auto first = found->slices.begin() + ptrdiff_t(number * slices);
            part.slices.insert(part.slices.end(), first, first + ptrdiff_t(slices));
        }
        const program_value& whole = source_.value(stack);
        std::vector<int64_t> dimensions;
        for (const dimension& size : whole.dimensions) dimensions.push_back(size.offset);
        dimensions[0] = int64_t(numbers.size());
        part.value = builder_.weight(part.name, dimensions, whole.weight_format);
        const value_number value = part.value;
        added_.push_back(std::move(part));
        return value;
    }

    const program& source_;
    const std::vector<weight_request>& requests_;
    program_builder builder_;
    std::vector<value_number> cut_;
    std::vector<weight_request> added_;
    std::vector<constant_input> constants_;
};

} // namespace

spread_program spread_experts(const program& source, const std::vector<weight_request>& weights,
                              const std::map<uint32_t, std::vector<uint32_t>>& experts) {
    if (experts.empty()) return {source, weights, {}};
    return spreader(source, weights).spread(experts);
}

} // namespace sluice
