#include "mla_input.hpp"

#include "launch.cuh"
#include "matrix_unit.cuh"
#include "reduce.cuh"
#include "rope.cuh"

namespace sluice::cuda {

namespace {

// A row's work is cut into tasks, one for a warp: first the latent, then pairs of elements that are
// turned, a lane's eight at a time, and last the vectors that are only moved. Grid: rows, tasks.
constexpr int warps = 4;
constexpr int latent_passes = mla_input_latent_max / (32 * 8); // vectors of a lane
// From so many rows on there are enough warps for a lane to move several vectors, which are on
// their way together; of fewer rows it has one.
constexpr int32_t many_rows = 64;
constexpr int many_moved = 4;

// The row's latent, normalised. Its weight is read while the grid before may still run.
__device__ __forceinline__ void write_latent(const mla_input_call& call, int64_t row, int lane) {
    float weight[latent_passes][8], kept[latent_passes][8];
#pragma unroll
    for (int pass = 0; pass < latent_passes; ++pass) {
        const int d = (pass * 32 + lane) * 8;
        if (d < call.latent) load_floats(call.norm.weight, call.norm.weight_type, d, weight[pass]);
    }
    wait_for_grids_before();
    const int64_t slot = call.slot[row];
    const int64_t begin = row * (call.latent + call.rope);
    float squares[latent_passes] = {};
#pragma unroll
    for (int pass = 0; pass < latent_passes; ++pass) {
        const int d = (pass * 32 + lane) * 8;
        if (d >= call.latent) continue;
        load_floats(call.kv, call.kv_type, begin + d, kept[pass]);
        squares[pass] = squares_of(kept[pass]);
    }
    if (slot < 0 || slot >= call.slots) return; // the whole warp
    // In the order of rms_norm, which has a warp for each of these passes.
    float sum = reduce_warp(squares[0], add_numbers{});
#pragma unroll
    for (int pass = 1; pass < latent_passes; ++pass)
        sum += reduce_warp(squares[pass], add_numbers{});
    const float factor = 1.0f / sqrtf(sum / static_cast<float>(call.latent) + call.norm.epsilon);
#pragma unroll
    for (int pass = 0; pass < latent_passes; ++pass) {
        const int d = (pass * 32 + lane) * 8;
        if (d >= call.latent) continue;
#pragma unroll
        for (int i = 0; i < 8; ++i)
            kept[pass][i] =
                round_to(call.normed_type,
                         kept[pass][i] * factor * (weight[pass][i] + call.norm.weight_offset));
        store_floats(call.latents, call.latent_type, slot * call.latent + d, kept[pass]);
    }
}

// Eight pairs of a head of the queries or, behind those, of the key.
__device__ __forceinline__ void turn_pairs(const mla_input_call& call, int64_t row, int unit) {
    const int half = call.rope / 2, head_units = half / 8;
    const int head = unit / head_units, pair = unit % head_units * 8;
    if (head > call.heads) return;
    const bool is_query = head < call.heads;
    const int64_t query = row * call.heads + head;
    const void* from = is_query ? call.q : call.kv;
    const uint32_t from_type = is_query ? call.q_type : call.kv_type;
    const int64_t begin = is_query ? query * (call.nope + call.rope) + call.nope
                                   : row * (call.latent + call.rope) + call.latent;
    // The two vectors that the pairs are in.
    const int first = call.turns.interleaved ? 2 * pair : pair;
    const int second = call.turns.interleaved ? 2 * pair + 8 : half + pair;
    const int64_t position = call.position[row];
    const int64_t slot = is_query ? 0 : call.slot[row];
    float u[8], v[8], cosine[8], sine[8];
    if (call.turns.interleaved) {
        load_pairs(from, from_type, begin + first, u, v);
    } else {
        load_floats(from, from_type, begin + first, u);
        load_floats(from, from_type, begin + second, v);
    }
    load_turn(call.turns, position, pair, cosine, sine);
    turn(u, v, cosine, sine);
    if (!is_query) {
        if (slot < 0 || slot >= call.slots) return;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            u[i] = round_to(call.turned_type, u[i]);
            v[i] = round_to(call.turned_type, v[i]);
        }
    }
    void* to = is_query ? call.q_pe : call.rope_keys;
    const uint32_t to_type = is_query ? call.q_pe_type : call.rope_key_type;
    const int64_t target = (is_query ? query : slot) * call.rope;
    if (call.turns.interleaved) {
        store_pairs(to, to_type, target + first, u, v);
    } else {
        store_floats(to, to_type, target + first, u);
        store_floats(to, to_type, target + second, v);
    }
}

// Vectors of 16 bytes of the queries' first parts: `moved` of them, 32 apart.
template <int moved>
__device__ __forceinline__ void move_vectors(const mla_input_call& call, int64_t row, int unit) {
    const int elements = call.q_type == SLUICE_F32 ? 4 : 8; // of a vector
    const int head_vectors = call.nope / elements;
    const int head_stride = (call.nope + call.rope) / elements;
    const int vectors = call.heads * head_vectors; // of the row
    const auto* from = static_cast<const uint4*>(call.q) + row * call.heads * head_stride;
    auto* to = static_cast<uint4*>(call.q_nope) + row * vectors;
    uint4 kept[moved];
#pragma unroll
    for (int i = 0; i < moved; ++i) {
        const int at = unit + 32 * i;
        if (at < vectors)
            kept[i] = load_now(from + at / head_vectors * head_stride + at % head_vectors);
    }
#pragma unroll
    for (int i = 0; i < moved; ++i)
        if (unit + 32 * i < vectors) to[unit + 32 * i] = kept[i];
}

template <int moved>
__global__ void __launch_bounds__(warps * 32)
    mla_input_kernel(const __grid_constant__ mla_input_call call, int pair_tasks) {
    start_next_grid();
    const int64_t row = blockIdx.x;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int task = static_cast<int>(blockIdx.y) * warps + static_cast<int>(threadIdx.x) / 32;
    if (task == 0) return write_latent(call, row, lane);
    wait_for_grids_before();
    if (task <= pair_tasks)
        turn_pairs(call, row, (task - 1) * 32 + lane);
    else
        move_vectors<moved>(call, row, (task - 1 - pair_tasks) * 32 * moved + lane);
}

template <int moved>
void launch(const mla_input_call& call, cudaStream_t stream) {
    const int64_t pair_units = (int64_t{call.heads} + 1) * (call.rope / 16);
    const int64_t vectors = int64_t{call.heads} * call.nope / (call.q_type == SLUICE_F32 ? 4 : 8);
    const int64_t pair_tasks = divide_up(pair_units, 32);
    const int64_t tasks = 1 + pair_tasks + divide_up(vectors, 32 * moved);
    launch_grid(
        mla_input_kernel<moved>,
        dim3(static_cast<unsigned>(call.rows), static_cast<unsigned>(divide_up(tasks, warps))),
        warps * 32, 0, stream, call.programmatic, call, static_cast<int>(pair_tasks));
    check(cudaGetLastError(), "launching the input of mla_attention");
}

} // namespace

bool fits_mla_input(const mla_input_call& call) {
    for (const uint32_t type :
         {call.q_type, call.kv_type, call.q_pe_type, call.latent_type, call.rope_key_type})
        if (type != SLUICE_F32 && type != SLUICE_BF16 && type != SLUICE_F16) return false;
    for (const void* data :
         {call.q, call.kv, call.norm.weight, static_cast<const void*>(call.turns.table)})
        if (!is_aligned(data)) return false;
    for (const void* data : {call.q_nope, call.q_pe, call.latents, call.rope_keys})
        if (!is_aligned(data)) return false;
    return call.nope % 8 == 0 && call.rope % 16 == 0 && call.turns.dimension == call.rope
           && call.latent % 8 == 0 && call.latent <= mla_input_latent_max
           && call.norm.weight != nullptr;
}

void launch_mla_input(const mla_input_call& call, cudaStream_t stream) {
    if (call.rows == 0) return;
    if (call.rows < many_rows)
        launch<1>(call, stream);
    else
        launch<many_moved>(call, stream);
}

} // namespace sluice::cuda
