// What the checked mode of backends is made of: the stand-ins for a backend's objects with what is
// known of their state. Part of checked_backend.cpp alone.
#pragma once

#include "plugin/checked_backend.hpp"
#include "plugin/checked_call.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace sluice {

namespace checked_mode {

enum class object_kind { weight, buffer, cache, executable, bound, queue, event };

inline std::string_view kind_name(object_kind kind) {
    constexpr std::string_view names[] = {"weight", "buffer", "cache", "executable",
                                          "bound",  "queue",  "event"};
    return names[static_cast<size_t>(kind)];
}

// Stands in for one object of the backend. Never freed before the backend is, so that a call on a
// destroyed object can still be told from one on a live object.
struct object {
    object_kind kind;
    checked_backend::state* state;
    void* real;
    std::atomic<bool> alive{true};
    std::atomic<bool> in_call{false}; // for functions with [thread: owner]
    // Guarded by state.mutex.
    uint32_t user_count = 0;      // live objects that need this one
    std::vector<object*> uses;    // whose user_count this one is in
    bool planned = false;         // of a bound
    object* submission = nullptr; // of a bound: the event of its last submission, or none
    bool submitted = false;       // of an event: given to a submission
    uint32_t extents[SLUICE_EXTENT_COUNT] = {};
    uint64_t size_bytes = 0; // of a buffer
};

} // namespace checked_mode

struct checked_backend::state {
    const sluice_backend& real;
    sluice_plugin* plugin;
    host_table& host;
    sluice_backend table;
    std::mutex mutex;
    std::vector<std::unique_ptr<checked_mode::object>> objects;
    std::unordered_set<const void*> known;

    state(const sluice_backend& backend, sluice_plugin* instance, host_table& table_of_host)
        : real(backend), plugin(instance), host(table_of_host), table(backend) {}

    checked_mode::object* add(checked_mode::object_kind kind, void* real_object,
                              std::vector<checked_mode::object*> uses = {}) {
        std::lock_guard lock(mutex);
        auto& one = objects.emplace_back(std::make_unique<checked_mode::object>());
        one->kind = kind;
        one->state = this;
        one->real = real_object;
        for (checked_mode::object* used : uses) ++used->user_count;
        one->uses = std::move(uses);
        known.insert(one.get());
        return one.get();
    }

    bool knows(const void* pointer) {
        std::lock_guard lock(mutex);
        return known.contains(pointer);
    }

    void drop(checked_mode::object& one) {
        std::lock_guard lock(mutex);
        one.alive = false;
        for (checked_mode::object* used : one.uses) --used->user_count;
        one.uses.clear();
    }

    bool is_running(const checked_mode::object& bound) {
        checked_mode::object* event = nullptr;
        {
            std::lock_guard lock(mutex);
            event = bound.submission;
        }
        // An event is destroyed only after it was signalled, see checked_event_destroy.
        if (event == nullptr || !event->alive) return false;
        return real.event_ended(static_cast<sluice_event*>(event->real)) == 0;
    }
};

namespace checked_mode {

using backend_state = checked_backend::state;

template <typename Real>
constexpr object_kind kind_of();
template <>
constexpr object_kind kind_of<sluice_weight>() {
    return object_kind::weight;
}
template <>
constexpr object_kind kind_of<sluice_buffer>() {
    return object_kind::buffer;
}
template <>
constexpr object_kind kind_of<sluice_cache>() {
    return object_kind::cache;
}
template <>
constexpr object_kind kind_of<sluice_executable>() {
    return object_kind::executable;
}
template <>
constexpr object_kind kind_of<sluice_bound>() {
    return object_kind::bound;
}
template <>
constexpr object_kind kind_of<sluice_queue>() {
    return object_kind::queue;
}
template <>
constexpr object_kind kind_of<sluice_event>() {
    return object_kind::event;
}

backend_state& state_of(sluice_plugin* plugin) { return *reinterpret_cast<backend_state*>(plugin); }

// The wrapping behind a handle. Functions that are given no instance cannot look it up first: a
// pointer that never was a handle is then beyond what can be checked.
template <typename Real>
object& object_of(const Real* handle, backend_state* owner = nullptr) {
    constexpr object_kind kind = kind_of<Real>();
    if (handle == nullptr) refuse("the {} is NULL", kind_name(kind));
    auto* one = const_cast<object*>(reinterpret_cast<const object*>(handle));
    if (owner != nullptr && !owner->knows(one)) {
        refuse("the {} is no object of this instance", kind_name(kind));
    }
    if (one->kind != kind) {
        refuse("a {} was expected, a {} was given", kind_name(kind), kind_name(one->kind));
    }
    if (!one->alive) refuse("the {} was destroyed before", kind_name(kind));
    return *one;
}

template <typename Real>
Real* real_of(object& one) {
    return static_cast<Real*>(one.real);
}

template <typename Real>
Real* handle_of(object* one) {
    return reinterpret_cast<Real*>(one);
}

inline owner_call owned(object& one) { return {one.in_call, kind_name(one.kind)}; }

// Wraps what a create function gave, after checking that it gave something.
template <typename Real>
sluice_status deliver(backend_state& state, sluice_status status, Real* real, Real** handle_owned,
                      std::vector<object*> uses = {}) {
    if (status != SLUICE_OK) {
        if (real != nullptr) refuse("it failed, but gave an object all the same");
        return status;
    }
    if (real == nullptr) refuse("it answered OK, but gave no object");
    *handle_owned = handle_of<Real>(state.add(kind_of<Real>(), real, std::move(uses)));
    return status;
}

template <typename Real>
host_table* host_of(const Real* handle) {
    return handle ? &reinterpret_cast<const object*>(handle)->state->host : nullptr;
}

template <typename Real, typename Destroy>
void destroy(const char* function, backend_state& state, Real* handle, Destroy&& destroy_real) {
    checked_void(function, &state.host, [&] {
        object& one = object_of(handle, &state);
        if (one.user_count > 0) {
            refuse("the {} is still used by {} objects; they must be destroyed before",
                   kind_name(one.kind), one.user_count);
        }
        state.drop(one);
        destroy_real(real_of<Real>(one));
    });
}

} // namespace checked_mode

} // namespace sluice
