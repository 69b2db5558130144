#include "cache.hpp"

#include <utility>

namespace sluice::cuda {

device_buffer::device_buffer(const device& owner, uint64_t size_bytes)
    : owner_(owner), size_bytes_(size_bytes), memory_(owner, size_bytes, "a buffer") {
    if (size_bytes == 0) return;
    check(cudaMemsetAsync(memory_.as(), 0, size_bytes, owner.setup_stream()), "clearing a buffer");
    check(cudaStreamSynchronize(owner.setup_stream()), "clearing a buffer");
}

std::byte* device_buffer::at(uint64_t offset, uint64_t size_bytes) const {
    if (offset > size_bytes_ || size_bytes > size_bytes_ - offset)
        plugin::fail(SLUICE_INVALID, "bytes ", offset, " to ", offset + size_bytes,
                     " are outside a buffer of ", size_bytes_, " bytes");
    return (on_host() != nullptr ? on_host() : memory_.as()) + offset;
}

void device_buffer::choose_place(bool only_host_reads) {
    if (std::exchange(is_placed_, true) || !only_host_reads || size_bytes_ > pinned_bytes_max)
        return;
    pinned_memory pinned(owner_, size_bytes_);
    check(cudaMemcpyAsync(pinned.as(), memory_.as(), size_bytes_, cudaMemcpyDeviceToHost,
                          owner_.setup_stream()),
          "moving a buffer to the host");
    check(cudaStreamSynchronize(owner_.setup_stream()), "moving a buffer to the host");
    pinned_ = std::move(pinned);
    memory_ = device_memory();
}

device_cache::device_cache(const device& owner, std::span<const sluice_state> states,
                           std::span<const uint32_t> block_count)
    : states_(states.begin(), states.end()), block_count_(block_count.begin(), block_count.end()) {
    for (const auto& state : states_) {
        if (state.kind == SLUICE_STATE_PER_SEQUENCE)
            plugin::fail(SLUICE_UNSUPPORTED, "states kept per sequence are not supported");
        if (state.group >= block_count_.size() || state.tokens_per_block == 0
            || state.part_count > SLUICE_STATE_PARTS_MAX)
            plugin::fail(SLUICE_INVALID, "a state of group ", state.group, " with ",
                         state.part_count, " parts and ", state.tokens_per_block,
                         " tokens a block, in a cache of ", block_count_.size(), " groups");
        auto& parts = parts_.emplace_back();
        for (uint32_t part = 0; part < state.part_count; ++part) {
            const uint64_t size = block_bytes(state, part) * block_count_[state.group];
            parts.emplace_back(owner, size, "the KV cache");
            if (size != 0)
                check(cudaMemsetAsync(parts.back().as(), 0, size, owner.setup_stream()),
                      "clearing the KV cache");
        }
    }
    check(cudaStreamSynchronize(owner.setup_stream()), "clearing the KV cache");
}

uint64_t device_cache::block_bytes(std::span<const sluice_state> states, uint32_t group) {
    uint64_t total = 0;
    for (const auto& state : states)
        if (state.group == group)
            for (uint32_t part = 0; part < state.part_count; ++part)
                total += block_bytes(state, part);
    return total;
}

} // namespace sluice::cuda
