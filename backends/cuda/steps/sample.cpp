// sample: from logits to tokens.
#include "operands.hpp"

#include "kernels/sample.hpp"

namespace sluice::cuda {

namespace {

class sample_step final : public step {
  public:
    sample_step(const bound& owner, const plugin::operation& operation) : owner_(owner) {
        const tensor_view logits = owner.view(operation.inputs[0]);
        call_.logits = logits.data;
        call_.logits_type = logits.type;
        call_.rows = size_of(owner, operation.inputs[0], 0);
        call_.width = size_of(owner, operation.inputs[0], 1);
        call_.token = data_of<int32_t>(owner, operation.outputs[0]);
        call_.log_probability = data_of<float>(owner, operation.output(1));
    }
    uint64_t scratch_bytes() const override {
        return sample_scratch_bytes(call_.rows, call_.width);
    }
    void launch(cudaStream_t stream) override {
        call_.scratch = owner_.scratch();
        launch_sample(call_, stream);
    }

  private:
    const bound& owner_;
    sample_call call_;
};

} // namespace

std::string claim_sample(const plugin::operation& operation, const value_reader& values) {
    if (operation.kind != SLUICE_OP_SAMPLE) return {};
    if (operation.as<sluice_sample_attributes>().method != SLUICE_SAMPLE_GREEDY)
        plugin::fail(SLUICE_UNSUPPORTED, "sampling by method ",
                     operation.as<sluice_sample_attributes>().method,
                     " is not known to this backend");
    require_floats(values, {operation.input(0)});
    values(operation.input(0)).fixed(1);
    return "sample, pieces of rows";
}

std::unique_ptr<step> make_sample(bound& owner, const plugin::operation& operation) {
    return std::make_unique<sample_step>(owner, operation);
}

} // namespace sluice::cuda
