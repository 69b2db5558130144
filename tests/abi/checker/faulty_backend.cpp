// The reference's kernels with faults put in: one weight in a hundred is off by a twentieth, iota
// is not claimed, and compiling a transpose ends the process.
#include "backends/reference/executable.hpp"

#include <cstdlib>

namespace {

namespace plugin = sluice::plugin;
namespace plain = sluice::plain;

class faulty_backend final : public plugin::host_backend {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{.id = "faulty_backend",
                                             .kind = SLUICE_KIND_BACKEND,
                                             .version = "0.1.0",
                                             .summary = "Wrong on purpose",
                                             .extensions = {SLUICE_BACKEND_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        return id == SLUICE_BACKEND_EXTENSION ? plugin::backend_table<faulty_backend>() : nullptr;
    }
    faulty_backend(plugin::host host, const plugin::settings&) : host_backend(host) {}

    void properties(sluice_backend_properties& found) const override {
        plugin::copy_text(found.device_name, "CPU, wrong on purpose");
        found.activation_types = 1U << SLUICE_F32;
    }
    std::string claim(const sluice_program&, const plugin::operation& which,
                      std::string&) const override {
        if (which.kind == SLUICE_OP_IOTA) plugin::fail(SLUICE_UNSUPPORTED, "no iota here");
        plain::require_kernel(which);
        return "faulty";
    }
    uint64_t weight_size(const sluice_weight_source& source, uint32_t) const override {
        return plain::decoded_size(source);
    }
    std::unique_ptr<sluice_weight> weight_prepare(const sluice_weight_source& source, uint32_t,
                                                  bool&) override {
        auto weight = plain::decode(owner(), source);
        const int64_t count = weight->matrix_count * weight->row_count * weight->column_count;
        for (int64_t i = 0; i < count; i += 100) weight->values.as<float>()[i] *= 1.05F;
        return weight;
    }
    std::unique_ptr<sluice_executable>
    executable_create(const sluice_program& program, const sluice_compile_options&,
                      std::span<sluice_weight* const> weights) override {
        auto made =
            std::make_unique<sluice::reference::reference_executable>(owner(), program, weights);
        for (uint32_t i = 0; i < program.operation_count; ++i)
            if (program.operations[i]->kind == SLUICE_OP_TRANSPOSE) std::abort();
        return made;
    }
};

} // namespace

SLUICE_PLUGIN(faulty_backend)
