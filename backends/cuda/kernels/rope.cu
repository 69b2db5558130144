#include "rope.hpp"

#include "launch.cuh"
#include "rope.cuh"

namespace sluice::cuda {

namespace {

__global__ void rope_table_kernel(rope_view rope, float* table) {
    const int64_t half = rope.dimension / 2;
    const int64_t index = flat_index();
    if (index >= rope.positions * half) return;
    const int64_t position = index / half, pair = index % half;
    float* row = table + position * 2 * half;
    const float2 found =
        compute_turn(static_cast<double>(position) * rope.frequencies[pair], rope.magnitude);
    row[pair] = found.x;
    row[half + pair] = found.y;
}

// A unit is Vector pairs, or Vector elements that are only copied. Rows here are heads.
template <int Vector>
__global__ void rope_kernel(rope_call call) {
    const int64_t head = row_index();
    if (head >= call.rows * call.heads) return;
    const int64_t half = call.rope.dimension / 2;
    const int64_t pair_units = half / Vector;
    const int64_t units = pair_units + (call.width - call.rope.dimension) / Vector;
    const int64_t first = head * call.width;
    const int64_t position = call.position[head / call.heads];
    for (int64_t unit = unit_begin(); unit < units; unit += unit_step()) {
        float u[Vector], v[Vector], cosine[Vector], sine[Vector];
        if (unit >= pair_units) {
            const int64_t at = first + call.rope.dimension + (unit - pair_units) * Vector;
            load_floats(call.x, call.x_type, at, u);
            store_floats(call.y, call.y_type, at, u);
            continue;
        }
        const int64_t pair = unit * Vector;
        load_turn(call.rope, position, pair, cosine, sine);
        if (call.rope.interleaved) {
            load_pairs(call.x, call.x_type, first + 2 * pair, u, v);
            turn(u, v, cosine, sine);
            store_pairs(call.y, call.y_type, first + 2 * pair, u, v);
        } else {
            load_floats(call.x, call.x_type, first + pair, u);
            load_floats(call.x, call.x_type, first + half + pair, v);
            turn(u, v, cosine, sine);
            store_floats(call.y, call.y_type, first + pair, u);
            store_floats(call.y, call.y_type, first + half + pair, v);
        }
    }
}

} // namespace

void launch_rope_table(const rope_view& rope, float* table, cudaStream_t stream) {
    const int64_t units = rope.positions * (rope.dimension / 2);
    if (units == 0) return;
    launch_kernel("launching the rope table", rope_table_kernel, flat_grid(units),
                  dim3(flat_threads), 0, stream, rope, table);
}

void launch_rope(const rope_call& call, cudaStream_t stream) {
    const int64_t heads = call.rows * call.heads;
    if (heads == 0 || call.width == 0) return;
    const int64_t half = call.rope.dimension / 2;
    const bool wide = half % 8 == 0 && call.width % 8 == 0 && is_aligned(call.x)
                      && is_aligned(call.y) && is_aligned(call.rope.table);
    const row_layout layout(heads, (call.width - half) / (wide ? 8 : 1));
    launch_kernel("launching rope", wide ? rope_kernel<8> : rope_kernel<1>, layout.grid,
                  layout.block, 0, stream, call);
}

} // namespace sluice::cuda
