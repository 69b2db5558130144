// Weights of the oneDNN backend: matrices packed once into blocks for the matrix kernels, and small
// vectors as plain float32.
#pragma once

#include "kernels/matmul.hpp"
#include "plain/weight.hpp"

namespace sluice::onednn {

namespace plugin = sluice::plugin;
namespace kernels = sluice::kernels;

// E matrices [N, K] packed one after another. For latent projections (SLUICE_ROLE_LATENT) also
// their transposes [K, N], which the absorbed form multiplies by. The scales of codes lie along the
// wrong axis there, so a transpose of codes is without (all 1), zero points taken off, and whoever
// multiplies by it multiplies the rows by `row_scales` before, once for each group of its columns.
struct packed_weight final : sluice_weight {
    kernels::packed_layout layout;
    kernels::packed_layout transposed_layout; // n is 0 where there is none
    int64_t row_group = 0; // columns of a transpose that share scales of rows; 0: they have none
    int64_t matrix_count = 0;
    plugin::memory data;
    plugin::memory transposed_data;
    plugin::memory row_scale_data; // f32 [matrix_count, groups of columns, N]
    // Vectors, and matrices that are read element by element, decoded: [matrix_count, N, K].
    std::unique_ptr<plain::float_weight> decoded;

    kernels::packed_matrix_view matrix(int64_t index) const {
        return {layout, data.as<const std::byte>() + index * layout.total_bytes};
    }
    kernels::packed_matrix_view transposed(int64_t index) const {
        return {transposed_layout,
                transposed_data.as<const std::byte>() + index * transposed_layout.total_bytes};
    }
    int64_t row_groups() const {
        return row_group == 0 ? 1 : (layout.k + row_group - 1) / row_group;
    }
    // [N]; NULL where rows have none.
    const float* row_scales(int64_t index, int64_t group) const {
        return row_group == 0
                   ? nullptr
                   : row_scale_data.as<const float>() + (index * row_groups() + group) * layout.n;
    }
    std::string describe() const override;
};

// Whether int8 and int4 codes of that format can stay codes: groups along k in order, even.
bool keeps_codes(const sluice_weight_format& format);

// How a source is packed, without reading its data. Zero points that turn out to be all in the
// middle are not kept, so the weight may take fewer bytes.
struct packing {
    kernels::packed_layout layout;
    bool is_packed = false;     // otherwise only decoded
    bool is_transposed = false; // the transpose as well
    bool is_decoded = false;    // float32 as well
    uint64_t size_bytes = 0;
};
packing plan_packing(const sluice_weight_source& source, uint32_t roles);

// Packs on the whole team. Throws where the source contradicts itself.
std::unique_ptr<packed_weight> pack(const plugin::host& host, const sluice_weight_source& source,
                                    uint32_t roles);

} // namespace sluice::onednn
