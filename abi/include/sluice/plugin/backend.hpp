// A backend as a C++ class: derive from `backend`, `executable` and `bound`, and export
// `backend_table<Class>()` under SLUICE_BACKEND_EXTENSION.
#pragma once

#include <sluice/abi/backend.h>
#include <sluice/plugin/entry.hpp>
#include <sluice/plugin/program.hpp>

#include <memory>
#include <string>

// The opaque handles of the contract, as polymorphic bases. Each library has its own.
struct sluice_weight {
    virtual ~sluice_weight() = default;
    virtual std::string describe() const = 0; // the layout, for people
};
struct sluice_buffer {
    virtual ~sluice_buffer() = default;
};
struct sluice_cache {
    virtual ~sluice_cache() = default;
};
struct sluice_bound {
    virtual ~sluice_bound() = default;
    virtual void plan(const sluice_batch& batch) = 0;
    virtual void submit(sluice_queue& queue, std::span<sluice_event* const> waits,
                        sluice_event* done) = 0;
    virtual void profile(std::span<double> seconds) const;
};
struct sluice_executable {
    virtual ~sluice_executable() = default;
    virtual std::unique_ptr<sluice_bound> bind(const sluice::plugin::extents& sizes,
                                               sluice_cache* cache,
                                               std::span<const sluice_binding> bindings) = 0;
};
struct sluice_queue {
    virtual ~sluice_queue() = default;
};
struct sluice_event {
    virtual ~sluice_event() = default;
    virtual void wait() = 0; // throws what the submission failed with
    virtual bool ended() const = 0;
};

inline void sluice_bound::profile(std::span<double>) const {
    sluice::plugin::fail(SLUICE_UNIMPLEMENTED, "this backend takes no profile");
}

namespace sluice::plugin {

class backend {
  public:
    virtual ~backend() = default;

    virtual void properties(sluice_backend_properties& properties) const = 0;
    // Throws SLUICE_UNSUPPORTED with the reason where the operation is not claimed. Returns the
    // kernel's name; may write a remark on what was passed over.
    virtual std::string claim(const sluice_program& program, const operation& which,
                              std::string& remark) const = 0;
    // sluice_claim.activation_bits of an operation that was claimed.
    virtual uint32_t activation_bits(const sluice_program&, const operation&) const { return 0; }

    virtual uint64_t weight_size(const sluice_weight_source& source, uint32_t roles) const = 0;
    virtual std::unique_ptr<sluice_weight> weight_prepare(const sluice_weight_source& source,
                                                          uint32_t roles,
                                                          bool& source_still_needed) = 0;

    virtual std::unique_ptr<sluice_buffer> buffer_create(uint64_t size_bytes) = 0;
    virtual void buffer_write(sluice_buffer& buffer, uint64_t offset, const void* data,
                              uint64_t size_bytes) = 0;
    virtual void buffer_read(const sluice_buffer& buffer, uint64_t offset, void* data,
                             uint64_t size_bytes) const = 0;
    virtual void* buffer_map(sluice_buffer&) { return nullptr; }

    virtual uint64_t cache_block_bytes(std::span<const sluice_state> states,
                                       uint32_t group) const = 0;
    virtual std::unique_ptr<sluice_cache> cache_create(std::span<const sluice_state> states,
                                                       std::span<const uint32_t> block_count) = 0;
    virtual void cache_copy_blocks(sluice_cache& cache, uint32_t group,
                                   std::span<const int32_t> from, std::span<const int32_t> to) = 0;
    virtual void cache_read_block(const sluice_cache& cache, uint32_t group, int32_t block,
                                  void* data) const = 0;
    virtual void cache_write_block(sluice_cache& cache, uint32_t group, int32_t block,
                                   const void* data) = 0;

    virtual std::unique_ptr<sluice_executable>
    executable_create(const sluice_program& program, const sluice_compile_options& options,
                      std::span<sluice_weight* const> weights) = 0;
    virtual std::unique_ptr<sluice_queue> queue_create() = 0;
    virtual std::unique_ptr<sluice_event> event_create() = 0;
    virtual double measure(uint32_t measurement) {
        fail(SLUICE_UNIMPLEMENTED, "this backend does not measure quantity ", measurement);
    }
};

// A weight source whose struct and format have been read under the zero-tail rule.
struct checked_weight_source {
    sluice_weight_source source;
    sluice_weight_format format;

    explicit checked_weight_source(const sluice_weight_source* given)
        : source(read(given, "sluice_weight_source")),
          format(read(source.format, "sluice_weight_format")) {
        source.format = &format;
    }
    checked_weight_source(const checked_weight_source&) = delete;
};

namespace detail {

inline std::vector<sluice_state> read_states(const sluice_state* const* states, uint32_t count) {
    std::vector<sluice_state> result;
    for (uint32_t i = 0; i < count; ++i) result.push_back(read(states[i], "sluice_state"));
    return result;
}

template <typename Class>
void fill_weights(sluice_backend& table) {
    table.weight_size = [](sluice_plugin* plugin, const sluice_weight_source* source,
                           uint32_t roles, uint64_t* size, sluice_error* error) {
        return guard(error, [&] {
            const checked_weight_source checked(source);
            *size = instance<Class>(plugin).weight_size(checked.source, roles);
        });
    };
    table.weight_prepare = [](sluice_plugin* plugin, const sluice_weight_source* source,
                              uint32_t roles, sluice_weight** weight, uint32_t* needed,
                              sluice_error* error) {
        return guard(error, [&] {
            const checked_weight_source checked(source);
            bool still_needed = false;
            *weight = instance<Class>(plugin)
                          .weight_prepare(checked.source, roles, still_needed)
                          .release();
            *needed = still_needed ? 1 : 0;
        });
    };
    table.weight_destroy = [](sluice_plugin*, sluice_weight* weight) { delete weight; };
    table.weight_describe = [](sluice_plugin*, const sluice_weight* weight, char* text,
                               uint64_t size) {
        if (size == 0) return;
        guard(nullptr, [&] {
            const std::string description = weight->describe();
            const size_t length = std::min<size_t>(description.size(), size - 1);
            std::memcpy(text, description.data(), length);
            text[length] = '\0';
        });
    };
}

template <typename Class>
void fill_buffers(sluice_backend& table) {
    table.buffer_create = [](sluice_plugin* plugin, uint64_t size, sluice_buffer** buffer,
                             sluice_error* error) {
        return guard(error,
                     [&] { *buffer = instance<Class>(plugin).buffer_create(size).release(); });
    };
    table.buffer_destroy = [](sluice_plugin*, sluice_buffer* buffer) { delete buffer; };
    table.buffer_write = [](sluice_plugin* plugin, sluice_buffer* buffer, uint64_t offset,
                            const void* data, uint64_t size, sluice_error* error) {
        return guard(error,
                     [&] { instance<Class>(plugin).buffer_write(*buffer, offset, data, size); });
    };
    table.buffer_read = [](sluice_plugin* plugin, const sluice_buffer* buffer, uint64_t offset,
                           void* data, uint64_t size, sluice_error* error) {
        return guard(error,
                     [&] { instance<Class>(plugin).buffer_read(*buffer, offset, data, size); });
    };
    table.buffer_map = [](sluice_plugin* plugin, sluice_buffer* buffer) {
        return instance<Class>(plugin).buffer_map(*buffer);
    };
}

template <typename Class>
void fill_caches(sluice_backend& table) {
    table.cache_block_bytes = [](sluice_plugin* plugin, const sluice_state* const* states,
                                 uint32_t count, uint32_t group, uint64_t* size,
                                 sluice_error* error) {
        return guard(error, [&] {
            *size = instance<Class>(plugin).cache_block_bytes(read_states(states, count), group);
        });
    };
    table.cache_create = [](sluice_plugin* plugin, const sluice_state* const* states,
                            uint32_t count, const uint32_t* blocks, uint32_t groups,
                            sluice_cache** cache, sluice_error* error) {
        return guard(error, [&] {
            *cache = instance<Class>(plugin)
                         .cache_create(read_states(states, count), {blocks, groups})
                         .release();
        });
    };
    table.cache_destroy = [](sluice_plugin*, sluice_cache* cache) { delete cache; };
    table.cache_copy_blocks = [](sluice_plugin* plugin, sluice_cache* cache, uint32_t group,
                                 const int32_t* from, const int32_t* to, uint32_t count,
                                 sluice_error* error) {
        return guard(error, [&] {
            instance<Class>(plugin).cache_copy_blocks(*cache, group, {from, count}, {to, count});
        });
    };
    table.cache_read_block = [](sluice_plugin* plugin, const sluice_cache* cache, uint32_t group,
                                int32_t block, void* data, sluice_error* error) {
        return guard(error,
                     [&] { instance<Class>(plugin).cache_read_block(*cache, group, block, data); });
    };
    table.cache_write_block = [](sluice_plugin* plugin, sluice_cache* cache, uint32_t group,
                                 int32_t block, const void* data, sluice_error* error) {
        return guard(
            error, [&] { instance<Class>(plugin).cache_write_block(*cache, group, block, data); });
    };
}

template <typename Class>
void fill_executables(sluice_backend& table) {
    table.executable_create = [](sluice_plugin* plugin, const sluice_program* given,
                                 const sluice_compile_options* options,
                                 sluice_weight* const* weights, sluice_executable** executable,
                                 sluice_error* error) {
        return guard(error, [&] {
            const auto source = read(given, "sluice_program");
            *executable = instance<Class>(plugin)
                              .executable_create(source, read(options, "sluice_compile_options"),
                                                 {weights, source.value_count})
                              .release();
        });
    };
    table.executable_destroy = [](sluice_plugin*, sluice_executable* executable) {
        delete executable;
    };
    table.bind = [](sluice_executable* executable, const uint32_t* sizes, sluice_cache* cache,
                    const sluice_binding* const* bindings, uint32_t count, sluice_bound** bound,
                    sluice_error* error) {
        return guard(error, [&] {
            extents copied{};
            std::copy_n(sizes, SLUICE_EXTENT_COUNT, copied.begin());
            std::vector<sluice_binding> list;
            for (uint32_t i = 0; i < count; ++i)
                list.push_back(read(bindings[i], "sluice_binding"));
            *bound = executable->bind(copied, cache, list).release();
        });
    };
    table.bound_destroy = [](sluice_bound* bound) { delete bound; };
    table.plan = [](sluice_bound* bound, const sluice_batch* batch, sluice_error* error) {
        return guard(error, [&] { bound->plan(read(batch, "sluice_batch")); });
    };
    table.submit = [](sluice_bound* bound, sluice_queue* queue, sluice_event* const* waits,
                      uint32_t count, sluice_event* done, sluice_error* error) {
        return guard(error, [&] { bound->submit(*queue, {waits, count}, done); });
    };
    table.profile = [](sluice_bound* bound, double* seconds, uint32_t count, sluice_error* error) {
        return guard(error, [&] { bound->profile({seconds, count}); });
    };
}

template <typename Class>
void fill_queues(sluice_backend& table) {
    table.queue_create = [](sluice_plugin* plugin, sluice_queue** queue, sluice_error* error) {
        return guard(error, [&] { *queue = instance<Class>(plugin).queue_create().release(); });
    };
    table.queue_destroy = [](sluice_queue* queue) { delete queue; };
    table.event_create = [](sluice_plugin* plugin, sluice_event** event, sluice_error* error) {
        return guard(error, [&] { *event = instance<Class>(plugin).event_create().release(); });
    };
    table.event_destroy = [](sluice_event* event) { delete event; };
    table.event_wait = [](sluice_event* event, sluice_error* error) {
        return guard(error, [&] { event->wait(); });
    };
    table.event_ended = [](sluice_event* event) -> uint32_t { return event->ended() ? 1 : 0; };
}

} // namespace detail

// The table of a class derived from `backend`, which must be the plugin's own class.
template <typename Class>
const sluice_backend* backend_table() {
    static const sluice_backend table = [] {
        sluice_backend made = SLUICE_INIT(sluice_backend);
        made.properties = [](sluice_plugin* plugin, sluice_backend_properties* properties,
                             sluice_error* error) {
            return guard(error, [&] {
                auto found = SLUICE_INIT(sluice_backend_properties);
                instance<Class>(plugin).properties(found);
                write(properties, found, "sluice_backend_properties");
            });
        };
        made.claim = [](sluice_plugin* plugin, const sluice_program* given, uint32_t number,
                        sluice_claim* claim, sluice_error* error) {
            return guard(error, [&] {
                const auto source = read(given, "sluice_program");
                auto verdict = SLUICE_INIT(sluice_claim);
                try {
                    const operation which = read_operation(source, number);
                    std::string remark;
                    copy_text(verdict.kernel, instance<Class>(plugin).claim(source, which, remark));
                    copy_text(verdict.reason, remark);
                    verdict.activation_bits =
                        instance<Class>(plugin).activation_bits(source, which);
                    verdict.accepted = 1;
                } catch (const failure& refused) {
                    if (SLUICE_STATUS_CLASS(refused.status()) != SLUICE_UNSUPPORTED) throw;
                    copy_text(verdict.reason, refused.what());
                }
                write(claim, verdict, "sluice_claim");
            });
        };
        made.measure = [](sluice_plugin* plugin, uint32_t measurement, double* value,
                          sluice_error* error) {
            return guard(error, [&] { *value = instance<Class>(plugin).measure(measurement); });
        };
        detail::fill_weights<Class>(made);
        detail::fill_buffers<Class>(made);
        detail::fill_caches<Class>(made);
        detail::fill_executables<Class>(made);
        detail::fill_queues<Class>(made);
        return made;
    }();
    return &table;
}

} // namespace sluice::plugin
