// What a check works with: the plugin, loaded in whatever way the check wants it.
#pragma once

#include "plugin/host_services.hpp"
#include "plugin/manifest.hpp"
#include "plugin/plugin_host.hpp"
#include "plugin/settings.hpp"

#include <filesystem>
#include <memory>
#include <random>
#include <string>

namespace sluice::checker {

struct check_options {
    std::filesystem::path library; // absolute
    std::filesystem::path oracle;  // the reference backend's library; empty: none found
    uint64_t seed = 1;
    uint32_t iterations = 10;     // random cases for each check that draws them
    configured_settings settings; // of the instance that most checks share
};

// A library loaded by nothing but dlopen and its entry, for the checks of what a host relies on
// before it knows anything.
class raw_library {
  public:
    // Throws check_failure where the file does not load, has no entry, or the entry answers NULL.
    explicit raw_library(const std::filesystem::path& path);

    const sluice_plugin_library& table() const { return *table_; }
    // The entry, called again.
    const sluice_plugin_library* enter() const { return entry_(); }
    // Throws check_failure unless the plugin takes the version of this contract.
    void negotiate() const;
    plugin_manifest manifest() const;

  private:
    sluice_plugin_entry_function entry_ = nullptr;
    const sluice_plugin_library* table_ = nullptr; // the library is never unloaded
    std::filesystem::path path_;
};

// An instance created through the raw table.
class raw_instance {
  public:
    raw_instance(const raw_library& library, std::shared_ptr<host_services> services,
                 const configured_settings& settings = {});
    ~raw_instance();
    raw_instance(const raw_instance&) = delete;
    raw_instance& operator=(const raw_instance&) = delete;

    sluice_plugin* handle() const { return handle_; }

  private:
    const raw_library& library_;
    host_table host_;
    sluice_plugin* handle_ = nullptr;
};

class context {
  public:
    explicit context(check_options options) : options_(std::move(options)) {}

    const check_options& options() const { return options_; }

    const raw_library& raw();
    // Services with a log that is kept away from the standard streams.
    std::shared_ptr<host_services> services(uint32_t worker_count = 2);

    // An instance as the host makes it, with every check of the host.
    std::shared_ptr<plugin_instance> open(const configured_settings& settings = {},
                                          uint32_t worker_count = 2);
    // The same instance each time, with the settings of the options.
    plugin_instance& plugin();
    // The reference backend; skips the check where there is none.
    plugin_instance& oracle();

    // Random numbers for one purpose: the same each time, whatever other checks draw.
    std::mt19937_64 random(std::string_view purpose) const;

  private:
    std::shared_ptr<plugin_instance> open_path(const std::filesystem::path& library,
                                               const configured_settings& settings,
                                               uint32_t worker_count);

    check_options options_;
    std::unique_ptr<raw_library> raw_;
    std::shared_ptr<plugin_instance> plugin_;
    std::shared_ptr<plugin_instance> oracle_;
};

// Settings with one value changed.
configured_settings one_setting(const std::string& name,
                                std::variant<bool, int64_t, double, std::string> value);

// Every combination worth trying: the defaults; each boolean the other way; each choice of a text;
// each integer at its bounds. Required settings have no defaults: then there is none.
struct settings_variant {
    std::string name; // "symmetric = false"
    configured_settings settings;
};
std::vector<settings_variant> settings_variants(const plugin_manifest& manifest);

} // namespace sluice::checker
