#include "plugin/plugin_call.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cstring>

namespace sluice {

namespace {

// Cuts at `limit` without splitting a character, and replaces what is not UTF-8 or not printable,
// so that a plugin's text can go into a terminal or a JSON file as it is.
std::string sanitized(std::string_view text, size_t limit) {
    if (text.size() > limit) {
        size_t end = limit;
        while (end > 0 && limit - end < 4 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80)
            --end;
        text = text.substr(0, end);
    }
    const bool valid = is_utf8(text);
    std::string result;
    result.reserve(text.size());
    for (char c : text) {
        const auto byte = static_cast<uint8_t>(c);
        const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
        result += control || (!valid && byte >= 0x80) ? '?' : c;
    }
    return result;
}

} // namespace

std::string text_of(sluice_text text, std::size_t limit) {
    if (text.data == nullptr || text.size == 0) return {};
    // No byte after the limit is read but the one there, to find the character's boundary.
    const size_t size = text.size > limit ? limit + 1 : static_cast<size_t>(text.size);
    return sanitized({text.data, size}, limit);
}

std::string text_of_array(const char* array, std::size_t size) {
    return sanitized({array, strnlen(array, size)}, size);
}

sluice_status status_known(sluice_status status) {
    return SLUICE_STATUS_CLASS(status) > SLUICE_INTERNAL
                   || (SLUICE_STATUS_CLASS(status) == 0 && status != SLUICE_OK)
               ? SLUICE_INTERNAL
               : status;
}

std::string_view status_name(sluice_status status) {
    switch (SLUICE_STATUS_CLASS(status)) {
    case SLUICE_OK:
        return status == SLUICE_OK ? "ok" : "internal";
    case SLUICE_INVALID:
        return "invalid";
    case SLUICE_UNSUPPORTED:
        return "unsupported";
    case SLUICE_EXHAUSTED:
        return "exhausted";
    case SLUICE_UNAVAILABLE:
        return "unavailable";
    case SLUICE_CANCELLED:
        return "cancelled";
    case SLUICE_DEVICE_LOST:
        return "device lost";
    default:
        return "internal";
    }
}

plugin_call::plugin_call(std::string_view plugin_id, std::string_view function)
    : plugin_id_(plugin_id), function_(function), error_(SLUICE_INIT(sluice_error)) {}

plugin_call& plugin_call::operator=(sluice_status status) {
    sluice::check(status, error_, plugin_id_, function_);
    return *this;
}

void plugin_call::check(sluice_status status) {
    sluice::check(status, error_, plugin_id_, function_);
}

void check(sluice_status status, const sluice_error& error, std::string_view plugin_id,
           std::string_view function) {
    if (status == SLUICE_OK) return;
    const sluice_status known = status_known(status);
    std::string message = text_of_array(error.message, sizeof error.message);
    if (message.empty()) message = "the plugin gave no message";
    if (known != status) {
        message += fmt::format(" (unknown status 0x{:08x}, read as internal)", status);
    }
    fail(known, "{}: {}: {} ({})", plugin_id, function, message, status_name(known));
}

} // namespace sluice
