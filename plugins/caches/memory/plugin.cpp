// The result cache in the memory of the process.
#include "store.hpp"

#include <sluice/plugin/cache.hpp>

namespace sluice::caches {
namespace {

plugin::schema declare_settings() {
    constexpr int64_t terabyte = int64_t{1} << 40;
    plugin::schema schema;
    schema
        .integer("size_bytes_max", "Bytes that values and keys may take together.",
                 int64_t{256} << 20, 4096, terabyte)
        .integer("entries_max", "Values kept at most; 0: any number.", 100000, 0, int64_t{1} << 31)
        .integer("time_to_live_ms", "Life of a value that brings none of its own; 0: for ever.", 0,
                 0, int64_t{1} << 40);
    return schema;
}

store_limits limits_of(const plugin::settings& settings) {
    return {static_cast<uint64_t>(settings.integer("size_bytes_max")),
            static_cast<uint64_t>(settings.integer("entries_max")),
            static_cast<uint64_t>(settings.integer("time_to_live_ms"))};
}

// A metric of the host, recorded by name and kind once, by value often.
class metric {
  public:
    metric(const plugin::host& host, uint32_t type, std::string_view name, std::string_view help)
        : table_(&host.table()) {
        auto description = SLUICE_INIT(sluice_metric_description);
        description.type = type;
        description.name = plugin::text(name);
        description.help = plugin::text(help);
        handle_ = table_->metric_register(table_->context, &description);
    }
    void record(double value) const { table_->metric_record(handle_, value); }

  private:
    const sluice_host* table_;
    sluice_metric* handle_;
};

class memory_cache {
  public:
    static const plugin::definition& define() {
        static const plugin::definition definition{
            .id = "memory",
            .kind = SLUICE_KIND_RESULT_CACHE,
            .version = "0.1.0",
            .summary = "Keeps results in the memory of the process; the least recently used go "
                       "first.",
            .settings = declare_settings(),
            .extensions = {SLUICE_RESULT_CACHE_EXTENSION}};
        return definition;
    }

    static const void* extension(std::string_view id) {
        return id == SLUICE_RESULT_CACHE_EXTENSION ? plugin::result_cache_table<memory_cache>()
                                                   : nullptr;
    }

    memory_cache(plugin::host host, const plugin::settings& settings)
        : store_(limits_of(settings)),
          hits_(host, SLUICE_METRIC_COUNTER, "result_cache_hits_total", "Results found."),
          misses_(host, SLUICE_METRIC_COUNTER, "result_cache_misses_total", "Results not found."),
          rejections_(host, SLUICE_METRIC_COUNTER, "result_cache_rejections_total",
                      "Results larger than the whole cache."),
          entries_(host, SLUICE_METRIC_GAUGE, "result_cache_entries", "Results kept."),
          size_(host, SLUICE_METRIC_GAUGE, "result_cache_size_bytes", "Bytes kept.") {}

    std::optional<uint64_t> get(std::string_view name_space, std::string_view key,
                                std::span<std::byte> room) {
        const auto value = store_.get(name_space, key, room.size(), store::clock::now());
        if (value == nullptr) {
            misses_.record(1);
            return std::nullopt;
        }
        if (value->size() <= room.size()) {
            hits_.record(1);
            std::copy(value->begin(), value->end(), room.begin());
        }
        return value->size();
    }

    void put(std::string_view name_space, std::string_view key, std::span<const std::byte> value,
             uint64_t time_to_live_ms) {
        if (!store_.put(name_space, key, value, time_to_live_ms, store::clock::now()))
            rejections_.record(1);
        record_size();
    }

    void drop(std::string_view name_space, std::string_view key) {
        store_.drop(name_space, key);
        record_size();
    }

    void clear(std::string_view name_space) {
        store_.clear(name_space);
        record_size();
    }

    sluice_result_cache_statistics statistics() {
        const store_statistics found = store_.statistics(store::clock::now());
        auto answer = SLUICE_INIT(sluice_result_cache_statistics);
        answer.entry_count = found.entry_count;
        answer.size_bytes = found.size_bytes;
        answer.hit_count = found.hit_count;
        answer.miss_count = found.miss_count;
        answer.eviction_count = found.eviction_count;
        return answer;
    }

  private:
    void record_size() {
        const store_statistics found = store_.statistics(store::clock::now());
        entries_.record(static_cast<double>(found.entry_count));
        size_.record(static_cast<double>(found.size_bytes));
    }

    store store_;
    metric hits_;
    metric misses_;
    metric rejections_;
    metric entries_;
    metric size_;
};

} // namespace
} // namespace sluice::caches

SLUICE_PLUGIN(sluice::caches::memory_cache)
