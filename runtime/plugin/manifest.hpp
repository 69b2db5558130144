// The manifest <id>.toml beside a plugin's library: what the host knows of a plugin before it loads
// any code. Generated at build time from the library's descriptor, and compared with it at load.
#pragma once

#include <sluice/abi/plugin.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

struct setting_schema {
    std::string name;
    uint32_t type = 0; // SLUICE_SETTING_*
    std::string help;
    std::string default_text;
    int64_t default_integer = 0; // of a boolean 0 or 1
    double default_number = 0;
    std::vector<std::string> default_texts; // of a text list
    int64_t integer_min = 0;                // both 0: no bounds
    int64_t integer_max = 0;
    double number_min = 0;
    double number_max = 0;
    std::vector<std::string> choices;
    bool required = false;

    bool operator==(const setting_schema&) const = default;
};

std::string_view setting_type_name(uint32_t type); // "integer"

struct plugin_manifest {
    uint32_t format_version = 1;
    std::string id;
    std::string kind;
    std::string version;
    uint32_t abi_version = 0; // written as "0.1"
    std::string summary;
    std::string license; // SPDX
    std::string needs;   // of processor or device
    uint32_t thread_count = 0;
    std::string library;  // file name, beside the manifest
    std::string platform; // "linux-x86_64"
    std::vector<std::string> extensions;
    std::vector<setting_schema> settings;
};

// The platform this host was built for.
std::string_view platform_name();
// "0.1"
std::string abi_version_text(uint32_t abi_version);

// Reads a manifest; throws SLUICE_INVALID with file, line and what is wrong. Does not judge whether
// the plugin suits this host.
plugin_manifest manifest_from_file(const std::filesystem::path& path);
plugin_manifest manifest_from_text(std::string_view text, std::string_view name);

// What the library says of itself, with every text bounded and checked; throws SLUICE_INVALID.
// library_file: the file name that goes into the manifest.
plugin_manifest manifest_of(const sluice_plugin_library& library, std::string_view library_file);

// The manifest as TOML text, which manifest_from_text reads back.
std::string manifest_text(const plugin_manifest& manifest);
// The manifest of a library file, which is loaded for it (the checker's --manifest).
std::string manifest_text_of_file(const std::filesystem::path& library);

// The first difference between manifest and library, as a sentence, or empty.
std::string manifest_difference(const plugin_manifest& manifest, const plugin_manifest& library);

} // namespace sluice
