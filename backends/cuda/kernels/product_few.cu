// How the products for few rows are cut into blocks.
#include "product_few_kernel.cuh"

#include <algorithm>

namespace sluice::cuda {

namespace {

constexpr int slots_max = 32;                     // rows of x that a block takes at once
constexpr size_t shared_bytes_least = 160 * 1024; // of a block, on every card here
constexpr size_t shared_bytes_aside = 1024;       // that the driver and kernels use themselves

bool is_half(uint32_t type) { return type == SLUICE_BF16 || type == SLUICE_F16; }

bool is_power_of_two(int64_t x) { return x > 0 && (x & (x - 1)) == 0; }

int bits_of(weight_storage storage) {
    return storage == weight_storage::int4 ? 4 : (storage == weight_storage::int8 ? 8 : 16);
}

bool fits_weight(const weight_view& w, uint32_t x_type) {
    if (w.data == nullptr || w.columns % 64 != 0 || w.rows % 16 != 0 || w.columns == 0)
        return false;
    if (w.storage == weight_storage::bfloat16) return x_type == SLUICE_BF16;
    if (w.storage == weight_storage::float16) return x_type == SLUICE_F16;
    if (w.storage == weight_storage::float32) return false;
    if (w.group_columns <= 0 || w.columns % w.group_columns != 0) return false;
    // Scales are counted in 32 bits.
    if (w.matrices * w.rows * (w.columns / w.group_columns) > int64_t{1} << 30) return false;
    if (w.group_columns != w.columns
        && (w.group_columns % 64 != 0 || !is_power_of_two(w.group_columns / 64)))
        return false;
    return is_half(w.scale_type)
           || (w.storage == weight_storage::int8 && w.scale_type == SLUICE_F32);
}

bool has_same_form(const weight_view& a, const weight_view& b) {
    return a.storage == b.storage && a.group_columns == b.group_columns
           && a.scale_type == b.scale_type && (a.zeros == nullptr) == (b.zeros == nullptr)
           && a.columns == b.columns && a.matrices == b.matrices;
}
bool is_alike(const weight_view& a, const weight_view& b) {
    return has_same_form(a, b) && a.rows == b.rows;
}

bool fits_more(const few_call& call) {
    if (call.more_count == 0) return true;
    if (call.norm.residual == nullptr || call.product.gate.gates
        || call.more_count > few_parts_more)
        return false;
    return std::all_of(call.more, call.more + call.more_count, [&](const few_part& part) {
        return fits_weight(part.weight, call.product.x_type)
               && has_same_form(part.weight, call.product.weight)
               && (is_half(part.y_type) || part.y_type == SLUICE_F32);
    });
}

// As many as have something to do when all have the same.
int few_warps(int units, int wanted) {
    return ceil_divide(units, ceil_divide(units, std::clamp(wanted, 1, few_warps_max)));
}

} // namespace

bool fits_few_weight(const weight_view& w, uint32_t x_type) {
    return is_half(x_type) && fits_weight(w, x_type);
}

bool fits_product_few(const few_call& call) {
    const product_call& product = call.product;
    if (!fits_few_weight(product.weight, product.x_type)) return false;
    if (!is_half(product.y_type) && product.y_type != SLUICE_F32) return false;
    if (call.norm.residual != nullptr
        && (product.places > few_norm_rows
            || product.weight.columns > few_norm_columns / (product.gate.gates ? 2 : 1)
            || call.index != nullptr || product.offset != nullptr || product.row != nullptr
            || product.input_scale != nullptr))
        return false;
    if (!fits_more(call)) return false;
    if (!product.gate.gates) return true;
    if (product.gate.gate_layout == SLUICE_GATE_SPLIT) return is_alike(product.weight, product.up);
    return product.gate.gate_layout == SLUICE_GATE_INTERLEAVED || product.weight.rows % 32 == 0;
}

few_plan plan_few(const few_call& call) {
    const product_call& product = call.product;
    const bool is_dense = call.index == nullptr && product.offset == nullptr;
    const bool by_choice = call.index != nullptr;
    const uint32_t layout = product.gate.gate_layout;
    const int streams = product.gate.gates && layout != SLUICE_GATE_INTERLEAVED ? 2 : 1;
    const bool halves = product.gate.gates && layout != SLUICE_GATE_SPLIT;

    few_arguments given{};
    given.call = call;
    given.shape = unit_shape_of(product.weight);
    given.matrix_tiles = static_cast<int32_t>(product.weight.rows / 16);
    given.width = halves ? product.weight.rows / 2 : product.weight.rows;
    given.row_tiles =
        halves && layout == SLUICE_GATE_CONCAT ? given.matrix_tiles / 2 : given.matrix_tiles;
    for (int i = 0; i < few_parts_more; ++i) {
        given.more_begin[i] = given.row_tiles;
        if (i < call.more_count)
            given.row_tiles += static_cast<int32_t>(call.more[i].weight.rows / 16);
    }
    given.up_tile = halves && layout == SLUICE_GATE_CONCAT ? given.row_tiles : 0;

    // Rows of x at once: all of a dense product; of experts about twice the mean, for few have
    // more.
    int rows = product.places;
    if (by_choice)
        rows = 1;
    else if (!is_dense)
        rows = std::min(rows, 2 * ceil_divide(rows, product.weight.matrices));
    given.slots = std::min(rows, slots_max);
    if (!is_dense && !by_choice) given.slots = std::min(ceil_divide(given.slots, 8) * 8, slots_max);

    // Shared memory: each warp's columns of x, or as many as there is room for, and the sums. A
    // block needs room for the units that a warp has in flight; where that is too much, fewer warps
    // share the columns, and then fewer rows are taken at once.
    const int bits = bits_of(product.weight.storage);
    const auto depth = [&] { return few_depth(bits, given.slots <= 8 ? 1 : 2, streams); };
    const size_t room = std::max(shared_bytes_least, static_cast<size_t>(call.shared_bytes_max))
                        - shared_bytes_aside;
    int warps = few_warps(given.shape.units, call.warps > 0 ? call.warps : given.shape.units / 4);
    const auto area_bytes = [&](int units) {
        const int pitch = bits == 16 ? x_pitch<16>(units) : x_pitch<4>(units);
        return static_cast<size_t>(16 + given.slots * pitch);
    };
    const auto block_bytes = [&](int units) {
        const size_t sums =
            static_cast<size_t>(2 * streams * given.slots * few_pitch) * sizeof(float);
        return static_cast<size_t>(warps) * (area_bytes(units) + sums);
    };
    const auto slice = [&] { return ceil_divide(given.shape.units, warps); };
    const auto least_units = [&] { return std::min(slice(), depth()); };
    while (block_bytes(least_units()) > room && (warps > 8 || given.slots > 8)) {
        if (warps > 8)
            warps = 8;
        else
            given.slots = ceil_divide(given.slots, 8) * 8 - 8;
    }
    given.chunk_units = slice();
    if (block_bytes(given.chunk_units) > room) {
        given.chunk_units = given.chunk_units / depth() * depth();
        while (given.chunk_units > depth() && block_bytes(given.chunk_units) > room)
            given.chunk_units -= depth();
    }
    given.area_bytes = static_cast<int32_t>(area_bytes(given.chunk_units));
    const size_t shared_bytes = block_bytes(given.chunk_units);

    const int tiles = given.slots <= 8 ? 1 : (given.slots <= 16 ? 2 : 4);
    const bool has_zeros = bits == 8 || given.shape.has_zeros;
    int resident = std::max(1, 65536 / 32 / few_registers(bits, tiles, has_zeros) / warps);
    resident = std::clamp(static_cast<int>(room / shared_bytes), 1, resident);

    // As many blocks as run at once; experts are more than are active, so some blocks end at once.
    const int across = is_dense    ? ceil_divide(product.places, given.slots)
                       : by_choice ? product.places
                                   : std::min(product.places, product.weight.matrices);
    const int blocks = call.multiprocessor_count * resident * (is_dense || by_choice ? 1 : 2);
    const int wanted = std::clamp(blocks / across, 1, given.row_tiles);
    const int each = ceil_divide(given.row_tiles, wanted);
    const dim3 grid(static_cast<unsigned>(ceil_divide(given.row_tiles, each)),
                    static_cast<unsigned>(across));
    return {given, grid, warps, shared_bytes, bits, tiles, streams};
}

std::vector<int32_t> few_warp_counts(const few_call& call) {
    std::vector<int32_t> counts, found;
    for (const int32_t wanted : {0, 2, 3, 4, 6, 8, 12, 16}) {
        few_call asked = call;
        asked.warps = wanted;
        const int32_t warps = plan_few(asked).warps; // fewer where memory is short
        if (std::find(found.begin(), found.end(), warps) != found.end()) continue;
        found.push_back(warps);
        counts.push_back(wanted == 0 ? warps : wanted);
    }
    return counts;
}

void launch_product_few(const few_call& call, cudaStream_t stream) {
    if (call.product.places <= 0) return;
    const few_plan plan = plan_few(call);
    const auto launch = plan.bits == 4   ? launch_few_int4
                        : plan.bits == 8 ? launch_few_int8
                                         : launch_few_half;
    launch(plan.arguments, plan.grid, plan.warps, plan.shared_bytes, plan.tiles, plan.streams,
           stream);
}

} // namespace sluice::cuda
