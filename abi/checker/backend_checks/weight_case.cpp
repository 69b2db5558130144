#include "weight_case.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace sluice::checker {
namespace {

sluice_weight_format plain_format(sluice_element_type type) {
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = type;
    return format;
}

sluice_weight_format group_format(sluice_element_type type, uint32_t layout, uint32_t group,
                                  uint32_t zero_point, sluice_element_type scale = SLUICE_F16) {
    auto format = plain_format(type);
    format.layout = layout;
    format.scale_type = scale;
    format.group_columns = group;
    format.zero_point = zero_point;
    return format;
}

std::vector<named_format> make_formats() {
    constexpr uint32_t rows = SLUICE_WEIGHT_ROW_MAJOR;
    constexpr uint32_t gptq = SLUICE_WEIGHT_GPTQ;
    std::vector<named_format> made{
        {"f32", plain_format(SLUICE_F32), true},
        {"f16", plain_format(SLUICE_F16), true},
        {"bf16", plain_format(SLUICE_BF16), true},
        {"int8_g64", group_format(SLUICE_U8, rows, 64, SLUICE_ZERO_MIDDLE), false},
        {"int8_g64_zeros", group_format(SLUICE_U8, rows, 64, SLUICE_ZERO_GROUP), false},
        {"int4_g64", group_format(SLUICE_U4, rows, 64, SLUICE_ZERO_MIDDLE), false},
        {"int4_g32_zeros", group_format(SLUICE_U4, rows, 32, SLUICE_ZERO_GROUP), false},
        {"int4_row", group_format(SLUICE_U4, rows, 0, SLUICE_ZERO_MIDDLE), false},
        {"int8_g64_gptq", group_format(SLUICE_U8, gptq, 64, SLUICE_ZERO_GROUP_LESS_ONE), false},
        {"int4_g64_gptq", group_format(SLUICE_U4, gptq, 64, SLUICE_ZERO_GROUP_LESS_ONE), false},
        {"int4_g128_gptq_v2", group_format(SLUICE_U4, gptq, 128, SLUICE_ZERO_GROUP), false},
        {"int4_g64_gptq_ordered", group_format(SLUICE_U4, gptq, 64, SLUICE_ZERO_GROUP_LESS_ONE),
         false},
        {"i8_row", group_format(SLUICE_I8, rows, 0, SLUICE_ZERO_NONE, SLUICE_F32), false},
        {"f8_e4m3_blocks", group_format(SLUICE_F8_E4M3, rows, 128, SLUICE_ZERO_NONE, SLUICE_F32),
         false},
        {"mxfp4", group_format(SLUICE_F4_E2M1, rows, 32, SLUICE_ZERO_NONE, SLUICE_F8_E8M0), false},
        {"nvfp4", group_format(SLUICE_F4_E2M1, rows, 16, SLUICE_ZERO_NONE, SLUICE_F8_E4M3), false},
    };
    for (auto& each : made) {
        if (each.name == "int4_g64_gptq_ordered") each.format.group_index = 1;
        if (each.name == "f8_e4m3_blocks") each.format.group_rows = 128;
        if (each.name == "nvfp4") each.format.global_scale_type = SLUICE_F32;
    }
    return made;
}

bool is_plain(const sluice_weight_format& format) { return format.scale_type == 0; }

// Codes of one stored matrix and what they mean. Indices as in abi/weight.h.
struct coded_matrix {
    int64_t rows, columns; // stored: N, K
    int64_t groups, group_rows;
    std::vector<uint8_t> codes;       // [N, K], as stored bits of one element
    std::vector<uint8_t> zeros;       // [N / group_rows, groups], empty where the format has none
    std::vector<float> scales;        // likewise, as they read back from scale_type
    std::vector<int32_t> group_index; // [K]
    float global_scale = 1;
};

float code_value(sluice_element_type type, uint8_t code) {
    switch (type) {
    case SLUICE_I8:
        return static_cast<float>(static_cast<int8_t>(code));
    case SLUICE_F8_E4M3:
        return f8_e4m3_to_f32(code);
    case SLUICE_F4_E2M1:
        return f4_e2m1_to_f32(code);
    default:
        return static_cast<float>(code);
    }
}

uint8_t random_code(std::mt19937_64& random, sluice_element_type type) {
    const auto drawn = static_cast<uint8_t>(random() >> 40);
    if (element_bits(type) == 4) return drawn & 0xfU;
    // Both NaN of E4M3 become their neighbour.
    return type == SLUICE_F8_E4M3 && (drawn & 0x7fU) == 0x7fU ? drawn & 0xfeU : drawn;
}

// The root of the mean square of codes drawn evenly, less their zero point.
float code_spread(sluice_element_type type) {
    switch (type) {
    case SLUICE_U4:
        return 4.6F;
    case SLUICE_F4_E2M1:
        return 3.0F;
    case SLUICE_F8_E4M3:
        return 140.0F;
    default:
        return 74.0F;
    }
}

// A scale of about `size` that its type can say exactly.
float random_scale(std::mt19937_64& random, sluice_element_type type, float size) {
    const float wanted = size * (0.75F + 0.5F * static_cast<float>(random() >> 40) * 0x1p-24F);
    if (type == SLUICE_F8_E8M0) return std::exp2(std::round(std::log2(wanted)));
    if (type == SLUICE_F8_E4M3) return 0.5F + 0.25F * static_cast<float>(random() % 7);
    return type == SLUICE_F16 ? f16_to_f32(f32_to_f16(wanted)) : wanted;
}

coded_matrix draw(std::mt19937_64& random, const sluice_weight_format& format, int64_t rows,
                  int64_t columns, float scale) {
    coded_matrix made{rows, columns, 0, std::max<int64_t>(1, format.group_rows), {}, {}, {}, {}};
    const int64_t width = format.group_columns == 0 ? columns : format.group_columns;
    made.groups = (columns + width - 1) / width;
    const int64_t scale_count = (rows + made.group_rows - 1) / made.group_rows * made.groups;
    made.codes.resize(static_cast<size_t>(rows * columns));
    for (auto& code : made.codes) code = random_code(random, format.element_type);
    if (format.global_scale_type != 0) made.global_scale = scale / code_spread(format.element_type);
    const float size = scale / code_spread(format.element_type) / made.global_scale;
    const int32_t middle = 1 << (element_bits(format.element_type) - 1);
    for (int64_t i = 0; i < scale_count; ++i) {
        made.scales.push_back(random_scale(random, format.scale_type, size));
        // Near the middle, and never 0: files that store one less could not say it.
        const auto near = static_cast<int32_t>(random() % 5) - 2;
        if (format.zero_point >= SLUICE_ZERO_GROUP)
            made.zeros.push_back(static_cast<uint8_t>(middle + near));
    }
    for (int64_t k = 0; k < columns; ++k)
        made.group_index.push_back(static_cast<int32_t>(k / width));
    if (format.group_index != 0)
        std::shuffle(made.group_index.begin(), made.group_index.end(), random);
    return made;
}

// The formula at the top of abi/weight.h, in double.
float real_value(const sluice_weight_format& format, const coded_matrix& of, int64_t n, int64_t k) {
    const int64_t group = of.group_index[static_cast<size_t>(k)];
    const auto place = static_cast<size_t>(n / of.group_rows * of.groups + group);
    double zero = 0;
    if (format.zero_point == SLUICE_ZERO_MIDDLE)
        zero = 1 << (element_bits(format.element_type) - 1);
    else if (format.zero_point != SLUICE_ZERO_NONE)
        zero = of.zeros[place];
    const double code =
        code_value(format.element_type, of.codes[static_cast<size_t>(n * of.columns + k)]);
    return static_cast<float>((code - zero) * of.scales[place] * of.global_scale);
}

// Elements of 4 bits two a byte, the lower half first; of 8 bits as they are.
host_tensor pack_row_major(const std::vector<uint8_t>& codes, sluice_element_type type,
                           int64_t rows, int64_t columns) {
    host_tensor made = host_tensor::zeros(type, {rows, columns});
    const bool half = element_bits(type) == 4;
    for (size_t i = 0; i < codes.size(); ++i) {
        const uint8_t shifted = half && i % 2 == 1 ? static_cast<uint8_t>(codes[i] << 4) : codes[i];
        made.bytes[half ? i / 2 : i] |= std::byte{shifted};
    }
    return made;
}

// Codes at [along, across], several consecutive `along` in one word.
host_tensor pack_words(const std::vector<uint8_t>& codes, uint32_t bits, int64_t words,
                       int64_t across, bool along_rows) {
    const int64_t per_word = 32 / bits;
    std::vector<int32_t> packed(static_cast<size_t>(words * across));
    for (int64_t word = 0; word < words; ++word)
        for (int64_t other = 0; other < across; ++other) {
            uint32_t bits_of_word = 0;
            for (int64_t i = 0; i < per_word; ++i) {
                const int64_t along = word * per_word + i;
                const int64_t from =
                    along_rows ? along * across + other : other * words * per_word + along;
                bits_of_word |= uint32_t{codes[static_cast<size_t>(from)]}
                                << (static_cast<uint32_t>(i) * bits);
            }
            const int64_t to = along_rows ? word * across + other : other * words + word;
            packed[static_cast<size_t>(to)] = static_cast<int32_t>(bits_of_word);
        }
    return host_tensor::integers(along_rows ? std::vector<int64_t>{words, across}
                                            : std::vector<int64_t>{across, words},
                                 packed);
}

// [rows, columns] -> [columns, rows]
template <typename Element>
std::vector<Element> transposed(const std::vector<Element>& from, int64_t rows, int64_t columns) {
    std::vector<Element> to(from.size());
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
            to[static_cast<size_t>(j * rows + i)] = from[static_cast<size_t>(i * columns + j)];
    return to;
}

// E8M0 has no converter back; its values are powers of two.
host_tensor pack_scales(const std::vector<float>& scales, sluice_element_type type,
                        std::vector<int64_t> shape) {
    host_tensor made = host_tensor::zeros(type, std::move(shape));
    if (type == SLUICE_F8_E8M0) {
        for (size_t i = 0; i < scales.size(); ++i)
            made.bytes[i] = static_cast<std::byte>(127 + static_cast<int>(std::log2(scales[i])));
    } else if (type == SLUICE_F8_E4M3) {
        for (size_t i = 0; i < scales.size(); ++i)
            for (int code = 0; code < 0x7f; ++code)
                if (f8_e4m3_to_f32(static_cast<uint8_t>(code)) == scales[i])
                    made.bytes[i] = static_cast<std::byte>(code);
    } else {
        convert_from_f32(type, scales.data(), made.bytes.data(), scales.size());
    }
    return made;
}

} // namespace

const std::vector<named_format>& weight_formats() {
    static const std::vector<named_format> formats = make_formats();
    return formats;
}

const named_format& weight_format_named(std::string_view name) {
    for (const auto& each : weight_formats())
        if (each.name == name) return each;
    fail(SLUICE_INTERNAL, "the checker knows no weight format {}", name);
}

struct weight_case::matrix_parts {
    std::array<const sluice_tensor*, SLUICE_PART_COUNT> parts{};
    int64_t stored_rows = 0;
    int64_t stored_columns = 0;
};

const sluice_tensor* weight_case::keep(host_tensor tensor) {
    const host_tensor& kept = storage_->tensors.emplace_back(std::move(tensor));
    sluice_tensor& view = storage_->views.emplace_back(SLUICE_INIT(sluice_tensor));
    view.element_type = kept.type;
    view.rank = static_cast<uint32_t>(kept.shape.size());
    std::copy(kept.shape.begin(), kept.shape.end(), view.shape);
    view.data = kept.bytes.data();
    view.size_bytes = kept.bytes.size();
    return &view;
}

void weight_case::add_slice(const matrix_parts& parts, int64_t row_begin) {
    sluice_weight_slice& slice = storage_->slices.emplace_back(SLUICE_INIT(sluice_weight_slice));
    std::copy(parts.parts.begin(), parts.parts.end(), slice.parts);
    slice.stored_rows = parts.stored_rows;
    slice.stored_columns = parts.stored_columns;
    slice.row_begin = row_begin;
    storage_->slice_pointers.push_back(&slice);
    storage_->slice_rows.push_back(storage_->rows);
}

void weight_case::finish() {
    storage& s = *storage_;
    s.source = SLUICE_INIT(sluice_weight_source);
    s.source.matrix_count = static_cast<uint32_t>(s.matrices);
    s.source.row_count = s.rows;
    s.source.column_count = s.columns;
    s.source.format = &s.format;
    s.source.slices = s.slice_pointers.data();
    s.source.slice_rows = s.slice_rows.data();
    s.source.slice_count = s.slice_pointers.size();
    s.source.name = {"checker.weight", 14};
}

weight_case::weight_case(std::vector<float> values, int64_t matrices, int64_t rows,
                         int64_t columns) {
    storage& s = *storage_;
    s.format = plain_format(SLUICE_F32);
    s.matrices = matrices;
    s.rows = rows;
    s.columns = columns;
    s.real = std::move(values);
    const int64_t size = rows * columns;
    for (int64_t matrix = 0; matrix < matrices; ++matrix) {
        const auto begin = s.real.begin() + matrix * size;
        matrix_parts parts{{}, rows, columns};
        parts.parts[SLUICE_PART_DATA] = keep(host_tensor::floats(
            {rows, columns}, std::vector<float>(begin, begin + size), SLUICE_F32));
        add_slice(parts, 0);
    }
    finish();
}

weight_case::weight_case(std::mt19937_64& random, const sluice_weight_format& format,
                         int64_t matrices, int64_t rows, int64_t columns, float scale) {
    storage& s = *storage_;
    s.format = format;
    s.matrices = matrices;
    s.rows = rows;
    s.columns = columns;
    const uint32_t bits = element_bits(format.element_type);
    for (int64_t matrix = 0; matrix < matrices; ++matrix) {
        // Rows before and behind that belong to others. GPTQ packs zeros along the rows, 32 bits a
        // word, so its stored matrix has whole words.
        const bool gptq = format.layout == SLUICE_WEIGHT_GPTQ;
        const int64_t begin = matrices == 1 ? 8 : 0;
        const int64_t behind = gptq ? (16 - (begin + rows) % 8) % 8 : begin / 2;
        const int64_t stored = begin + rows + behind;
        matrix_parts parts{{}, stored, columns};
        if (is_plain(format)) {
            const auto drawn = host_tensor::floats({stored, columns},
                                                   normal_numbers(random, stored * columns, scale),
                                                   format.element_type);
            const auto values = drawn.as_floats();
            s.real.insert(s.real.end(), values.begin() + begin * columns,
                          values.begin() + (begin + rows) * columns);
            parts.parts[SLUICE_PART_DATA] = keep(drawn);
            add_slice(parts, begin);
            continue;
        }
        coded_matrix drawn = draw(random, format, stored, columns, scale);
        for (int64_t n = begin; n < begin + rows; ++n)
            for (int64_t k = 0; k < columns; ++k) s.real.push_back(real_value(format, drawn, n, k));
        const int64_t scale_rows = (stored + drawn.group_rows - 1) / drawn.group_rows;
        if (format.zero_point == SLUICE_ZERO_GROUP_LESS_ONE)
            for (auto& zero : drawn.zeros) --zero;
        if (gptq) {
            const auto by_column = transposed(drawn.codes, stored, columns);
            parts.parts[SLUICE_PART_DATA] =
                keep(pack_words(by_column, bits, columns * bits / 32, stored, true));
            parts.parts[SLUICE_PART_SCALES] =
                keep(pack_scales(transposed(drawn.scales, stored, drawn.groups), format.scale_type,
                                 {drawn.groups, stored}));
            if (!drawn.zeros.empty())
                parts.parts[SLUICE_PART_ZEROS] =
                    keep(pack_words(transposed(drawn.zeros, stored, drawn.groups), bits,
                                    stored * bits / 32, drawn.groups, false));
            parts.parts[SLUICE_PART_GROUP_INDEX] =
                keep(host_tensor::integers({columns}, drawn.group_index));
        } else {
            parts.parts[SLUICE_PART_DATA] =
                keep(pack_row_major(drawn.codes, format.element_type, stored, columns));
            parts.parts[SLUICE_PART_SCALES] =
                keep(pack_scales(drawn.scales, format.scale_type, {scale_rows, drawn.groups}));
            if (!drawn.zeros.empty())
                parts.parts[SLUICE_PART_ZEROS] = keep(
                    pack_row_major(drawn.zeros, format.element_type, scale_rows, drawn.groups));
        }
        if (format.global_scale_type != 0)
            parts.parts[SLUICE_PART_GLOBAL_SCALE] =
                keep(host_tensor::floats({1}, {drawn.global_scale}));
        add_slice(parts, begin);
    }
    finish();
}

weight_case weight_case::plain() const {
    return {storage_->real, storage_->matrices, storage_->rows, storage_->columns};
}

uint64_t weight_case::stored_bytes() const {
    uint64_t bytes = 0;
    for (const auto& tensor : storage_->tensors) bytes += tensor.bytes.size();
    return bytes;
}

} // namespace sluice::checker
