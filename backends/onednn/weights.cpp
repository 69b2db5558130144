#include "weights.hpp"

#include "plain/stored_matrix.hpp"

#include <atomic>

namespace sluice::onednn {

namespace {

constexpr uint32_t matrix_roles =
    SLUICE_ROLE_LINEAR | SLUICE_ROLE_GROUPED | SLUICE_ROLE_EMBEDDING | SLUICE_ROLE_LATENT;

bool is_integer(sluice_element_type type) {
    return type == SLUICE_I8 || type == SLUICE_U8 || type == SLUICE_I4 || type == SLUICE_U4;
}

// Whether the codes stay codes: the slices must be cut at the groups' borders.
bool keeps_codes(const sluice_weight_source& source) {
    if (!onednn::keeps_codes(*source.format)) return false;
    for (uint64_t i = 0; i < source.slice_count; ++i)
        if (plugin::read(source.slices[i], "sluice_weight_slice").column_begin != 0) return false;
    return true;
}

kernels::weight_storage storage_of(const sluice_weight_source& source) {
    const auto type = source.format->element_type;
    if (keeps_codes(source))
        return plugin::element_bits(type) == 4 ? kernels::weight_storage::int4
                                               : kernels::weight_storage::int8;
    if (type == SLUICE_BF16 && source.format->scale_type == SLUICE_ELEMENT_UNKNOWN)
        return kernels::weight_storage::bfloat16;
    return kernels::weight_storage::float32;
}

bool is_quantized(kernels::weight_storage storage) {
    return storage == kernels::weight_storage::int4 || storage == kernels::weight_storage::int8;
}

kernels::packed_layout layout_of(const sluice_weight_source& source) {
    const auto storage = storage_of(source);
    const auto& format = *source.format;
    if (!is_quantized(storage))
        return kernels::make_packed_layout(storage, source.row_count, source.column_count);
    const int64_t whole = source.column_count + source.column_count % 2;
    const bool narrow_scales =
        format.scale_type == SLUICE_F16 && format.global_scale_type == SLUICE_ELEMENT_UNKNOWN;
    return kernels::make_packed_layout(storage, source.row_count, source.column_count,
                                       format.group_columns == 0 ? whole : format.group_columns,
                                       format.zero_point >= SLUICE_ZERO_GROUP,
                                       narrow_scales ? kernels::scale_type::float16
                                                     : kernels::scale_type::float32);
}

// How a transpose is kept, whose source is laid out so: codes where they fit in a byte without
// their zero points, and where blocks do not straddle groups of columns; otherwise floats.
kernels::packed_layout transposed_layout_of(const kernels::packed_layout& layout) {
    using kernels::weight_storage;
    const bool fits = layout.storage == weight_storage::int4
                      || (layout.storage == weight_storage::int8 && !layout.zero_points);
    const bool is_aligned =
        layout.group_count <= 1 || layout.group_size % kernels::block_width == 0;
    if (fits && is_aligned) {
        const auto storage = layout.zero_points ? weight_storage::int8 : layout.storage;
        return kernels::make_packed_layout(storage, layout.k, layout.n, layout.n + layout.n % 2,
                                           false, kernels::scale_type::float16);
    }
    return kernels::make_packed_layout(layout.storage == weight_storage::bfloat16
                                           ? weight_storage::bfloat16
                                           : weight_storage::float32,
                                       layout.k, layout.n);
}

int64_t row_group_of(const kernels::packed_layout& layout,
                     const kernels::packed_layout& transposed) {
    return is_quantized(transposed.storage) ? layout.group_size : 0;
}

uint64_t row_scale_bytes(const kernels::packed_layout& layout,
                         const kernels::packed_layout& transposed) {
    return is_quantized(transposed.storage)
               ? static_cast<uint64_t>(layout.group_count * layout.n) * sizeof(float)
               : 0;
}

// Moves codes and zero points to the range that the packed storage keeps, which is unsigned.
int code_shift(const sluice_weight_format& format) {
    if (format.element_type == SLUICE_I8) return 128;
    if (format.element_type == SLUICE_I4) return 8;
    return 0;
}

// The zero point of every group in that range, where the format has one for all.
int middle_zero(const sluice_weight_source& source) {
    return storage_of(source) == kernels::weight_storage::int4 ? 8 : 128;
}

// Whether all zero points are the one that a layout without them means, as symmetric GPTQ files
// say it: they need not be kept then. Reads them on the whole team.
bool zeros_are_middle(const plugin::host& host, const sluice_weight_source& source,
                      const plain::source_rows& rows, int64_t group_count) {
    const int middle = middle_zero(source) - code_shift(*source.format);
    std::atomic<bool> differs{false};
    host.run([&](const plugin::worker& self) {
        const auto range = self.share(source.matrix_count * source.row_count);
        for (int64_t row = range.begin; row < range.end; ++row) {
            if (differs.load(std::memory_order_relaxed)) return;
            const auto at = rows.find(row);
            for (int64_t g = 0; g < group_count; ++g)
                if (at.stored.zero(at.row, g) != static_cast<float>(middle)) differs = true;
        }
    });
    return !differs;
}

kernels::quantized_row_reader code_reader(const sluice_weight_source& source,
                                          const plain::source_rows& rows, int64_t matrix,
                                          const kernels::packed_layout& layout) {
    const int shift = code_shift(*source.format);
    return [&rows, &layout, &source, matrix, shift](int64_t n, uint8_t* codes, float* scales,
                                                    int16_t* zeros) {
        const auto at = rows.find(matrix * source.row_count + n);
        at.stored.codes(at.row, 0, layout.k, shift, codes);
        for (int64_t g = 0; g < layout.group_count; ++g) {
            scales[g] = at.stored.scale(at.row, g);
            if (zeros != nullptr)
                zeros[g] =
                    static_cast<int16_t>(static_cast<int>(at.stored.zero(at.row, g)) + shift);
        }
    };
}

void pack_matrix(const sluice_weight_source& source, const plain::source_rows& rows, int64_t matrix,
                 const kernels::packed_layout& layout, int64_t block_begin, int64_t block_end,
                 std::byte* destination) {
    const int64_t first = matrix * source.row_count;
    if (is_quantized(layout.storage)) {
        kernels::pack_quantized_blocks(layout, code_reader(source, rows, matrix, layout),
                                       block_begin, block_end, destination);
        return;
    }
    const auto type = source.format->element_type;
    const auto at = rows.find(first);
    const std::byte* data = at.stored.float_row(at.row);
    const bool one_slice = source.slice_count == source.matrix_count;
    if (one_slice && data != nullptr && (type == SLUICE_F32 || type == SLUICE_BF16)) {
        const auto slice = plugin::read(source.slices[matrix], "sluice_weight_slice");
        const auto size = static_cast<int64_t>(plugin::element_bits(type) / 8);
        kernels::pack_blocks(
            layout,
            kernels::float_rows{data + at.column_begin * size,
                                type == SLUICE_F32 ? kernels::float_type::float32
                                                   : kernels::float_type::bfloat16,
                                slice.stored_columns * std::max<int64_t>(slice.row_step, 1)},
            block_begin, block_end, destination);
        return;
    }
    const kernels::float_row_reader reader = [&](int64_t n, float* out) {
        rows.read(first + n, out);
    };
    kernels::pack_blocks(layout, reader, block_begin, block_end, destination);
}

// Latent projections are small: read whole, then written by column.
void pack_transposed(const sluice_weight_source& source, const plain::source_rows& rows,
                     int64_t matrix, const kernels::packed_layout& layout, std::byte* destination) {
    std::vector<float> values(static_cast<size_t>(source.row_count * source.column_count));
    for (int64_t n = 0; n < source.row_count; ++n)
        rows.read(matrix * source.row_count + n, values.data() + n * source.column_count);
    const kernels::float_row_reader reader = [&](int64_t k, float* out) {
        for (int64_t n = 0; n < source.row_count; ++n)
            out[n] = values[static_cast<size_t>(n * source.column_count + k)];
    };
    kernels::pack_blocks(layout, reader, 0, layout.block_count, destination);
}

// row_scales: [groups of the source, N]
void pack_transposed_codes(const sluice_weight_source& source, const plain::source_rows& rows,
                           int64_t matrix, const kernels::packed_layout& layout,
                           const kernels::packed_layout& transposed, std::byte* destination,
                           float* row_scales) {
    const auto read_codes = code_reader(source, rows, matrix, layout);
    const int middle = transposed.storage == kernels::weight_storage::int4 ? 8 : 128;
    const int source_middle = middle_zero(source);
    const auto groups = static_cast<size_t>(layout.group_count);
    std::vector<uint8_t> codes(static_cast<size_t>(layout.k));
    std::vector<float> scales(groups);
    std::vector<int16_t> zeros(groups);
    std::vector<uint8_t> columns(static_cast<size_t>(layout.n * layout.k)); // [K, N]
    for (int64_t n = 0; n < layout.n; ++n) {
        read_codes(n, codes.data(), scales.data(), layout.zero_points ? zeros.data() : nullptr);
        for (int64_t g = 0; g < layout.group_count; ++g) {
            const auto group = static_cast<size_t>(g);
            row_scales[g * layout.n + n] = scales[group];
            const int shift = middle - (layout.zero_points ? zeros[group] : source_middle);
            const int64_t begin = g * layout.group_size;
            for (int64_t k = begin; k < begin + layout.group_k(g); ++k)
                columns[static_cast<size_t>(k * layout.n + n)] =
                    static_cast<uint8_t>(codes[static_cast<size_t>(k)] + shift);
        }
    }
    const kernels::quantized_row_reader reader = [&](int64_t k, uint8_t* to, float* ones,
                                                     int16_t*) {
        std::copy_n(columns.data() + k * layout.n, layout.n, to);
        std::fill_n(ones, transposed.group_count, 1.0f);
    };
    kernels::pack_quantized_blocks(transposed, reader, 0, transposed.block_count, destination);
}

const char* storage_name(kernels::weight_storage storage) {
    switch (storage) {
    case kernels::weight_storage::float32:
        return "f32";
    case kernels::weight_storage::bfloat16:
        return "bf16";
    case kernels::weight_storage::int8:
        return "int8";
    default:
        return "int4";
    }
}

} // namespace

bool keeps_codes(const sluice_weight_format& format) {
    return is_integer(format.element_type) && format.scale_type != SLUICE_ELEMENT_UNKNOWN
           && format.group_index == 0 && format.group_columns % 2 == 0 && format.group_rows <= 1;
}

std::string packed_weight::describe() const {
    std::string text;
    if (data.size() != 0) {
        text = std::string(storage_name(layout.storage)) + " in blocks of 32 rows";
        if (layout.group_size != 0) text += ", groups of " + std::to_string(layout.group_size);
        if (layout.zero_points) text += " with zero points";
        if (transposed_data.size() != 0) text += ", and its transpose";
    }
    if (decoded) text += text.empty() ? "f32 row-major" : ", and f32 row-major";
    return text;
}

packing plan_packing(const sluice_weight_source& source, uint32_t roles) {
    packing result;
    const auto count = static_cast<uint64_t>(source.matrix_count);
    result.is_packed = (roles & matrix_roles) != 0;
    result.is_transposed = (roles & SLUICE_ROLE_LATENT) != 0;
    result.is_decoded = (roles & ~matrix_roles) != 0 || roles == 0;
    if (result.is_packed) {
        result.layout = layout_of(source);
        result.size_bytes += count * static_cast<uint64_t>(result.layout.total_bytes);
    }
    if (result.is_transposed) {
        const auto transposed = transposed_layout_of(result.layout);
        result.size_bytes += count
                             * (static_cast<uint64_t>(transposed.total_bytes)
                                + row_scale_bytes(result.layout, transposed));
    }
    if (result.is_decoded) result.size_bytes += plain::decoded_size(source);
    return result;
}

std::unique_ptr<packed_weight> pack(const plugin::host& host, const sluice_weight_source& source,
                                    uint32_t roles) {
    packing plan = plan_packing(source, roles);
    auto result = std::make_unique<packed_weight>();
    result->matrix_count = source.matrix_count;
    if (plan.is_decoded) result->decoded = plain::decode(host, source);
    if (!plan.is_packed) return result;

    const plain::source_rows rows(source);
    const auto count = static_cast<int64_t>(source.matrix_count);
    if (plan.layout.zero_points && zeros_are_middle(host, source, rows, plan.layout.group_count))
        plan.layout =
            kernels::make_packed_layout(plan.layout.storage, plan.layout.n, plan.layout.k,
                                        plan.layout.group_size, false, plan.layout.scales);
    result->layout = plan.layout;
    result->data = plugin::memory(host, static_cast<uint64_t>(count * plan.layout.total_bytes));
    if (plan.is_transposed) {
        result->transposed_layout = transposed_layout_of(plan.layout);
        result->row_group = row_group_of(plan.layout, result->transposed_layout);
        result->transposed_data = plugin::memory(
            host, static_cast<uint64_t>(count * result->transposed_layout.total_bytes));
        const uint64_t scale_bytes = row_scale_bytes(plan.layout, result->transposed_layout);
        if (scale_bytes > 0)
            result->row_scale_data =
                plugin::memory(host, static_cast<uint64_t>(count) * scale_bytes);
    }
    host.run([&](const plugin::worker& self) {
        const int64_t blocks = plan.layout.block_count;
        const auto range = self.share(count * blocks);
        for (int64_t unit = range.begin; unit < range.end;) {
            const int64_t matrix = unit / blocks;
            const int64_t end = std::min(range.end, (matrix + 1) * blocks);
            pack_matrix(source, rows, matrix, plan.layout, unit - matrix * blocks,
                        end - matrix * blocks,
                        result->data.as() + matrix * plan.layout.total_bytes);
            unit = end;
        }
        if (!plan.is_transposed) return;
        const auto matrices = self.share(count);
        for (int64_t matrix = matrices.begin; matrix < matrices.end; ++matrix) {
            const auto& transposed = result->transposed_layout;
            std::byte* to = result->transposed_data.as() + matrix * transposed.total_bytes;
            if (result->row_group == 0)
                pack_transposed(source, rows, matrix, transposed, to);
            else
                pack_transposed_codes(source, rows, matrix, plan.layout, transposed, to,
                                      result->row_scale_data.as<float>()
                                          + matrix * plan.layout.group_count * plan.layout.n);
        }
    });
    return result;
}

} // namespace sluice::onednn
