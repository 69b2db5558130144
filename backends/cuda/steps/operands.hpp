// Operands as kernels want them, and steps that are one launch.
#pragma once

#include "step.hpp"

#include "kernels/norms.hpp"
#include "kernels/shape.hpp"

namespace sluice::cuda {

class launched_step final : public step {
  public:
    explicit launched_step(std::function<void(cudaStream_t)> launches)
        : launches_(std::move(launches)) {}
    void launch(cudaStream_t stream) override { launches_(stream); }

  private:
    std::function<void(cudaStream_t)> launches_;
};

inline std::unique_ptr<step> launching(std::function<void(cudaStream_t)> launches) {
    return std::make_unique<launched_step>(std::move(launches));
}

inline const plugin::value& value_of(const bound& owner, uint32_t number) {
    return owner.source().values[number];
}
// Elements at the bucket's sizes.
inline int64_t count_of(const bound& owner, uint32_t number) {
    return value_of(owner, number).element_count(owner.sizes());
}
// Size of an axis at the bucket's sizes; negative axes count from the end.
inline int64_t size_of(const bound& owner, uint32_t number, int axis) {
    const auto& v = value_of(owner, number);
    return v.size(static_cast<uint32_t>(axis < 0 ? static_cast<int>(v.rank) + axis : axis),
                  owner.sizes());
}

template <typename Element>
Element* data_of(const bound& owner, uint32_t number) {
    return static_cast<Element*>(owner.optional_view(number).data);
}

inline bool has_extent(const plugin::value& v, uint32_t axis) {
    return axis < v.rank && v.shape[axis].extent != SLUICE_EXTENT_NONE;
}
// Whether the value is laid out differently for each step: see kernels/shape.hpp.
inline bool has_inner_extent(const plugin::value& v) {
    for (uint32_t axis = 1; axis < v.rank; ++axis)
        if (has_extent(v, axis)) return true;
    return false;
}
inline bool has_inner_extent(const bound& owner, std::span<const uint32_t> numbers) {
    for (const uint32_t number : numbers)
        if (number != SLUICE_VALUE_NONE && has_inner_extent(value_of(owner, number))) return true;
    return false;
}
inline bool has_inner_extent(const bound& owner, const plugin::operation& operation) {
    return has_inner_extent(owner, operation.inputs) || has_inner_extent(owner, operation.outputs);
}

// Size of an axis in the planned step; negative axes count from the end.
inline sized_axis present_axis(const bound& owner, uint32_t number, int axis) {
    const auto& v = value_of(owner, number);
    const auto& d = v.shape[axis < 0 ? static_cast<int>(v.rank) + axis : axis];
    if (d.extent == SLUICE_EXTENT_NONE) return fixed_axis(d.offset);
    return {d.offset, static_cast<int32_t>(d.factor), d.extent};
}

// `is_present`: at the sizes of the planned step, otherwise of the bucket.
inline sized_view sized_view_of(const bound& owner, uint32_t number, bool is_present) {
    const tensor_view view = owner.view(number);
    sized_view sized;
    sized.data = view.data;
    sized.type = view.type;
    sized.rank = static_cast<int32_t>(value_of(owner, number).rank);
    for (int axis = 0; axis < sized.rank; ++axis)
        sized.shape[axis] = is_present ? present_axis(owner, number, axis)
                                       : fixed_axis(size_of(owner, number, axis));
    return sized;
}

// A weight's matrices as they are kept, or as float32 where only those are.
inline weight_view matrices_of(const device_weight& weight) {
    if (weight.view.data != nullptr) return weight.view;
    weight_view view;
    view.data = weight.values.as<float>();
    view.storage = weight_storage::float32;
    view.matrices = static_cast<int32_t>(weight.matrix_count);
    view.rows = weight.row_count;
    view.columns = weight.column_count;
    return view;
}

// ---- For claims ----

inline bool has_values(const plugin::value& weight) {
    return (weight.weight_role & (SLUICE_ROLE_VECTOR | SLUICE_ROLE_TENSOR)) != 0;
}

// Throws SLUICE_UNSUPPORTED where an operand is not of a float type; weights are read as float32.
inline void require_floats(const value_reader& values, std::initializer_list<uint32_t> numbers) {
    for (const uint32_t number : numbers) {
        if (number == SLUICE_VALUE_NONE) continue;
        const plugin::value v = values(number);
        if (v.kind == SLUICE_VALUE_WEIGHT ? has_values(v) : is_float_type(v.type)) continue;
        plugin::fail(SLUICE_UNSUPPORTED, "value '", v.name,
                     "' must be float32, bfloat16 or float16");
    }
}

// The norm of operation `norm` over rows of `x`, and of `addend` (or SLUICE_VALUE_NONE).
inline rms_norm_call norm_call_of(const bound& owner, const plugin::operation& norm, uint32_t x,
                                  uint32_t addend) {
    const auto& attributes = norm.as<sluice_rms_norm_attributes>();
    const tensor_view rows = owner.view(x), more = owner.optional_view(addend);
    const tensor_view weight = owner.view(norm.inputs[1]);
    const tensor_view y = owner.view(norm.outputs[0]);
    const tensor_view sum = owner.optional_view(norm.output(1));
    rms_norm_call call;
    call.x = rows.data;
    call.x_type = rows.type;
    call.addend = more.data;
    call.addend_type = more.type;
    call.sum = sum.data;
    call.sum_type = sum.type;
    call.weight = weight.data;
    call.weight_type = weight.type;
    call.y = y.data;
    call.y_type = y.type;
    call.width = size_of(owner, norm.outputs[0], -1);
    call.rows = count_of(owner, norm.outputs[0]) / call.width;
    call.group = attributes.group_width == 0 ? call.width : attributes.group_width;
    call.epsilon = attributes.epsilon;
    call.weight_offset = attributes.weight_offset;
    return call;
}

} // namespace sluice::cuda
