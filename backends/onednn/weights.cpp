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

// Transposes are read as floats: codes along the other axis would lose their groups.
kernels::packed_layout transposed_layout_of(const sluice_weight_source& source) {
    const auto storage = storage_of(source) == kernels::weight_storage::bfloat16
                             ? kernels::weight_storage::bfloat16
                             : kernels::weight_storage::float32;
    return kernels::make_packed_layout(storage, source.column_count, source.row_count);
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

void pack_transposed(const sluice_weight_source& source, const plain::source_rows& rows,
                     int64_t matrix, const kernels::packed_layout& layout, std::byte* destination) {
    // Latent projections are small: read whole, then written by column.
    std::vector<float> values(static_cast<size_t>(source.row_count * source.column_count));
    for (int64_t n = 0; n < source.row_count; ++n)
        rows.read(matrix * source.row_count + n, values.data() + n * source.column_count);
    const kernels::float_row_reader reader = [&](int64_t k, float* out) {
        for (int64_t n = 0; n < source.row_count; ++n)
            out[n] = values[static_cast<size_t>(n * source.column_count + k)];
    };
    kernels::pack_blocks(layout, reader, 0, layout.block_count, destination);
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
    if (result.is_transposed)
        result.size_bytes +=
            count * static_cast<uint64_t>(transposed_layout_of(source).total_bytes);
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
        result->transposed_layout = transposed_layout_of(source);
        result->transposed_data = plugin::memory(
            host, static_cast<uint64_t>(count * result->transposed_layout.total_bytes));
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
        for (int64_t matrix = matrices.begin; matrix < matrices.end; ++matrix)
            pack_transposed(source, rows, matrix, result->transposed_layout,
                            result->transposed_data.as()
                                + matrix * result->transposed_layout.total_bytes);
    });
    return result;
}

} // namespace sluice::onednn
