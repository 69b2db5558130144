// Which products for many rows can run, and the call as the kernels want it.
#include "product_many.cuh"

namespace sluice::cuda {
namespace {

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

bool fits_weight(const weight_view& weight, uint32_t x_type) {
    if (weight.rows <= 0 || weight.rows % 64 != 0 || weight.columns <= 0
        || weight.columns % 64 != 0)
        return false;
    if (weight.rows > INT32_MAX || weight.columns > INT32_MAX || !is_aligned(weight.data))
        return false;
    switch (weight.storage) {
    case weight_storage::bfloat16:
        return x_type == SLUICE_BF16;
    case weight_storage::float16:
        return x_type == SLUICE_F16;
    case weight_storage::int8:
    case weight_storage::int4:
        return weight.group_columns > 0 && weight.group_columns % 64 == 0
               && weight.columns % weight.group_columns == 0
               && (weight.scale_type == SLUICE_F32 || weight.scale_type == SLUICE_F16
                   || weight.scale_type == SLUICE_BF16)
               && is_aligned(weight.scales) && is_aligned(weight.zeros);
    default:
        return false;
    }
}

const void* moved(const void* pointer, int64_t bytes) {
    return pointer == nullptr ? nullptr : static_cast<const char*>(pointer) + bytes;
}

many::arguments arguments_of(const product_call& call) {
    const weight_view& weight = call.weight;
    many::arguments out{};
    out.x = call.x;
    out.row = call.row;
    out.offset = call.offset;
    out.y = call.y;
    out.data[0] = weight.data;
    out.scales[0] = weight.scales;
    out.zeros[0] = weight.zeros;
    out.bias[0] = call.bias;
    out.places = call.places;
    out.matrices = call.offset != nullptr ? weight.matrices : 1;
    out.columns = static_cast<int32_t>(weight.columns);
    out.width = static_cast<int32_t>(weight.rows);
    out.matrix_rows = static_cast<int32_t>(weight.rows);
    out.feature_step = 1;
    out.scale_type = weight.scale_type;
    out.y_is_float = call.y_type == SLUICE_F32;
    out.copies = call.copies;
    if (is_tiled(weight.storage)) {
        out.steps_per_group = weight.group_columns / static_cast<int32_t>(tile_columns);
        out.groups = static_cast<int32_t>(weight.columns / weight.group_columns);
    }
    if (!call.gate.gates) return out;
    out.form = gate_form_of(call.gate);
    if (call.gate.gate_layout == SLUICE_GATE_SPLIT) {
        out.data[1] = call.up.data;
        out.scales[1] = call.up.scales;
        out.zeros[1] = call.up.zeros;
        out.bias[1] = call.up_bias;
        return out;
    }
    out.width = out.matrix_rows / 2;
    if (call.gate.gate_layout == SLUICE_GATE_CONCAT) {
        const int64_t row_tiles = out.width / tile_rows;
        const int64_t scales = row_tiles * out.groups * tile_rows;
        const int64_t data = is_tiled(weight.storage) ? row_tiles * (weight.columns / tile_columns)
                                                            * code_tile_bytes(weight.storage)
                                                      : out.width * weight.columns * 2;
        out.data[1] = moved(weight.data, data);
        out.scales[1] = moved(weight.scales, scales * (weight.scale_type == SLUICE_F32 ? 4 : 2));
        out.zeros[1] = static_cast<const uint8_t*>(moved(weight.zeros, scales));
        out.bias[1] = static_cast<const float*>(moved(call.bias, out.width * 4ll));
    } else {
        out.feature_step = 2;
        out.data[1] = moved(weight.data, weight.columns * 2); // tiles: the lane picks its rows
        out.bias[1] = static_cast<const float*>(moved(call.bias, 4));
    }
    return out;
}

} // namespace

bool fits_product_many(const product_call& call) {
    const bool is_half = call.x_type == SLUICE_BF16 || call.x_type == SLUICE_F16;
    if (!is_half || (call.y_type != call.x_type && call.y_type != SLUICE_F32)) return false;
    if (call.input_scale != nullptr || !is_aligned(call.x) || !is_aligned(call.y)) return false;
    if (!fits_weight(call.weight, call.x_type)) return false;
    if (call.offset != nullptr && call.weight.matrices > many::most_matrices) return false;
    if (!call.gate.gates) return true;
    if (call.gate.activation > SLUICE_ACTIVATION_SWIGLU_OAI) return false;
    if (call.gate.gate_layout != SLUICE_GATE_SPLIT)
        return call.gate.gate_layout <= SLUICE_GATE_INTERLEAVED;
    const weight_view& weight = call.weight;
    const weight_view& up = call.up;
    return fits_weight(up, call.x_type) && up.storage == weight.storage && up.rows == weight.rows
           && up.columns == weight.columns && up.matrices == weight.matrices
           && up.scale_type == weight.scale_type && up.group_columns == weight.group_columns
           && (up.zeros == nullptr) == (weight.zeros == nullptr);
}

void launch_product_many(const product_call& call, bool is_hopper, int multiprocessor_count,
                         cudaStream_t stream) {
    if (call.places <= 0) return;
    const many::arguments arguments = arguments_of(call);
    const bool is_bfloat = call.x_type == SLUICE_BF16;
    if (is_hopper)
        many::launch_sm90(arguments, call.weight.storage, is_bfloat, call.gate.gates,
                          multiprocessor_count, stream);
    else
        many::launch_sm80(arguments, call.weight.storage, is_bfloat, call.gate.gates,
                          multiprocessor_count, stream);
}

} // namespace sluice::cuda
