// Exceptions inside a plugin, error records at its border.
#pragma once

#include <sluice/abi/status.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace sluice::plugin {

// What plugin code throws; `guard` turns it into a status and a message.
class failure : public std::runtime_error {
  public:
    failure(sluice_status status, const std::string& message)
        : std::runtime_error(message), status_(status) {}
    sluice_status status() const noexcept { return status_; }

  private:
    sluice_status status_;
};

// Throws a failure whose message is the parts written one after another.
template <typename... Parts>
[[noreturn]] void fail(sluice_status status, const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw failure(status, message.str());
}

// Fills in the caller's record, cut at a UTF-8 character boundary, and returns the status.
inline sluice_status report(sluice_error* error, sluice_status status,
                            std::string_view message) noexcept {
    if (error == nullptr || !SLUICE_HAS_FIELD(sluice_error, error, status)) return status;
    error->status = status;
    const size_t header = offsetof(sluice_error, message);
    if (error->struct_size <= header) return status;
    const size_t room = std::min<size_t>(error->struct_size - header, SLUICE_ERROR_MESSAGE_BYTES);
    size_t length = std::min(message.size(), room - 1);
    if (length < message.size())
        while (length > 0 && (static_cast<unsigned char>(message[length]) & 0xc0u) == 0x80u)
            --length;
    std::memcpy(error->message, message.data(), length);
    error->message[length] = '\0';
    return status;
}

// Runs `function` so that nothing it throws crosses the border.
template <typename Function>
sluice_status guard(sluice_error* error, Function&& function) noexcept {
    try {
        std::forward<Function>(function)();
        return SLUICE_OK;
    } catch (const failure& caught) {
        return report(error, caught.status(), caught.what());
    } catch (const std::bad_alloc&) {
        return report(error, SLUICE_EXHAUSTED, "out of memory");
    } catch (const std::exception& caught) {
        return report(error, SLUICE_INTERNAL, caught.what());
    } catch (...) {
        return report(error, SLUICE_INTERNAL, "an exception of unknown type");
    }
}

inline std::string_view view(sluice_text text) {
    return text.data == nullptr ? std::string_view() : std::string_view(text.data, text.size);
}

inline sluice_text text(std::string_view view) { return {view.data(), view.size()}; }

// Copies a text into a fixed array, cut to fit and ended by a zero byte.
template <size_t Size>
void copy_text(char (&target)[Size], std::string_view source) {
    const size_t length = std::min(source.size(), Size - 1);
    std::memcpy(target, source.data(), length);
    target[length] = '\0';
}

} // namespace sluice::plugin
