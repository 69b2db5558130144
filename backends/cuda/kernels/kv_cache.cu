#include "kv_cache.hpp"

#include "launch.cuh"
#include "shape.cuh"
#include "vectors.cuh"

namespace sluice::cuda {

namespace {

template <int Vector>
__global__ void kv_write_kernel(kv_write_call call) {
    const kv_part part = call.part[blockIdx.z];
    const int64_t row = row_index();
    if (row >= call.rows) return;
    const int64_t slot = call.slot[row];
    if (slot < 0 || slot >= call.slots) return;
    for (int64_t d = unit_begin() * Vector; d < part.width; d += unit_step() * Vector) {
        float values[Vector];
        load_floats(part.x, part.x_type, row * part.width + d, values);
        store_floats(part.cached, part.cached_type, slot * part.width + d, values);
    }
}

// Rows here are places of sequences.
template <int Vector>
__global__ void kv_gather_kernel(kv_gather_call call) {
    const int64_t places = size_of(call.columns, call.present) * call.tokens_per_block;
    const int64_t row = row_index();
    if (row >= call.sequences * places) return;
    const int64_t sequence = row / places, place = row % places;
    const int64_t block =
        call.block_table[sequence * call.columns_bound + place / call.tokens_per_block];
    const int64_t slot = block * call.tokens_per_block + place % call.tokens_per_block;
    const bool is_there = block >= 0 && slot < call.slots;
    for (int64_t d = unit_begin() * Vector; d < call.width; d += unit_step() * Vector) {
        float values[Vector];
        if (is_there)
            load_floats(call.cached, call.cached_type, slot * call.width + d, values);
        else
            fill_zeros(values);
        store_floats(call.x, call.x_type, row * call.width + d, values);
    }
}

} // namespace

void launch_kv_write(const kv_write_call& call, cudaStream_t stream) {
    if (call.rows == 0 || call.part_count == 0) return;
    bool wide = true;
    int64_t width_max = 0;
    for (int32_t i = 0; i < call.part_count; ++i) {
        const kv_part& part = call.part[i];
        wide = wide && part.width % 8 == 0 && is_aligned(part.x) && is_aligned(part.cached);
        width_max = std::max(width_max, part.width);
    }
    row_layout layout(call.rows, wide ? width_max / 8 : width_max);
    layout.grid.z = static_cast<unsigned>(call.part_count);
    launch_kernel("launching kv_write", wide ? kv_write_kernel<8> : kv_write_kernel<1>, layout.grid,
                  layout.block, 0, stream, call);
}

void launch_kv_gather(const kv_gather_call& call, cudaStream_t stream) {
    const int64_t rows = call.sequences * call.columns_bound * call.tokens_per_block;
    if (rows == 0 || call.width == 0) return;
    const bool wide = call.width % 8 == 0 && is_aligned(call.cached) && is_aligned(call.x);
    const row_layout layout(rows, wide ? call.width / 8 : call.width);
    launch_kernel("launching kv_gather", wide ? kv_gather_kernel<8> : kv_gather_kernel<1>,
                  layout.grid, layout.block, 0, stream, call);
}

} // namespace sluice::cuda
