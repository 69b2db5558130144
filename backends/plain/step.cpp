#include "step.hpp"

namespace sluice::plain {

namespace {

call make_call(const plugin::program& program, const plugin::operation& operation,
               const plugin::host_cache* cache, const step::tensor_of& tensors,
               std::span<const float_weight* const> weights) {
    std::vector<plugin::tensor> inputs, outputs;
    std::vector<const float_weight*> used;
    std::vector<uint32_t> states;
    for (const uint32_t number : operation.inputs) {
        const bool given = number != SLUICE_VALUE_NONE;
        used.push_back(given ? weights[number] : nullptr);
        states.push_back(given ? program.values[number].state : 0);
        inputs.push_back(given ? tensors(number) : plugin::tensor{});
        if (used.back() == nullptr) continue;
        inputs.back().type = SLUICE_F32;
        inputs.back().data = reinterpret_cast<std::byte*>(used.back()->values.as<float>());
    }
    for (const uint32_t number : operation.outputs)
        outputs.push_back(number == SLUICE_VALUE_NONE ? plugin::tensor{} : tensors(number));
    return {operation, cache, std::move(inputs), std::move(outputs), std::move(used), states};
}

} // namespace

kernel find_kernel(uint32_t kind) {
    for (const auto find :
         {find_dense_kernel, find_cache_kernel, find_expert_kernel, find_movement_kernel,
          find_elementwise_kernel, find_axis_kernel, find_statistics_kernel})
        if (const kernel found = find(kind); found.run != nullptr) return found;
    return {};
}

kernel require_kernel(const plugin::operation& operation) {
    const kernel found = find_kernel(operation.kind);
    if (found.run == nullptr)
        plugin::fail(SLUICE_UNSUPPORTED, plugin::operation_name(operation.kind),
                     " is a composite without a plain kernel; the runtime's decomposition is to "
                     "be used");
    if (const auto* sample = std::get_if<sluice_sample_attributes>(&operation.attributes);
        sample != nullptr && sample->method != SLUICE_SAMPLE_GREEDY)
        plugin::fail(SLUICE_UNSUPPORTED, "sampling by method ", sample->method,
                     " is not known here");
    return found;
}

step::step(const plugin::program& program, const plugin::operation& operation,
           const plugin::host_cache* cache, const tensor_of& tensors,
           std::span<const float_weight* const> weights)
    : kernel_(require_kernel(operation)),
      call_(make_call(program, operation, cache, tensors, weights)) {}

void step::resize(const tensor_of& tensors) {
    const auto& operation = call_.operation();
    for (size_t i = 0; i < operation.inputs.size(); ++i)
        if (operation.inputs[i] != SLUICE_VALUE_NONE)
            call_.inputs()[i].shape = tensors(operation.inputs[i]).shape;
    for (size_t i = 0; i < operation.outputs.size(); ++i)
        if (operation.outputs[i] != SLUICE_VALUE_NONE)
            call_.outputs()[i].shape = tensors(operation.outputs[i]).shape;
}

} // namespace sluice::plain
