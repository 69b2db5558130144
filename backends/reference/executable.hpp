// Runs a program of primitives, one operation after another, each shared among the workers.
#pragma once

#include "operations/operations.hpp"

namespace sluice::reference {

class reference_executable final : public sluice_executable {
  public:
    reference_executable(plugin::host host, const sluice_program& program,
                         std::span<sluice_weight* const> weights);

    std::unique_ptr<sluice_bound> bind(const plugin::extents& sizes, sluice_cache* cache,
                                       std::span<const sluice_binding> bindings) override;

    const plugin::program& program() const { return program_; }
    const float_weight* weight(uint32_t number) const { return weights_[number]; }

  private:
    plugin::host host_;
    plugin::program program_;
    std::vector<const float_weight*> weights_; // [value_count]
};

// The kernel of an operation; throws SLUICE_UNSUPPORTED, with what to do, where there is none.
kernel require_kernel(const plugin::operation& operation);

} // namespace sluice::reference
