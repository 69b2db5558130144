#include "plugin/host_services.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "plugin/plugin_call.hpp"

#include <sluice/abi/plugin.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

namespace sluice {

namespace {

// The calling thread's flag. Thread-local and not the runtime's, because plugins ask from functions
// that know neither the call nor its thread; a scope always puts the former value back.
thread_local const std::atomic<bool>* cancellation_flag = nullptr;

constexpr uint64_t large_page_bytes = uint64_t{2} << 20;
constexpr size_t log_message_bytes_max = 16384;

class callback_sink final : public spdlog::sinks::base_sink<std::mutex> {
  public:
    explicit callback_sink(log_callback callback) : callback_(std::move(callback)) {}

  protected:
    void sink_it_(const spdlog::details::log_msg& message) override {
        log_level level = log_level::error;
        if (message.level <= spdlog::level::debug)
            level = log_level::debug;
        else if (message.level == spdlog::level::info)
            level = log_level::info;
        else if (message.level == spdlog::level::warn)
            level = log_level::warning;
        callback_(level, {message.payload.data(), message.payload.size()});
    }
    void flush_() override {}

  private:
    log_callback callback_;
};

spdlog::level::level_enum spdlog_level(log_level level) {
    switch (level) {
    case log_level::debug:
        return spdlog::level::debug;
    case log_level::info:
        return spdlog::level::info;
    case log_level::warning:
        return spdlog::level::warn;
    default:
        return spdlog::level::err;
    }
}

std::shared_ptr<spdlog::logger> make_logger(const host_options& options) {
    spdlog::sink_ptr sink;
    if (options.on_log)
        sink = std::make_shared<callback_sink>(options.on_log);
    else
        sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    // Constructed, not registered: the registry of spdlog is one for the whole process.
    auto logger = std::make_shared<spdlog::logger>("sluice", std::move(sink));
    logger->set_level(spdlog_level(options.log_level_min));
    logger->flush_on(spdlog::level::warn);
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
    return logger;
}

host_table& table_of(void* context) { return *static_cast<host_table*>(context); }

// ---- The functions of sluice_host. They are called from foreign code: nothing may be thrown. ----

void host_log(void* context, uint32_t level, sluice_text message) noexcept {
    try {
        host_table& table = table_of(context);
        level = std::clamp(level, SLUICE_LOG_DEBUG, SLUICE_LOG_ERROR);
        table.services().log(static_cast<log_level>(level), "{}: {}", table.plugin_id(),
                             text_of(message, log_message_bytes_max));
    } catch (...) {
        // A line that cannot be written is lost; there is nobody to tell.
    }
}

void* host_allocate(void*, uint64_t size_bytes, uint64_t alignment) noexcept {
    return memory_allocate(size_bytes, alignment);
}

void host_release(void*, void* memory, uint64_t size_bytes) noexcept {
    memory_release(memory, size_bytes);
}

uint32_t host_worker_count(void* context) noexcept {
    return table_of(context).services().workers().worker_count();
}

void host_team_start(void* context, sluice_team_task* task) noexcept {
    table_of(context).services().workers().start(task);
}

void host_team_run(void* context, sluice_team_task* task) noexcept {
    host_table& table = table_of(context);
    if (table.services().workers().is_worker()) {
        // To wait here would be to wait for oneself for ever.
        table.breach("team_run was called from a worker; the entry was not run");
        return;
    }
    table.services().workers().run(task);
}

void host_barrier_wait(sluice_barrier* barrier) noexcept { barrier->wait(); }

uint32_t host_cancelled(void*) noexcept {
    const std::atomic<bool>* flag = cancellation_flag;
    return flag != nullptr && flag->load(std::memory_order_acquire) ? 1 : 0;
}

sluice_metric* host_metric_register(void* context,
                                    const sluice_metric_description* description) noexcept {
    host_table& table = table_of(context);
    try {
        if (description == nullptr
            || !SLUICE_HAS_FIELD(sluice_metric_description, description, bucket_count)
            || description->bucket_count > 256
            || (description->bucket_count > 0 && description->buckets == nullptr)) {
            table.breach("metric_register: the description is malformed");
            return nullptr;
        }
        std::vector<double> buckets;
        if (description->bucket_count > 0) {
            buckets.assign(description->buckets, description->buckets + description->bucket_count);
        }
        return table.services().metrics().add(description->type, text_of(description->name, 200),
                                              text_of(description->help, 1000), std::move(buckets));
    } catch (const std::exception& failure) {
        table.breach(failure.what());
        return nullptr;
    }
}

void host_metric_record(sluice_metric* metric, double value) noexcept {
    if (metric != nullptr) metric->record(value);
}

const void* host_extension(void* context, sluice_text id) noexcept {
    if (id.data == nullptr || id.size > 200) return nullptr;
    return table_of(context).services().extension({id.data, static_cast<size_t>(id.size)});
}

} // namespace

host_services::host_services(host_options options)
    : options_(std::move(options)), logger_(make_logger(options_)),
      workers_(options_.executor ? options_.executor
                                 : std::make_shared<worker_team>(options_.worker_count,
                                                                 options_.workers_pinned)) {}

host_services::~host_services() = default;

void host_services::log_line(log_level level, std::string_view message) {
    logger_->log(spdlog_level(level), spdlog::string_view_t(message.data(), message.size()));
}

void host_services::extension_add(std::string id, const void* table, bool draft) {
    std::lock_guard lock(extensions_mutex_);
    extensions_.push_back({std::move(id), table, draft});
}

const void* host_services::extension(std::string_view id) const {
    std::lock_guard lock(extensions_mutex_);
    for (const extension_entry& entry : extensions_) {
        if (entry.id == id && (!entry.draft || options_.allow_draft)) return entry.table;
    }
    return nullptr;
}

host_table::host_table(std::shared_ptr<host_services> services, std::string plugin_id)
    : services_(std::move(services)), plugin_id_(std::move(plugin_id)),
      host_(SLUICE_INIT(sluice_host)) {
    host_.abi_version = SLUICE_ABI_VERSION;
    host_.context = this;
    host_.log = host_log;
    host_.allocate = host_allocate;
    host_.release = host_release;
    host_.worker_count = host_worker_count;
    host_.team_start = host_team_start;
    host_.team_run = host_team_run;
    host_.barrier_wait = host_barrier_wait;
    host_.cancelled = host_cancelled;
    host_.metric_register = host_metric_register;
    host_.metric_record = host_metric_record;
    host_.extension = host_extension;
}

void host_table::breach(std::string_view what) noexcept {
    try {
        breach_count_.fetch_add(1, std::memory_order_relaxed);
        services_->log(log_level::error, "{}: broke a rule of the plugin contract: {}", plugin_id_,
                       what);
    } catch (...) {
        // Counted all the same.
    }
}

cancellation_scope::cancellation_scope(const std::atomic<bool>* flag)
    : previous_(cancellation_flag) {
    cancellation_flag = flag;
}

cancellation_scope::~cancellation_scope() { cancellation_flag = previous_; }

const std::atomic<bool>* cancellation_scope::current() noexcept { return cancellation_flag; }

void* memory_allocate(uint64_t size_bytes, uint64_t alignment) noexcept {
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) return nullptr;
    if (size_bytes > uint64_t{1} << 47) return nullptr; // no address space holds it
    alignment = std::max<uint64_t>(alignment, sizeof(void*));
    size_bytes = std::max<uint64_t>(size_bytes, 1);
    const bool large = size_bytes >= large_page_bytes;
    if (large) alignment = std::max(alignment, large_page_bytes);
    // Rounded up, so that the last large page is wholly ours.
    const uint64_t rounded = (size_bytes + alignment - 1) / alignment * alignment;
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, rounded) != 0) return nullptr;
    if (large) madvise(memory, rounded, MADV_HUGEPAGE); // a wish: refusal changes nothing
    return memory;
}

void memory_release(void* memory, uint64_t) noexcept { std::free(memory); }

} // namespace sluice
