// A vector that a step reads in float32: a bias, sinks, scales of experts.
#pragma once

#include "step.hpp"

#include "plain/elements.hpp"

namespace sluice::onednn {

// By abi/operations.h a vector is a weight or a float tensor. A weight was decoded when it was
// prepared, and a float32 tensor is read where it lies; another tensor is converted in each step
// into memory of its own.
class vector_operand {
  public:
    vector_operand() = default; // absent
    vector_operand(bound& owner, const plugin::operation& operation, size_t input) {
        if (!operation.has_input(input)) return;
        const uint32_t number = operation.inputs[input];
        if (owner.source().values[number].kind == SLUICE_VALUE_WEIGHT) {
            values_ = owner.compiled().weight(number).decoded->matrix(0);
            return;
        }
        const auto& tensor = owner.at(number);
        if (tensor.type == SLUICE_F32) {
            values_ = tensor.as<float>();
            return;
        }
        source_ = &tensor;
        const auto bytes = static_cast<uint64_t>(tensor.element_count()) * sizeof(float);
        converted_ = plugin::memory(owner.owner(), bytes);
        values_ = converted_.as<float>();
    }

    // On every worker, before the values are read: each converts its share, and all meet where
    // there was anything to convert.
    void read(const plugin::worker& self) const {
        if (source_ == nullptr) return;
        const auto range = self.share(source_->element_count());
        plain::get_row(*source_, range.begin, range.end - range.begin,
                       converted_.as<float>() + range.begin);
        self.meet.wait();
    }

    // NULL where the operand is absent.
    const float* values() const { return values_; }

  private:
    const float* values_ = nullptr;
    const plugin::tensor* source_ = nullptr;
    plugin::memory converted_;
};

} // namespace sluice::onednn
