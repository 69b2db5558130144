#include "movement.hpp"

#include "launch.cuh"
#include "shape.cuh"
#include "vectors.cuh"

#include <optional>

namespace sluice::cuda {

namespace {

int64_t bytes_of_element(uint32_t type) {
    if (type == SLUICE_BOOL) return 1;
    return type == SLUICE_F16 || type == SLUICE_BF16 ? 2 : 4;
}

// Calls launch(unit) with a value of an unsigned type as wide as the elements.
template <typename Launch>
void by_element(uint32_t type, Launch&& launch) {
    switch (bytes_of_element(type)) {
    case 4:
        return launch(uint32_t{});
    case 2:
        return launch(uint16_t{});
    default:
        return launch(uint8_t{});
    }
}

template <typename Unit>
__global__ void gather_rows_kernel(gather_rows_call call, int64_t fixed_units) {
    const int64_t m = row_index();
    if (m >= call.count) return;
    // Units are elements where the width follows an extent.
    const int64_t units =
        fixed_units != 0 ? fixed_units : count_of(call.x, 1, call.x.rank, call.present);
    const int64_t row = call.rows[m];
    const bool is_there = row >= 0 && row < size_of(call.x.shape[0], call.present);
    const auto* from = static_cast<const Unit*>(call.x.data) + (is_there ? row : 0) * units;
    auto* to = static_cast<Unit*>(call.y) + m * units;
    for (int64_t i = unit_begin(); i < units; i += unit_step()) to[i] = is_there ? from[i] : Unit{};
}

template <typename Unit>
__global__ void gather_kernel(gather_call call) {
    const int64_t i = flat_index();
    auto* y = static_cast<Unit*>(call.y.data);
    if (i >= call.count_bound) return;
    if (i >= count_of(call.y, call.present)) { // padding
        y[i] = Unit{};
        return;
    }
    const int rank = call.y.rank;
    const int64_t width = size_of(call.x.shape[call.x.rank - 1], call.present);
    const tensor_place place = place_of(call.y, i, call.present);
    const int64_t at = static_cast<const int32_t*>(
        call.index.data)[broadcast_index(call.index, place, rank, 0, call.present)];
    const int64_t row = broadcast_index(call.x, place, rank, 1, call.present);
    y[i] = at >= 0 && at < width ? static_cast<const Unit*>(call.x.data)[row * width + at] : Unit{};
}

// A block for some elements of one row of y: it looks for the row among all of them, a block's
// width at a time.
__global__ void scatter_add_kernel(scatter_add_call call) {
    __shared__ uint32_t hits[flat_threads / 32];
    const int64_t row = blockIdx.x;
    const int64_t width = count_of(call.base, 1, call.base.rank, call.present);
    const int64_t count = size_of(call.row_count, call.present);
    const bool is_row = row < size_of(call.base.shape[0], call.present);
    for (int64_t first = static_cast<int64_t>(blockIdx.y) * flat_threads; first < width;
         first += static_cast<int64_t>(gridDim.y) * flat_threads) { // alike for the whole block
        const int64_t d = first + threadIdx.x;
        const bool adds = is_row && d < width;
        float sum = adds ? static_cast<const float*>(call.base.data)[row * width + d] : 0.0f;
        for (int64_t m0 = 0; m0 < count; m0 += flat_threads) {
            const int64_t own = m0 + threadIdx.x;
            const uint32_t found = __ballot_sync(0xffffffffu, own < count && call.rows[own] == row);
            if (threadIdx.x % 32 == 0) hits[threadIdx.x / 32] = found;
            __syncthreads();
            for (unsigned word = 0; word < flat_threads / 32; ++word)
                for (uint32_t rest = hits[word]; rest != 0; rest &= rest - 1) {
                    const int64_t m = m0 + word * 32 + static_cast<unsigned>(__ffs(rest) - 1);
                    if (adds) sum += load_as_float(call.x.data, call.x.type, m * width + d);
                }
            __syncthreads();
        }
        if (adds) call.y[row * width + d] = sum;
    }
}

template <typename Unit>
__global__ void rearrange_kernel(rearrange_call call) {
    const sized_view& walked = call.over_x ? call.x : call.y;
    const sized_view& other = call.over_x ? call.y : call.x;
    const int64_t i = flat_index();
    if (i >= call.count_bound) return;
    auto* y = static_cast<Unit*>(call.y.data);
    const auto* x = static_cast<const Unit*>(call.x.data);
    if (i >= count_of(walked, call.present)) { // padding
        if (!call.over_x) y[i] = Unit{};
        return;
    }
    const tensor_place place = place_of(walked, i, call.present);
    tensor_place there{};
    for (int axis = 0; axis < walked.rank; ++axis)
        there.at[call.order[axis]] =
            place.at[axis] + (axis == call.axis ? size_of(call.begin, call.present) : 0);
    int64_t flat = 0;
    for (int axis = 0; axis < other.rank; ++axis)
        flat = flat * size_of(other.shape[axis], call.present) + there.at[axis];
    if (call.over_x)
        y[flat] = x[i];
    else
        y[i] = x[flat];
}

// Runs of `length` units that lie `x_stride` apart in x and `y_stride` in y; `count` units in all.
constexpr int moved_at_once = 4; // units of a thread, on their way together
template <typename Unit>
__global__ void __launch_bounds__(flat_threads)
    move_runs_kernel(const Unit* x, uint32_t x_stride, Unit* y, uint32_t y_stride, uint32_t length,
                     uint32_t count) {
    const uint32_t first = blockIdx.x * (flat_threads * moved_at_once) + threadIdx.x;
    Unit kept[moved_at_once];
    int64_t target[moved_at_once];
#pragma unroll
    for (int i = 0; i < moved_at_once; ++i) {
        const uint32_t unit = first + i * flat_threads;
        if (unit >= count) break;
        const uint32_t run = unit / length, within = unit % length;
        kept[i] = x[static_cast<int64_t>(run) * x_stride + within];
        target[i] = static_cast<int64_t>(run) * y_stride + within;
    }
#pragma unroll
    for (int i = 0; i < moved_at_once; ++i) {
        if (first + i * flat_threads >= count) break;
        y[target[i]] = kept[i];
    }
}

template <int Vector>
__global__ void cast_kernel(const void* x, uint32_t x_type, void* y, uint32_t y_type,
                            int64_t count) {
    const int64_t i = flat_index() * Vector;
    if (i >= count) return;
    float values[Vector];
    load_floats(x, x_type, i, values);
    store_floats(y, y_type, i, values);
}

__global__ void dequantize_kernel(weight_view weight, void* x, uint32_t x_type) {
    const int64_t i = flat_index();
    if (i >= weight.matrices * weight.rows * weight.columns) return;
    const int64_t row = i / weight.columns;
    store_from_float(x, x_type, i,
                     load_weight(weight, row / weight.rows, row % weight.rows, i % weight.columns));
}

// A slice or a part of a concat, of sizes that are known: runs of bytes at even distances.
struct runs_of_bytes {
    const char* x = nullptr;
    char* y = nullptr;
    int64_t x_stride = 0;
    int64_t y_stride = 0;
    int64_t length = 0;
    int64_t count = 0; // bytes in all
};

// Empty where axes change places or follow an extent.
std::optional<runs_of_bytes> runs_of(const rearrange_call& call) {
    const sized_view& walked = call.over_x ? call.x : call.y;
    const sized_view& other = call.over_x ? call.y : call.x;
    int64_t inner = bytes_of_element(call.x.type); // bytes of one place of the axis
    int64_t outer = 1;
    if (call.begin.factor != 0) return std::nullopt;
    for (int axis = 0; axis < walked.rank; ++axis) {
        if (call.order[axis] != axis || walked.shape[axis].factor != 0
            || other.shape[axis].factor != 0)
            return std::nullopt;
        if (axis < call.axis) outer *= walked.shape[axis].base;
        if (axis > call.axis) inner *= walked.shape[axis].base;
    }
    runs_of_bytes runs;
    runs.x = static_cast<const char*>(call.x.data);
    runs.y = static_cast<char*>(call.y.data);
    if (call.over_x)
        runs.y += call.begin.base * inner;
    else
        runs.x += call.begin.base * inner;
    runs.x_stride = call.x.shape[call.axis].base * inner;
    runs.y_stride = call.y.shape[call.axis].base * inner;
    runs.length = walked.shape[call.axis].base * inner;
    runs.count = outer * runs.length;
    return runs;
}

// Whether they can be moved by units of so many bytes, which 32 bits count.
bool has_units(const runs_of_bytes& runs, int64_t bytes) {
    const auto addresses =
        reinterpret_cast<uintptr_t>(runs.x) | reinterpret_cast<uintptr_t>(runs.y);
    const auto sizes = static_cast<uintptr_t>(runs.x_stride | runs.y_stride | runs.length);
    return (addresses | sizes) % static_cast<uintptr_t>(bytes) == 0
           && std::max({runs.x_stride, runs.y_stride, runs.count}) / bytes < INT32_MAX;
}

template <typename Unit>
void launch_move_runs(const runs_of_bytes& runs, cudaStream_t stream) {
    constexpr int64_t bytes = sizeof(Unit);
    const int64_t count = runs.count / bytes;
    launch_kernel("launching the move of runs", move_runs_kernel<Unit>,
                  dim3(static_cast<unsigned>(divide_up(count, flat_threads * moved_at_once))),
                  dim3(flat_threads), 0, stream, reinterpret_cast<const Unit*>(runs.x),
                  static_cast<uint32_t>(runs.x_stride / bytes), reinterpret_cast<Unit*>(runs.y),
                  static_cast<uint32_t>(runs.y_stride / bytes),
                  static_cast<uint32_t>(runs.length / bytes), static_cast<uint32_t>(count));
}

bool is_float(uint32_t type) {
    return type == SLUICE_F32 || type == SLUICE_F16 || type == SLUICE_BF16;
}

} // namespace

void launch_gather_rows(const gather_rows_call& call, cudaStream_t stream) {
    if (call.count == 0 || call.row_elements_bound == 0) return;
    bool fixed = true;
    for (int axis = 1; axis < call.x.rank; ++axis) fixed = fixed && call.x.shape[axis].factor == 0;
    const int64_t row_bytes = call.row_elements_bound * bytes_of_element(call.x.type);
    const bool wide = fixed && row_bytes % 16 == 0 && is_aligned(call.x.data) && is_aligned(call.y);
    const int64_t units = wide ? row_bytes / 16 : call.row_elements_bound;
    const row_layout layout(call.count, units);
    const auto launch = [&](auto unit) {
        launch_kernel("launching gather_rows", gather_rows_kernel<decltype(unit)>, layout.grid,
                      layout.block, 0, stream, call, fixed ? units : 0);
    };
    if (wide)
        launch(uint4{});
    else
        by_element(call.x.type, launch);
}

void launch_gather(const gather_call& call, cudaStream_t stream) {
    if (call.count_bound == 0) return;
    by_element(call.x.type, [&](auto of) {
        launch_kernel("launching gather", gather_kernel<decltype(of)>, flat_grid(call.count_bound),
                      dim3(flat_threads), 0, stream, call);
    });
}

void launch_scatter_add(const scatter_add_call& call, cudaStream_t stream) {
    if (call.rows_bound == 0 || call.row_elements_bound == 0) return;
    const dim3 grid(static_cast<unsigned>(call.rows_bound),
                    static_cast<unsigned>(std::min<int64_t>(
                        divide_up(call.row_elements_bound, flat_threads), 65535)));
    launch_kernel("launching scatter_add", scatter_add_kernel, grid, dim3(flat_threads), 0, stream,
                  call);
}

void launch_rearrange(const rearrange_call& call, cudaStream_t stream) {
    if (call.count_bound == 0) return;
    if (const auto runs = runs_of(call)) {
        if (has_units(*runs, 16)) return launch_move_runs<uint4>(*runs, stream);
        if (has_units(*runs, 4)) return launch_move_runs<uint32_t>(*runs, stream);
        if (has_units(*runs, 2)) return launch_move_runs<uint16_t>(*runs, stream);
    }
    by_element(call.x.type, [&](auto of) {
        launch_kernel("launching a rearrangement", rearrange_kernel<decltype(of)>,
                      flat_grid(call.count_bound), dim3(flat_threads), 0, stream, call);
    });
}

void launch_cast(const void* x, uint32_t x_type, void* y, uint32_t y_type, int64_t count,
                 cudaStream_t stream) {
    if (count == 0) return;
    const bool wide =
        count % 8 == 0 && is_float(x_type) && is_float(y_type) && is_aligned(x) && is_aligned(y);
    launch_kernel("launching cast", wide ? cast_kernel<8> : cast_kernel<1>,
                  flat_grid(wide ? count / 8 : count), dim3(flat_threads), 0, stream, x, x_type, y,
                  y_type, count);
}

void launch_dequantize(const weight_view& weight, void* x, uint32_t x_type, cudaStream_t stream) {
    const int64_t count = weight.matrices * weight.rows * weight.columns;
    if (count == 0) return;
    launch_kernel("launching dequantize", dequantize_kernel, flat_grid(count), dim3(flat_threads),
                  0, stream, weight, x, x_type);
}

} // namespace sluice::cuda
