// linear and grouped_linear.
#include "multiply.hpp"

#include "../kernels/movement.hpp"
#include "../matmul_library.hpp"

namespace sluice::cuda {

namespace {

int64_t row_count(const tensor_view& t) {
    int64_t count = 1;
    for (int axis = 0; axis + 1 < t.rank; ++axis) count *= t.shape[axis];
    return count;
}

// A bias as the kernels read it: float32 values of a weight or a tensor, where they are; a tensor
// of a half type is widened in each step.
class bias_operand {
  public:
    bias_operand(const bound& owner, uint32_t number) {
        if (number == SLUICE_VALUE_NONE) return;
        given_ = owner.view(number);
        values_ = static_cast<const float*>(given_.data);
        if (given_.type == SLUICE_F32) return;
        count_ = 1;
        for (int axis = 0; axis < given_.rank; ++axis) count_ *= given_.shape[axis];
        widened_ = device_memory(owner.card(), static_cast<uint64_t>(count_) * 4, "a bias");
        values_ = widened_.as<float>();
    }
    const float* values() const { return values_; }
    bool is_widened() const { return count_ != 0; }
    void widen(cudaStream_t stream) const {
        if (is_widened())
            launch_cast(given_.data, given_.type, widened_.as(), SLUICE_F32, count_, stream);
    }

  private:
    tensor_view given_;
    const float* values_ = nullptr;
    device_memory widened_;
    int64_t count_ = 0; // of elements to widen
};

class product_step final : public step {
  public:
    product_step(const bound& owner, product_call call, uint32_t bias, product_choice choice)
        : owner_(owner), call_(call), bias_(owner, bias), choice_(choice),
          follows_kernel_(owner.follows_kernel() || bias_.is_widened()) {
        call_.bias = bias_.values();
    }

    void launch(cudaStream_t stream) override {
        if (call_.places == 0) return;
        bias_.widen(stream);
        multiply(owner_, call_, choice_, follows_kernel_, stream);
    }

  private:
    const bound& owner_;
    product_call call_;
    bias_operand bias_;
    product_choice choice_;
    bool follows_kernel_;
};

// Half-precision weights, mostly of many rows.
class library_step final : public step {
  public:
    library_step(const bound& owner, const product_call& call, int algorithm)
        : owner_(owner), call_(call), algorithm_(algorithm),
          chosen_(owner.context().library->choose(
              {call.places, call.weight.rows, call.weight.columns, call.x_type, call.y_type})) {}

    uint64_t scratch_bytes() const override { return matmul_library::workspace_bytes; }
    void launch(cudaStream_t stream) override {
        owner_.context().library->launch(chosen_, algorithm_, call_.x, call_.weight.data, call_.y,
                                         owner_.scratch(), stream);
    }

  private:
    const bound& owner_;
    product_call call_;
    int algorithm_;
    const matmul_library::choice& chosen_;
};

} // namespace

std::string claim_dense(const plugin::operation& operation, const value_reader& values) {
    if (operation.kind == SLUICE_OP_LINEAR) {
        return is_half_type(values(operation.inputs[0]).type) ? "linear, matrix units"
                                                              : "linear, float32";
    }
    return operation.kind == SLUICE_OP_GROUPED_LINEAR ? "grouped_linear, plain" : "";
}

product_call linear_call(const bound& owner, const plugin::operation& operation) {
    const auto x = owner.view(operation.inputs[0]);
    const auto y = owner.view(operation.outputs[0]);
    product_call call;
    call.x = x.data;
    call.x_type = x.type;
    call.places = static_cast<int32_t>(row_count(x));
    call.weight = owner.weight(operation.inputs[1]).view;
    call.y = y.data;
    call.y_type = y.type;
    return call;
}

std::unique_ptr<step> make_dense(bound& owner, const plugin::operation& operation) {
    if (operation.kind == SLUICE_OP_LINEAR) {
        const auto call = linear_call(owner, operation);
        const auto choice =
            choose_product(owner, call, row_order::dense, 1, !operation.has_input(2));
        if (choice.form == product_choice::product_form::library)
            return std::make_unique<library_step>(owner, call, choice.algorithm);
        return std::make_unique<product_step>(owner, call, operation.input(2), choice);
    }
    const auto x = owner.view(operation.inputs[0]);
    const auto y = owner.view(operation.outputs[0]);
    product_call call;
    call.x = x.data;
    call.x_type = x.type;
    call.places = static_cast<int32_t>(x.shape[0]);
    call.offset = static_cast<const int32_t*>(owner.view(operation.inputs[1]).data);
    call.weight = owner.weight(operation.inputs[2]).view;
    call.y = y.data;
    call.y_type = y.type;
    // The plain form writes the places that no matrix owns, which the others leave.
    return std::make_unique<product_step>(owner, call, operation.input(3), product_choice{});
}

} // namespace sluice::cuda
