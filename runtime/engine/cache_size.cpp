#include "engine/cache_size.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/device_buffer.hpp"

#include <algorithm>
#include <set>

namespace sluice {

namespace {

constexpr uint64_t reserve_bytes_min = uint64_t(512) << 20;
constexpr uint64_t probe_bytes = 64;

uint64_t reserve_bytes(const memory_room& room) {
    if (room.is_host) return room.free_bytes / 2;
    return std::max(room.total_bytes / 10, reserve_bytes_min);
}

} // namespace

memory_room memory_room_of(const plugin_instance& backend) {
    auto properties = SLUICE_INIT(sluice_backend_properties);
    plugin_call call = backend.call("properties");
    call = backend.backend().properties(backend.handle(), &properties, call.error());
    const bool is_host = device_buffer(backend, probe_bytes).mapped() != nullptr;
    return {properties.memory_bytes_free, properties.memory_bytes_total, is_host};
}

std::string room_text(const memory_room& room) {
    return fmt::format("{} of {} are free", bytes_text(room.free_bytes),
                       bytes_text(room.total_bytes));
}

uint64_t cache_budget_bytes(const memory_room& room) {
    const uint64_t reserve = reserve_bytes(room);
    return room.free_bytes > reserve ? room.free_bytes - reserve : 0;
}

uint64_t cache_bytes_per_token(const plugin_instance& backend, const program& part) {
    const sluice_program* view = part.view();
    std::set<uint32_t> groups;
    for (const program_state& state : part.states()) groups.insert(state.group);
    uint64_t total = 0;
    for (const uint32_t group : groups) {
        uint64_t block_bytes = 0;
        plugin_call call = backend.call("cache_block_bytes");
        call = backend.backend().cache_block_bytes(
            backend.handle(), view->states, view->state_count, group, &block_bytes, call.error());
        const auto state = std::find_if(part.states().begin(), part.states().end(),
                                        [&](const auto& each) { return each.group == group; });
        total += block_bytes / std::max(1u, state->tokens_per_block);
    }
    return total;
}

uint32_t cache_tokens_that_fit(std::span<const std::shared_ptr<plugin_instance>> backends,
                               const program_partition& partition, uint32_t tokens_per_block,
                               uint64_t tokens_max) {
    uint64_t tokens = tokens_max;
    bool is_known = false;
    std::set<uint32_t> seen; // all segments of a placement that use states list the same ones
    for (const program_segment& segment : partition.segments) {
        if (segment.part.states().empty() || !seen.insert(segment.placement).second) continue;
        const plugin_instance& backend = *backends[segment.placement];
        const memory_room room = memory_room_of(backend);
        if (room.total_bytes == 0) continue;
        is_known = true;
        const uint64_t token_bytes =
            std::max<uint64_t>(1, cache_bytes_per_token(backend, segment.part));
        const uint64_t fitting = cache_budget_bytes(room) / token_bytes;
        if (fitting < tokens_per_block) {
            fail(SLUICE_EXHAUSTED,
                 "engine.cache_tokens = \"auto\": backend \"{}\" has no room for a KV pool beside "
                 "the weights: {}, of which {} are kept for the values of steps, and a block of {} "
                 "tokens takes {}; use a checkpoint of fewer bits, place experts elsewhere "
                 "([placement]), or give a number of tokens",
                 backend.id(), room_text(room), bytes_text(reserve_bytes(room)), tokens_per_block,
                 bytes_text(token_bytes * tokens_per_block));
        }
        tokens = std::min(tokens, fitting);
    }
    if (!is_known) return 0;
    return uint32_t(tokens / tokens_per_block * tokens_per_block);
}

} // namespace sluice
