// The down product of experts for few rows: a block takes 16 columns of one row of y over all of
// the row's choices, so that the weighted sum needs no second kernel.
#include "product_few.hpp"
#include "product_few_unit.cuh"

#include <algorithm>

namespace sluice::cuda {

bool fits_few_weight(const weight_view& w, uint32_t x_type);

namespace {

constexpr int warps_max = 16;
constexpr int choices_max = 64;

struct combine_arguments {
    few_combine_call call;
    unit_shape shape;
    unit_shape shared_shape;
    int32_t row_tiles;    // of a matrix
    int32_t parts;        // that the columns of a matrix are cut into
    int32_t shared_parts; // likewise of the shared one; 0: there is none
    int32_t chunk_units;  // units of x that a warp keeps in shared memory
    int32_t area_bytes;   // of a warp
};

// Units in flight: 96 bytes a lane for int4, where a warp often has six units, and 64 else.
template <int bits>
constexpr int combine_depth = bits == 4 ? 6 : 16 / bits;

// Warp w takes pieces w, w + warps, ...; piece q is part q % parts of the columns of choice
// q / parts. Behind the choices come the pieces of the shared matrix.
template <int bits, typename Half, bool shares>
__global__ void __maxnreg__(96) combine_kernel(const __grid_constant__ combine_arguments given) {
    extern __shared__ uint4 shared_vectors[];
    constexpr int depth = combine_depth<bits>;
    const few_combine_call& call = given.call;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warps = blockDim.x / 32;
    const int row = blockIdx.y;
    const int choice_pieces = call.choice_count * given.parts;
    const int pieces = choice_pieces + (shares ? given.shared_parts : 0);
    const int32_t* index = call.index + static_cast<int64_t>(row) * call.choice_count;

    char* area = reinterpret_cast<char*>(shared_vectors) + warp * given.area_bytes;
    auto* sums = reinterpret_cast<float*>(reinterpret_cast<char*>(shared_vectors)
                                          + warps * given.area_bytes); // [pieces, 16]
    if (lane == 0) *reinterpret_cast<uint4*>(area) = make_uint4(0, 0, 0, 0);
    // What the sum wants of each choice: its matrix, -1 for none, and its weight, or that of its
    // identity. A thread asks for one choice's before x and looks at it behind the product.
    __shared__ int choice_matrix[choices_max];
    __shared__ float choice_weight[choices_max];
    uint32_t own_index = 0, own_weight = __float_as_uint(1.0f), own_identity = 0;
    const bool has_choice = static_cast<int>(threadIdx.x) < call.choice_count;
    const auto load_choice = [&] {
        if (!has_choice) return;
        const int64_t at = static_cast<int64_t>(row) * call.choice_count + threadIdx.x;
        own_index = load_fresh(index + threadIdx.x);
        if (call.weight != nullptr) own_weight = load_fresh(call.weight + at);
        if (call.identity_from > 0) own_identity = load_fresh(call.identity_weight + at);
    };
    const x_cursor x[1] = {x_cursor_of<bits>(area + 16, area, 0, 1, lane)};

    bool has_waited = false;
    for (int piece = warp; piece < pieces; piece += warps) {
        const bool is_shared = shares && piece >= choice_pieces;
        const int choice = piece / given.parts;
        const int parts = is_shared ? given.shared_parts : given.parts;
        const int part = is_shared ? piece - choice_pieces : piece % given.parts;
        unit_shape shape = given.shape;
        weight_view weight;
        weight.data = is_shared ? call.shared.data : call.matrix.data;
        weight.scales = is_shared ? call.shared.scales : call.matrix.scales;
        weight.zeros = is_shared ? call.shared.zeros : call.matrix.zeros;
        if (is_shared) {
            shape.units = given.shared_shape.units;
            shape.groups = given.shared_shape.groups;
            shape.group_shift = given.shared_shape.group_shift;
        }
        const int matrix = is_shared ? 0
                                     : matrix_of_choice(index[choice], call.map, call.map_size,
                                                        call.matrix.matrices);
        const int unit_begin = shape.units * part / parts;
        const int unit_end = shape.units * (part + 1) / parts;
        weight_unit<bits> units[depth];
        unit_cursor cursor{};
        if (matrix >= 0) {
            cursor = cursor_of<bits>(weight, shape,
                                     static_cast<int64_t>(matrix) * given.row_tiles
                                         + static_cast<int64_t>(blockIdx.x),
                                     lane);
#pragma unroll
            for (int d = 0; d < depth; ++d)
                if (unit_begin + d < unit_end)
                    load_unit<bits>(units[d], cursor, weight, shape, unit_begin + d);
        }
        if (!has_waited) {
            wait_for_grids_before();
            start_next_grid();
            load_choice();
            has_waited = true;
        }
        if (matrix < 0) continue;
        float total[1][4] = {};
        int in_chunk = given.chunk_units;
        for (int first = unit_begin; first < unit_end; first += depth) {
            if (in_chunk + depth > given.chunk_units) {
                __syncwarp(); // lanes may still read what is there
                copy_rows<1, Half>(
                    area + 16, 0, is_shared ? call.shared_x : call.x, shape.units * 64, first,
                    min(first + given.chunk_units, unit_end), 1, lane,
                    [&](int) { return is_shared ? row : row * call.choice_count + choice; }, false,
                    [](int) { return 1.0f; });
                __syncwarp();
                in_chunk = 0;
            }
#pragma unroll
            for (int d = 0; d < depth; ++d) {
                if (first + d < unit_end)
                    multiply_unit<bits, Half, 1>(total, units[d], shape, x, in_chunk + d);
                if (first + d + depth < unit_end)
                    load_unit<bits>(units[d], cursor, weight, shape, first + d + depth);
            }
            in_chunk += depth;
        }
        // The only row of x is column 0 of the sums: lanes with t = 0.
        if (lane % 4 == 0) {
            sums[piece * 16 + lane / 4] = total[0][0];
            sums[piece * 16 + lane / 4 + 8] = total[0][2];
        }
    }
    if (!has_waited) {
        wait_for_grids_before();
        start_next_grid();
        load_choice();
    }
    if (has_choice) {
        const int named = static_cast<int>(own_index);
        const int matrix = matrix_of_choice(named, call.map, call.map_size, call.matrix.matrices);
        if (matrix < 0)
            own_weight = call.identity_from > 0 && named >= call.identity_from ? own_identity : 0u;
        choice_matrix[threadIdx.x] = matrix;
        choice_weight[threadIdx.x] = __uint_as_float(own_weight);
    }
    __syncthreads();

    // Each choice's share, in the place of its first part; then their sum, and behind it what adds
    // to all choices.
    const int64_t first_column = static_cast<int64_t>(blockIdx.x) * 16;
    const int64_t width = call.matrix.rows;
    for (int i = threadIdx.x; i < call.choice_count * 16; i += blockDim.x) {
        const int j = i / 16, column = i % 16;
        const int matrix = choice_matrix[j];
        float* own = sums + j * given.parts * 16 + column;
        float sum = 0.0f;
        if (matrix >= 0) {
            for (int part = 0; part < given.parts; ++part) sum += own[part * 16];
            if (call.bias != nullptr) sum += call.bias[matrix * width + first_column + column];
            sum *= choice_weight[j];
        }
        *own = sum;
    }
    __syncthreads();
    if (threadIdx.x >= 16) return;
    const int64_t column = first_column + threadIdx.x;
    float y = 0.0f, identity = 0.0f, more = 0.0f;
    if (call.addend != nullptr)
        more = load_as_float(call.addend, call.addend_type, row * width + column);
    if constexpr (shares)
        for (int part = 0; part < given.shared_parts; ++part)
            more += sums[(choice_pieces + part) * 16 + threadIdx.x];
#pragma unroll 8
    for (int j = 0; j < call.choice_count; ++j) {
        y += sums[j * given.parts * 16 + threadIdx.x];
        identity += choice_matrix[j] < 0 ? choice_weight[j] : 0.0f;
    }
    if (call.identity_from > 0)
        y += identity * load_as_float(call.identity_x, call.identity_type, row * width + column);
    store_from_float(call.y, call.y_type, row * width + column, y + more);
}

template <int bits, typename Half>
void launch_combine(const combine_arguments& given, int warps, size_t shared_bytes,
                    cudaStream_t stream) {
    const dim3 grid(static_cast<unsigned>(given.row_tiles), static_cast<unsigned>(given.call.rows));
    launch_grid(given.shared_parts > 0 ? combine_kernel<bits, Half, true>
                                       : combine_kernel<bits, Half, false>,
                grid, static_cast<unsigned>(warps) * 32, shared_bytes, stream,
                given.call.programmatic, given);
}

// A warp for each piece as far as they go round, with four units at least. Of one row all blocks
// run at once, so they may be large; more rows want blocks that take turns.
int usual_parts(const few_combine_call& call) {
    return std::clamp((call.rows == 1 ? warps_max : warps_max / 2) / call.choice_count, 1,
                      std::max(1, unit_shape_of(call.matrix).units / 4));
}

// Parts of the shared matrix: as long as those of a choice.
int shared_parts_of(const few_combine_call& call, int parts) {
    if (call.shared.data == nullptr) return 0;
    const int64_t columns = call.shared.columns * parts;
    return std::clamp(static_cast<int>((columns + call.matrix.columns / 2) / call.matrix.columns),
                      1, unit_shape_of(call.shared).units);
}

bool fits_shared(const few_combine_call& call) {
    const weight_view &shared = call.shared, &matrix = call.matrix;
    return shared.data == nullptr
           || (fits_few_weight(shared, call.x_type) && shared.storage == matrix.storage
               && shared.scale_type == matrix.scale_type
               && (shared.zeros == nullptr) == (matrix.zeros == nullptr) && shared.matrices == 1
               && shared.rows == matrix.rows);
}

} // namespace

bool fits_product_few_combine(const few_combine_call& call) {
    return fits_few_weight(call.matrix, call.x_type) && call.choice_count <= choices_max
           && fits_shared(call);
}

std::vector<int32_t> few_combine_part_counts(const few_combine_call& call) {
    std::vector<int32_t> counts{usual_parts(call)};
    const int most = std::max(1, unit_shape_of(call.matrix).units / 2);
    for (const int parts : {1, 2, 3, 4, 6, 8})
        if (parts <= most && parts != counts[0]) counts.push_back(parts);
    return counts;
}

void launch_product_few_combine(const few_combine_call& call, cudaStream_t stream) {
    if (call.rows <= 0) return;
    combine_arguments given{};
    given.call = call;
    given.shape = unit_shape_of(call.matrix);
    given.row_tiles = static_cast<int32_t>(call.matrix.rows / 16);
    given.parts = call.parts > 0 ? call.parts : usual_parts(call);
    given.shared_parts = shared_parts_of(call, given.parts);
    if (given.shared_parts > 0) given.shared_shape = unit_shape_of(call.shared);
    const int pieces = call.choice_count * given.parts + given.shared_parts;
    const int warps = std::min(warps_max, pieces);
    const int bits = call.matrix.storage == weight_storage::int4
                         ? 4
                         : (call.matrix.storage == weight_storage::int8 ? 8 : 16);
    const int depth = bits == 4 ? combine_depth<4> : 16 / bits;
    int units = ceil_divide(given.shape.units, given.parts);
    if (given.shared_parts > 0)
        units = std::max(units, ceil_divide(given.shared_shape.units, given.shared_parts));
    // At most 8 KiB of x a warp.
    given.chunk_units = std::min(ceil_divide(units, depth), 10) * depth;
    given.area_bytes = 16 + given.chunk_units * 128;
    const size_t shared_bytes = static_cast<size_t>(warps) * static_cast<size_t>(given.area_bytes)
                                + static_cast<size_t>(pieces) * 16 * sizeof(float);
    const auto launch = [&](auto half) {
        using half_type = decltype(half);
        if (bits == 4)
            launch_combine<4, half_type>(given, warps, shared_bytes, stream);
        else if (bits == 8)
            launch_combine<8, half_type>(given, warps, shared_bytes, stream);
        else
            launch_combine<16, half_type>(given, warps, shared_bytes, stream);
    };
    if (call.x_type == SLUICE_BF16)
        launch(__nv_bfloat16{});
    else
        launch(__half{});
}

} // namespace sluice::cuda
