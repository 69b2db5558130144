// Buffers and caches on the device.
#pragma once

#include "device.hpp"

namespace sluice::cuda {

class device_buffer final : public sluice_buffer {
  public:
    device_buffer(const device& owner, uint64_t size_bytes);
    // Throws where the bytes are not all inside.
    std::byte* at(uint64_t offset, uint64_t size_bytes) const;

    // Called when a value is bound to it, before kernels know its place. A few bytes that only the
    // host reads lie in pinned memory of the host, to which kernels write directly: reading them
    // takes no copy. The first binding decides for good.
    void choose_place(bool only_host_reads);
    // The bytes where they lie in the host's memory, else NULL.
    std::byte* on_host() const { return pinned_.as(); }

  private:
    static constexpr uint64_t pinned_bytes_max = uint64_t{64} << 10;

    const device& owner_;
    uint64_t size_bytes_;
    device_memory memory_;
    pinned_memory pinned_;
    bool is_placed_ = false;
};

// For each part of each state the vectors of all slots: [block_count * tokens_per_block,
// part_width].
class device_cache final : public sluice_cache {
  public:
    device_cache(const device& owner, std::span<const sluice_state> states,
                 std::span<const uint32_t> block_count);

    static uint64_t block_bytes(const sluice_state& state, uint32_t part) {
        return plugin::bytes_of(state.part_type[part], state.part_width[part])
               * state.tokens_per_block;
    }
    static uint64_t block_bytes(std::span<const sluice_state> states, uint32_t group);

    const std::vector<sluice_state>& states() const { return states_; }
    std::byte* part(uint32_t state, uint32_t part) const { return parts_[state][part].as(); }

    // Calls visit(bytes of the block, size) for each state and part of a group.
    template <typename Visit>
    void each_part_of_block(uint32_t group, int32_t block, Visit&& visit) const {
        if (group >= block_count_.size() || block < 0
            || static_cast<uint32_t>(block) >= block_count_[group])
            plugin::fail(SLUICE_INVALID, "block ", block, " of group ", group,
                         " is not in the cache");
        for (size_t s = 0; s < states_.size(); ++s) {
            if (states_[s].group != group) continue;
            for (uint32_t p = 0; p < states_[s].part_count; ++p) {
                const uint64_t size = block_bytes(states_[s], p);
                visit(parts_[s][p].as() + size * static_cast<uint64_t>(block), size);
            }
        }
    }

  private:
    std::vector<sluice_state> states_;
    std::vector<uint32_t> block_count_;
    std::vector<std::vector<device_memory>> parts_;
};

} // namespace sluice::cuda
