// One plugin's library in memory, after everything about it that is static was checked: the file,
// the entry, negotiation, descriptor against manifest, and the table of its kind. Never unloaded.
#pragma once

#include "base/error.hpp"
#include "plugin/host_services.hpp"
#include "plugin/manifest.hpp"
#include "plugin/plugin_tables.hpp"

#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace sluice {

class plugin_library {
  public:
    // Throws sluice::error "path: what is wrong"; SLUICE_UNAVAILABLE where the loader refused.
    plugin_library(const std::filesystem::path& library_path, const plugin_manifest& manifest);
    // A library without a manifest to compare with: one is made of its descriptor.
    explicit plugin_library(const std::filesystem::path& library_path);
    // Part of the runtime itself: no file, named by its id.
    explicit plugin_library(const sluice_plugin_library& functions);
    ~plugin_library();

    const std::filesystem::path& path() const { return path_; }
    const plugin_manifest& manifest() const { return manifest_; }
    const sluice_plugin_library& functions() const { return *functions_; }
    const sluice_plugin_descriptor& descriptor() const { return *descriptor_; }
    const plugin_tables& tables() const { return tables_; }

    // Asks whether the plugin can run here. Throws where the probe itself failed.
    struct probe_result {
        uint32_t score = 1;
        std::string reason;
    };
    probe_result probe(std::shared_ptr<host_services> services) const;

  private:
    void load();
    void negotiate();
    void describe();

    struct shared;               // keeps the header of Boost.DLL out of this one
    std::filesystem::path path_; // of a part of the runtime its id
    std::unique_ptr<shared> shared_;
    const sluice_plugin_library* functions_ = nullptr;
    const sluice_plugin_descriptor* descriptor_ = nullptr;
    plugin_manifest manifest_;
    plugin_tables tables_{};
};

// Runs a plugin's function at a place where an exception can still be caught: none may cross the
// border, but an author's mistake should read as an error and not end the process.
template <typename Function>
auto guarded(std::string_view plugin, std::string_view function, Function&& call)
    -> decltype(call()) {
    try {
        return call();
    } catch (const error&) {
        throw; // the host's own finding, of what the function answered
    } catch (const std::exception& failure) {
        fail(SLUICE_INTERNAL, "{}: {} threw an exception, which the plugin contract forbids: {}",
             plugin, function, failure.what());
    } catch (...) {
        fail(SLUICE_INTERNAL, "{}: {} threw something, which the plugin contract forbids", plugin,
             function);
    }
}

} // namespace sluice
