#include "stored_matrix.hpp"

namespace sluice::plain {

namespace {

// A code of `bits` bits in an int32 array, lowest bits first.
uint32_t packed_code(const sluice_tensor& part, int64_t word, int64_t place, int bits) {
    const auto packed = static_cast<const uint32_t*>(part.data)[word];
    return (packed >> (place * bits)) & ((1u << bits) - 1u);
}

} // namespace

stored_matrix::stored_matrix(const sluice_weight_format& format, const sluice_weight_slice& slice,
                             std::string_view name)
    : format_(format), rows_(slice.stored_rows), columns_(slice.stored_columns),
      bits_(static_cast<int>(plugin::element_bits(format.element_type))),
      group_columns_(format.group_columns == 0 ? columns_ : format.group_columns),
      group_rows_(format.group_rows == 0 ? 1 : format.group_rows), name_(name) {
    if (rows_ < 1 || columns_ < 1)
        plugin::fail(SLUICE_INVALID, "weight '", name, "': a stored matrix of ", rows_, " x ",
                     columns_);
    groups_ = (columns_ + group_columns_ - 1) / group_columns_;
    for (uint32_t i = 0; i < SLUICE_PART_COUNT; ++i)
        if (slice.parts[i] != nullptr) parts_[i] = plugin::read(slice.parts[i], "sluice_tensor");
    check_sizes();
}

float stored_matrix::code(int64_t n, int64_t k) const {
    if (format_.layout == SLUICE_WEIGHT_GPTQ) {
        const int64_t per_word = 32 / bits_;
        return static_cast<float>(
            packed_code(parts_[SLUICE_PART_DATA], k / per_word * rows_ + n, k % per_word, bits_));
    }
    return get(parts_[SLUICE_PART_DATA].data, format_.element_type, n * columns_ + k);
}

void stored_matrix::codes(int64_t n, int64_t k, int64_t count, int shift, uint8_t* target) const {
    if (format_.layout == SLUICE_WEIGHT_GPTQ && shift == 0) {
        // Rows lie across the words, so that a call for each element would be most of the time.
        const int64_t per_word = 32 / bits_;
        const auto* words = static_cast<const uint32_t*>(parts_[SLUICE_PART_DATA].data) + n;
        const uint32_t mask = (1u << bits_) - 1u;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t at = k + i;
            target[i] = static_cast<uint8_t>(
                (words[at / per_word * rows_] >> (at % per_word * bits_)) & mask);
        }
        return;
    }
    for (int64_t i = 0; i < count; ++i)
        target[i] = static_cast<uint8_t>(static_cast<int>(code(n, k + i)) + shift);
}

int64_t stored_matrix::group_of(int64_t k) const {
    if (format_.group_index == 0) return k / group_columns_;
    const int64_t group = static_cast<const int32_t*>(parts_[SLUICE_PART_GROUP_INDEX].data)[k];
    if (group < 0 || group >= groups_)
        plugin::fail(SLUICE_INVALID, "weight '", name_, "': group index ", group, " of column ", k,
                     " is not in 0..", groups_ - 1);
    return group;
}

float stored_matrix::scale(int64_t n, int64_t group) const {
    const int64_t index = format_.layout == SLUICE_WEIGHT_GPTQ ? group * rows_ + n
                                                               : n / group_rows_ * groups_ + group;
    const float value = get(parts_[SLUICE_PART_SCALES].data, format_.scale_type, index);
    if (format_.global_scale_type == SLUICE_ELEMENT_UNKNOWN) return value;
    return value * get(parts_[SLUICE_PART_GLOBAL_SCALE].data, format_.global_scale_type, 0);
}

float stored_matrix::zero(int64_t n, int64_t group) const {
    if (format_.zero_point == SLUICE_ZERO_NONE) return 0;
    if (format_.zero_point == SLUICE_ZERO_MIDDLE) return static_cast<float>(1 << (bits_ - 1));
    const auto& part = parts_[SLUICE_PART_ZEROS];
    float stored = 0;
    if (format_.layout == SLUICE_WEIGHT_GPTQ) {
        const int64_t per_word = 32 / bits_;
        const int64_t index = group * rows_ + n;
        stored = static_cast<float>(packed_code(part, index / per_word, index % per_word, bits_));
    } else {
        stored = get(part.data, format_.element_type, n / group_rows_ * groups_ + group);
    }
    return format_.zero_point == SLUICE_ZERO_GROUP_LESS_ONE ? stored + 1 : stored;
}

const std::byte* stored_matrix::float_row(int64_t n) const {
    if (format_.scale_type != SLUICE_ELEMENT_UNKNOWN || format_.layout != SLUICE_WEIGHT_ROW_MAJOR)
        return nullptr;
    return static_cast<const std::byte*>(parts_[SLUICE_PART_DATA].data) + n * columns_ * bits_ / 8;
}

void stored_matrix::need(uint32_t part, const char* what, uint64_t size_bytes) const {
    if (parts_[part].data == nullptr || parts_[part].size_bytes < size_bytes)
        plugin::fail(SLUICE_INVALID, "weight '", name_, "': the ", what, " part must have ",
                     size_bytes, " bytes, found ", parts_[part].size_bytes);
}

void stored_matrix::check_sizes() const {
    const auto bits = static_cast<uint64_t>(bits_);
    const bool gptq = format_.layout == SLUICE_WEIGHT_GPTQ;
    if (gptq
        && ((bits_ != 4 && bits_ != 8) || columns_ % (32 / bits_) != 0
            || rows_ % (32 / bits_) != 0))
        plugin::fail(SLUICE_INVALID, "weight '", name_,
                     "': the GPTQ layout needs 4 or 8 bits and sizes that fill its words, found ",
                     bits_, " bits, ", rows_, " x ", columns_);
    need(SLUICE_PART_DATA, "data", static_cast<uint64_t>(rows_ * columns_) * bits / 8);
    if (format_.scale_type == SLUICE_ELEMENT_UNKNOWN) return;
    const auto scales = static_cast<uint64_t>((rows_ + group_rows_ - 1) / group_rows_ * groups_);
    need(SLUICE_PART_SCALES, "scales", scales * plugin::element_bits(format_.scale_type) / 8);
    if (format_.zero_point >= SLUICE_ZERO_GROUP)
        need(SLUICE_PART_ZEROS, "zeros", scales * bits / 8);
    if (format_.group_index != 0)
        need(SLUICE_PART_GROUP_INDEX, "group index", static_cast<uint64_t>(columns_) * 4);
    if (format_.global_scale_type != SLUICE_ELEMENT_UNKNOWN)
        need(SLUICE_PART_GLOBAL_SCALE, "global scale", 1);
}

source_rows::source_rows(const sluice_weight_source& source) : column_count_(source.column_count) {
    const auto name = plugin::view(source.name);
    const int64_t wanted = source.row_count * source.matrix_count;
    int64_t first = 0;
    for (uint64_t i = 0; i < source.slice_count; ++i) {
        const auto given = plugin::read(source.slices[i], "sluice_weight_slice");
        const int64_t step = given.row_step == 0 ? 1 : given.row_step;
        const int64_t rows = source.slice_rows[i];
        if (given.row_begin < 0 || given.column_begin < 0 || rows < 1 || step < 1
            || given.row_begin + (rows - 1) * step >= given.stored_rows
            || given.column_begin + column_count_ > given.stored_columns)
            plugin::fail(SLUICE_INVALID, "weight '", name, "': slice ", i,
                         " reaches outside the stored matrix of ", given.stored_rows, " x ",
                         given.stored_columns);
        slices_.push_back({stored_matrix(*source.format, given, name), first + rows, first,
                           given.row_begin, step, given.column_begin});
        first += rows;
    }
    if (first != wanted)
        plugin::fail(SLUICE_INVALID, "weight '", name, "': the slices have ", first,
                     " rows, expected ", wanted);
}

source_rows::place source_rows::find(int64_t row) const {
    const auto found = std::upper_bound(
        slices_.begin(), slices_.end(), row,
        [](int64_t wanted, const slice& candidate) { return wanted < candidate.row_end; });
    return {found->stored, found->row_begin + (row - found->row_first) * found->row_step,
            found->column_begin};
}

void source_rows::read(int64_t row, float* values) const {
    const auto at = find(row);
    for (int64_t k = 0; k < column_count_; ++k)
        values[k] = at.stored.at(at.row, at.column_begin + k);
}

} // namespace sluice::plain
