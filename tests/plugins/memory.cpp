// The result cache "memory" through the host.
#include "opened_plugin.hpp"

#include <doctest/doctest.h>

using namespace sluice;
using namespace sluice::plugin_tests;

namespace {

void put(plugin_instance& cache, std::string_view key, std::string_view value) {
    plugin_call call = cache.call("put");
    call = cache.result_cache().put(cache.handle(), text_view("n"), text_view(key), value.data(),
                                    value.size(), 0, call.error());
}

std::optional<std::string> get(plugin_instance& cache, std::string_view key) {
    char room[64];
    uint64_t size = 0;
    uint32_t found = 0;
    plugin_call call = cache.call("get");
    call = cache.result_cache().get(cache.handle(), text_view("n"), text_view(key), room,
                                    sizeof room, &size, &found, call.error());
    if (found == 0) return std::nullopt;
    return std::string(room, size);
}

} // namespace

TEST_CASE("settings limit the cache, instances share nothing") {
    const auto small = open_plugin("result_cache", "memory", {"entries_max=2"});
    const auto large = open_plugin("result_cache", "memory");
    for (const char* key : {"a", "b", "c"}) {
        put(*small, key, "value");
        put(*large, key, "value");
    }
    CHECK_FALSE(get(*small, "a").has_value());
    CHECK(get(*small, "c") == "value");
    CHECK(get(*large, "a") == "value");
    auto statistics = SLUICE_INIT(sluice_result_cache_statistics);
    plugin_call call = small->call("statistics");
    call = small->result_cache().statistics(small->handle(), &statistics, call.error());
    CHECK(statistics.entry_count == 2);
    CHECK(statistics.eviction_count == 1);
}

TEST_CASE("settings out of bounds are refused by name") {
    CHECK_THROWS_WITH_AS(open_plugin("result_cache", "memory", {"size_bytes_max=1"}),
                         doctest::Contains("size_bytes_max"), sluice::error);
    CHECK_THROWS_WITH_AS(open_plugin("result_cache", "memory", {"entries_max=many"}),
                         doctest::Contains("entries_max"), sluice::error);
}
