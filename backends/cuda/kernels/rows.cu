#include "rows.hpp"

#include "activate.cuh"
#include "launch.cuh"
#include "vectors.cuh"

namespace sluice::cuda {

namespace {

// ---- embed ----

// The element type of storage that is not tiled.
uint32_t float_type_of(weight_storage storage) {
    return storage == weight_storage::float32    ? SLUICE_F32
           : storage == weight_storage::bfloat16 ? SLUICE_BF16
                                                 : SLUICE_F16;
}
bool is_tiled(weight_storage storage) {
    return storage == weight_storage::int8 || storage == weight_storage::int4;
}

template <int Vector>
__global__ void embed_kernel(embed_call call, uint32_t weight_type, bool tiled) {
    const int64_t row = row_index();
    if (row >= call.rows) return;
    const int64_t id = call.ids[row];
    const bool known = id >= 0 && id < call.weight.rows;
    const int64_t width = call.weight.columns;
    for (int64_t d = unit_begin() * Vector; d < width; d += unit_step() * Vector) {
        float values[Vector];
        if (!known)
            fill_zeros(values);
        else if (!tiled)
            load_floats(call.weight.data, weight_type, id * width + d, values);
        else
            for (int i = 0; i < Vector; ++i) values[i] = load_weight(call.weight, 0, id, d + i);
#pragma unroll
        for (int i = 0; i < Vector; ++i) values[i] *= call.scale;
        store_floats(call.x, call.x_type, row * width + d, values);
    }
}

// ---- Activations ----

template <int Vector>
__global__ void activation_kernel(activation_call call) {
    const int64_t index = flat_index() * Vector;
    if (index >= call.count) return;
    float values[Vector];
    load_floats(call.x, call.x_type, index, values);
#pragma unroll
    for (int i = 0; i < Vector; ++i) values[i] = activate(call.activation, values[i]);
    store_floats(call.y, call.y_type, index, values);
}

template <int Vector>
__global__ void gated_activation_kernel(gated_activation_call call) {
    const int64_t row = row_index();
    if (row >= call.rows) return;
    for (int64_t d = unit_begin() * Vector; d < call.width; d += unit_step() * Vector) {
        float gate[Vector], up[Vector];
        if (call.gate_layout == SLUICE_GATE_SPLIT) {
            load_floats(call.gate, call.gate_type, row * call.width + d, gate);
            load_floats(call.up, call.up_type, row * call.width + d, up);
        } else if (call.gate_layout == SLUICE_GATE_CONCAT) {
            load_floats(call.gate, call.gate_type, row * 2 * call.width + d, gate);
            load_floats(call.gate, call.gate_type, (row * 2 + 1) * call.width + d, up);
        } else {
            load_pairs(call.gate, call.gate_type, 2 * (row * call.width + d), gate, up);
        }
#pragma unroll
        for (int i = 0; i < Vector; ++i)
            gate[i] = gated_activate(call.activation, call.alpha, call.clamp, gate[i], up[i]);
        store_floats(call.y, call.y_type, row * call.width + d, gate);
    }
}

// ---- combine_rows ----

// 32 registers of rows are on their way together.
template <int Vector, uint32_t y_type>
constexpr int combined_at_once = Vector == 8 && y_type == SLUICE_F32 ? 4 : 8;

template <int Vector, uint32_t y_type>
__global__ void __launch_bounds__(flat_threads, 4) combine_rows_kernel(combine_rows_call call) {
    const int64_t row = row_index();
    if (row >= call.rows) return;
    const int32_t* place = call.place + row * call.choices;
    const float* weight = call.weight == nullptr ? nullptr : call.weight + row * call.choices;
    constexpr int at_once = combined_at_once<Vector, y_type>;
    for (int64_t d = unit_begin() * Vector; d < call.width; d += unit_step() * Vector) {
        float sum[Vector];
        if (call.addend != nullptr)
            load_floats(call.addend, call.addend_type, row * call.width + d, sum);
        else
            fill_zeros(sum);
        const auto choices = static_cast<int32_t>(call.choices);
        for (int32_t first = 0; first < choices; first += at_once) {
            // As they lie in memory: as float32 they would take twice the registers.
            packed_floats<Vector, y_type> values[at_once];
            uint32_t adds = 0;
#pragma unroll
            for (int j = 0; j < at_once; ++j) {
                const int32_t from = first + j < choices ? place[first + j] : -1;
                if (from < 0 || from >= call.places) continue;
                adds |= 1u << j;
                values[j].load(call.y, int64_t{from} * call.width + d);
            }
#pragma unroll
            for (int j = 0; j < at_once; ++j) {
                if ((adds >> j & 1) == 0) continue;
                const float factor = weight == nullptr ? 1.0f : weight[first + j];
#pragma unroll
                for (int i = 0; i < Vector; ++i) sum[i] += factor * values[j].at(i);
            }
        }
        if (call.identity_from > 0) {
            float identity = 0.0f, x[Vector];
            for (int32_t j = 0; j < choices; ++j)
                if (place[j] < 0 && call.index[row * choices + j] >= call.identity_from)
                    identity += call.identity_weight[row * choices + j];
            load_floats(call.x, call.x_type, row * call.width + d, x);
#pragma unroll
            for (int i = 0; i < Vector; ++i) sum[i] += identity * x[i];
        }
        store_floats(call.o, call.o_type, row * call.width + d, sum);
    }
}

template <int Vector>
auto combine_rows_kernel_of(uint32_t type) {
    return type == SLUICE_F32    ? combine_rows_kernel<Vector, SLUICE_F32>
           : type == SLUICE_BF16 ? combine_rows_kernel<Vector, SLUICE_BF16>
                                 : combine_rows_kernel<Vector, SLUICE_F16>;
}

} // namespace

void launch_embed(const embed_call& call, cudaStream_t stream) {
    const int64_t width = call.weight.columns;
    if (call.rows == 0 || width == 0) return;
    const bool tiled = is_tiled(call.weight.storage);
    const uint32_t type = float_type_of(call.weight.storage);
    const bool wide =
        !tiled && width % 8 == 0 && is_aligned(call.weight.data) && is_aligned(call.x);
    const row_layout layout(call.rows, wide ? width / 8 : width);
    launch_kernel("launching embed", wide ? embed_kernel<8> : embed_kernel<1>, layout.grid,
                  layout.block, 0, stream, call, type, tiled);
}

void launch_activation(const activation_call& call, cudaStream_t stream) {
    if (call.count == 0) return;
    const bool wide = call.count % 8 == 0 && is_aligned(call.x) && is_aligned(call.y);
    launch_kernel("launching an activation", wide ? activation_kernel<8> : activation_kernel<1>,
                  flat_grid(wide ? call.count / 8 : call.count), dim3(flat_threads), 0, stream,
                  call);
}

void launch_gated_activation(const gated_activation_call& call, cudaStream_t stream) {
    if (call.rows == 0 || call.width == 0) return;
    const bool wide =
        call.width % 8 == 0 && is_aligned(call.gate) && is_aligned(call.up) && is_aligned(call.y);
    const row_layout layout(call.rows, wide ? call.width / 8 : call.width);
    launch_kernel("launching a gated activation",
                  wide ? gated_activation_kernel<8> : gated_activation_kernel<1>, layout.grid,
                  layout.block, 0, stream, call);
}

void launch_combine_rows(const combine_rows_call& call, cudaStream_t stream) {
    if (call.rows == 0 || call.width == 0) return;
    const bool wide = call.width % 8 == 0 && is_aligned(call.y) && is_aligned(call.addend)
                      && is_aligned(call.o) && is_aligned(call.x);
    const row_layout layout(call.rows, wide ? call.width / 8 : call.width);
    launch_kernel("launching combine_rows",
                  wide ? combine_rows_kernel_of<8>(call.y_type)
                       : combine_rows_kernel_of<1>(call.y_type),
                  layout.grid, layout.block, 0, stream, call);
}

} // namespace sluice::cuda
