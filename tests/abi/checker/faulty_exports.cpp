// A sound router, but for what it exports.
#include <sluice/plugin/router.hpp>

namespace {

namespace plugin = sluice::plugin;

class faulty_exports {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{.id = "faulty_exports",
                                             .kind = SLUICE_KIND_ROUTER,
                                             .version = "0.1.0",
                                             .summary = "Exports too much",
                                             .extensions = {SLUICE_ROUTER_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        return id == SLUICE_ROUTER_EXTENSION ? plugin::router_table<faulty_exports>() : nullptr;
    }
    faulty_exports(plugin::host, const plugin::settings&) {}
    plugin::router_answer describe(const plugin::router_request& request) const {
        return request.model;
    }
};

} // namespace

extern "C" SLUICE_EXPORT int not_the_entry(void);
int not_the_entry(void) { return 1; }

SLUICE_PLUGIN(faulty_exports)
