// Runs a program of primitives, one operation after another, each shared among the workers.
#pragma once

#include "plain/step.hpp"

namespace sluice::reference {

namespace plugin = sluice::plugin;

class reference_executable final : public sluice_executable {
  public:
    reference_executable(plugin::host host, const sluice_program& program,
                         std::span<sluice_weight* const> weights);

    std::unique_ptr<sluice_bound> bind(const plugin::extents& sizes, sluice_cache* cache,
                                       std::span<const sluice_binding> bindings) override;

    const plugin::program& program() const { return program_; }
    std::span<const plain::float_weight* const> weights() const { return weights_; }

  private:
    plugin::host host_;
    plugin::program program_;
    std::vector<const plain::float_weight*> weights_; // [value_count]
};

} // namespace sluice::reference
