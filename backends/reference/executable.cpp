#include "executable.hpp"

#include <chrono>

namespace sluice::reference {

namespace {

class reference_bound final : public plugin::host_bound {
  public:
    reference_bound(const plugin::host& host, const reference_executable& executable,
                    const plugin::extents& sizes, sluice_cache* cache,
                    std::span<const sluice_binding> bindings)
        : host_bound(host, executable.program(), sizes, cache, bindings),
          seconds_(executable.program().operations.size()) {
        for (const auto& operation : source().operations) {
            kernels_.push_back(require_kernel(operation));
            calls_.push_back(make_call(operation, executable));
        }
    }

    void profile(std::span<double> seconds) const override {
        std::copy_n(seconds_.begin(), std::min(seconds.size(), seconds_.size()), seconds.begin());
    }

  private:
    call make_call(const plugin::operation& operation, const reference_executable& executable) {
        std::vector<plugin::tensor> inputs, outputs;
        std::vector<const float_weight*> weights;
        std::vector<uint32_t> states;
        for (const uint32_t number : operation.inputs) {
            const bool given = number != SLUICE_VALUE_NONE;
            weights.push_back(given ? executable.weight(number) : nullptr);
            states.push_back(given ? source().values[number].state : 0);
            inputs.push_back(given ? at(number) : plugin::tensor{});
            if (weights.back() != nullptr) {
                inputs.back().type = SLUICE_F32;
                inputs.back().data =
                    reinterpret_cast<std::byte*>(weights.back()->values.as<float>());
            }
        }
        for (const uint32_t number : operation.outputs)
            outputs.push_back(number == SLUICE_VALUE_NONE ? plugin::tensor{} : at(number));
        return {operation,          source().states.empty() ? nullptr : &cache(),
                std::move(inputs),  std::move(outputs),
                std::move(weights), states};
    }

    // Takes over the shapes of the planned step.
    void planned(const sluice_batch&) override {
        for (size_t i = 0; i < calls_.size(); ++i) {
            const auto& operation = source().operations[i];
            for (size_t j = 0; j < operation.inputs.size(); ++j)
                if (operation.inputs[j] != SLUICE_VALUE_NONE)
                    calls_[i].inputs()[j].shape = at(operation.inputs[j]).shape;
            for (size_t j = 0; j < operation.outputs.size(); ++j)
                if (operation.outputs[j] != SLUICE_VALUE_NONE)
                    calls_[i].outputs()[j].shape = at(operation.outputs[j]).shape;
        }
    }

    void run(const plugin::worker& self) override {
        for (size_t i = 0; i < calls_.size(); ++i) {
            const auto start = std::chrono::steady_clock::now();
            attempt([&] {
                const auto range = self.share(kernels_[i].units(calls_[i]));
                if (range.begin < range.end) kernels_[i].run(calls_[i], range.begin, range.end);
            });
            self.meet.wait();
            if (failed()) return;
            if (self.index == 0)
                seconds_[i] =
                    std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        }
    }

    std::vector<kernel> kernels_;
    std::vector<call> calls_;
    std::vector<double> seconds_;
};

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
                     " is a composite; the reference backend runs primitives only, so that the "
                     "runtime's decomposition is what is computed");
    return found;
}

reference_executable::reference_executable(plugin::host host, const sluice_program& program,
                                           std::span<sluice_weight* const> weights)
    : host_(host), program_(&program) {
    for (const auto& value : program_.values) {
        const bool is_weight = value.kind == SLUICE_VALUE_WEIGHT;
        if (is_weight && weights[value.number] == nullptr)
            plugin::fail(SLUICE_INVALID, "weight '", value.name, "' was not given");
        weights_.push_back(is_weight ? static_cast<const float_weight*>(weights[value.number])
                                     : nullptr);
    }
    for (const auto& operation : program_.operations) require_kernel(operation);
}

std::unique_ptr<sluice_bound> reference_executable::bind(const plugin::extents& sizes,
                                                         sluice_cache* cache,
                                                         std::span<const sluice_binding> bindings) {
    return std::make_unique<reference_bound>(host_, *this, sizes, cache, bindings);
}

} // namespace sluice::reference
