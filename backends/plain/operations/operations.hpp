// A plain, slow, obviously right kernel for every primitive. Each cuts its work into independent
// units, such as rows, and computes a range of them; the executable shares the units among the
// workers.
#pragma once

#include "../elements.hpp"
#include "../weight.hpp"

namespace sluice::plain {

// The operands of one operation in one step.
class call {
  public:
    call(const plugin::operation& operation, const plugin::host_cache* cache,
         std::vector<plugin::tensor> inputs, std::vector<plugin::tensor> outputs,
         std::vector<const float_weight*> weights, std::span<const uint32_t> input_states)
        : operation_(&operation), cache_(cache), inputs_(std::move(inputs)),
          outputs_(std::move(outputs)), weights_(std::move(weights)),
          input_states_(input_states.begin(), input_states.end()) {}

    const plugin::operation& operation() const { return *operation_; }
    template <typename Attributes>
    const Attributes& attributes() const {
        return operation_->as<Attributes>();
    }
    bool has_in(size_t i) const { return operation_->has_input(i); }
    bool has_out(size_t i) const { return operation_->has_output(i); }
    // A weight operand reads as a float32 tensor here.
    const plugin::tensor& in(size_t i) const { return inputs_[i]; }
    const plugin::tensor& out(size_t i) const { return outputs_[i]; }
    size_t in_count() const { return inputs_.size(); }
    const float_weight& weight(size_t i) const { return *weights_[i]; }
    // The state that operand i threads, and its number.
    uint32_t state_number(size_t i) const { return input_states_[i]; }
    const sluice_state& state(size_t i) const { return cache_->states()[input_states_[i]]; }
    const plugin::host_cache& cache() const { return *cache_; }

    // For the executable, when the step's shapes change.
    std::vector<plugin::tensor>& inputs() { return inputs_; }
    std::vector<plugin::tensor>& outputs() { return outputs_; }

  private:
    const plugin::operation* operation_;
    const plugin::host_cache* cache_;
    std::vector<plugin::tensor> inputs_;
    std::vector<plugin::tensor> outputs_;
    std::vector<const float_weight*> weights_;
    std::vector<uint32_t> input_states_;
};

struct kernel {
    int64_t (*units)(const call&) = nullptr;
    void (*run)(const call&, int64_t begin, int64_t end) = nullptr;
};

// The kernel of a primitive, or of sample, the one composite that is no more code than a primitive;
// empty for the other composites.
kernel find_kernel(uint32_t kind);

// By file.
kernel find_dense_kernel(uint32_t kind);       // embed, norms, linear, rope, activations
kernel find_cache_kernel(uint32_t kind);       // kv_write, kv_gather
kernel find_expert_kernel(uint32_t kind);      // group_rows, grouped_linear, combine_rows
kernel find_movement_kernel(uint32_t kind);    // gather_rows ... dequantize
kernel find_elementwise_kernel(uint32_t kind); // unary ... iota
kernel find_axis_kernel(uint32_t kind);        // softmax ... matmul, sample
kernel find_statistics_kernel(uint32_t kind);  // accumulate_*

// Sum of a[i] * b[i]. Sixteen running sums, added in a fixed order: the compiler can use vectors,
// and the result does not depend on it.
float dot(const float* a, const float* b, int64_t count);

// The frequencies of the pairs (abi/operations.h, rope). [dimension / 2]
std::vector<double> rope_frequencies(const sluice_rope_attributes& rope,
                                     std::span<const double> table);

} // namespace sluice::plain
