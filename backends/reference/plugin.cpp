// The reference backend: every primitive, plain and slow, in float32. What other backends are held
// to.
#include "executable.hpp"

namespace {

namespace plugin = sluice::plugin;
namespace plain = sluice::plain;
namespace reference = sluice::reference;

class reference_backend final : public plugin::host_backend {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{
            .id = "reference",
            .kind = SLUICE_KIND_BACKEND,
            .version = "0.1.0",
            .summary = "Plain float32 kernels for every primitive: slow, and the oracle",
            .extensions = {SLUICE_BACKEND_EXTENSION},
        };
        return made;
    }

    static const void* extension(std::string_view id) {
        return id == SLUICE_BACKEND_EXTENSION ? plugin::backend_table<reference_backend>()
                                              : nullptr;
    }

    reference_backend(plugin::host host, const plugin::settings&) : host_backend(host) {}

    void properties(sluice_backend_properties& found) const override {
        plugin::copy_text(found.device_name, "CPU, plain C++");
        found.batch_invariant = 1;
        found.activation_types = (1u << SLUICE_F32) | (1u << SLUICE_F16) | (1u << SLUICE_BF16);
        found.cache_types = 1u << SLUICE_I8;
    }

    std::string claim(const sluice_program&, const plugin::operation& which,
                      std::string&) const override {
        plain::require_kernel(which);
        return plugin::operation_name(which.kind);
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
        return std::make_unique<reference::reference_executable>(owner(), program, weights);
    }
};

} // namespace

SLUICE_PLUGIN(reference_backend)
