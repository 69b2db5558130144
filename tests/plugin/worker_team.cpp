#include "plugin/worker_team.hpp"
#include "../base/error_check.hpp"
#include "plugin/host_services.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

namespace {

using namespace sluice;

// An entry that keeps what its functions saw.
struct recorded_entry {
    sluice_team_task task = SLUICE_INIT(sluice_team_task);
    std::atomic<uint64_t> worker_bits{0};
    std::atomic<uint32_t> run_count{0};
    std::atomic<uint32_t> finished_count{0};
    std::atomic<uint32_t> runs_at_finish{0};

    recorded_entry() {
        task.context = this;
        task.run = [](void* context, uint32_t worker, uint32_t, sluice_barrier*) {
            auto* entry = static_cast<recorded_entry*>(context);
            entry->worker_bits |= uint64_t{1} << worker;
            ++entry->run_count;
        };
        task.finished = [](void* context) {
            auto* entry = static_cast<recorded_entry*>(context);
            entry->runs_at_finish = entry->run_count.load();
            ++entry->finished_count;
        };
    }
};

void wait_until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    REQUIRE(condition());
}

} // namespace

TEST_CASE("every worker runs an entry once, and finished comes once, after all of them") {
    for (const uint32_t worker_count : {1u, 2u, 5u}) {
        worker_team team(worker_count);
        CHECK(team.worker_count() == worker_count);
        for (int repeat = 0; repeat < 50; ++repeat) {
            recorded_entry entry;
            team.run(&entry.task);
            CHECK(entry.worker_bits == (uint64_t{1} << worker_count) - 1);
            CHECK(entry.run_count == worker_count);
            CHECK(entry.finished_count == 1);
            CHECK(entry.runs_at_finish == worker_count);
        }
    }
}

TEST_CASE("entries run one after another in the order in which they were started") {
    struct sequence {
        std::vector<int> order; // written by worker 0 of one entry at a time
        std::atomic<int> inside{0};
        std::atomic<bool> overlapped{false};
        std::atomic<int> finished{0};
    } sequence;
    struct numbered {
        sluice_team_task task = SLUICE_INIT(sluice_team_task);
        struct sequence* all;
        int number;
    };
    constexpr int count = 300;
    std::vector<numbered> entries(count);
    worker_team team(3);
    for (int i = 0; i < count; ++i) {
        entries[i].all = &sequence;
        entries[i].number = i;
        entries[i].task.context = &entries[i];
        entries[i].task.run = [](void* context, uint32_t worker, uint32_t worker_count,
                                 sluice_barrier*) {
            auto* entry = static_cast<numbered*>(context);
            // Never more workers inside than one entry has: two entries would show as more.
            if (entry->all->inside.fetch_add(1) >= int(worker_count)) {
                entry->all->overlapped = true;
            }
            if (worker == 0) entry->all->order.push_back(entry->number);
            entry->all->inside.fetch_sub(1);
        };
        entries[i].task.finished = [](void* context) {
            static_cast<numbered*>(context)->all->finished.fetch_add(1);
        };
        team.start(&entries[i].task);
    }
    wait_until([&] { return sequence.finished == count; });
    std::vector<int> expected(count);
    std::iota(expected.begin(), expected.end(), 0);
    CHECK(sequence.order == expected);
    CHECK(!sequence.overlapped);
}

TEST_CASE("start does not wait for the entry") {
    worker_team team(2);
    std::atomic<bool> release{false};
    sluice_team_task held = SLUICE_INIT(sluice_team_task);
    held.context = &release;
    held.run = [](void* context, uint32_t, uint32_t, sluice_barrier*) {
        while (!*static_cast<std::atomic<bool>*>(context)) std::this_thread::yield();
    };
    recorded_entry next;
    team.start(&held);
    team.start(&next.task);
    CHECK(next.run_count == 0); // both calls came back while the first entry is held
    release = true;
    wait_until([&] { return next.finished_count == 1; });
}

TEST_CASE("an entry may start the next from finished, and the destructor waits for it") {
    struct chain {
        sluice_team_task task = SLUICE_INIT(sluice_team_task);
        worker_team* team;
        std::atomic<int> left{200};
        std::atomic<int> done{0};
    } chain;
    {
        worker_team team(2);
        chain.team = &team;
        chain.task.context = &chain;
        chain.task.run = [](void*, uint32_t, uint32_t, sluice_barrier*) {};
        chain.task.finished = [](void* context) {
            auto* self = static_cast<struct chain*>(context);
            ++self->done;
            if (--self->left > 0) self->team->start(&self->task);
        };
        team.start(&chain.task);
    }
    CHECK(chain.done == 200);
}

TEST_CASE("the barrier holds all workers, also where they outnumber the cores by far") {
    struct phases {
        std::vector<uint32_t> slots; // plain memory: what the barrier does not order is a data race
        std::atomic<uint32_t> mistakes{0};
        uint32_t round_count;
    };
    for (const uint32_t worker_count : {1u, 2u, 3u, 16u}) {
        phases phases;
        phases.slots.assign(worker_count, 0);
        phases.round_count = worker_count > 4 ? 100 : 1000;
        worker_team team(worker_count);
        sluice_team_task task = SLUICE_INIT(sluice_team_task);
        task.context = &phases;
        task.run = [](void* context, uint32_t worker, uint32_t count, sluice_barrier* barrier) {
            auto* all = static_cast<struct phases*>(context);
            for (uint32_t round = 1; round <= all->round_count; ++round) {
                all->slots[worker] = round;
                barrier->wait();
                // Every other worker has written this round, and none the next.
                for (uint32_t i = 0; i < count; ++i) {
                    if (all->slots[i] != round) ++all->mistakes;
                }
                barrier->wait();
            }
        };
        for (int repeat = 0; repeat < 3; ++repeat) team.run(&task);
        CHECK(phases.mistakes == 0);
    }
}

TEST_CASE("many threads run entries on one team at once") {
    worker_team team(3);
    constexpr int thread_count = 8;
    constexpr int entry_count = 100;
    std::atomic<uint64_t> total{0};
    std::atomic<int> mistakes{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < thread_count; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < entry_count; ++i) {
                struct work {
                    std::atomic<uint64_t>* total;
                    uint32_t seen = 0; // by worker 0 alone, read when run has come back
                } work{&total};
                sluice_team_task task = SLUICE_INIT(sluice_team_task);
                task.context = &work;
                task.run = [](void* context, uint32_t worker, uint32_t, sluice_barrier* barrier) {
                    auto* mine = static_cast<struct work*>(context);
                    barrier->wait();
                    if (worker == 0) mine->seen = 7;
                    mine->total->fetch_add(1);
                };
                team.run(&task);
                if (work.seen != 7) ++mistakes;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(total == uint64_t{3} * thread_count * entry_count);
    CHECK(mistakes == 0);
}

TEST_CASE("workers know that they are workers") {
    worker_team team(2);
    worker_team other(1);
    struct answers {
        worker_team* team;
        worker_team* other;
        std::atomic<int> own{0};
        std::atomic<int> foreign{0};
    } answers{&team, &other};
    sluice_team_task task = SLUICE_INIT(sluice_team_task);
    task.context = &answers;
    task.run = [](void* context, uint32_t, uint32_t, sluice_barrier*) {
        auto* all = static_cast<struct answers*>(context);
        all->own += all->team->is_worker() ? 1 : 0;
        all->foreign += all->other->is_worker() ? 1 : 0;
    };
    team.run(&task);
    CHECK(answers.own == 2);
    CHECK(answers.foreign == 0);
    CHECK(!team.is_worker());
}

TEST_CASE("pinned workers run, and no count of workers is beyond reason") {
    worker_team team(usable_core_count(), true);
    recorded_entry entry;
    team.run(&entry.task);
    CHECK(entry.finished_count == 1);
    test::check_error([] { worker_team too_many(100000); }, SLUICE_INVALID,
                      {"worker_count is 100000", "1024"});
}

TEST_CASE("cancellation reaches the workers of team_run, and not those of team_start") {
    auto services = std::make_shared<host_services>(host_options{.worker_count = 2});
    host_table table(services, "tester");
    const sluice_host* host = table.get();
    struct probe {
        const sluice_host* host;
        std::atomic<uint32_t> cancelled{0};
        std::atomic<bool> finished{false};
    } probe{host};
    sluice_team_task task = SLUICE_INIT(sluice_team_task);
    task.context = &probe;
    task.run = [](void* context, uint32_t, uint32_t, sluice_barrier*) {
        auto* all = static_cast<struct probe*>(context);
        all->cancelled += all->host->cancelled(all->host->context);
    };
    task.finished = [](void* context) { static_cast<struct probe*>(context)->finished = true; };

    std::atomic<bool> flag{false};
    CHECK(host->cancelled(host->context) == 0);
    {
        const cancellation_scope scope(&flag);
        host->team_run(host->context, &task);
        CHECK(probe.cancelled == 0);
        flag = true;
        CHECK(host->cancelled(host->context) == 1);
        host->team_run(host->context, &task);
        CHECK(probe.cancelled == 2);
        {
            const cancellation_scope inner(nullptr);
            CHECK(host->cancelled(host->context) == 0);
        }
        CHECK(host->cancelled(host->context) == 1);
        probe.finished = false;
        host->team_start(host->context, &task);
        wait_until([&] { return probe.finished.load(); });
        CHECK(probe.cancelled == 2);
    }
    CHECK(host->cancelled(host->context) == 0);
}
