// How large a KV pool may be: engine.cache_tokens = "auto", and what errors say of memory.
#pragma once

#include "plugin/plugin_host.hpp"
#include "program/partition.hpp"

#include <cstdint>
#include <span>
#include <string>

namespace sluice {

// Memory of a backend, as it says itself at the moment.
struct memory_room {
    uint64_t free_bytes = 0;
    uint64_t total_bytes = 0; // 0: the backend does not know
    bool is_host = false;     // that of the machine, which everything else uses too
};
memory_room memory_room_of(const plugin_instance& backend);
std::string room_text(const memory_room& room); // "3.1 GiB of 79.2 GiB are free"

// What a pool may take of it once the weights are there. Of a device all but a tenth of the whole,
// and at least 512 MiB, which are for the values of steps, logits and what each size of step needs;
// of the machine's own memory half of what is free.
uint64_t cache_budget_bytes(const memory_room& room);

// Of one token in all states of a program, on the backend that keeps them.
uint64_t cache_bytes_per_token(const plugin_instance& backend, const program& part);

// Tokens for which all backends have room, in whole blocks, at most tokens_max. Fails with
// SLUICE_EXHAUSTED where not even a block fits; 0 where no backend with states knows its memory.
// backends: by placement number.
uint32_t cache_tokens_that_fit(std::span<const std::shared_ptr<plugin_instance>> backends,
                               const program_partition& partition, uint32_t tokens_per_block,
                               uint64_t tokens_max);

} // namespace sluice
