// The checked mode around a small router of the test's own.
#include "plugin/checked_router.hpp"
#include "../base/error_check.hpp"
#include "plugin/plugin_call.hpp"
#include "plugin/plugin_tables.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <thread>

namespace {

using namespace sluice;
using sluice::test::check_error;

struct tested_router {
    std::atomic<bool> waits{false};
    std::atomic<bool> entered{false};
};

sluice_router router_table(bool routes) {
    auto table = SLUICE_INIT(sluice_router);
    table.describe = [](sluice_plugin*, const sluice_router_request* request,
                        sluice_router_answer* answer, sluice_error*) -> sluice_status {
        answer->form =
            request->layer == 3 ? SLUICE_ROUTER_HOST_FUNCTION : SLUICE_ROUTER_SPECIFICATION;
        return SLUICE_OK;
    };
    if (!routes) return table;
    table.route = [](sluice_plugin* plugin, const sluice_router_call*,
                     sluice_error*) -> sluice_status {
        auto* router = reinterpret_cast<tested_router*>(plugin);
        router->entered = true;
        while (router->waits) std::this_thread::yield();
        return SLUICE_OK;
    };
    return table;
}

class checked_fixture {
  public:
    explicit checked_fixture(bool routes = true)
        : table_(checked_tables(SLUICE_KIND_ROUTER,
                                std::make_unique<sluice_router>(router_table(routes)).get())
                     .router),
          host_(services_, "tested"),
          checked_(table_, reinterpret_cast<sluice_plugin*>(&router), host_) {}

    void describe(uint32_t layer) {
        auto request = SLUICE_INIT(sluice_router_request);
        request.layer = layer;
        auto answer = SLUICE_INIT(sluice_router_answer);
        plugin_call call("tested", "describe");
        call = checked_.table().describe(checked_.handle(), &request, &answer, call.error());
    }
    void route(uint32_t layer) {
        auto asked = SLUICE_INIT(sluice_router_call);
        asked.layer = layer;
        plugin_call call("tested", "route");
        call = checked_.table().route(checked_.handle(), &asked, call.error());
    }
    host_services& services() { return *services_; }
    const sluice_router& table() const { return checked_.table(); }

    tested_router router;

  private:
    std::shared_ptr<host_services> services_ = std::make_shared<host_services>(
        host_options{.worker_count = 2, .on_log = [](log_level, std::string_view) {}});
    sluice_router table_;
    host_table host_;
    checked_router checked_;
};

} // namespace

TEST_CASE("a layer is routed only after it was described as a host function") {
    checked_fixture fixture;
    check_error([&] { fixture.route(3); }, SLUICE_INVALID,
                {"checked mode: route", "layer 3 was not described"});
    fixture.describe(2);
    check_error([&] { fixture.route(2); }, SLUICE_INVALID, {"layer 2 was not described"});
    fixture.describe(3);
    CHECK_NOTHROW(fixture.route(3));
    CHECK(fixture.router.entered);
}

TEST_CASE("one thread at a time routes, and no worker does") {
    checked_fixture fixture;
    fixture.describe(3);
    fixture.router.waits = true;
    std::thread first([&] { fixture.route(3); });
    while (!fixture.router.entered) std::this_thread::yield();
    check_error([&] { fixture.route(3); }, SLUICE_INVALID, {"two threads", "thread: owner"});
    fixture.router.waits = false;
    first.join();
    CHECK_NOTHROW(fixture.route(3));

    struct entry {
        checked_fixture* fixture;
        bool refused = false;
    } context{&fixture};
    auto task = SLUICE_INIT(sluice_team_task);
    task.context = &context;
    task.run = [](void* self, uint32_t worker, uint32_t, sluice_barrier*) {
        if (worker != 0) return;
        auto& from = *static_cast<entry*>(self);
        try {
            from.fixture->route(3);
        } catch (const error& found) {
            from.refused = std::string_view(found.what()).find("a worker") != std::string::npos;
        }
    };
    fixture.services().workers().run(&task);
    CHECK(context.refused);
}

TEST_CASE("a router without a host function has the stub in the checked mode, too") {
    checked_fixture without(false);
    CHECK_FALSE(has_route(without.table()));
    check_error([&] { without.route(3); }, SLUICE_UNSUPPORTED, {"optional function route"});
    CHECK(has_route(checked_fixture().table()));
}
