// How the wrappers of the checked mode refuse a call.
#pragma once

#include "plugin/host_services.hpp"

#include <sluice/abi/status.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace sluice::checked_mode {

// Thrown inside a wrapper only; every wrapper turns it into a status or a logged breach.
struct breach {
    std::string rule;
};

template <typename... Arguments>
[[noreturn]] void refuse(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    throw breach{fmt::format(format, std::forward<Arguments>(arguments)...)};
}

// Holds an object for the length of a call that [thread: owner] reserves to one thread at a time.
class owner_call {
  public:
    owner_call(std::atomic<bool>& in_call, std::string_view kind) : in_call_(in_call) {
        if (in_call_.exchange(true)) {
            refuse("two threads call functions of one {} at once; its tag says thread: owner",
                   kind);
        }
    }
    ~owner_call() { in_call_ = false; }
    owner_call(const owner_call&) = delete;
    owner_call& operator=(const owner_call&) = delete;

  private:
    std::atomic<bool>& in_call_;
};

inline void require_no_worker(host_table& host) {
    if (host.services().workers().is_worker()) {
        refuse("called from a worker; its tag says thread: any but a worker");
    }
}

inline sluice_status write_error(sluice_error* error, sluice_status status,
                                 const std::string& message) {
    if (error == nullptr || !SLUICE_HAS_FIELD(sluice_error, error, message)) return status;
    error->status = status;
    const size_t size = std::min(message.size(), sizeof error->message - 1);
    std::memcpy(error->message, message.data(), size);
    error->message[size] = 0;
    return status;
}

// Runs the body of a wrapper that answers a status. A breach by the caller is SLUICE_INVALID.
template <typename Body>
sluice_status checked(const char* function, sluice_error* error, Body&& body) noexcept {
    try {
        return body();
    } catch (const breach& found) {
        return write_error(error, SLUICE_INVALID,
                           fmt::format("checked mode: {}: {}", function, found.rule));
    } catch (const std::exception& failure) {
        return write_error(error, SLUICE_INTERNAL,
                           fmt::format("checked mode: {} threw: {}", function, failure.what()));
    } catch (...) {
        return write_error(error, SLUICE_INTERNAL, "checked mode: the function threw");
    }
}

// Likewise for functions without a status: a breach is logged and counted, the call is left out.
template <typename Body>
void checked_void(const char* function, host_table* host, Body&& body) noexcept {
    try {
        body();
    } catch (const breach& found) {
        if (host) host->breach(fmt::format("checked mode: {}: {}", function, found.rule));
    } catch (const std::exception& failure) {
        if (host) host->breach(fmt::format("checked mode: {} threw: {}", function, failure.what()));
    } catch (...) {
        if (host) host->breach("checked mode: a function threw");
    }
}

} // namespace sluice::checked_mode
