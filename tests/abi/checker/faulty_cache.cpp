// A result cache with faults: namespaces that run into their keys, values that live for ever.
#include <sluice/plugin/cache.hpp>

#include <algorithm>
#include <map>
#include <mutex>

namespace {

namespace plugin = sluice::plugin;

class faulty_cache {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{.id = "faulty_cache",
                                             .kind = SLUICE_KIND_RESULT_CACHE,
                                             .version = "0.1.0",
                                             .summary = "Wrong on purpose",
                                             .extensions = {SLUICE_RESULT_CACHE_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        return id == SLUICE_RESULT_CACHE_EXTENSION ? plugin::result_cache_table<faulty_cache>()
                                                   : nullptr;
    }
    faulty_cache(plugin::host, const plugin::settings&) {}

    std::optional<uint64_t> get(std::string_view name_space, std::string_view key,
                                std::span<std::byte> room) {
        const std::lock_guard lock(mutex_);
        const auto found = values_.find(std::string(name_space).append(key));
        if (found == values_.end()) return std::nullopt;
        // As much as there is room for: a part of a value is worse than none.
        std::copy_n(found->second.begin(), std::min(room.size(), found->second.size()),
                    room.begin());
        return found->second.size();
    }
    void put(std::string_view name_space, std::string_view key, std::span<const std::byte> value,
             uint64_t) {
        const std::lock_guard lock(mutex_);
        values_[std::string(name_space).append(key)].assign(value.begin(), value.end());
    }
    void drop(std::string_view name_space, std::string_view key) {
        const std::lock_guard lock(mutex_);
        values_.erase(std::string(name_space).append(key));
    }
    void clear(std::string_view) {
        const std::lock_guard lock(mutex_);
        values_.clear();
    }

  private:
    std::mutex mutex_;
    std::map<std::string, std::vector<std::byte>> values_;
};

} // namespace

SLUICE_PLUGIN(faulty_cache)
