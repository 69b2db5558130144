// Settings of a plugin: what the configuration gave, checked against the plugin's schema, completed
// with the defaults and laid out as the ABI passes it.
#pragma once

#include "config/configuration.hpp"
#include "plugin/manifest.hpp"

#include <sluice/abi/host.h>

#include <deque>
#include <string>
#include <vector>

namespace sluice {

class bound_settings {
  public:
    // Throws SLUICE_INVALID with the place, the key and the nearest name for an unknown key, a
    // wrong type, a value out of its bounds or choices, or a required one that is missing.
    bound_settings(const plugin_manifest& plugin, const configured_settings& given);
    bound_settings(const bound_settings&) = delete;
    bound_settings& operator=(const bound_settings&) = delete;

    // One entry for each setting of the schema, in its order; lives as long as this object.
    const sluice_settings* get() const { return &settings_; }

  private:
    void take_default(const setting_schema& schema, const configured_settings& given,
                      sluice_setting& setting);
    void take(const setting_schema& schema, const configured_value& value,
              const configured_settings& given, const std::string& name, sluice_setting& setting);
    sluice_text keep(std::string text);
    void keep_list(const std::vector<std::string>& texts, sluice_setting& setting);

    std::deque<std::string> texts_;
    std::deque<std::vector<sluice_text>> lists_;
    std::vector<sluice_setting> entries_;
    std::vector<const sluice_setting*> pointers_;
    sluice_settings settings_;
};

} // namespace sluice
