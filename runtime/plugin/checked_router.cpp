#include "plugin/checked_router.hpp"

#include "plugin/checked_call.hpp"
#include "plugin/plugin_tables.hpp"

#include <mutex>
#include <set>

namespace sluice {

struct checked_router::state {
    const sluice_router& real;
    sluice_plugin* plugin;
    host_table& host;
    sluice_router table;
    std::atomic<bool> in_call{false};
    std::mutex mutex;
    std::set<uint32_t> layers; // that were described as host functions

    state(const sluice_router& router, sluice_plugin* instance, host_table& table_of_host)
        : real(router), plugin(instance), host(table_of_host), table(router) {}
};

namespace {

using namespace checked_mode;

checked_router::state& state_of(sluice_plugin* plugin) {
    return *reinterpret_cast<checked_router::state*>(plugin);
}

sluice_status checked_describe(sluice_plugin* plugin, const sluice_router_request* request,
                               sluice_router_answer* answer, sluice_error* error) {
    return checked("describe", error, [&] {
        checked_router::state& state = state_of(plugin);
        const sluice_status status = state.real.describe(state.plugin, request, answer, error);
        if (status != SLUICE_OK || request == nullptr || answer == nullptr) return status;
        const std::lock_guard lock(state.mutex);
        if (answer->form == SLUICE_ROUTER_HOST_FUNCTION) state.layers.insert(request->layer);
        return status;
    });
}

sluice_status checked_route(sluice_plugin* plugin, const sluice_router_call* call,
                            sluice_error* error) {
    return checked("route", error, [&] {
        checked_router::state& state = state_of(plugin);
        require_no_worker(state.host);
        const owner_call owned(state.in_call, "router");
        if (call == nullptr) refuse("the call is NULL");
        {
            const std::lock_guard lock(state.mutex);
            if (!state.layers.contains(call->layer)) {
                refuse("layer {} was not described as a host function before", call->layer);
            }
        }
        return state.real.route(state.plugin, call, error);
    });
}

} // namespace

checked_router::checked_router(const sluice_router& router, sluice_plugin* plugin, host_table& host)
    : state_(std::make_unique<state>(router, plugin, host)) {
    state_->table.describe = checked_describe;
    if (has_route(router)) state_->table.route = checked_route;
}

checked_router::~checked_router() = default;

const sluice_router& checked_router::table() const { return state_->table; }

sluice_plugin* checked_router::handle() { return reinterpret_cast<sluice_plugin*>(state_.get()); }

} // namespace sluice
