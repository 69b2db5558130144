#include "weight.hpp"

#include "elements.hpp"

namespace sluice::reference {

namespace {

// Word `index` of an int32 array that holds codes of `bits` bits, lowest first.
uint32_t packed_code(const sluice_tensor& part, int64_t word, int64_t place, int bits) {
    const auto packed = static_cast<const uint32_t*>(part.data)[word];
    return (packed >> (place * bits)) & ((1u << bits) - 1u);
}

// Reads single elements of one stored matrix by the formula of abi/weight.h.
class stored_matrix {
  public:
    stored_matrix(const sluice_weight_format& format, const sluice_weight_slice& slice,
                  const std::string& name)
        : format_(format), rows_(slice.stored_rows), columns_(slice.stored_columns), name_(name) {
        for (uint32_t i = 0; i < SLUICE_PART_COUNT; ++i)
            if (slice.parts[i] != nullptr)
                parts_[i] = plugin::read(slice.parts[i], "sluice_tensor");
        bits_ = static_cast<int>(plugin::element_bits(format.element_type));
        group_columns_ = format.group_columns == 0 ? columns_ : format.group_columns;
        group_rows_ = format.group_rows == 0 ? 1 : format.group_rows;
        groups_ = (columns_ + group_columns_ - 1) / group_columns_;
        check_sizes();
    }

    float at(int64_t n, int64_t k) const {
        float code = 0;
        if (format_.layout == SLUICE_WEIGHT_GPTQ) {
            const int64_t per_word = 32 / bits_;
            code = static_cast<float>(packed_code(parts_[SLUICE_PART_DATA],
                                                  k / per_word * rows_ + n, k % per_word, bits_));
        } else {
            code = get(parts_[SLUICE_PART_DATA].data, format_.element_type, n * columns_ + k);
        }
        if (format_.scale_type == SLUICE_ELEMENT_UNKNOWN) return code;
        int64_t group = k / group_columns_;
        if (format_.group_index != 0)
            group = static_cast<const int32_t*>(parts_[SLUICE_PART_GROUP_INDEX].data)[k];
        if (group < 0 || group >= groups_)
            plugin::fail(SLUICE_INVALID, "weight '", name_, "': group index ", group, " of column ",
                         k, " is not in 0..", groups_ - 1);
        float value = (code - zero(n, group)) * scale(n, group);
        if (format_.global_scale_type != SLUICE_ELEMENT_UNKNOWN)
            value *= get(parts_[SLUICE_PART_GLOBAL_SCALE].data, format_.global_scale_type, 0);
        return value;
    }

  private:
    float scale(int64_t n, int64_t group) const {
        const auto& part = parts_[SLUICE_PART_SCALES];
        const int64_t index = format_.layout == SLUICE_WEIGHT_GPTQ
                                  ? group * rows_ + n
                                  : n / group_rows_ * groups_ + group;
        return get(part.data, format_.scale_type, index);
    }

    float zero(int64_t n, int64_t group) const {
        if (format_.zero_point == SLUICE_ZERO_NONE) return 0;
        if (format_.zero_point == SLUICE_ZERO_MIDDLE) return static_cast<float>(1 << (bits_ - 1));
        const auto& part = parts_[SLUICE_PART_ZEROS];
        float stored = 0;
        if (format_.layout == SLUICE_WEIGHT_GPTQ) {
            const int64_t per_word = 32 / bits_;
            stored = static_cast<float>(packed_code(part, (group * rows_ + n) / per_word,
                                                    (group * rows_ + n) % per_word, bits_));
        } else {
            stored = get(part.data, format_.element_type, n / group_rows_ * groups_ + group);
        }
        return format_.zero_point == SLUICE_ZERO_GROUP_LESS_ONE ? stored + 1 : stored;
    }

    void need(uint32_t part, const char* what, uint64_t size_bytes) const {
        if (parts_[part].data == nullptr || parts_[part].size_bytes < size_bytes)
            plugin::fail(SLUICE_INVALID, "weight '", name_, "': the ", what, " part must have ",
                         size_bytes, " bytes, found ", parts_[part].size_bytes);
    }

    void check_sizes() const {
        const uint64_t count = static_cast<uint64_t>(rows_ * columns_);
        const bool gptq = format_.layout == SLUICE_WEIGHT_GPTQ;
        if (gptq
            && ((bits_ != 4 && bits_ != 8) || columns_ % (32 / bits_) != 0
                || rows_ % (32 / bits_) != 0))
            plugin::fail(SLUICE_INVALID, "weight '", name_,
                         "': the GPTQ layout needs 4 or 8 bits "
                         "and sizes that fill its words, found ",
                         bits_, " bits, ", rows_, " x ", columns_);
        need(SLUICE_PART_DATA, "data", count * static_cast<uint64_t>(bits_) / 8);
        if (format_.scale_type == SLUICE_ELEMENT_UNKNOWN) return;
        const auto scales =
            static_cast<uint64_t>((rows_ + group_rows_ - 1) / group_rows_ * groups_);
        need(SLUICE_PART_SCALES, "scales", scales * plugin::element_bits(format_.scale_type) / 8);
        if (format_.zero_point >= SLUICE_ZERO_GROUP)
            need(SLUICE_PART_ZEROS, "zeros", scales * static_cast<uint64_t>(bits_) / 8);
        if (format_.group_index != 0)
            need(SLUICE_PART_GROUP_INDEX, "group index", static_cast<uint64_t>(columns_) * 4);
        if (format_.global_scale_type != SLUICE_ELEMENT_UNKNOWN)
            need(SLUICE_PART_GLOBAL_SCALE, "global scale", 1);
    }

    const sluice_weight_format& format_;
    std::array<sluice_tensor, SLUICE_PART_COUNT> parts_{};
    int64_t rows_;
    int64_t columns_;
    int bits_ = 0;
    int64_t group_columns_ = 0;
    int64_t group_rows_ = 0;
    int64_t groups_ = 0;
    const std::string& name_;
};

} // namespace

uint64_t decoded_size(const sluice_weight_source& source) {
    return sizeof(float) * static_cast<uint64_t>(source.matrix_count)
           * static_cast<uint64_t>(source.row_count) * static_cast<uint64_t>(source.column_count);
}

std::unique_ptr<float_weight> decode(const plugin::host& host, const sluice_weight_source& source) {
    const std::string name(plugin::view(source.name));
    auto result = std::make_unique<float_weight>();
    result->matrix_count = source.matrix_count;
    result->row_count = source.row_count;
    result->column_count = source.column_count;
    result->values = plugin::memory(host, decoded_size(source));
    auto* target = result->values.as<float>();
    int64_t rows_done = 0;
    for (uint64_t i = 0; i < source.slice_count; ++i) {
        const auto slice = plugin::read(source.slices[i], "sluice_weight_slice");
        const stored_matrix stored(*source.format, slice, name);
        const int64_t step = slice.row_step == 0 ? 1 : slice.row_step;
        const int64_t rows = source.slice_rows[i];
        if (slice.row_begin < 0 || slice.column_begin < 0 || rows < 0
            || (rows > 0 && slice.row_begin + (rows - 1) * step >= slice.stored_rows)
            || slice.column_begin + source.column_count > slice.stored_columns)
            plugin::fail(SLUICE_INVALID, "weight '", name, "': slice ", i,
                         " reaches outside the stored matrix of ", slice.stored_rows, " x ",
                         slice.stored_columns);
        if (rows_done + rows > source.row_count * source.matrix_count)
            plugin::fail(SLUICE_INVALID, "weight '", name, "': the slices have more than ",
                         source.row_count * source.matrix_count, " rows");
        host.run([&](const plugin::worker& self) {
            const auto range = self.share(rows);
            for (int64_t row = range.begin; row < range.end; ++row)
                for (int64_t k = 0; k < source.column_count; ++k)
                    target[(rows_done + row) * source.column_count + k] =
                        stored.at(slice.row_begin + row * step, slice.column_begin + k);
        });
        rows_done += rows;
    }
    if (rows_done != source.row_count * source.matrix_count)
        plugin::fail(SLUICE_INVALID, "weight '", name, "': the slices have ", rows_done,
                     " rows, expected ", source.row_count * source.matrix_count);
    return result;
}

} // namespace sluice::reference
