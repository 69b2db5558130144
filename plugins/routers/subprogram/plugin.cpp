// The router that contributes a sub-program: the model's own routing, spelt out in primitives, so
// that it runs on any backend and gradients can be taken of it.
#include "routing.hpp"

#include <sluice/plugin/router.hpp>

#include <mutex>

namespace sluice::routers {
namespace {

class subprogram_router {
  public:
    static const plugin::definition& define() {
        static const plugin::definition definition{
            .id = "subprogram",
            .kind = SLUICE_KIND_ROUTER,
            .version = "0.1.0",
            .summary = "Routes as the model's own configuration says, as a sub-program of "
                       "primitives instead of a specification.",
            .extensions = {SLUICE_ROUTER_EXTENSION}};
        return definition;
    }

    static const void* extension(std::string_view id) {
        return id == SLUICE_ROUTER_EXTENSION ? plugin::router_table<subprogram_router>() : nullptr;
    }

    subprogram_router(plugin::host /*host*/, const plugin::settings& /*settings*/) {}

    plugin::router_answer describe(const plugin::router_request& request) {
        if (!request.has_model)
            plugin::fail(SLUICE_INVALID,
                         "the sub-program follows the model's own routing, and layer ",
                         request.layer, " of model type '", request.model_type, "' gives none");
        plugin::check_specification(request.model);
        if (request.model.capacity_factor > 0)
            plugin::fail(SLUICE_UNSUPPORTED, "capacity_factor is ", request.model.capacity_factor,
                         ", but this sub-program has no capacity limit; use the router "
                         "'specification'");
        return program_for(request.model, {request.has_choice_bias, request.has_per_expert_scale,
                                           request.table_row_count});
    }

  private:
    // Layers mostly route alike: they share one program.
    const sluice_program* program_for(const sluice_routing_specification& routing,
                                      const routing_inputs& inputs) {
        const std::lock_guard lock(mutex_);
        for (const auto& each : built_)
            if (each->inputs == inputs
                && std::memcmp(&each->routing, &routing, sizeof routing) == 0)
                return each->program;
        auto made = std::make_unique<built>(routing, inputs);
        build_routing(made->storage, routing, inputs);
        made->program = &made->storage.finish();
        built_.push_back(std::move(made));
        return built_.back()->program;
    }

    struct built {
        built(const sluice_routing_specification& of, const routing_inputs& with)
            : routing(of), inputs(with), storage("routing") {}
        sluice_routing_specification routing;
        routing_inputs inputs;
        program_builder storage;
        const sluice_program* program = nullptr;
    };
    std::mutex mutex_;
    std::vector<std::unique_ptr<built>> built_;
};

} // namespace
} // namespace sluice::routers

SLUICE_PLUGIN(sluice::routers::subprogram_router)
