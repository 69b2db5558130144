// The plugin host: finds plugins by their manifests, loads the named one, checks it against every
// rule of the contract that can be checked, and creates instances of it. One bad plugin never
// disturbs another. Libraries are never unloaded.
#pragma once

#include "config/configuration.hpp"
#include "plugin/host_services.hpp"
#include "plugin/manifest.hpp"
#include "plugin/plugin_call.hpp"
#include "plugin/plugin_tables.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

enum class plugin_verdict {
    usable,      // would be loaded if named
    unavailable, // well formed, but its probe says that it cannot run here
    rejected,    // breaks a rule; `reason` says which
    shadowed,    // another one with the same kind and id was found before it
};
std::string_view verdict_name(plugin_verdict verdict);

// One library or manifest that was found, for `sluice plugins --explain`.
struct plugin_candidate {
    std::filesystem::path manifest_path; // empty: a library without a manifest
    std::filesystem::path library_path;
    std::string kind; // of the manifest; empty when that could not be read
    std::string id;
    std::string version;
    std::string summary;
    plugin_verdict verdict = plugin_verdict::rejected;
    uint32_t score = 0; // of the probe; only from candidates(probe)
    std::string reason; // why not; or what the probe found
};

// A loaded library that passed negotiation and the static checks.
class plugin_library;
class bound_settings;
class checked_backend;
class checked_router;

// One instance of a plugin. Destroyed with the last reference; whoever holds objects of the plugin
// (weights, executables) holds a reference too.
class plugin_instance {
  public:
    ~plugin_instance();
    plugin_instance(const plugin_instance&) = delete;
    plugin_instance& operator=(const plugin_instance&) = delete;

    const std::string& id() const;
    const std::string& kind() const;
    const sluice_plugin_descriptor& descriptor() const;
    const plugin_manifest& manifest() const;
    // First argument of the functions of the tables.
    sluice_plugin* handle() const { return handle_; }

    // The table of the plugin's kind. Throws SLUICE_INVALID for a plugin of another kind.
    const sluice_backend& backend() const;
    const sluice_router& router() const;
    const sluice_quantizer& quantizer() const;
    const sluice_block_store& block_store() const;
    const sluice_result_cache& result_cache() const;
    const sluice_stage& stage() const;
    // Rules that the plugin was seen to break since it was created; the log says which.
    uint64_t breach_count() const { return host_->breach_count(); }
    // Another table of the plugin by id, unchecked and not copied, or nullptr.
    const void* extension(std::string_view extension_id) const;

    // An error record for one call: `plugin_call call = instance.call("plan")`.
    plugin_call call(std::string_view function) const { return {id(), function}; }

  private:
    friend class plugin_host;
    plugin_instance(std::shared_ptr<const plugin_library> library,
                    std::shared_ptr<host_services> services, const bound_settings& settings,
                    bool checked);
    void require_kind(std::string_view kind) const;

    std::shared_ptr<const plugin_library> library_;
    std::unique_ptr<host_table> host_;
    // Of the checked mode and the kind, else empty.
    std::unique_ptr<checked_backend> checked_backend_;
    std::unique_ptr<checked_router> checked_router_;
    sluice_plugin* created_ = nullptr; // what the plugin gave
    sluice_plugin* handle_ = nullptr;  // the same, or its wrapping in the checked mode
};

struct plugin_host_options {
    std::vector<std::filesystem::path> folders; // absolute, searched in order
    bool use_install_folder = true;             // after them
    bool allow_draft = false;                   // load plugins of draft kinds
    bool checked = false;                       // wrap backends and routers, see checked_*.hpp
};

class plugin_host {
  public:
    plugin_host(std::shared_ptr<host_services> services, plugin_host_options options);
    ~plugin_host();

    // The folders searched, in order.
    const std::vector<std::filesystem::path>& folders() const { return folders_; }

    // Every candidate found. probe: also load the well-formed ones and ask whether they can run.
    std::vector<plugin_candidate> candidates(bool probe);

    // Creates an instance of the named plugin; throws an error that says what was wrong, or where
    // it was looked for and what the nearest names are. SLUICE_UNAVAILABLE: its probe answered 0.
    std::shared_ptr<plugin_instance> open(std::string_view kind, std::string_view id,
                                          const configured_settings& settings = {});
    // Likewise with the configuration's settings of that plugin; messages name the line of the key
    // that names the plugin (where `key` is empty, it is called as the kind is: "router").
    std::shared_ptr<plugin_instance> open(std::string_view kind, std::string_view id,
                                          const configuration& configuration,
                                          std::string_view key = {});
    // The configured backend, or else the first of backend_fallback that can run, with a warning in
    // the log. A mistake in its settings is an error and no reason to fall back. Warns of settings
    // for plugins that were not found.
    std::shared_ptr<plugin_instance> open_backend(const configuration& configuration);
    // A library by its path, whatever its folder, as the checker does; of any kind. Its manifest
    // must lie beside it.
    std::shared_ptr<plugin_instance> open_path(const std::filesystem::path& library,
                                               const configured_settings& settings = {});

    // A plugin that is part of the runtime, under the rules of all others. `prepare` is given the
    // instance's own object, to tell it what no setting can.
    std::shared_ptr<plugin_instance>
    open_built_in(const sluice_plugin_library& functions,
                  const std::function<void(sluice_plugin* created)>& prepare);

  private:
    struct found_plugin;
    using library_pointer = std::shared_ptr<const plugin_library>;

    std::vector<found_plugin> scan() const;
    void scan_folder(const std::filesystem::path& folder, std::vector<found_plugin>& found) const;
    std::string manifest_fault(const found_plugin& found) const;
    plugin_candidate examine(const found_plugin& found, bool probe);
    library_pointer load(const found_plugin& found);
    library_pointer find(std::string_view kind, std::string_view id, const std::string& where);
    [[noreturn]] void refuse_missing(std::string_view kind, std::string_view id,
                                     const std::vector<found_plugin>& found,
                                     const std::string& where) const;
    void require_runnable(const plugin_library& library, const std::string& where);
    std::shared_ptr<plugin_instance> create(library_pointer library,
                                            const configured_settings& settings);
    std::shared_ptr<plugin_instance> try_backend(const std::string& id,
                                                 const configuration& configuration,
                                                 const std::string& where, std::string& reason);
    void warn_of_unused_settings(const configuration& configuration);

    std::shared_ptr<host_services> services_;
    plugin_host_options options_;
    std::vector<std::filesystem::path> folders_;
    std::mutex mutex_; // of libraries_
    std::map<std::filesystem::path, library_pointer> libraries_;
};

// ../lib/sluice/plugins from the folder of the library or executable that this code is part of.
std::filesystem::path plugin_install_folder();

} // namespace sluice
