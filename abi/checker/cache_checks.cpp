#include "checks.hpp"

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

namespace sluice::checker {
namespace {

// A result cache with C++ manners.
class result_cache {
  public:
    explicit result_cache(plugin_instance& plugin)
        : plugin_(plugin), table_(plugin.result_cache()) {}

    void put(std::string_view name_space, std::string_view key, std::string_view value,
             uint64_t time_to_live_ms = 0) {
        plugin_call call = plugin_.call("put");
        call = table_.put(plugin_.handle(), text_view(name_space), text_view(key), value.data(),
                          value.size(), time_to_live_ms, call.error());
    }
    std::optional<std::string> get(std::string_view name_space, std::string_view key) {
        const auto size = size_of(name_space, key, nullptr, 0);
        if (!size) return std::nullopt;
        std::string value(*size, '?');
        const auto again = size_of(name_space, key, value.data(), value.size());
        if (!again) return std::nullopt;
        require(*again == *size, "a value of {} bytes has {} the next time", *size, *again);
        return value;
    }
    std::optional<uint64_t> size_of(std::string_view name_space, std::string_view key, void* data,
                                    uint64_t capacity) {
        uint64_t size = 0;
        uint32_t found = 7;
        plugin_call call = plugin_.call("get");
        call = table_.get(plugin_.handle(), text_view(name_space), text_view(key), data, capacity,
                          &size, &found, call.error());
        require(found <= 1, "get answers found = {}", found);
        return found == 1 ? std::optional(size) : std::nullopt;
    }
    void drop(std::string_view name_space, std::string_view key) {
        plugin_call call = plugin_.call("drop");
        call = table_.drop(plugin_.handle(), text_view(name_space), text_view(key), call.error());
    }
    void clear(std::string_view name_space) {
        plugin_call call = plugin_.call("clear");
        call = table_.clear(plugin_.handle(), text_view(name_space), call.error());
    }
    std::optional<sluice_result_cache_statistics> statistics() {
        auto found = SLUICE_INIT(sluice_result_cache_statistics);
        const sluice_status status = table_.statistics(plugin_.handle(), &found, nullptr);
        if (status == SLUICE_UNIMPLEMENTED) return std::nullopt;
        require(status == SLUICE_OK, "statistics fails ({})", status_name(status));
        return found;
    }
    const sluice_result_cache& table() const { return table_; }
    sluice_plugin* handle() const { return plugin_.handle(); }

  private:
    plugin_instance& plugin_;
    const sluice_result_cache& table_;
};

std::string keeps_values(context& with) {
    const auto plugin = with.open();
    result_cache cache(*plugin);
    require(!cache.get("a", "key"), "an empty cache has a value");
    const std::string binary("\0\xff\n value \0", 11);
    cache.put("a", "key", "first");
    cache.put("a", std::string_view("k\0y", 3), binary);
    cache.put("a", "", "of the empty key");
    cache.put("a", "empty", "");
    require(cache.get("a", "key") == "first", "what was put is not what is got");
    require(cache.get("a", std::string_view("k\0y", 3)) == binary,
            "bytes of a key or value with zeros in it are lost");
    require(cache.get("a", "") == "of the empty key", "an empty key loses its value");
    require(cache.get("a", "empty") == "", "an empty value is not found");
    cache.put("a", "key", "a longer second value");
    require(cache.get("a", "key") == "a longer second value", "a second put does not replace");
    cache.drop("a", "key");
    require(!cache.get("a", "key"), "a dropped value is still there");
    cache.drop("a", "never there");
    require(cache.get("a", "") == "of the empty key", "dropping one value drops another");
    return {};
}

std::string sizes_answered(context& with) {
    const auto plugin = with.open();
    result_cache cache(*plugin);
    cache.put("a", "key", "0123456789");
    require(cache.size_of("a", "key", nullptr, 0) == 10, "the size is not answered without room");
    char room[16];
    std::memset(room, 'x', sizeof room);
    require(cache.size_of("a", "key", room, 9) == 10,
            "the size is not answered with too little room");
    for (const char c : room) require(c == 'x', "it copied part of a value into too little room");
    require(cache.size_of("a", "key", room, sizeof room) == 10, "the size is wrong");
    require(std::memcmp(room, "0123456789xxxxxx", sizeof room) == 0,
            "it does not copy the value, or writes beyond it");
    return {};
}

std::string namespaces_apart(context& with) {
    const auto plugin = with.open();
    result_cache cache(*plugin);
    cache.put("a", "bc", "1");
    cache.put("ab", "c", "2");
    cache.put("", "abc", "3");
    require(cache.get("a", "bc") == "1" && cache.get("ab", "c") == "2"
                && cache.get("", "abc") == "3",
            "namespaces are not kept apart");
    cache.clear("a");
    require(!cache.get("a", "bc"), "clear leaves a value of its namespace");
    require(cache.get("ab", "c") == "2" && cache.get("", "abc") == "3",
            "clear drops values of other namespaces");
    cache.clear("never there");
    return {};
}

std::string values_expire(context& with) {
    const auto plugin = with.open();
    result_cache cache(*plugin);
    cache.put("a", "short", "s", 60);
    cache.put("a", "long", "l", 60000);
    cache.put("a", "renewed", "old", 60);
    cache.put("a", "renewed", "new", 60000);
    require(cache.get("a", "short") == "s", "a value is gone before its time");
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    require(!cache.get("a", "short"), "a value of 60 ms is there after 150 ms");
    require(cache.get("a", "long") == "l", "a value of 60 s is gone after 150 ms");
    require(cache.get("a", "renewed") == "new", "a renewed value goes at its first time");
    cache.put("a", "for ever", "f", UINT64_MAX);
    require(cache.get("a", "for ever") == "f", "the longest life is none");
    return {};
}

std::string nulls_refused(context& with) {
    const auto plugin = with.open();
    const result_cache cache(*plugin);
    const sluice_text bad{nullptr, 5};
    const sluice_text good = text_view("a");
    uint64_t size = 0;
    uint32_t found = 0;
    require(cache.table().put(cache.handle(), bad, good, "v", 1, 0, nullptr) != SLUICE_OK,
            "a namespace without its bytes is accepted");
    require(cache.table().put(cache.handle(), good, bad, "v", 1, 0, nullptr) != SLUICE_OK,
            "a key without its bytes is accepted");
    require(cache.table().put(cache.handle(), good, good, nullptr, 4, 0, nullptr) != SLUICE_OK,
            "a value without its bytes is accepted");
    require(cache.table().get(cache.handle(), good, good, nullptr, 4, &size, &found, nullptr)
                != SLUICE_OK,
            "room without memory is accepted");
    return {};
}

std::string counts(context& with) {
    const auto plugin = with.open();
    result_cache cache(*plugin);
    if (!cache.statistics()) skip_check("it keeps no statistics");
    for (int i = 0; i < 10; ++i) cache.put("a", fmt::format("key {}", i), std::string(100, 'v'));
    char room[100];
    cache.size_of("a", "key 3", room, sizeof room);
    cache.size_of("a", "key 4", room, sizeof room);
    cache.size_of("a", "missing", room, sizeof room);
    const auto found = cache.statistics().value();
    require(found.entry_count == 10, "10 values are counted as {}", found.entry_count);
    require(found.size_bytes >= 1000, "1000 bytes of values are counted as {}", found.size_bytes);
    require(found.hit_count == 2 && found.miss_count == 1,
            "2 hits and 1 miss are counted as {} and {}", found.hit_count, found.miss_count);
    cache.clear("a");
    const auto after = cache.statistics().value();
    require(after.entry_count == 0 && after.size_bytes == 0,
            "an empty cache counts {} values of {} bytes", after.entry_count, after.size_bytes);
    return {};
}

std::string forgets_beyond_limits(context& with) {
    // Every integer setting at its least is as small a cache as can be had.
    configured_settings smallest;
    for (const auto& setting : with.raw().manifest().settings)
        if (setting.type == SLUICE_SETTING_INTEGER && setting.integer_min > 0)
            smallest.values[setting.name].value = setting.integer_min;
    if (smallest.values.empty()) skip_check("it has no limit that can be set");
    smallest.folder = std::filesystem::current_path();
    const auto plugin = with.open(smallest);
    result_cache cache(*plugin);
    const std::string value(300, 'v');
    for (int i = 0; i < 2000; ++i) cache.put("a", fmt::format("key {}", i), value);
    size_t kept = 0;
    for (int i = 0; i < 2000; ++i) {
        const auto found = cache.get("a", fmt::format("key {}", i));
        require(!found || *found == value, "an old value has changed");
        kept += found.has_value() ? 1 : 0;
    }
    require(kept < 2000, "the smallest cache there is kept 2000 values of 300 bytes");
    cache.put("a", "huge", std::string(std::size_t{1} << 22, 'h'));
    cache.get("a", "huge");
    return fmt::format("{} of 2000 kept", kept);
}

std::string many_threads(context& with) {
    const auto plugin = with.open();
    std::atomic<bool> wrong{false};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread)
        threads.emplace_back([&, thread] {
            try {
                result_cache cache(*plugin);
                for (int i = 0; i < 2000; ++i) {
                    const std::string key = fmt::format("{}", (i * 7 + thread) % 50);
                    const std::string value(static_cast<size_t>(20 + std::stoi(key)), 'v');
                    if (i % 3 == 0)
                        cache.put("a", key, value, i % 2 == 0 ? 0 : 1);
                    else if (i % 41 == 0)
                        cache.clear("a");
                    else if (i % 17 == 0)
                        cache.drop("a", key);
                    else {
                        char room[100];
                        const auto size = cache.size_of("a", key, room, sizeof room);
                        if (size && *size != value.size()) wrong = true;
                    }
                }
            } catch (const std::exception&) {
                wrong = true;
            }
        });
    for (auto& thread : threads) thread.join();
    require(!wrong, "with four threads at once a value is another's, or a call fails");
    return {};
}

sluice_block_key block_key(uint32_t number) {
    sluice_block_key key{};
    std::memcpy(key.bytes, &number, sizeof number);
    return key;
}

std::string blocks_kept(context& with) {
    const auto plugin = with.open();
    const sluice_block_store& store = plugin->block_store();
    sluice_plugin* const handle = plugin->handle();
    const std::vector<uint8_t> block(4096, 0x5a);
    std::vector<uint8_t> room(4096);
    const sluice_block_key keys[] = {block_key(1), block_key(2)};
    plugin_call call = plugin->call("block store");
    uint8_t present[2] = {7, 7};
    uint32_t found = 7;
    call = store.contains(handle, keys, 2, present, call.error());
    require(present[0] == 0 && present[1] == 0, "an empty store contains blocks");
    call = store.put(handle, &keys[0], block.data(), block.size(), call.error());
    call = store.contains(handle, keys, 2, present, call.error());
    require(present[0] == 1 && present[1] == 0, "after one put it contains {} and {}", present[0],
            present[1]);
    call = store.get(handle, &keys[0], room.data(), room.size(), &found, call.error());
    require(found == 1 && room == block, "a block does not come back as it went");
    call = store.get(handle, &keys[0], room.data(), room.size() - 1, &found, call.error());
    require(found == 0, "a block of another size is found");
    call = store.get(handle, &keys[1], room.data(), room.size(), &found, call.error());
    require(found == 0, "a block that was never put is found");
    call = store.drop(handle, keys, 2, call.error());
    call = store.contains(handle, keys, 2, present, call.error());
    require(present[0] == 0, "a dropped block is still there");
    return {};
}

} // namespace

std::vector<check> result_cache_checks() {
    return {{"result cache: values", keeps_values},
            {"result cache: sizes", sizes_answered},
            {"result cache: namespaces", namespaces_apart},
            {"result cache: time to live", values_expire},
            {"result cache: NULL", nulls_refused},
            {"result cache: statistics", counts},
            {"result cache: limits", forgets_beyond_limits},
            {"result cache: threads", many_threads}};
}

std::vector<check> block_store_checks() { return {{"block store: blocks", blocks_kept}}; }

} // namespace sluice::checker
