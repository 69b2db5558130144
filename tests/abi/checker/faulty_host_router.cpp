// A router whose host function takes the first experts whatever the logits, says that it computes
// the model's own routing, and reads no call by the growth rules.
#include <sluice/plugin/router.hpp>

namespace {

namespace plugin = sluice::plugin;

class faulty_host_router {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{.id = "faulty_host_router",
                                             .kind = SLUICE_KIND_ROUTER,
                                             .version = "0.1.0",
                                             .summary = "Wrong on purpose",
                                             .extensions = {SLUICE_ROUTER_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        static const sluice_router careless = [] {
            sluice_router table = *plugin::router_table<faulty_host_router>();
            table.route = [](sluice_plugin*, const sluice_router_call* call, sluice_error* error) {
                if (call == nullptr) return plugin::report(error, SLUICE_INVALID, "no call");
                for (uint32_t row = 0; row < call->row_count; ++row)
                    for (uint32_t j = 0; j < call->choice_count && call->position[row] >= 0; ++j) {
                        const size_t place = size_t{row} * call->choice_count + j;
                        call->index[place] = static_cast<int32_t>(j);
                        call->weight[place] = 1;
                    }
                return SLUICE_OK;
            };
            return table;
        }();
        return id == SLUICE_ROUTER_EXTENSION ? &careless : nullptr;
    }
    faulty_host_router(plugin::host, const plugin::settings&) {}

    plugin::router_answer describe(const plugin::router_request& request) const {
        if (!request.has_model) plugin::fail(SLUICE_INVALID, "there is no routing to follow");
        plugin::check_specification(request.model);
        return plugin::host_function{0, request.model};
    }
};

} // namespace

SLUICE_PLUGIN(faulty_host_router)
