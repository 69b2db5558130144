// Weights on the device: float matrices as they are stored, codes in tiles for the matrix units,
// and vectors as float32.
#pragma once

#include "device.hpp"
#include "kernels/view.hpp"

namespace sluice::cuda {

struct device_weight final : sluice_weight {
    weight_view view; // of the matrices; data is NULL where only `values` is kept
    device_memory data;
    device_memory scales;
    device_memory zeros;
    device_memory values; // [matrices, rows, columns] in float32, for vectors and element-wise use
    int64_t matrix_count = 0;
    int64_t row_count = 0;
    int64_t column_count = 0;

    std::string describe() const override;
};

// How a source is kept, without reading its data.
struct weight_plan {
    bool keeps_matrix = false; // `data`
    bool keeps_values = false; // `values`
    weight_storage storage = weight_storage::float32;
    int64_t group_columns = 0;
    sluice_element_type scale_type = 0;
    bool has_zeros = false;
    uint64_t data_bytes = 0;
    uint64_t scale_bytes = 0; // and as many elements of zeros, one byte each
    uint64_t zero_bytes = 0;
    uint64_t value_bytes = 0;

    uint64_t size_bytes() const { return data_bytes + scale_bytes + zero_bytes + value_bytes; }
};
weight_plan plan_weight(const sluice_weight_source& source, uint32_t roles);

// Uploads through pinned staging memory, two pieces in turn: one is filled while the other travels.
class uploader {
  public:
    explicit uploader(const device& owner);
    ~uploader();
    // Calls fill(destination, offset, size) for piece after piece of `size_bytes`, and copies each
    // to the device. Pieces are multiples of `unit_bytes` long.
    template <typename Fill>
    void upload(std::byte* target, uint64_t size_bytes, uint64_t unit_bytes, Fill&& fill) {
        const uint64_t piece = std::max<uint64_t>(piece_bytes / unit_bytes, 1) * unit_bytes;
        for (uint64_t at = 0; at < size_bytes; at += piece) {
            const uint64_t size = std::min(piece, size_bytes - at);
            std::byte* staging = next(size);
            fill(staging, at, size);
            send(target + at, size);
        }
        finish();
    }

  private:
    static constexpr uint64_t piece_bytes = uint64_t{16} << 20;
    std::byte* next(uint64_t size_bytes); // free again: what it held has arrived
    void send(std::byte* target, uint64_t size_bytes);
    void finish();

    const device& owner_;
    pinned_memory staging_[2];
    cudaEvent_t arrived_[2] = {};
    int turn_ = 0;
};

// Not for several threads at once on one uploader. Throws where the source contradicts itself.
std::unique_ptr<device_weight> upload_weight(const device& owner, uploader& by,
                                             const plugin::host& host,
                                             const sluice_weight_source& source, uint32_t roles);

} // namespace sluice::cuda
