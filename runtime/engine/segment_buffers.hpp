// Memory for the values that pass between the segments of a step, and for inputs that never change.
//
// A value lives in one buffer on the backend that writes it, which segments of the same backend
// read directly, and in one on each other backend that reads it. Values that are not needed at the
// same time share buffers.
#pragma once

#include "engine/crossings.hpp"
#include "engine/device_buffer.hpp"
#include "engine/loaded_model.hpp"

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace sluice {

// Not for several threads at once.
class segment_buffers {
  public:
    static constexpr uint32_t no_segment = UINT32_MAX;

    // A copy that has to be made before its first reader runs.
    struct transfer {
        value_crossing crossing;
        // The last segment that used the target's memory before, for another value.
        uint32_t former_user = no_segment;
    };

    // The model outlives it.
    explicit segment_buffers(const loaded_model& model);

    // Buffers for the inputs and outputs of a segment that the step's caller does not give.
    std::vector<sluice_binding> bindings(uint32_t segment) const;
    // In the order in which segments need them.
    const std::vector<transfer>& transfers() const { return transfers_; }
    // Copies the rows that are valid; whole numbers are -1 in those that steps are padded with. The
    // writer and the former user have ended.
    void copy(const transfer& made, const extent_sizes& extents);

  private:
    using place = std::pair<value_number, uint32_t>; // value of the whole program, placement
    // A value's stay in memory of one placement, in numbers of segments.
    struct stay {
        place at;
        uint32_t begin = 0;
        uint32_t end = 0;      // the last segment for which it must be there
        uint32_t last_use = 0; // the last segment of the placement that uses it
    };
    struct slot {
        uint32_t placement = 0;
        uint64_t size_bytes = 0;
        uint32_t end = 0;
        uint32_t last_use = 0;
    };

    std::vector<stay> stays() const;
    void plan(const std::vector<stay>& stays);
    void add_constants();
    uint64_t padding_bytes(const program_value& value, const extent_sizes& extents) const;

    const loaded_model& model_;
    std::vector<device_buffer> buffers_;
    std::map<place, size_t> buffer_of_; // index in buffers_
    std::vector<transfer> transfers_;
    std::vector<std::byte> staging_; // between two backends whose memory the host cannot address
};

} // namespace sluice
