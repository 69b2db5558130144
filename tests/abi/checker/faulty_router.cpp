// A router with faults that only the checker's own checks can find: it reads no struct by the
// growth rules, and answers more choices than there are experts.
#include <sluice/plugin/entry.hpp>
#include <sluice/plugin/router.hpp>

namespace {

namespace plugin = sluice::plugin;

class faulty_router {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{.id = "faulty_router",
                                             .kind = SLUICE_KIND_ROUTER,
                                             .version = "0.1.0",
                                             .summary = "Wrong on purpose",
                                             .extensions = {SLUICE_ROUTER_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        static const sluice_router table = [] {
            auto made = SLUICE_INIT(sluice_router);
            made.describe = [](sluice_plugin*, const sluice_router_request* request,
                               sluice_router_answer* answer, sluice_error* error) {
                if (request == nullptr) return plugin::report(error, SLUICE_INVALID, "no request");
                auto routing = SLUICE_INIT(sluice_routing_specification);
                routing.expert_count = request->expert_count;
                routing.choice_count = request->expert_count + 1;
                routing.scale = 1;
                *answer->specification = routing;
                answer->form = SLUICE_ROUTER_SPECIFICATION;
                return SLUICE_OK;
            };
            return made;
        }();
        return id == SLUICE_ROUTER_EXTENSION ? &table : nullptr;
    }
    faulty_router(plugin::host, const plugin::settings&) {}
};

} // namespace

SLUICE_PLUGIN(faulty_router)
