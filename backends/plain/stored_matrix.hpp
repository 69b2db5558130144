// One stored matrix of a weight source, read element by element.
#pragma once

#include "elements.hpp"

namespace sluice::plain {

// Reads by the formula of abi/weight.h. Borrows the format, the parts' bytes and the name.
class stored_matrix {
  public:
    // Throws where the parts are too small for the sizes.
    stored_matrix(const sluice_weight_format& format, const sluice_weight_slice& slice,
                  std::string_view name);

    // The real value of element (n, k).
    float at(int64_t n, int64_t k) const {
        float value = static_cast<float>(code(n, k));
        if (format_.scale_type == SLUICE_ELEMENT_UNKNOWN) return value;
        const int64_t group = group_of(k);
        return (value - zero(n, group)) * scale(n, group);
    }

    // The code as it is stored (the element's own value for float elements).
    float code(int64_t n, int64_t k) const;
    // `count` codes of row n from column k on, each plus `shift`; for whole-number codes that the
    // shift makes unsigned.
    void codes(int64_t n, int64_t k, int64_t count, int shift, uint8_t* target) const;
    // With the second-level scale folded in.
    float scale(int64_t n, int64_t group) const;
    float zero(int64_t n, int64_t group) const;
    int64_t group_of(int64_t k) const;

    // The bytes of row n where elements are floats without scales, row-major; else NULL.
    const std::byte* float_row(int64_t n) const;

  private:
    void check_sizes() const;
    void need(uint32_t part, const char* what, uint64_t size_bytes) const;

    const sluice_weight_format& format_;
    std::array<sluice_tensor, SLUICE_PART_COUNT> parts_{};
    int64_t rows_;
    int64_t columns_;
    int bits_;
    int64_t group_columns_;
    int64_t group_rows_;
    int64_t groups_;
    std::string_view name_;
};

// The rows of a whole source, slices and matrices put together: row r of matrix e is e * row_count
// + r.
class source_rows {
  public:
    // Borrows the source. Throws where it contradicts itself.
    explicit source_rows(const sluice_weight_source& source);

    struct place {
        const stored_matrix& stored;
        int64_t row;          // in the stored matrix
        int64_t column_begin; // likewise
    };
    place find(int64_t row) const;
    // The real values of a row. values: [column_count]
    void read(int64_t row, float* values) const;

  private:
    struct slice {
        stored_matrix stored;
        int64_t row_end; // of the whole source
        int64_t row_first;
        int64_t row_begin;
        int64_t row_step;
        int64_t column_begin;
    };
    int64_t column_count_;
    std::vector<slice> slices_;
};

} // namespace sluice::plain
