// Any bytes as a manifest: an error, or a manifest that is written and read back as the same.
#include "plugin/manifest.hpp"
#include "base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    sluice::plugin_manifest manifest;
    try {
        manifest = sluice::manifest_from_text(text, "fuzz.toml");
    } catch (const sluice::error& problem) {
        if (std::string_view(problem.what()).find("fuzz.toml") == std::string_view::npos) {
            std::abort(); // every message names the file
        }
        return 0;
    }
    if (manifest.library.empty() || manifest.library.find('/') != std::string::npos) std::abort();
    const std::string written = sluice::manifest_text(manifest);
    const sluice::plugin_manifest again = sluice::manifest_from_text(written, "again.toml");
    if (!sluice::manifest_difference(manifest, again).empty()) std::abort();
    return 0;
}
