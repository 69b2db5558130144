// The other primitives: data movement, functions of elements, the last axis, statistics, and rows
// grouped by expert.
#include "operands.hpp"

#include "kernels/axis.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/expert_sort.hpp"
#include "kernels/movement.hpp"
#include "kernels/statistics.hpp"

namespace sluice::cuda {

namespace {

using step_owner = std::unique_ptr<step>;

// ---- Data movement ----

// The same bytes at another place; nothing where that is the same one.
step_owner copying(const bound& owner, uint32_t from, uint32_t to) {
    const tensor_view x = owner.view(from);
    const tensor_view y = owner.view(to);
    const auto size = plugin::bytes_of(y.type, count_of(owner, to));
    if (x.data == y.data || size == 0) return launching([](cudaStream_t) {});
    return launching([=](cudaStream_t stream) {
        check(cudaMemcpyAsync(y.data, x.data, size, cudaMemcpyDeviceToDevice, stream),
              "copying a tensor");
    });
}

step_owner casting(const tensor_view& x, const tensor_view& y, int64_t count) {
    return launching(
        [=](cudaStream_t stream) { launch_cast(x.data, x.type, y.data, y.type, count, stream); });
}

step_owner make_cast(const bound& owner, const plugin::operation& operation) {
    const tensor_view x = owner.view(operation.inputs[0]);
    const tensor_view y = owner.view(operation.outputs[0]);
    // Not by way of float32, which would lose bits of large integers.
    if (x.type == y.type) return copying(owner, operation.inputs[0], operation.outputs[0]);
    return casting(x, y, count_of(owner, operation.outputs[0]));
}

step_owner make_dequantize(const bound& owner, const plugin::operation& operation) {
    const device_weight& weight = owner.weight(operation.inputs[0]);
    const tensor_view x = owner.view(operation.outputs[0]);
    if (weight.view.data == nullptr || weight.values)
        return casting({weight.values.as<float>(), SLUICE_F32, 0, {}}, x,
                       count_of(owner, operation.outputs[0]));
    const weight_view view = weight.view;
    return launching([=](cudaStream_t stream) { launch_dequantize(view, x.data, x.type, stream); });
}

step_owner make_gather_rows(const bound& owner, const plugin::operation& operation) {
    gather_rows_call call;
    call.x = sized_view_of(owner, operation.inputs[0], true);
    call.rows = data_of<const int32_t>(owner, operation.inputs[1]);
    call.count = count_of(owner, operation.inputs[1]);
    call.row_elements_bound =
        call.count == 0 ? 0 : count_of(owner, operation.outputs[0]) / call.count;
    call.y = owner.view(operation.outputs[0]).data;
    call.present = owner.present_extents();
    return launching([call](cudaStream_t stream) { launch_gather_rows(call, stream); });
}

step_owner make_gather(const bound& owner, const plugin::operation& operation) {
    const auto& x = value_of(owner, operation.inputs[0]);
    const bool is_present = has_inner_extent(owner, operation) || (x.rank == 1 && has_extent(x, 0));
    gather_call call;
    call.x = sized_view_of(owner, operation.inputs[0], is_present);
    call.index = sized_view_of(owner, operation.inputs[1], is_present);
    call.y = sized_view_of(owner, operation.outputs[0], is_present);
    call.count_bound = count_of(owner, operation.outputs[0]);
    call.present = owner.present_extents();
    return launching([call](cudaStream_t stream) { launch_gather(call, stream); });
}

step_owner make_scatter_add(const bound& owner, const plugin::operation& operation) {
    const bool is_present = has_inner_extent(owner, operation);
    scatter_add_call call;
    call.base = sized_view_of(owner, operation.inputs[0], is_present);
    call.rows = data_of<const int32_t>(owner, operation.inputs[1]);
    call.row_count = present_axis(owner, operation.inputs[1], 0);
    call.x = sized_view_of(owner, operation.inputs[2], is_present);
    call.y = data_of<float>(owner, operation.outputs[0]);
    call.rows_bound = size_of(owner, operation.inputs[0], 0);
    call.row_elements_bound =
        call.rows_bound == 0 ? 0 : count_of(owner, operation.inputs[0]) / call.rows_bound;
    call.present = owner.present_extents();
    return launching([call](cudaStream_t stream) { launch_scatter_add(call, stream); });
}

rearrange_call rearrangement(const bound& owner, uint32_t x, uint32_t y, bool is_present,
                             bool over_x) {
    rearrange_call call;
    call.x = sized_view_of(owner, x, is_present);
    call.y = sized_view_of(owner, y, is_present);
    call.over_x = over_x;
    call.count_bound = count_of(owner, over_x ? x : y);
    call.present = owner.present_extents();
    return call;
}

step_owner make_transpose(const bound& owner, const plugin::operation& operation) {
    const auto& attributes = operation.as<sluice_transpose_attributes>();
    rearrange_call call = rearrangement(owner, operation.inputs[0], operation.outputs[0],
                                        has_inner_extent(owner, operation), false);
    for (int32_t axis = 0; axis < call.y.rank; ++axis)
        call.order[axis] = static_cast<int32_t>(attributes.order[axis]);
    return launching([call](cudaStream_t stream) { launch_rearrange(call, stream); });
}

step_owner make_slice(const bound& owner, const plugin::operation& operation) {
    const auto& attributes = operation.as<sluice_axis_attributes>();
    rearrange_call call = rearrangement(owner, operation.inputs[0], operation.outputs[0],
                                        has_inner_extent(owner, operation), false);
    call.axis = static_cast<int32_t>(attributes.axis);
    call.begin = fixed_axis(attributes.begin);
    return launching([call](cudaStream_t stream) { launch_rearrange(call, stream); });
}

step_owner make_concat(const bound& owner, const plugin::operation& operation) {
    const uint32_t axis = operation.as<sluice_axis_attributes>().axis;
    // Where a part follows an extent, the next one begins where it ends in the planned step.
    const bool is_present = has_inner_extent(owner, operation)
                            || has_extent(value_of(owner, operation.outputs[0]), axis);
    std::vector<rearrange_call> calls;
    sized_axis begin = fixed_axis(0);
    for (const uint32_t part : operation.inputs) {
        rearrange_call call = rearrangement(owner, part, operation.outputs[0], is_present, true);
        call.axis = static_cast<int32_t>(axis);
        call.begin = begin;
        const sized_axis& own = call.x.shape[axis];
        begin.base += own.base;
        begin.factor += own.factor;
        if (own.factor != 0) begin.extent = own.extent;
        calls.push_back(call);
    }
    return launching([calls = std::move(calls)](cudaStream_t stream) {
        for (const auto& call : calls) launch_rearrange(call, stream);
    });
}

// ---- Element by element ----

bool same_shape(const plugin::value& x, const plugin::value& y) {
    if (x.rank != y.rank) return false;
    for (uint32_t axis = 0; axis < x.rank; ++axis)
        if (x.shape[axis].extent != y.shape[axis].extent
            || x.shape[axis].factor != y.shape[axis].factor
            || x.shape[axis].offset != y.shape[axis].offset)
            return false;
    return true;
}

step_owner make_unary(const bound& owner, const plugin::operation& operation) {
    const auto& attributes = operation.as<sluice_unary_attributes>();
    const tensor_view x = owner.view(operation.inputs[0]);
    unary_call call;
    call.x = x.data;
    call.y = owner.view(operation.outputs[0]).data;
    call.type = x.type;
    call.count = count_of(owner, operation.outputs[0]);
    call.function = attributes.function;
    call.a = attributes.a;
    call.b = attributes.b;
    return launching([call](cudaStream_t stream) { launch_unary(call, stream); });
}

step_owner make_binary(const bound& owner, const plugin::operation& operation) {
    const bool is_present = has_inner_extent(owner, operation);
    const auto& z = value_of(owner, operation.outputs[0]);
    binary_call call;
    call.x = sized_view_of(owner, operation.inputs[0], is_present);
    call.y = sized_view_of(owner, operation.inputs[1], is_present);
    call.z = sized_view_of(owner, operation.outputs[0], is_present);
    call.is_flat = same_shape(value_of(owner, operation.inputs[0]), z)
                   && same_shape(value_of(owner, operation.inputs[1]), z);
    call.count_bound = count_of(owner, operation.outputs[0]);
    call.function = operation.as<sluice_binary_attributes>().function;
    call.present = owner.present_extents();
    return launching([call](cudaStream_t stream) { launch_binary(call, stream); });
}

step_owner make_select(const bound& owner, const plugin::operation& operation) {
    const bool is_present = has_inner_extent(owner, operation);
    select_call call;
    call.condition = sized_view_of(owner, operation.inputs[0], is_present);
    call.x = sized_view_of(owner, operation.inputs[1], is_present);
    call.y = sized_view_of(owner, operation.inputs[2], is_present);
    call.z = sized_view_of(owner, operation.outputs[0], is_present);
    call.count_bound = count_of(owner, operation.outputs[0]);
    call.present = owner.present_extents();
    return launching([call](cudaStream_t stream) { launch_select(call, stream); });
}

step_owner make_fill(const bound& owner, const plugin::operation& operation) {
    const tensor_view y = owner.view(operation.outputs[0]);
    const int64_t count = count_of(owner, operation.outputs[0]);
    const float value = operation.as<sluice_fill_attributes>().value;
    return launching(
        [=](cudaStream_t stream) { launch_fill(y.data, y.type, count, value, stream); });
}

step_owner make_iota(const bound& owner, const plugin::operation& operation) {
    auto* y = data_of<int32_t>(owner, operation.outputs[0]);
    const int64_t count = count_of(owner, operation.outputs[0]);
    const sized_axis width = present_axis(owner, operation.outputs[0], -1);
    const int32_t* present = owner.present_extents();
    return launching([=](cudaStream_t stream) { launch_iota(y, count, width, present, stream); });
}

// ---- Along the last axis ----

axis_call along_last_axis(const bound& owner, const plugin::operation& operation) {
    const tensor_view x = owner.view(operation.inputs[0]);
    const tensor_view y = owner.optional_view(operation.outputs[0]);
    axis_call call;
    call.x = x.data;
    call.x_type = x.type;
    call.y = y.data;
    call.y_type = y.type;
    call.width = present_axis(owner, operation.inputs[0], -1);
    call.width_bound = size_of(owner, operation.inputs[0], -1);
    call.rows = call.width_bound == 0 ? 0 : count_of(owner, operation.inputs[0]) / call.width_bound;
    call.present = owner.present_extents();
    return call;
}

step_owner make_softmax(const bound& owner, const plugin::operation& operation) {
    const axis_call call = along_last_axis(owner, operation);
    return launching([call](cudaStream_t stream) { launch_softmax(call, stream); });
}

step_owner make_reduce(const bound& owner, const plugin::operation& operation) {
    const axis_call call = along_last_axis(owner, operation);
    const uint32_t function = operation.as<sluice_reduce_attributes>().function;
    return launching([=](cudaStream_t stream) { launch_reduce(call, function, stream); });
}

step_owner make_topk(const bound& owner, const plugin::operation& operation) {
    const axis_call call = along_last_axis(owner, operation);
    auto* index = data_of<int32_t>(owner, operation.output(1));
    const uint32_t given = operation.has_output(0) ? operation.output(0) : operation.output(1);
    const int64_t wanted = size_of(owner, given, -1);
    return launching([=](cudaStream_t stream) { launch_topk(call, index, wanted, stream); });
}

step_owner make_cumsum(const bound& owner, const plugin::operation& operation) {
    const axis_call call = along_last_axis(owner, operation);
    return launching([call](cudaStream_t stream) { launch_cumsum(call, stream); });
}

step_owner make_matmul(const bound& owner, const plugin::operation& operation) {
    const bool is_present = has_inner_extent(owner, operation);
    matmul_call call;
    call.x = sized_view_of(owner, operation.inputs[0], is_present);
    call.y = sized_view_of(owner, operation.inputs[1], is_present);
    call.z = sized_view_of(owner, operation.outputs[0], is_present);
    call.count_bound = count_of(owner, operation.outputs[0]);
    call.present = owner.present_extents();
    return launching([call](cudaStream_t stream) { launch_matmul(call, stream); });
}

// ---- Statistics ----

step_owner make_accumulate(const bound& owner, const plugin::operation& operation) {
    const tensor_view x = owner.view(operation.inputs[0]);
    accumulate_call call;
    call.x = x.data;
    call.x_type = x.type;
    call.rows = present_axis(owner, operation.inputs[0], 0);
    call.present = owner.present_extents();
    call.width = size_of(owner, operation.inputs[0], 1);
    if (operation.has_input(1)) {
        call.index = data_of<const int32_t>(owner, operation.inputs[1]);
        call.choices = size_of(owner, operation.inputs[1], 1);
    }
    call.expert = operation.as<sluice_accumulate_attributes>().expert;
    call.total = data_of<const float>(owner, operation.inputs[2]);
    call.rows_before = data_of<const float>(owner, operation.inputs[3]);
    call.total_after = data_of<float>(owner, operation.outputs[0]);
    call.rows_after = data_of<float>(owner, operation.outputs[1]);
    const bool is_gram = operation.kind == SLUICE_OP_ACCUMULATE_GRAM;
    return launching([=](cudaStream_t stream) {
        if (is_gram)
            launch_accumulate_gram(call, stream);
        else
            launch_accumulate_abs_max(call, stream);
    });
}

// ---- Rows by expert ----

std::unique_ptr<step> make_group_rows(const bound& owner, const plugin::operation& operation) {
    expert_sort_call call;
    call.index = data_of<const int32_t>(owner, operation.inputs[0]);
    call.total = static_cast<int32_t>(count_of(owner, operation.inputs[0]));
    call.choice_count = static_cast<int32_t>(size_of(owner, operation.inputs[0], 1));
    call.rows_present = present_axis(owner, operation.inputs[0], 0);
    call.present = owner.present_extents();
    if (operation.has_input(1)) {
        call.map = data_of<const int32_t>(owner, operation.inputs[1]);
        call.map_size = static_cast<int32_t>(count_of(owner, operation.inputs[1]));
    }
    call.expert_count = static_cast<int32_t>(count_of(owner, operation.outputs[3]) - 1);
    call.row = data_of<int32_t>(owner, operation.outputs[0]);
    call.choice = data_of<int32_t>(owner, operation.outputs[1]);
    call.place = data_of<int32_t>(owner, operation.outputs[2]);
    call.offset = data_of<int32_t>(owner, operation.outputs[3]);
    return launching([call](cudaStream_t stream) { launch_expert_sort(call, stream); });
}

// ---- Claims ----

bool is_element_type(sluice_element_type type) {
    return is_float_type(type) || type == SLUICE_I32 || type == SLUICE_BOOL;
}

void check_values(const plugin::operation& operation, const value_reader& values) {
    for (const auto& list : {operation.inputs, operation.outputs})
        for (const uint32_t number : list) {
            if (number == SLUICE_VALUE_NONE) continue;
            const plugin::value v = values(number);
            if (v.kind == SLUICE_VALUE_WEIGHT) {
                if (!has_values(v))
                    plugin::fail(SLUICE_UNSUPPORTED, plugin::operation_name(operation.kind),
                                 " reads weight '", v.name,
                                 "' element by element, so its role must have TENSOR");
            } else if (!is_element_type(v.type)) {
                plugin::fail(SLUICE_UNSUPPORTED, "value '", v.name,
                             "' must be float32, bfloat16, float16, int32 or bool");
            }
        }
}

using maker = step_owner (*)(const bound&, const plugin::operation&);

// NULL for an operation that is none of these.
maker find_maker(uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_GROUP_ROWS:
        return make_group_rows;
    case SLUICE_OP_GATHER_ROWS:
        return make_gather_rows;
    case SLUICE_OP_GATHER:
        return make_gather;
    case SLUICE_OP_SCATTER_ADD:
        return make_scatter_add;
    case SLUICE_OP_RESHAPE:
    case SLUICE_OP_COPY:
        return [](const bound& owner, const plugin::operation& operation) {
            return copying(owner, operation.inputs[0], operation.outputs[0]);
        };
    case SLUICE_OP_TRANSPOSE:
        return make_transpose;
    case SLUICE_OP_SLICE:
        return make_slice;
    case SLUICE_OP_CONCAT:
        return make_concat;
    case SLUICE_OP_CAST:
        return make_cast;
    case SLUICE_OP_DEQUANTIZE:
        return make_dequantize;
    case SLUICE_OP_UNARY:
        return make_unary;
    case SLUICE_OP_BINARY:
        return make_binary;
    case SLUICE_OP_SELECT:
        return make_select;
    case SLUICE_OP_FILL:
        return make_fill;
    case SLUICE_OP_IOTA:
        return make_iota;
    case SLUICE_OP_SOFTMAX:
        return make_softmax;
    case SLUICE_OP_REDUCE:
        return make_reduce;
    case SLUICE_OP_TOPK:
        return make_topk;
    case SLUICE_OP_CUMSUM:
        return make_cumsum;
    case SLUICE_OP_MATMUL:
        return make_matmul;
    case SLUICE_OP_ACCUMULATE_GRAM:
    case SLUICE_OP_ACCUMULATE_ABS_MAX:
        return make_accumulate;
    default:
        return nullptr;
    }
}

} // namespace

std::string claim_primitive(const plugin::operation& operation, const value_reader& values) {
    if (find_maker(operation.kind) == nullptr) return {};
    check_values(operation, values);
    return std::string(plugin::operation_name(operation.kind)) + ", plain";
}

std::unique_ptr<step> make_primitive(bound& owner, const plugin::operation& operation) {
    const maker make = find_maker(operation.kind);
    if (make == nullptr)
        plugin::fail(SLUICE_INTERNAL, plugin::operation_name(operation.kind),
                     " is not one of the plain primitives");
    return make(owner, operation);
}

} // namespace sluice::cuda
