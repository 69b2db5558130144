// The caller's side of a plugin's functions: an error record ready to be written, and its turning
// into sluice::error. What a plugin wrote is not trusted: messages are bounded and made printable,
// unknown statuses read as SLUICE_INTERNAL.
#pragma once

#include <sluice/abi/status.h>

#include <string>
#include <string_view>

namespace sluice {

// At most `limit` bytes of a plugin's text as valid UTF-8; a NULL with a size reads as empty.
std::string text_of(sluice_text text, std::size_t limit = 4096);
// A fixed-size character array that should end in a zero byte but may not.
std::string text_of_array(const char* array, std::size_t size);
inline sluice_text text_view(std::string_view text) { return {text.data(), text.size()}; }

// The status itself, or SLUICE_INTERNAL where its class is unknown.
sluice_status status_known(sluice_status status);
// "invalid", "unsupported", ... of the class.
std::string_view status_name(sluice_status status);

// Usage:
//     plugin_call call("onednn", "properties");
//     call = backend.properties(plugin, &properties, call.error());   // throws unless SLUICE_OK
class plugin_call {
  public:
    // Both are borrowed; they stand before the plugin's message: "onednn: properties: ...".
    plugin_call(std::string_view plugin_id, std::string_view function);

    sluice_error* error() { return &error_; }
    // Throws sluice::error unless the status is SLUICE_OK.
    plugin_call& operator=(sluice_status status);
    void check(sluice_status status);

  private:
    std::string_view plugin_id_;
    std::string_view function_;
    sluice_error error_;
};

// Throws sluice::error "plugin_id: function: message" unless the status is SLUICE_OK.
void check(sluice_status status, const sluice_error& error, std::string_view plugin_id,
           std::string_view function);

} // namespace sluice
