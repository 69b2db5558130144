#include "plugin/worker_team.hpp"

#include "base/error.hpp"
#include "plugin/host_services.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>

namespace {

// Long enough to bridge the gaps inside a step (a barrier is reached within microseconds), short
// enough that a waiting core is soon given back.
constexpr uint32_t spin_microseconds_default = 20;
constexpr uint32_t worker_count_max = 1024;

void pause_core() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits until `word` is no longer `old`: spins for the given time, then sleeps. Returns its value.
uint32_t wait_for_change(const std::atomic<uint32_t>& word, uint32_t old,
                         uint32_t spin_microseconds) noexcept {
    uint32_t now = word.load(std::memory_order_acquire);
    if (now != old) return now;
    if (spin_microseconds > 0) {
        const auto end =
            std::chrono::steady_clock::now() + std::chrono::microseconds(spin_microseconds);
        do {
            for (int i = 0; i < 32; ++i) {
                pause_core();
                now = word.load(std::memory_order_acquire);
                if (now != old) return now;
            }
        } while (std::chrono::steady_clock::now() < end);
    }
    // Sequentially consistent, as the change is: either it is seen here, or the sleeper is seen
    // there.
    while ((now = word.load(std::memory_order_seq_cst)) == old) {
        word.wait(old, std::memory_order_seq_cst);
    }
    return now;
}

void change_and_wake(std::atomic<uint32_t>& word) noexcept {
    word.fetch_add(1, std::memory_order_seq_cst);
    word.notify_all();
}

// Stands in incoming_ for "the team has nothing to do"; never dereferenced.
sluice_team_task* idle_mark() noexcept { return reinterpret_cast<sluice_team_task*>(uintptr_t{1}); }

// The host's two words in a task: the next task of the queue, and the cancellation flag of the
// thread that waits for the task.
sluice_team_task* next_of(const sluice_team_task* task) noexcept {
    return static_cast<sluice_team_task*>(task->host_link[0]);
}

uint32_t checked_worker_count(uint32_t asked) {
    if (asked == 0) return std::min(sluice::usable_core_count(), worker_count_max);
    if (asked > worker_count_max) {
        sluice::fail(SLUICE_INVALID, "worker_count is {}; expected 0 (one for each core) to {}",
                     asked, worker_count_max);
    }
    return asked;
}

} // namespace

sluice_barrier::sluice_barrier(uint32_t member_count, uint32_t spin_microseconds)
    : member_count_(member_count), spin_microseconds_(spin_microseconds) {}

void sluice_barrier::wait() noexcept {
    if (member_count_ <= 1) return;
    // Read before arriving: the phase cannot move until this member has arrived.
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == member_count_) {
        arrived_.store(0, std::memory_order_relaxed);
        change_and_wake(phase_);
    } else {
        wait_for_change(phase_, phase, spin_microseconds_);
    }
}

namespace sluice {

uint32_t usable_core_count() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        const int count = CPU_COUNT(&set);
        if (count > 0) return static_cast<uint32_t>(count);
    }
    return std::max(1u, std::thread::hardware_concurrency());
}

worker_team::worker_team(uint32_t worker_count, bool pinned)
    : worker_count_(checked_worker_count(worker_count)),
      // Workers that outnumber the cores would only spin away each other's time.
      spin_microseconds_(worker_count_ <= usable_core_count() ? spin_microseconds_default : 0),
      barrier_(worker_count_, spin_microseconds_), incoming_(idle_mark()) {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (pinned && sched_getaffinity(0, sizeof allowed, &allowed) != 0) pinned = false;
    threads_.reserve(worker_count_);
    thread_ids_.reserve(worker_count_);
    try {
        int core = -1;
        for (uint32_t worker = 0; worker < worker_count_; ++worker) {
            threads_.emplace_back([this, worker] { work(worker); });
            thread_ids_.push_back(threads_.back().get_id());
            if (pinned) {
                do core = (core + 1) % CPU_SETSIZE;
                while (!CPU_ISSET(core, &allowed));
                cpu_set_t one;
                CPU_ZERO(&one);
                CPU_SET(core, &one);
                pthread_setaffinity_np(threads_.back().native_handle(), sizeof one, &one);
            }
        }
    } catch (const std::system_error& failure) {
        const size_t started = threads_.size();
        stop();
        fail(SLUICE_EXHAUSTED,
             "the system gave {} of {} worker threads ({}); set engine.worker_count lower", started,
             worker_count_, failure.what());
    }
}

worker_team::~worker_team() {
    // An entry's `finished` may have queued another, so what is waited for is the idle mark.
    while (incoming_.load(std::memory_order_acquire) != idle_mark()) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    stop();
}

void worker_team::stop() noexcept {
    stopping_.store(true, std::memory_order_seq_cst);
    change_and_wake(entry_number_);
    for (std::thread& thread : threads_) thread.join();
}

bool worker_team::is_worker() const noexcept {
    const auto me = std::this_thread::get_id();
    return std::find(thread_ids_.begin(), thread_ids_.end(), me) != thread_ids_.end();
}

void worker_team::start(sluice_team_task* task) noexcept {
    // The caller does not wait, so its cancellation flag may be gone when the entry runs.
    task->host_link[1] = nullptr;
    enqueue(task);
}

void worker_team::run(sluice_team_task* task) noexcept {
    struct completion {
        sluice_team_task* task;
        std::mutex mutex;
        std::condition_variable ended;
        bool is_ended = false;
    } completion;
    completion.task = task;

    sluice_team_task entry = SLUICE_INIT(sluice_team_task);
    entry.context = &completion;
    entry.run = [](void* context, uint32_t worker, uint32_t worker_count, sluice_barrier* barrier) {
        sluice_team_task* inner = static_cast<struct completion*>(context)->task;
        inner->run(inner->context, worker, worker_count, barrier);
    };
    entry.finished = [](void* context) {
        auto* state = static_cast<struct completion*>(context);
        if (state->task->finished != nullptr) state->task->finished(state->task->context);
        // Under the lock, so that the waiter cannot leave with its frame before this is done.
        std::lock_guard lock(state->mutex);
        state->is_ended = true;
        state->ended.notify_one();
    };
    entry.host_link[1] = const_cast<std::atomic<bool>*>(cancellation_scope::current());
    enqueue(&entry);

    std::unique_lock lock(completion.mutex);
    completion.ended.wait(lock, [&] { return completion.is_ended; });
}

void worker_team::enqueue(sluice_team_task* task) noexcept {
    sluice_team_task* newest = incoming_.load(std::memory_order_relaxed);
    do {
        task->host_link[0] = newest == idle_mark() ? nullptr : newest;
        // Onto an idle team the task is not queued but dispatched: incoming_ becomes empty.
    } while (!incoming_.compare_exchange_weak(newest, newest == idle_mark() ? nullptr : task,
                                              std::memory_order_acq_rel,
                                              std::memory_order_relaxed));
    if (newest == idle_mark()) dispatch(task);
}

// The next entry in the order of arrival, or nullptr and the team is idle from now on. Called only
// by who dispatches.
sluice_team_task* worker_team::take_next() noexcept {
    if (ready_ == nullptr) {
        sluice_team_task* newest = nullptr;
        if (incoming_.compare_exchange_strong(newest, idle_mark(), std::memory_order_acq_rel,
                                              std::memory_order_acquire)) {
            return nullptr;
        }
        newest = incoming_.exchange(nullptr, std::memory_order_acq_rel);
        while (newest != nullptr) {
            sluice_team_task* older = next_of(newest);
            newest->host_link[0] = ready_;
            ready_ = newest;
            newest = older;
        }
    }
    sluice_team_task* task = ready_;
    ready_ = next_of(task);
    return task;
}

void worker_team::dispatch(sluice_team_task* task) noexcept {
    current_ = task;
    running_.store(worker_count_, std::memory_order_relaxed);
    change_and_wake(entry_number_);
}

void worker_team::work(uint32_t worker) noexcept {
    pthread_setname_np(pthread_self(), fmt::format("sluice-{}", worker).c_str());
    uint32_t seen = 0;
    while (true) {
        // Entries are dispatched one at a time, each after all workers returned from the one
        // before, so the number has moved by exactly one.
        seen = wait_for_change(entry_number_, seen, spin_microseconds_);
        if (stopping_.load(std::memory_order_seq_cst)) return;
        sluice_team_task* task = current_;
        {
            const cancellation_scope scope(
                static_cast<const std::atomic<bool>*>(task->host_link[1]));
            task->run(task->context, worker, worker_count_, &barrier_);
        }
        if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            // The struct is the caller's again once `finished` has been entered.
            if (task->finished != nullptr) task->finished(task->context);
            if (sluice_team_task* next = take_next()) dispatch(next);
        }
    }
}

} // namespace sluice
