// A router of the tests alone that answers with a host function and has none.
#include <sluice/plugin/router.hpp>

namespace {

namespace plugin = sluice::plugin;

class routeless_router {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{.id = "routeless",
                                             .kind = SLUICE_KIND_ROUTER,
                                             .version = "0.1.0",
                                             .summary = "Wrong on purpose",
                                             .extensions = {SLUICE_ROUTER_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        return id == SLUICE_ROUTER_EXTENSION ? plugin::router_table<routeless_router>() : nullptr;
    }
    routeless_router(plugin::host, const plugin::settings&) {}

    plugin::router_answer describe(const plugin::router_request&) const {
        return plugin::host_function{};
    }
};

} // namespace

SLUICE_PLUGIN(routeless_router)
