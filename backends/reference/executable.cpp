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
          tensors_([this](uint32_t number) -> const plugin::tensor& { return at(number); }),
          seconds_(executable.program().operations.size()) {
        const auto* states = source().states.empty() ? nullptr : &this->cache();
        for (const auto& operation : source().operations)
            steps_.emplace_back(source(), operation, states, tensors_, executable.weights());
    }

    void profile(std::span<double> seconds) const override {
        std::copy_n(seconds_.begin(), std::min(seconds.size(), seconds_.size()), seconds.begin());
    }

  private:
    void planned(const sluice_batch&) override {
        for (auto& step : steps_) step.resize(tensors_);
    }

    void run(const plugin::worker& self) override {
        for (size_t i = 0; i < steps_.size(); ++i) {
            const auto start = std::chrono::steady_clock::now();
            attempt([&] { steps_[i].run(self); });
            self.meet.wait();
            if (failed()) return;
            if (self.index == 0)
                seconds_[i] =
                    std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        }
    }

    plain::step::tensor_of tensors_;
    std::vector<plain::step> steps_;
    std::vector<double> seconds_;
};

} // namespace

reference_executable::reference_executable(plugin::host host, const sluice_program& program,
                                           std::span<sluice_weight* const> weights)
    : host_(host), program_(&program) {
    for (const auto& value : program_.values) {
        const bool is_weight = value.kind == SLUICE_VALUE_WEIGHT;
        if (is_weight && weights[value.number] == nullptr)
            plugin::fail(SLUICE_INVALID, "weight '", value.name, "' was not given");
        weights_.push_back(is_weight
                               ? static_cast<const plain::float_weight*>(weights[value.number])
                               : nullptr);
    }
    for (const auto& operation : program_.operations) plain::require_kernel(operation);
}

std::unique_ptr<sluice_bound> reference_executable::bind(const plugin::extents& sizes,
                                                         sluice_cache* cache,
                                                         std::span<const sluice_binding> bindings) {
    return std::make_unique<reference_bound>(host_, *this, sizes, cache, bindings);
}

} // namespace sluice::reference
