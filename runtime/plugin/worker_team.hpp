// The host's workers: one team per runtime, entered by backends with one function that all members
// run together. worker_executor is the seam where an embedder's own threads can take its place.
#pragma once

#include <sluice/abi/host.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

// What the ABI's opaque barrier is: a phase counter that members wait on. One entry runs at a time,
// so one barrier serves a whole team.
struct sluice_barrier {
    explicit sluice_barrier(uint32_t member_count, uint32_t spin_microseconds);

    // Waits until member_count threads have come here; spins briefly, then sleeps.
    void wait() noexcept;

  private:
    const uint32_t member_count_;
    const uint32_t spin_microseconds_;
    alignas(64) std::atomic<uint32_t> arrived_{0};
    alignas(64) std::atomic<uint32_t> phase_{0};
};

namespace sluice {

class worker_executor {
  public:
    virtual ~worker_executor() = default;
    virtual uint32_t worker_count() const noexcept = 0;
    // Queues one entry and returns: neither blocks nor allocates. Entries run one after another.
    virtual void start(sluice_team_task* task) noexcept = 0;
    // Queues one entry and waits until it has run (its `finished` included). Not from a worker.
    virtual void run(sluice_team_task* task) noexcept = 0;
    // Whether the calling thread is one of the workers.
    virtual bool is_worker() const noexcept = 0;
};

// Cores that this process may run on, at least 1.
uint32_t usable_core_count();

class worker_team final : public worker_executor {
  public:
    // worker_count 0: one for each usable core. pinned: one worker a core, in order.
    explicit worker_team(uint32_t worker_count = 0, bool pinned = false);
    // Waits until the queue is empty, then joins the workers.
    ~worker_team() override;
    worker_team(const worker_team&) = delete;
    worker_team& operator=(const worker_team&) = delete;

    uint32_t worker_count() const noexcept override { return worker_count_; }
    void start(sluice_team_task* task) noexcept override;
    void run(sluice_team_task* task) noexcept override;
    bool is_worker() const noexcept override;

  private:
    void work(uint32_t worker) noexcept;
    void stop() noexcept;
    void enqueue(sluice_team_task* task) noexcept;
    sluice_team_task* take_next() noexcept;
    void dispatch(sluice_team_task* task) noexcept;

    const uint32_t worker_count_;
    const uint32_t spin_microseconds_; // 0 where workers outnumber the cores
    sluice_barrier barrier_;

    // Entries handed in, newest first; idle_mark() when the team has nothing to do.
    alignas(64) std::atomic<sluice_team_task*> incoming_;
    // Entries taken from incoming_, oldest first. Belongs to whoever dispatches: the thread that
    // found the team idle, or the last worker to return from an entry.
    sluice_team_task* ready_ = nullptr;
    sluice_team_task* current_ = nullptr; // published by entry_number_
    alignas(64) std::atomic<uint32_t> entry_number_{0};
    alignas(64) std::atomic<uint32_t> running_{0}; // workers still inside the current entry
    std::atomic<bool> stopping_{false};
    std::vector<std::thread> threads_;
    std::vector<std::thread::id> thread_ids_;
};

} // namespace sluice
