// The runtime's one error idiom: functions of the control plane throw sluice::error, which carries
// an ABI status and one message that says what was expected, what was found, where, and what to do.
// It is caught at the borders (C API, command line, plugin calls) and never crosses them.
#pragma once

#include <fmt/format.h>
#include <sluice/abi/status.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace sluice {

class error : public std::runtime_error {
  public:
    error(sluice_status status, const std::string& message)
        : std::runtime_error(message), status_(status) {}

    sluice_status status() const { return status_; }

  private:
    sluice_status status_;
};

// Throws sluice::error with a formatted message, e.g. fail(SLUICE_INVALID, "{}: {}", path, why).
template <typename... Arguments>
[[noreturn]] void fail(sluice_status status, fmt::format_string<Arguments...> format,
                       Arguments&&... arguments) {
    throw error(status, fmt::format(format, std::forward<Arguments>(arguments)...));
}

} // namespace sluice
