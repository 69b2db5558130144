// Values by namespace and key, with limits on bytes, entries and age; the least recently used goes
// first. Knows nothing of plugins.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sluice::caches {

struct store_limits {
    uint64_t size_bytes_max;
    uint64_t entries_max;     // 0: any number
    uint64_t time_to_live_ms; // of entries that bring none; 0: for ever
};

struct store_statistics {
    uint64_t entry_count = 0;
    uint64_t size_bytes = 0;
    uint64_t hit_count = 0;
    uint64_t miss_count = 0;
    uint64_t eviction_count = 0; // by limits and age; not by drop, clear or replacement
};

// Safe for any number of threads. One lock: it is held for look-ups alone, never for copying
// values.
class store {
  public:
    using clock = std::chrono::steady_clock;
    using bytes = std::vector<std::byte>;

    explicit store(const store_limits& limits) : limits_(limits) {}

    // The value, which stays as it is even when the entry is dropped meanwhile; NULL where there is
    // none. Counts a hit or a miss, unless the value is larger than `room_bytes`: then the caller
    // comes again.
    std::shared_ptr<const bytes> get(std::string_view name_space, std::string_view key,
                                     uint64_t room_bytes, clock::time_point now);

    // Returns false where the value is larger than the store; what was there is gone all the same.
    bool put(std::string_view name_space, std::string_view key, std::span<const std::byte> value,
             uint64_t time_to_live_ms, clock::time_point now);

    void drop(std::string_view name_space, std::string_view key);
    void clear(std::string_view name_space);
    store_statistics statistics(clock::time_point now);

  private:
    struct entry;
    using entries = std::list<entry>; // the most recently used first
    using expiries = std::multimap<clock::time_point, entries::iterator>;

    struct entry {
        std::string name_space;
        std::string key;
        std::shared_ptr<const bytes> value;
        uint64_t size_bytes; // with what keeping the entry costs
        std::optional<expiries::iterator> expiry;
    };

    // Views of the strings in the entry, so that looking up allocates nothing.
    struct address {
        std::string_view name_space;
        std::string_view key;
        bool operator==(const address&) const = default;
    };
    struct address_hash {
        size_t operator()(const address& of) const {
            const std::hash<std::string_view> hash;
            return hash(of.key) ^ (hash(of.name_space) * 0x9e3779b97f4a7c15ULL);
        }
    };

    void erase(entries::iterator place);
    void evict(entries::iterator place);
    void expire(clock::time_point now);

    const store_limits limits_;
    std::mutex mutex_;
    entries entries_;
    std::unordered_map<address, entries::iterator, address_hash> index_;
    expiries expiries_;
    store_statistics statistics_;
};

} // namespace sluice::caches
