// The checked mode around a small backend of the test's own, whose submissions end when told so.
#include "plugin/checked_backend.hpp"
#include "../base/error_check.hpp"
#include "plugin/plugin_call.hpp"
#include "plugin/plugin_tables.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

namespace {

using namespace sluice;
using sluice::test::check_error;

// What the backend's objects are made of here, and how it can be told to misbehave.
struct tested_backend {
    int live_count = 0;
    bool gives_nothing = false;
    bool throws = false;
    std::atomic<bool> plan_waits{false};
    std::atomic<bool> plan_entered{false};
};

struct tested_object {
    tested_backend* backend;
    bool ended = true; // of an event
};

tested_backend* backend_of(sluice_plugin* plugin) {
    return reinterpret_cast<tested_backend*>(plugin);
}

template <typename Real>
sluice_status make(tested_backend* backend, Real** owned) {
    if (backend->throws) throw std::runtime_error("out of ideas");
    if (backend->gives_nothing) return SLUICE_OK;
    *owned = reinterpret_cast<Real*>(new tested_object{backend});
    ++backend->live_count;
    return SLUICE_OK;
}

template <typename Real>
void unmake(Real* real) {
    auto* object = reinterpret_cast<tested_object*>(real);
    --object->backend->live_count;
    delete object;
}

sluice_backend backend_table() {
    sluice_backend table = SLUICE_INIT(sluice_backend);
    table.claim = [](sluice_plugin*, const sluice_program*, uint32_t, sluice_claim* claim,
                     sluice_error*) -> sluice_status {
        claim->accepted = 0; // and no reason
        return SLUICE_OK;
    };
    table.weight_prepare = [](sluice_plugin* plugin, const sluice_weight_source*, uint32_t,
                              sluice_weight** owned, uint32_t*,
                              sluice_error*) { return make(backend_of(plugin), owned); };
    table.weight_destroy = [](sluice_plugin*, sluice_weight* weight) { unmake(weight); };
    table.weight_describe = [](sluice_plugin*, const sluice_weight*, char* text, uint64_t size) {
        std::memset(text, 'x', size);
    };
    table.buffer_create = [](sluice_plugin* plugin, uint64_t, sluice_buffer** owned,
                             sluice_error*) { return make(backend_of(plugin), owned); };
    table.buffer_destroy = [](sluice_plugin*, sluice_buffer* buffer) { unmake(buffer); };
    table.buffer_write = [](sluice_plugin*, sluice_buffer*, uint64_t, const void*, uint64_t,
                            sluice_error*) -> sluice_status { return SLUICE_OK; };
    table.executable_create = [](sluice_plugin* plugin, const sluice_program*,
                                 const sluice_compile_options*, sluice_weight* const*,
                                 sluice_executable** owned,
                                 sluice_error*) { return make(backend_of(plugin), owned); };
    table.executable_destroy = [](sluice_plugin*, sluice_executable* one) { unmake(one); };
    table.bind = [](sluice_executable* executable, const uint32_t*, sluice_cache*,
                    const sluice_binding* const*, uint32_t, sluice_bound** owned, sluice_error*) {
        return make(reinterpret_cast<tested_object*>(executable)->backend, owned);
    };
    table.bound_destroy = [](sluice_bound* bound) { unmake(bound); };
    table.plan = [](sluice_bound* bound, const sluice_batch*, sluice_error*) -> sluice_status {
        tested_backend* backend = reinterpret_cast<tested_object*>(bound)->backend;
        backend->plan_entered = true;
        while (backend->plan_waits) std::this_thread::yield();
        return SLUICE_OK;
    };
    table.submit = [](sluice_bound*, sluice_queue*, sluice_event* const*, uint32_t,
                      sluice_event* done, sluice_error*) -> sluice_status {
        reinterpret_cast<tested_object*>(done)->ended = false;
        return SLUICE_OK;
    };
    table.queue_create = [](sluice_plugin* plugin, sluice_queue** owned, sluice_error*) {
        return make(backend_of(plugin), owned);
    };
    table.queue_destroy = [](sluice_queue* queue) { unmake(queue); };
    table.event_create = [](sluice_plugin* plugin, sluice_event** owned, sluice_error*) {
        return make(backend_of(plugin), owned);
    };
    table.event_destroy = [](sluice_event* event) { unmake(event); };
    table.event_wait = [](sluice_event* event, sluice_error*) -> sluice_status {
        reinterpret_cast<tested_object*>(event)->ended = true;
        return SLUICE_OK;
    };
    table.event_ended = [](sluice_event* event) -> uint32_t {
        return reinterpret_cast<tested_object*>(event)->ended ? 1 : 0;
    };
    return table;
}

struct fixture {
    tested_backend backend;
    sluice_backend table = backend_table();
    std::string log;
    std::shared_ptr<host_services> services = std::make_shared<host_services>(
        host_options{.worker_count = 2, .on_log = [this](log_level, std::string_view line) {
                         log += std::string(line) + "\n";
                     }});
    host_table host{services, "tested"};
    checked_backend checked{table, reinterpret_cast<sluice_plugin*>(&backend), host};
    const sluice_backend& functions = checked.table();
    sluice_plugin* plugin = checked.handle();

    template <typename Action>
    void refused(Action action, const std::vector<std::string>& parts) {
        check_error(
            [&] {
                plugin_call call("tested", "function");
                call = action(call.error());
            },
            SLUICE_INVALID, parts);
    }

    // One breach of a function that has no status, with that text in the log.
    template <typename Action>
    void breached(Action action, const std::string& part) {
        log.clear();
        const uint64_t before = host.breach_count();
        action();
        CHECK(host.breach_count() == before + 1);
        CHECK_MESSAGE(log.find(part) != std::string::npos, log);
    }

    sluice_weight* weight() {
        sluice_weight* one = nullptr;
        plugin_call call("tested", "weight_prepare");
        call = functions.weight_prepare(plugin, nullptr, 0, &one, nullptr, call.error());
        return one;
    }
    sluice_queue* queue() {
        sluice_queue* one = nullptr;
        plugin_call("tested", "queue_create") = functions.queue_create(plugin, &one, nullptr);
        return one;
    }
    sluice_event* event() {
        sluice_event* one = nullptr;
        plugin_call("tested", "event_create") = functions.event_create(plugin, &one, nullptr);
        return one;
    }
};

// A program of one weight and one input, compiled for at most 4 rows.
struct compiled {
    sluice_value input = SLUICE_INIT(sluice_value);
    sluice_value weight = SLUICE_INIT(sluice_value);
    const sluice_value* values[2] = {&input, &weight};
    sluice_program program = SLUICE_INIT(sluice_program);
    sluice_compile_options options = SLUICE_INIT(sluice_compile_options);

    compiled() {
        input.kind = SLUICE_VALUE_INPUT;
        weight.kind = SLUICE_VALUE_WEIGHT;
        program.value_count = 2;
        program.values = values;
        for (uint32_t i = 1; i < SLUICE_EXTENT_COUNT; ++i) options.extent_max[i] = 4;
    }
};

} // namespace

TEST_CASE("checked mode: a whole life without a mistake passes without a breach") {
    fixture f;
    compiled c;
    sluice_weight* weight = f.weight();
    sluice_weight* weights[2] = {nullptr, weight};
    sluice_executable* executable = nullptr;
    plugin_call call("tested", "life");
    call = f.functions.executable_create(f.plugin, &c.program, &c.options, weights, &executable,
                                         call.error());
    const uint32_t extents[SLUICE_EXTENT_COUNT] = {0, 4, 4, 4, 4};
    sluice_bound* bound = nullptr;
    call = f.functions.bind(executable, extents, nullptr, nullptr, 0, &bound, call.error());
    sluice_queue* queue = f.queue();
    sluice_event* done = f.event();
    sluice_batch batch = SLUICE_INIT(sluice_batch);
    batch.token_count = 4;
    for (int step = 0; step < 3; ++step) {
        call = f.functions.plan(bound, &batch, call.error());
        call = f.functions.submit(bound, queue, nullptr, 0, done, call.error());
        CHECK(f.functions.event_ended(done) == 0);
        call = f.functions.event_wait(done, call.error());
        CHECK(f.functions.event_ended(done) == 1);
    }
    f.functions.event_destroy(done);
    f.functions.queue_destroy(queue);
    f.functions.bound_destroy(bound);
    f.functions.executable_destroy(f.plugin, executable);
    f.functions.weight_destroy(f.plugin, weight);
    f.checked.check_all_destroyed();
    CHECK(f.host.breach_count() == 0);
    CHECK(f.backend.live_count == 0);
}

TEST_CASE("checked mode: objects that are destroyed, foreign, NULL or still used") {
    fixture f;
    compiled c;
    sluice_weight* weight = f.weight();
    sluice_weight* weights[2] = {nullptr, weight};
    sluice_executable* executable = nullptr;
    const auto compile = [&](sluice_error* error) {
        return f.functions.executable_create(f.plugin, &c.program, &c.options, weights, &executable,
                                             error);
    };
    REQUIRE(compile(nullptr) == SLUICE_OK);
    f.breached([&] { f.functions.weight_destroy(f.plugin, weight); }, "still used by 1 objects");
    f.functions.executable_destroy(f.plugin, executable);
    f.breached([&] { f.functions.executable_destroy(f.plugin, executable); },
               "the executable was destroyed before");
    f.functions.weight_destroy(f.plugin, weight);
    f.refused(compile, {"executable_create", "the weight was destroyed before"});
    weights[1] = nullptr;
    f.refused(compile, {"value 1 is a weight, but none is given"});
    int foreign = 0;
    weights[1] = reinterpret_cast<sluice_weight*>(&foreign);
    f.refused(compile, {"no object of this instance"});
    weights[1] = reinterpret_cast<sluice_weight*>(f.queue());
    f.refused(compile, {"a weight was expected, a queue was given"});
    f.refused([&](sluice_error* error) { return f.functions.plan(nullptr, nullptr, error); },
              {"the bound is NULL"});
    f.breached([&] { f.checked.check_all_destroyed(); }, "a queue was not destroyed before");
    f.functions.queue_destroy(reinterpret_cast<sluice_queue*>(weights[1]));
    CHECK(f.backend.live_count == 0);
}

TEST_CASE("checked mode: states of a step") {
    fixture f;
    compiled c;
    sluice_weight* weights[2] = {nullptr, f.weight()};
    sluice_executable* executable = nullptr;
    REQUIRE(f.functions.executable_create(f.plugin, &c.program, &c.options, weights, &executable,
                                          nullptr)
            == SLUICE_OK);
    sluice_bound* bound = nullptr;
    const uint32_t too_large[SLUICE_EXTENT_COUNT] = {0, 5, 1, 1, 1};
    f.refused(
        [&](sluice_error* error) {
            return f.functions.bind(executable, too_large, nullptr, nullptr, 0, &bound, error);
        },
        {"extent 1 is 5", "at most 4"});
    const uint32_t extents[SLUICE_EXTENT_COUNT] = {0, 3, 1, 1, 1};
    REQUIRE(f.functions.bind(executable, extents, nullptr, nullptr, 0, &bound, nullptr)
            == SLUICE_OK);
    f.breached([&] { f.functions.executable_destroy(f.plugin, executable); }, "still used by 1");

    sluice_queue* queue = f.queue();
    sluice_event* done = f.event();
    sluice_event* second = f.event();
    const auto submit = [&](sluice_error* error) {
        return f.functions.submit(bound, queue, nullptr, 0, done, error);
    };
    sluice_batch batch = SLUICE_INIT(sluice_batch);
    const auto plan = [&](sluice_error* error) { return f.functions.plan(bound, &batch, error); };
    f.refused(submit, {"nothing was planned"});
    batch.token_count = 4;
    f.refused(plan, {"4 token rows are over the bound extent 3"});
    batch.token_count = 3;
    batch.decode_sequence_count = 1;
    f.refused(plan, {"1 decoding sequences of 0"});
    batch.decode_sequence_count = 0;
    REQUIRE(plan(nullptr) == SLUICE_OK);
    REQUIRE(submit(nullptr) == SLUICE_OK);
    f.refused(plan, {"a submission of the bound executable still runs"});
    f.refused(submit, {"the event was given to a submission that has not ended"});
    f.breached([&] { f.functions.bound_destroy(bound); }, "still runs");
    f.breached([&] { f.functions.event_destroy(done); }, "has not ended");
    REQUIRE(f.functions.event_wait(done, nullptr) == SLUICE_OK);
    REQUIRE(plan(nullptr) == SLUICE_OK);
    f.functions.event_destroy(done);
    f.refused(submit, {"the event was destroyed before"});
    f.refused([&](sluice_error* error) { return f.functions.event_wait(done, error); },
              {"destroyed"});

    f.functions.event_destroy(second);
    f.functions.queue_destroy(queue);
    f.functions.bound_destroy(bound);
    f.functions.executable_destroy(f.plugin, executable);
    f.functions.weight_destroy(f.plugin, weights[1]);
    CHECK(f.backend.live_count == 0);
}

TEST_CASE("checked mode: two threads at once, and workers where none may be") {
    fixture f;
    compiled c;
    sluice_weight* weights[2] = {nullptr, f.weight()};
    sluice_executable* executable = nullptr;
    REQUIRE(f.functions.executable_create(f.plugin, &c.program, &c.options, weights, &executable,
                                          nullptr)
            == SLUICE_OK);
    const uint32_t extents[SLUICE_EXTENT_COUNT] = {};
    sluice_bound* bound = nullptr;
    REQUIRE(f.functions.bind(executable, extents, nullptr, nullptr, 0, &bound, nullptr)
            == SLUICE_OK);
    sluice_batch batch = SLUICE_INIT(sluice_batch);
    f.backend.plan_waits = true;
    std::thread other([&] { f.functions.plan(bound, &batch, nullptr); });
    while (!f.backend.plan_entered) std::this_thread::yield();
    f.refused([&](sluice_error* error) { return f.functions.plan(bound, &batch, error); },
              {"two threads call functions of one bound at once"});
    f.backend.plan_waits = false;
    other.join();

    struct attempt {
        fixture* f;
        sluice_error error = SLUICE_INIT(sluice_error);
        std::atomic<sluice_status> status{SLUICE_OK};
    } attempt{&f};
    sluice_team_task task = SLUICE_INIT(sluice_team_task);
    task.context = &attempt;
    task.run = [](void* context, uint32_t worker, uint32_t, sluice_barrier*) {
        auto* mine = static_cast<struct attempt*>(context);
        sluice_weight* weight = nullptr;
        if (worker == 0) {
            mine->status = mine->f->functions.weight_prepare(mine->f->plugin, nullptr, 0, &weight,
                                                             nullptr, &mine->error);
        }
    };
    f.services->workers().run(&task);
    CHECK(attempt.status == SLUICE_INVALID);
    CHECK(std::string(attempt.error.message).find("from a worker") != std::string::npos);

    f.functions.bound_destroy(bound);
    f.functions.executable_destroy(f.plugin, executable);
    f.functions.weight_destroy(f.plugin, weights[1]);
}

TEST_CASE("checked mode: what a plugin does wrong itself") {
    fixture f;
    sluice_weight* weight = f.weight();
    char text[8];
    f.breached([&] { f.functions.weight_describe(f.plugin, weight, text, sizeof text); },
               "not ended by a zero byte");
    CHECK(text[7] == 0);
    f.functions.weight_destroy(f.plugin, weight);
    sluice_program program = SLUICE_INIT(sluice_program);
    program.operation_count = 1;
    sluice_claim claim = SLUICE_INIT(sluice_claim);
    f.refused(
        [&](sluice_error* error) {
            return f.functions.claim(f.plugin, &program, 0, &claim, error);
        },
        {"not accepted, but no reason"});
    f.refused(
        [&](sluice_error* error) {
            return f.functions.claim(f.plugin, &program, 1, &claim, error);
        },
        {"no operation 1"});
    f.backend.gives_nothing = true;
    sluice_buffer* buffer = nullptr;
    f.refused(
        [&](sluice_error* error) { return f.functions.buffer_create(f.plugin, 8, &buffer, error); },
        {"answered OK, but gave no object"});
    f.backend.gives_nothing = false;
    f.backend.throws = true;
    check_error(
        [&] {
            plugin_call call("tested", "buffer_create");
            call = f.functions.buffer_create(f.plugin, 8, &buffer, call.error());
        },
        SLUICE_INTERNAL, {"buffer_create threw: out of ideas"});
    f.backend.throws = false;
    REQUIRE(f.functions.buffer_create(f.plugin, 8, &buffer, nullptr) == SLUICE_OK);
    f.refused(
        [&](sluice_error* error) {
            return f.functions.buffer_write(f.plugin, buffer, 4, "12345", 5, error);
        },
        {"5 bytes from 4 are out of the buffer of 8 bytes"});
    f.functions.buffer_destroy(f.plugin, buffer);
    CHECK(f.backend.live_count == 0);
}
