#include "attention_input.hpp"

#include "launch.cuh"
#include "matrix_unit.cuh"
#include "reduce.cuh"
#include "turn_heads.cuh"

namespace sluice::cuda {

namespace {

// The head's elements, normalised, in shared memory; `staged` is the warp's own.
template <int Vector>
__device__ __forceinline__ void stage_head(const head_source& from, int64_t begin, int width,
                                           const head_norm& norm, float* staged) {
    const int lane = threadIdx.x;
    float squares = 0;
    for (int d = lane * Vector; d < width; d += 32 * Vector) {
        float values[Vector];
        load_floats(from.data, from.type, begin + d, values);
        squares += squares_of(values);
#pragma unroll
        for (int i = 0; i < Vector; ++i) staged[d + i] = values[i];
    }
    if (norm.weight != nullptr) {
        squares = reduce_warp(squares, add_numbers{});
        const float factor = 1.0f / sqrtf(squares / static_cast<float>(width) + norm.epsilon);
        for (int d = lane * Vector; d < width; d += 32 * Vector) {
            float weight[Vector];
            load_floats(norm.weight, norm.weight_type, d, weight);
#pragma unroll
            for (int i = 0; i < Vector; ++i)
                staged[d + i] *= factor * (weight[i] + norm.weight_offset);
        }
    }
    __syncwarp();
}

// Element d of a head after its turn; `cosine` and `sine` are its pair's.
__device__ __forceinline__ float turned_element(const rope_view& rope, const float* staged, int d,
                                                float cosine, float sine) {
    const int half = rope.dimension / 2;
    const bool is_first = rope.interleaved ? d % 2 == 0 : d < half;
    const int distance = rope.interleaved ? 1 : half;
    return is_first ? staged[d] * cosine - staged[d + distance] * sine
                    : staged[d] * cosine + staged[d - distance] * sine;
}

// Cosines and sines for elements d to d + Vector - 1 of a head, as far as they are turned ones.
template <int Vector>
__device__ __forceinline__ void load_element_turns(const rope_view& rope, int64_t position, int d,
                                                   float (&cosine)[Vector], float (&sine)[Vector]) {
    const int half = rope.dimension / 2;
    if (!rope.interleaved && half % Vector == 0) {
        load_turn(rope, position, d % half, cosine, sine);
        return;
    }
#pragma unroll
    for (int i = 0; i < Vector; ++i) {
        if (d + i >= rope.dimension) break;
        float one_cosine[1], one_sine[1];
        load_turn(rope, position, rope.interleaved ? (d + i) / 2 : (d + i) % half, one_cosine,
                  one_sine);
        cosine[i] = one_cosine[0];
        sine[i] = one_sine[0];
    }
}

template <int Vector>
__device__ __forceinline__ void write_turned(const rope_view& rope, const float* staged,
                                             int64_t position, int width, void* to, uint32_t type,
                                             int64_t begin) {
    for (int d = static_cast<int>(threadIdx.x) * Vector; d < width; d += 32 * Vector) {
        float values[Vector], cosine[Vector], sine[Vector];
        if (d < rope.dimension) load_element_turns(rope, position, d, cosine, sine);
#pragma unroll
        for (int i = 0; i < Vector; ++i)
            values[i] = d + i < rope.dimension
                            ? turned_element(rope, staged, d + i, cosine[i], sine[i])
                            : staged[d + i];
        store_floats(to, type, begin + d, values);
    }
}

// A warp for each head: those of q, of k and of v.
template <int Vector>
__global__ void qk_norm_rope_write_kernel(const __grid_constant__ qk_norm_rope_write_call call) {
    extern __shared__ float staged_heads[];
    const int heads = call.query_heads + 2 * call.kv_heads;
    const int64_t unit = row_index();
    if (unit >= static_cast<int64_t>(call.rows) * heads) return;
    const int64_t row = unit / heads;
    int head = static_cast<int>(unit % heads);
    float* staged = staged_heads + threadIdx.y * call.width;
    const int64_t position = call.rope.dimension == 0 ? 0 : call.position[row];
    if (head < call.query_heads) {
        stage_head<Vector>(call.q, row * call.q.stride + head * call.width, call.width, call.q_norm,
                           staged);
        write_turned<Vector>(call.rope, staged, position, call.width, call.q_out, call.q_out_type,
                             (row * call.query_heads + head) * call.width);
        return;
    }
    const int64_t slot = call.slot[row];
    if (slot < 0 || slot >= call.slots) return;
    head -= call.query_heads;
    if (head < call.kv_heads) {
        stage_head<Vector>(call.k, row * call.k.stride + head * call.width, call.width, call.k_norm,
                           staged);
        write_turned<Vector>(call.rope, staged, position, call.width, call.key_cache, call.key_type,
                             (slot * call.kv_heads + head) * call.width);
        return;
    }
    head -= call.kv_heads;
    const int64_t from = row * call.v.stride + head * call.value_width;
    const int64_t to = (slot * call.kv_heads + head) * call.value_width;
    for (int d = static_cast<int>(threadIdx.x) * Vector; d < call.value_width; d += 32 * Vector) {
        float values[Vector];
        load_floats(call.v.data, call.v.type, from + d, values);
        store_floats(call.value_cache, call.value_type, to + d, values);
    }
}

// Rows of half types whose heads are turned as a whole, element d with d + width / 2: a lane has
// eight neighbouring ones of each half, a warp as many heads as it has lanes for, one such group
// after another; `spread` warps share a row.
constexpr int turn_warps = 4;
constexpr int64_t turn_warps_wanted = 16384;

__global__ void __launch_bounds__(turn_warps * 32)
    turn_heads_kernel(const __grid_constant__ qk_norm_rope_write_call call, int spread) {
    start_next_grid();
    wait_for_grids_before();
    const int64_t warp = static_cast<int64_t>(blockIdx.x) * turn_warps + threadIdx.x / 32;
    const int64_t row = warp / spread;
    if (row >= call.rows) return; // whole warps
    const int part = static_cast<int>(warp % spread), lane = threadIdx.x % 32;
    const int width = call.width, half = width / 2;
    const int head_lanes = width / 16, heads_at_once = 32 / head_lanes;
    const int own_head = lane / head_lanes, pair = lane % head_lanes * 8;
    const int q_groups = (call.query_heads + heads_at_once - 1) / heads_at_once;
    const int groups = q_groups + (call.kv_heads + heads_at_once - 1) / heads_at_once;

    // Groups of q, then those of k. A group is asked for before the one before it is turned.
    const auto head_of = [&](int group) {
        return (group < q_groups ? group : group - q_groups) * heads_at_once + own_head;
    };
    const auto load_group = [&](int group) {
        const bool is_query = group < q_groups;
        const auto* data = static_cast<const uint16_t*>(is_query ? call.q.data : call.k.data);
        const int64_t stride = is_query ? call.q.stride : call.k.stride;
        const int head = head_of(group);
        head_halves of{make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)};
        if (group >= groups || head >= (is_query ? call.query_heads : call.kv_heads)) return of;
        data += row * stride + head * width + pair;
        of.low = load_now(data);
        of.high = load_now(data + half);
        return of;
    };
    head_halves next = load_group(part);
    const int64_t slot = call.slot[row];
    const bool is_cached = slot >= 0 && slot < call.slots;
    float cosine[8], sine[8];
    load_turn(call.rope, call.position[row], pair, cosine, sine);
    for (int group = part; group < groups; group += spread) {
        const bool is_query = group < q_groups;
        const int head = head_of(group);
        const head_halves own = next;
        next = load_group(group + spread);
        const uint32_t type = is_query ? call.q.type : call.k.type;
        const head_norm norm{is_query ? call.q_norm.weight : call.k_norm.weight,
                             is_query ? call.q_norm.weight_type : call.k_norm.weight_type,
                             is_query ? call.q_norm.epsilon : call.k_norm.epsilon,
                             is_query ? call.q_norm.weight_offset : call.k_norm.weight_offset};
        float u[8], v[8];
        turn_head(norm, type, own, width, pair, cosine, sine, u, v);
        if (head >= (is_query ? call.query_heads : call.kv_heads) || (!is_query && !is_cached))
            continue;
        void* to = is_query ? call.q_out : call.key_cache;
        const uint32_t to_type = is_query ? call.q_out_type : call.key_type;
        const int64_t at = (is_query ? row * call.query_heads : slot * call.kv_heads) * width
                           + head * width + pair;
        store_floats(to, to_type, at, u);
        store_floats(to, to_type, at + half, v);
    }
    if (!is_cached) return;
    const int values = call.kv_heads * call.value_width;
    for (int d = ((spread - 1 - part) * 32 + lane) * 8; d < values; d += spread * 32 * 8) {
        float value[8];
        load_floats(call.v.data, call.v.type, row * call.v.stride + d, value);
        store_floats(call.value_cache, call.value_type, slot * values + d, value);
    }
}

bool is_half(uint32_t type) { return type == SLUICE_BF16 || type == SLUICE_F16; }

// Whether vectors of four elements may be read and written everywhere.
bool has_vectors(const qk_norm_rope_write_call& call) {
    bool has = call.width % 4 == 0 && call.value_width % 4 == 0;
    for (const int64_t stride : {call.q.stride, call.k.stride, call.v.stride})
        has = has && stride % 4 == 0;
    for (const void* data : {call.q.data, call.k.data, call.v.data}) has = has && is_aligned(data);
    for (const void* data : {call.q_norm.weight, call.k_norm.weight}) has = has && is_aligned(data);
    for (const void* data : {call.q_out, call.key_cache, call.value_cache})
        has = has && is_aligned(data);
    return has;
}

} // namespace

bool turns_whole_heads(const qk_norm_rope_write_call& call) {
    const bool has_width = call.width == 64 || call.width == 128 || call.width == 256;
    return has_width && call.rope.dimension == call.width && !call.rope.interleaved
           && call.value_width % 8 == 0 && call.q.stride % 8 == 0 && call.k.stride % 8 == 0
           && call.v.stride % 8 == 0 && is_half(call.q.type) && is_half(call.k.type)
           && is_aligned(call.rope.table) && has_vectors(call);
}

void launch_qk_norm_rope_write(const qk_norm_rope_write_call& call, cudaStream_t stream) {
    const int64_t units = static_cast<int64_t>(call.rows) * (call.query_heads + 2 * call.kv_heads);
    if (units == 0) return;
    if (turns_whole_heads(call)) {
        const int heads_at_once = 512 / call.width;
        const int64_t units =
            divide_up(call.query_heads, heads_at_once) + divide_up(call.kv_heads, heads_at_once)
            + divide_up(static_cast<int64_t>(call.kv_heads) * call.value_width, 32 * 8);
        const int64_t spread =
            std::clamp<int64_t>(divide_up(turn_warps_wanted, call.rows), 1, units);
        launch_grid(turn_heads_kernel,
                    dim3(static_cast<unsigned>(divide_up(call.rows * spread, turn_warps))),
                    turn_warps * 32, 0, stream, call.programmatic, call, static_cast<int>(spread));
        check(cudaGetLastError(), "launching norms, rope and writing of keys and values");
        return;
    }
    const bool wide = has_vectors(call);
    constexpr unsigned warps = 4; // with the widest heads 32 KiB of shared memory
    const size_t shared_bytes = warps * static_cast<size_t>(call.width) * sizeof(float);
    launch_kernel("launching norms, rope and writing of keys and values",
                  wide ? qk_norm_rope_write_kernel<4> : qk_norm_rope_write_kernel<1>,
                  dim3(static_cast<unsigned>(divide_up(units, warps))), dim3(32, warps),
                  shared_bytes, stream, call);
}

} // namespace sluice::cuda
