// What the runtime offers its plugins, and the sluice_host table that hands it to one of them. One
// host_services belongs to one runtime; nothing in it is global.
#pragma once

#include "plugin/metrics.hpp"
#include "plugin/worker_team.hpp"

#include <fmt/format.h>
#include <sluice/abi/host.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spdlog {
class logger;
}

namespace sluice {

enum class log_level : uint32_t {
    debug = SLUICE_LOG_DEBUG,
    info = SLUICE_LOG_INFO,
    warning = SLUICE_LOG_WARNING,
    error = SLUICE_LOG_ERROR,
};

// Receives every line at or over the level; called from any thread, one call at a time.
using log_callback = std::function<void(log_level level, std::string_view message)>;

struct host_options {
    uint32_t worker_count = 0;                      // 0: one for each usable core
    bool workers_pinned = false;                    // one worker a core
    std::shared_ptr<worker_executor> executor = {}; // the embedder's own threads, or empty
    bool allow_draft = false;                       // answer extensions that are drafts
    log_level log_level_min = log_level::warning;
    log_callback on_log = {}; // empty: standard error
};

class host_services {
  public:
    explicit host_services(host_options options = {});
    ~host_services();
    host_services(const host_services&) = delete;
    host_services& operator=(const host_services&) = delete;

    worker_executor& workers() { return *workers_; }
    metric_registry& metrics() { return metrics_; }
    bool allow_draft() const { return options_.allow_draft; }

    void log_line(log_level level, std::string_view message);
    template <typename... Arguments>
    void log(log_level level, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
        if (level >= options_.log_level_min) {
            log_line(level, fmt::format(format, std::forward<Arguments>(arguments)...));
        }
    }

    // Offers a table to plugins by id. `table` outlives the services. A draft is answered only
    // under allow_draft. Extensions are added before the first plugin is created.
    void extension_add(std::string id, const void* table, bool draft);
    const void* extension(std::string_view id) const; // or nullptr

  private:
    struct extension_entry {
        std::string id;
        const void* table;
        bool draft;
    };
    host_options options_;
    std::shared_ptr<spdlog::logger> logger_;
    std::shared_ptr<worker_executor> workers_;
    metric_registry metrics_;
    mutable std::mutex extensions_mutex_;
    std::vector<extension_entry> extensions_;
};

// The table that one plugin instance is given; lines it logs carry its id. Its address must not
// change while the instance lives.
class host_table {
  public:
    host_table(std::shared_ptr<host_services> services, std::string plugin_id);
    host_table(const host_table&) = delete;
    host_table& operator=(const host_table&) = delete;

    const sluice_host* get() const { return &host_; }
    host_services& services() const { return *services_; }
    const std::string& plugin_id() const { return plugin_id_; }

    // Logs that the plugin broke a rule of the contract, and counts it.
    void breach(std::string_view what) noexcept;
    uint64_t breach_count() const { return breach_count_.load(std::memory_order_relaxed); }

  private:
    std::shared_ptr<host_services> services_;
    std::string plugin_id_;
    std::atomic<uint64_t> breach_count_{0};
    sluice_host host_;
};

// While it lives, sluice_host.cancelled answers whether `*flag` is set to the calling thread, and
// to the workers of every team_run that this thread makes. Scopes nest. `flag` outlives the scope.
class cancellation_scope {
  public:
    explicit cancellation_scope(const std::atomic<bool>* flag);
    ~cancellation_scope();
    cancellation_scope(const cancellation_scope&) = delete;
    cancellation_scope& operator=(const cancellation_scope&) = delete;

    // The flag in force on the calling thread, or nullptr.
    static const std::atomic<bool>* current() noexcept;

  private:
    const std::atomic<bool>* previous_;
};

// Aligned memory; 2 MiB and over asks the system for large pages. nullptr when there is none.
void* memory_allocate(uint64_t size_bytes, uint64_t alignment) noexcept;
void memory_release(void* memory, uint64_t size_bytes) noexcept;

} // namespace sluice
