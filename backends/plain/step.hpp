// One operation of a bound program, run by its plain kernel.
#pragma once

#include "operations/operations.hpp"

#include <functional>

namespace sluice::plain {

// The plain kernel of an operation; throws SLUICE_UNSUPPORTED for a composite.
kernel require_kernel(const plugin::operation& operation);

class step {
  public:
    // The values of the bound executable: memory and present shape by value number.
    using tensor_of = std::function<const plugin::tensor&(uint32_t number)>;

    // weights: [value_count], NULL for other values. cache may be NULL for programs without state.
    step(const plugin::program& program, const plugin::operation& operation,
         const plugin::host_cache* cache, const tensor_of& tensors,
         std::span<const float_weight* const> weights);

    // Takes over the shapes of the planned step. Does not allocate.
    void resize(const tensor_of& tensors);

    // This worker's share. May throw.
    void run(const plugin::worker& self) const {
        const auto range = self.share(kernel_.units(call_));
        if (range.begin < range.end) kernel_.run(call_, range.begin, range.end);
    }

  private:
    kernel kernel_;
    call call_;
};

} // namespace sluice::plain
