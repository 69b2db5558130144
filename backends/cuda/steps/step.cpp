#include "step.hpp"

#include "../tuning.hpp"

namespace sluice::cuda {

namespace {

using claim_function = std::string (*)(const plugin::operation&, const value_reader&);
using make_function = std::unique_ptr<step> (*)(bound&, const plugin::operation&);

struct family {
    claim_function claim;
    make_function make;
};
constexpr family families[] = {
    {claim_dense, make_dense},     {claim_rows, make_rows},     {claim_attention, make_attention},
    {claim_experts, make_experts}, {claim_sample, make_sample}, {claim_primitive, make_primitive}};

// The first family that has a step for the operation.
const family& family_of(const plugin::operation& operation, const value_reader& values,
                        std::string& kernel) {
    for (const auto& each : families) {
        kernel = each.claim(operation, values);
        if (!kernel.empty()) return each;
    }
    plugin::fail(SLUICE_UNSUPPORTED, plugin::operation_name(operation.kind),
                 " has no kernel in this backend");
}

// What an operation multiplies by, as tuning_key::operands says it.
std::vector<std::string> tuned_shapes(const plugin::operation& operation,
                                      const value_reader& values) {
    size_t first = 1, last = 1;
    if (operation.kind == SLUICE_OP_GATED_MLP)
        last = 3;
    else if (operation.kind == SLUICE_OP_MOE_FFN)
        first = 4, last = 6;
    else if (operation.kind != SLUICE_OP_LINEAR)
        return {};
    std::vector<std::string> shapes;
    for (size_t i = first; i <= last; ++i) {
        if (!operation.has_input(i)) continue;
        const plugin::value v = values(operation.inputs[i]);
        if (v.kind != SLUICE_VALUE_WEIGHT || v.rank < 2) continue;
        auto shape = shape_text(v.rank > 2 ? v.fixed(0) : 1, v.fixed(-2), v.fixed(-1));
        if (std::find(shapes.begin(), shapes.end(), shape) == shapes.end())
            shapes.push_back(std::move(shape));
    }
    return shapes;
}

// Whether what the operation gives is added to what the other kind of experts gives of the same
// rows, which is one step (shared_experts of schedule.hpp).
bool runs_beside_experts(const sluice_program& program, const plugin::operation& operation) {
    const bool is_routed = operation.kind == SLUICE_OP_MOE_FFN;
    if (!is_routed && operation.kind != SLUICE_OP_GATED_MLP) return false;
    const uint32_t other_kind = is_routed ? SLUICE_OP_GATED_MLP : SLUICE_OP_MOE_FFN;
    std::vector<uint32_t> others;
    for (uint32_t i = 0; i < program.operation_count; ++i) {
        const uint32_t kind = program.operations[i]->kind;
        if (kind != other_kind && kind != SLUICE_OP_BINARY) continue;
        const auto other = plugin::read_operation(program, i);
        if (kind == other_kind && other.inputs[0] == operation.inputs[0])
            others.push_back(other.outputs[0]);
        if (kind != SLUICE_OP_BINARY
            || other.as<sluice_binary_attributes>().function != SLUICE_BINARY_ADD)
            continue;
        const auto reads = [&](uint32_t value) {
            return std::find(other.inputs.begin(), other.inputs.end(), value) != other.inputs.end();
        };
        if (reads(operation.outputs[0]) && std::any_of(others.begin(), others.end(), reads))
            return true;
    }
    return false;
}

void check_caches(const sluice_program& program, const plugin::operation& operation,
                  const value_reader& values) {
    for (const uint32_t number : operation.inputs) {
        if (number == SLUICE_VALUE_NONE) continue;
        const auto v = values(number);
        if (v.kind != SLUICE_VALUE_STATE) continue;
        const auto state = plugin::read(program.states[v.state], "sluice_state");
        for (uint32_t part = 0; part < state.part_count; ++part)
            if (!is_float_type(state.part_type[part]))
                plugin::fail(SLUICE_UNSUPPORTED,
                             "caches must be kept in float32, bfloat16 or float16");
    }
}

} // namespace

std::string claim(const sluice_program& program, const plugin::operation& operation,
                  const tuner& tuning, std::string& remark) {
    const value_reader values = [&](uint32_t number) {
        return plugin::read_value(program, number);
    };
    check_caches(program, operation, values);
    std::string kernel;
    family_of(operation, values, kernel);
    if (runs_beside_experts(program, operation))
        kernel += operation.kind == SLUICE_OP_MOE_FFN ? ", beside shared experts"
                                                      : ", beside routed experts";
    remark = tuning.remark(tuned_shapes(operation, values));
    return kernel;
}

std::unique_ptr<step> make_step(bound& owner, const plugin::operation& operation) {
    const value_reader values = [&](uint32_t number) { return owner.source().values[number]; };
    std::string kernel;
    return family_of(operation, values, kernel).make(owner, operation);
}

} // namespace sluice::cuda
