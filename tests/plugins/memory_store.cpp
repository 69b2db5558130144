// The store of the result cache "memory", with a clock of the test's own.
#include "plugins/caches/memory/store.hpp"

#include <doctest/doctest.h>

using sluice::caches::store;
using sluice::caches::store_limits;

namespace {

constexpr auto start = store::clock::time_point(std::chrono::hours(1000));

std::span<const std::byte> bytes(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

bool has(store& from, std::string_view key, store::clock::time_point now = start) {
    return from.get("n", key, 1 << 20, now) != nullptr;
}

} // namespace

TEST_CASE("the least recently used goes first") {
    store kept({1 << 20, 3, 0});
    for (const char* key : {"a", "b", "c"}) kept.put("n", key, bytes("value"), 0, start);
    CHECK(has(kept, "a"));
    kept.put("n", "d", bytes("value"), 0, start);
    CHECK(has(kept, "a"));
    CHECK_FALSE(has(kept, "b"));
    CHECK(has(kept, "c"));
    CHECK(kept.statistics(start).eviction_count == 1);
    // Writing over a value is a use of it too, and evicts nobody.
    kept.put("n", "a", bytes("another"), 0, start);
    CHECK(kept.statistics(start).entry_count == 3);
    CHECK(kept.statistics(start).eviction_count == 1);
}

TEST_CASE("bytes are limited, and a value too large for all leaves the others alone") {
    store kept({4096, 0, 0});
    const std::string large(1500, 'x');
    CHECK(kept.put("n", "a", bytes(large), 0, start));
    CHECK(kept.put("n", "b", bytes(large), 0, start));
    CHECK(kept.put("n", "c", bytes(large), 0, start));
    CHECK(kept.statistics(start).entry_count == 2);
    CHECK(kept.statistics(start).size_bytes <= 4096);
    CHECK_FALSE(kept.put("n", "d", bytes(std::string(4096, 'x')), 0, start));
    CHECK(kept.statistics(start).entry_count == 2);
    // A value that no longer fits must not leave its predecessor to be found.
    CHECK_FALSE(kept.put("n", "c", bytes(std::string(4096, 'x')), 0, start));
    CHECK_FALSE(has(kept, "c"));
}

TEST_CASE("values live as long as they were told, or as the store's default says") {
    store kept({1 << 20, 0, 1000});
    kept.put("n", "default", bytes("value"), 0, start);
    kept.put("n", "short", bytes("value"), 10, start);
    kept.put("n", "for ever", bytes("value"), UINT64_MAX, start);
    const auto later = [](int64_t ms) { return start + std::chrono::milliseconds(ms); };
    CHECK(has(kept, "short", later(9)));
    CHECK_FALSE(has(kept, "short", later(10)));
    CHECK(has(kept, "default", later(999)));
    CHECK(kept.statistics(later(1000)).entry_count == 1);
    CHECK(has(kept, "for ever", later(1LL << 40)));
}

TEST_CASE("a value that is being read outlives its entry") {
    store kept({1 << 20, 0, 0});
    kept.put("n", "a", bytes("value"), 0, start);
    const auto held = kept.get("n", "a", 100, start);
    kept.clear("n");
    CHECK(held->size() == 5);
    CHECK(kept.statistics(start).size_bytes == 0);
}

TEST_CASE("asking for the size alone counts neither as hit nor as miss") {
    store kept({1 << 20, 0, 0});
    kept.put("n", "a", bytes("value"), 0, start);
    CHECK(kept.get("n", "a", 0, start) != nullptr);
    CHECK(kept.statistics(start).hit_count == 0);
    CHECK(kept.get("n", "a", 5, start) != nullptr);
    CHECK(kept.get("m", "a", 5, start) == nullptr);
    CHECK(kept.statistics(start).hit_count == 1);
    CHECK(kept.statistics(start).miss_count == 1);
}
