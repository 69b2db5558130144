#include "norms.hpp"

#include "launch.cuh"
#include "reduce.cuh"
#include "vectors.cuh"

namespace sluice::cuda {

namespace {

// ---- rms_norm ----

// u of Vector elements: those from `source` on of x and addend; goes to `sum` at `target`.
template <int Vector>
__device__ __forceinline__ void load_sum(const rms_norm_call& call, bool is_there, int64_t source,
                                         int64_t target, float (&u)[Vector]) {
    if (is_there) {
        load_floats(call.x, call.x_type, source, u);
        if (call.addend != nullptr) {
            float addend[Vector];
            load_floats(call.addend, call.addend_type, source, addend);
#pragma unroll
            for (int i = 0; i < Vector; ++i) u[i] += addend[i];
        }
    } else {
        fill_zeros(u);
    }
    if (call.sum != nullptr) store_floats(call.sum, call.sum_type, target, u);
#pragma unroll
    for (int i = 0; i < Vector; ++i) u[i] = round_to(call.sum_type, u[i]);
}

template <int Vector>
__device__ __forceinline__ void write_normal(const rms_norm_call& call, float factor, int64_t d,
                                             int64_t target, float (&u)[Vector]) {
    float weight[Vector];
    load_floats(call.weight, call.weight_type, d, weight);
#pragma unroll
    for (int i = 0; i < Vector; ++i) u[i] = u[i] * factor * (weight[i] + call.weight_offset);
    store_floats(call.y, call.y_type, target + d, u);
}

// A warp or a block for each group. Its threads keep their elements in registers, `Passes` vectors
// each; with 0 passes, for any width, they are read again.
template <int Vector, int Passes, bool one_warp>
__global__ void __launch_bounds__(512) rms_norm_kernel(rms_norm_call call) {
    const int64_t groups = call.width / call.group;
    const int64_t unit = row_index();
    if (unit >= call.rows * groups) return; // whole warps, and no block of several warps
    const int64_t target = unit * call.group;
    int64_t source = target;
    bool is_there = true;
    if (call.source_row != nullptr) {
        const int64_t row = call.source_row[unit / groups];
        is_there = row >= 0 && row < call.source_rows;
        source = (row * groups + unit % groups) * call.group;
    }
    const int64_t begin = static_cast<int64_t>(threadIdx.x) * Vector;
    const int64_t step = static_cast<int64_t>(blockDim.x) * Vector;
    float kept[Passes == 0 ? 1 : Passes][Vector];
    float squares = 0;
    if constexpr (Passes == 0) {
        for (int64_t d = begin; d < call.group; d += step) {
            load_sum(call, is_there, source + d, target + d, kept[0]);
            squares += squares_of(kept[0]);
        }
    } else {
#pragma unroll
        for (int pass = 0; pass < Passes; ++pass) {
            const int64_t d = begin + pass * step;
            if (d >= call.group) continue;
            load_sum(call, is_there, source + d, target + d, kept[pass]);
            squares += squares_of(kept[pass]);
        }
    }
    squares = reduce_row<one_warp>(squares, add_numbers{});
    const float factor = 1.0f / sqrtf(squares / static_cast<float>(call.group) + call.epsilon);
    if constexpr (Passes == 0) {
        for (int64_t d = begin; d < call.group; d += step) {
            // `sum` may have taken the place of x.
            if (call.sum != nullptr)
                load_floats(call.sum, call.sum_type, target + d, kept[0]);
            else
                load_sum(call, is_there, source + d, target + d, kept[0]);
            write_normal(call, factor, d, target, kept[0]);
        }
    } else {
#pragma unroll
        for (int pass = 0; pass < Passes; ++pass) {
            const int64_t d = begin + pass * step;
            if (d < call.group) write_normal(call, factor, d, target, kept[pass]);
        }
    }
}

template <int Vector>
void launch_rms_norm_by(const rms_norm_call& call, cudaStream_t stream) {
    const int64_t units = call.rows * (call.width / call.group);
    const int64_t vectors = divide_up(call.group, Vector);
    constexpr int warp_passes = Vector == 1 ? 4 : 1;
    if (vectors <= 32 * warp_passes) {
        constexpr unsigned warps = 4;
        launch_kernel("launching rms_norm", rms_norm_kernel<Vector, warp_passes, true>,
                      dim3(static_cast<unsigned>(divide_up(units, warps))), dim3(32, warps), 0,
                      stream, call);
        return;
    }
    const int64_t threads = std::min<int64_t>(512, round_up(vectors, 32));
    const int64_t passes = divide_up(vectors, threads);
    const auto kernel = passes == 1   ? rms_norm_kernel<Vector, 1, false>
                        : passes == 2 ? rms_norm_kernel<Vector, 2, false>
                        : passes <= 4 ? rms_norm_kernel<Vector, 4, false>
                                      : rms_norm_kernel<Vector, 0, false>;
    launch_kernel("launching rms_norm", kernel, dim3(static_cast<unsigned>(units)),
                  dim3(static_cast<unsigned>(threads)), 0, stream, call);
}

// ---- layer_norm ----

__global__ void layer_norm_kernel(layer_norm_call call) {
    const int64_t first = static_cast<int64_t>(blockIdx.x) * call.width;
    const auto width = static_cast<float>(call.width);
    float sum = 0;
    for (int64_t d = threadIdx.x; d < call.width; d += blockDim.x)
        sum += load_as_float(call.x, call.x_type, first + d);
    const float mean = reduce_block(sum, add_numbers{}) / width;
    float squares = 0;
    for (int64_t d = threadIdx.x; d < call.width; d += blockDim.x) {
        const float distance = load_as_float(call.x, call.x_type, first + d) - mean;
        squares += distance * distance;
    }
    const float variance = reduce_block(squares, add_numbers{}) / width;
    const float factor = 1.0f / sqrtf(variance + call.epsilon);
    for (int64_t d = threadIdx.x; d < call.width; d += blockDim.x) {
        const float normal = (load_as_float(call.x, call.x_type, first + d) - mean) * factor;
        const float bias =
            call.bias == nullptr ? 0.0f : load_as_float(call.bias, call.bias_type, d);
        store_from_float(call.y, call.y_type, first + d,
                         normal * load_as_float(call.weight, call.weight_type, d) + bias);
    }
}

} // namespace

void launch_rms_norm(const rms_norm_call& call, cudaStream_t stream) {
    if (call.rows == 0 || call.width == 0) return;
    const bool wide = call.group % 8 == 0 && is_aligned(call.x) && is_aligned(call.addend)
                      && is_aligned(call.sum) && is_aligned(call.weight) && is_aligned(call.y);
    if (wide)
        launch_rms_norm_by<8>(call, stream);
    else
        launch_rms_norm_by<1>(call, stream);
}

void launch_layer_norm(const layer_norm_call& call, cudaStream_t stream) {
    if (call.rows == 0 || call.width == 0) return;
    launch_kernel("launching layer_norm", layer_norm_kernel, dim3(static_cast<unsigned>(call.rows)),
                  dim3(256), 0, stream, call);
}

} // namespace sluice::cuda
