#include "store.hpp"

namespace sluice::caches {
namespace {

// List node, index node, expiry node and the control block of the value, roughly.
constexpr uint64_t entry_overhead_bytes = 256;

// Times to live beyond a century are for ever, and would overflow the clock.
constexpr uint64_t time_to_live_ms_max = 100ULL * 365 * 24 * 3600 * 1000;

} // namespace

std::shared_ptr<const store::bytes> store::get(std::string_view name_space, std::string_view key,
                                               uint64_t room_bytes, clock::time_point now) {
    const std::lock_guard lock(mutex_);
    expire(now);
    const auto found = index_.find({name_space, key});
    if (found == index_.end()) {
        ++statistics_.miss_count;
        return nullptr;
    }
    const auto place = found->second;
    entries_.splice(entries_.begin(), entries_, place);
    if (place->value->size() <= room_bytes) ++statistics_.hit_count;
    return place->value;
}

bool store::put(std::string_view name_space, std::string_view key, std::span<const std::byte> value,
                uint64_t time_to_live_ms, clock::time_point now) {
    const uint64_t size = name_space.size() + key.size() + value.size() + entry_overhead_bytes;
    const bool fits = size <= limits_.size_bytes_max;
    entries fresh;
    if (fits)
        fresh.push_back({std::string(name_space),
                         std::string(key),
                         std::make_shared<const bytes>(value.begin(), value.end()),
                         size,
                         {}});

    const std::lock_guard lock(mutex_);
    expire(now);
    if (const auto old = index_.find({name_space, key}); old != index_.end()) erase(old->second);
    if (!fits) return false;
    while (!entries_.empty()
           && (statistics_.size_bytes + size > limits_.size_bytes_max
               || (limits_.entries_max != 0 && statistics_.entry_count >= limits_.entries_max)))
        evict(std::prev(entries_.end()));

    const auto place = fresh.begin();
    index_.emplace(address{place->name_space, place->key}, place);
    entries_.splice(entries_.begin(), fresh);
    statistics_.size_bytes += size;
    ++statistics_.entry_count;
    const uint64_t life = time_to_live_ms != 0 ? time_to_live_ms : limits_.time_to_live_ms;
    if (life != 0 && life < time_to_live_ms_max)
        place->expiry = expiries_.emplace(now + std::chrono::milliseconds(life), place);
    return true;
}

void store::drop(std::string_view name_space, std::string_view key) {
    const std::lock_guard lock(mutex_);
    if (const auto found = index_.find({name_space, key}); found != index_.end())
        erase(found->second);
}

void store::clear(std::string_view name_space) {
    const std::lock_guard lock(mutex_);
    for (auto place = entries_.begin(); place != entries_.end();) {
        const auto next = std::next(place);
        if (place->name_space == name_space) erase(place);
        place = next;
    }
}

store_statistics store::statistics(clock::time_point now) {
    const std::lock_guard lock(mutex_);
    expire(now);
    return statistics_;
}

void store::erase(entries::iterator place) {
    statistics_.size_bytes -= place->size_bytes;
    --statistics_.entry_count;
    index_.erase({place->name_space, place->key});
    if (place->expiry) expiries_.erase(*place->expiry);
    entries_.erase(place);
}

void store::evict(entries::iterator place) {
    ++statistics_.eviction_count;
    erase(place);
}

void store::expire(clock::time_point now) {
    while (!expiries_.empty() && expiries_.begin()->first <= now) evict(expiries_.begin()->second);
}

} // namespace sluice::caches
