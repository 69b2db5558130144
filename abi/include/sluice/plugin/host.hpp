// The host's services with C++ manners.
#pragma once

#include <sluice/abi/host.h>
#include <sluice/plugin/error.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <span>
#include <type_traits>

namespace sluice::plugin {

// Lets the members of a team entry wait for each other.
class barrier {
  public:
    barrier(const sluice_host& host, sluice_barrier* handle) : host_(&host), handle_(handle) {}
    void wait() const { host_->barrier_wait(handle_); }

  private:
    const sluice_host* host_;
    sluice_barrier* handle_;
};

// A worker's place in a team entry. `share` cuts `count` units into contiguous runs.
struct worker {
    uint32_t index;
    uint32_t count;
    barrier meet;

    struct range {
        int64_t begin;
        int64_t end;
    };
    range share(int64_t units) const {
        return {units * index / count, units * (index + 1) / count};
    }
};

class host {
  public:
    explicit host(const sluice_host* table) : table_(table) {}

    const sluice_host& table() const { return *table_; }

    void log(uint32_t level, std::string_view message) const {
        table_->log(table_->context, level, text(message));
    }
    uint32_t worker_count() const { return table_->worker_count(table_->context); }
    bool cancelled() const { return table_->cancelled(table_->context) != 0; }

    // Runs `function(worker)` on every worker and waits. The function must not throw; what it
    // throws all the same is caught on the worker and thrown here.
    template <typename Function>
    void run(Function&& function) const;

  private:
    const sluice_host* table_;
};

// Memory from the host: aligned, zero-filled on request, released with its owner.
class memory {
  public:
    memory() = default;
    memory(const host& owner, uint64_t size_bytes, uint64_t alignment = 64)
        : table_(&owner.table()), size_(size_bytes) {
        if (size_bytes == 0) return;
        data_ = table_->allocate(table_->context, size_bytes, alignment);
        if (data_ == nullptr)
            fail(SLUICE_EXHAUSTED, "the host has no ", size_bytes, " bytes of memory to give");
    }
    memory(memory&& other) noexcept { swap(other); }
    memory& operator=(memory&& other) noexcept {
        swap(other);
        return *this;
    }
    ~memory() {
        if (data_ != nullptr) table_->release(table_->context, data_, size_);
    }

    template <typename Element = std::byte>
    Element* as() const {
        return static_cast<Element*>(data_);
    }
    uint64_t size() const { return size_; }
    void clear() const {
        if (data_ != nullptr) std::memset(data_, 0, size_);
    }

  private:
    void swap(memory& other) noexcept {
        std::swap(table_, other.table_);
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }
    const sluice_host* table_ = nullptr;
    void* data_ = nullptr;
    uint64_t size_ = 0;
};

template <typename Function>
void host::run(Function&& function) const {
    struct entry {
        const sluice_host* table;
        std::remove_reference_t<Function>* function;
        std::exception_ptr thrown;
        std::atomic_flag taken;
    };
    entry context{table_, &function, nullptr, {}};
    sluice_team_task task = SLUICE_INIT(sluice_team_task);
    task.context = &context;
    task.run = [](void* raw, uint32_t index, uint32_t count, sluice_barrier* handle) {
        auto& self = *static_cast<entry*>(raw);
        try {
            (*self.function)(worker{index, count, barrier(*self.table, handle)});
        } catch (...) {
            if (!self.taken.test_and_set()) self.thrown = std::current_exception();
        }
    };
    table_->team_run(table_->context, &task);
    if (context.thrown) std::rethrow_exception(context.thrown);
}

} // namespace sluice::plugin
