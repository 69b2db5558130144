#include "rows.hpp"

#include "activate.cuh"
#include "launch.cuh"
#include "matrix_unit.cuh"
#include "reduce.cuh"
#include "shape.cuh"
#include "turn_heads.cuh"

namespace sluice::cuda {

namespace {

template <int Vector>
__device__ __forceinline__ void fill_zeros(float (&values)[Vector]) {
#pragma unroll
    for (int i = 0; i < Vector; ++i) values[i] = 0.0f;
}

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

// ---- rope ----

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

// ---- Queries, keys and values ----

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

// ---- The paged cache ----

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

void launch_combine_rows(const combine_rows_call& call, cudaStream_t stream) {
    if (call.rows == 0 || call.width == 0) return;
    const bool wide = call.width % 8 == 0 && is_aligned(call.y) && is_aligned(call.o);
    const row_layout layout(call.rows, wide ? call.width / 8 : call.width);
    launch_kernel("launching combine_rows",
                  wide ? combine_rows_kernel_of<8>(call.y_type)
                       : combine_rows_kernel_of<1>(call.y_type),
                  layout.grid, layout.block, 0, stream, call);
}

} // namespace sluice::cuda
