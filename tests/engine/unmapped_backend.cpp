// The reference's kernels behind memory that the host cannot address, as that of most devices:
// buffer_map is missing, buffers begin as garbage, and of the activation types there is one.
#include "backends/reference/executable.hpp"

#include <atomic>

namespace {

namespace plugin = sluice::plugin;
namespace plain = sluice::plain;

// Of the process: the functions below see no instance.
std::atomic<int64_t> bounds_max{0};
std::atomic<int64_t> bound_count{0};

class unmapped_backend final : public plugin::host_backend {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{
            .id = "unmapped",
            .kind = SLUICE_KIND_BACKEND,
            .version = "0.1.0",
            .summary = "The reference without buffer_map",
            .settings = plugin::schema()
                            .boolean("samples", "claims sample", true)
                            .integer("bounds_max", "bound at once; 0: any", 0, 0, 1000)
                            .integer("memory_bytes_total", "0: unknown", 0, 0, INT64_MAX)
                            .integer("memory_bytes_free", "of them", 0, 0, INT64_MAX),
            .extensions = {SLUICE_BACKEND_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        if (id != SLUICE_BACKEND_EXTENSION) return nullptr;
        static const sluice_backend table = unmapped_table();
        return &table;
    }
    unmapped_backend(plugin::host host, const plugin::settings& settings)
        : host_backend(host), samples_(settings.boolean("samples")),
          memory_bytes_total_(uint64_t(settings.integer("memory_bytes_total"))),
          memory_bytes_free_(uint64_t(settings.integer("memory_bytes_free"))) {
        bounds_max = settings.integer("bounds_max");
    }

    void properties(sluice_backend_properties& found) const override {
        plugin::copy_text(found.device_name, "CPU, not mapped");
        found.activation_types = 1U << SLUICE_F32;
        found.memory_bytes_total = memory_bytes_total_;
        found.memory_bytes_free = memory_bytes_free_;
    }
    std::string claim(const sluice_program&, const plugin::operation& which,
                      std::string&) const override {
        plain::require_kernel(which);
        if (which.kind == SLUICE_OP_SAMPLE && !samples_)
            plugin::fail(SLUICE_UNSUPPORTED, "sample is newer than this backend");
        return "unmapped " + std::string(plugin::operation_name(which.kind));
    }
    uint64_t weight_size(const sluice_weight_source& source, uint32_t) const override {
        return plain::decoded_size(source);
    }
    std::unique_ptr<sluice_weight> weight_prepare(const sluice_weight_source& source, uint32_t,
                                                  bool&) override {
        return plain::decode(owner(), source);
    }
    std::unique_ptr<sluice_executable>
    executable_create(const sluice_program& program, const sluice_compile_options&,
                      std::span<sluice_weight* const> weights) override {
        return std::make_unique<sluice::reference::reference_executable>(owner(), program, weights);
    }

  private:
    static constexpr uint32_t cache_blocks_max = 100000;

    bool samples_;
    uint64_t memory_bytes_total_;
    uint64_t memory_bytes_free_;

    static const sluice_backend& mapped_table() {
        return *static_cast<const sluice_backend*>(plugin::backend_table<unmapped_backend>());
    }
    static sluice_backend unmapped_table() {
        sluice_backend table = mapped_table();
        table.buffer_map = nullptr;
        table.buffer_create = [](sluice_plugin* self, uint64_t size_bytes, sluice_buffer** buffer,
                                 sluice_error* error) {
            const sluice_status status =
                mapped_table().buffer_create(self, size_bytes, buffer, error);
            if (status != SLUICE_OK) return status;
            std::memset(mapped_table().buffer_map(self, *buffer), 0xff, size_bytes);
            return status;
        };
        table.cache_create = [](sluice_plugin* self, const sluice_state* const* states,
                                uint32_t state_count, const uint32_t* block_count,
                                uint32_t group_count, sluice_cache** cache, sluice_error* error) {
            if (block_count[0] > cache_blocks_max)
                return plugin::report(error, SLUICE_EXHAUSTED, "that many blocks do not fit");
            return mapped_table().cache_create(self, states, state_count, block_count, group_count,
                                               cache, error);
        };
        table.bind = [](sluice_executable* executable, const uint32_t* extents, sluice_cache* cache,
                        const sluice_binding* const* bindings, uint32_t binding_count,
                        sluice_bound** bound, sluice_error* error) {
            if (bounds_max > 0 && bound_count >= bounds_max)
                return plugin::report(error, SLUICE_EXHAUSTED, "no memory for a step's values");
            ++bound_count;
            return mapped_table().bind(executable, extents, cache, bindings, binding_count, bound,
                                       error);
        };
        table.bound_destroy = [](sluice_bound* bound) {
            --bound_count;
            mapped_table().bound_destroy(bound);
        };
        return table;
    }
};

} // namespace

SLUICE_PLUGIN(unmapped_backend)
