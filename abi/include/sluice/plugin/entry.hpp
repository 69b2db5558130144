// From a C++ class to a plugin library.
//
// A plugin class has
//   static const plugin::definition& define();          what it is; built once
//   static const void* extension(std::string_view id);  its tables of functions
//   Class(plugin::host host, const plugin::settings& settings);
// and may have
//   static void probe(plugin::host host, sluice_probe_report& report);
// SLUICE_PLUGIN(Class) then defines the exported entry.
#pragma once

#include <sluice/abi/plugin.h>
#include <sluice/plugin/host.hpp>
#include <sluice/plugin/settings.hpp>
#include <sluice/plugin/structs.hpp>

namespace sluice::plugin {

struct definition {
    std::string_view id;
    std::string_view kind;
    std::string_view version;
    std::string_view summary;
    std::string_view license = "Apache-2.0";
    std::string_view needs = "";
    uint32_t thread_count = 0;
    schema settings = {};
    std::vector<std::string_view> extensions = {};
};

// The plugin's object behind the opaque handle.
template <typename Class>
Class& instance(sluice_plugin* plugin) {
    return *reinterpret_cast<Class*>(plugin);
}

namespace detail {

// The descriptor with the arrays it points to.
struct descriptor_storage {
    std::vector<const sluice_setting_description*> settings;
    std::vector<sluice_text> extensions;
    sluice_plugin_descriptor descriptor = SLUICE_INIT(sluice_plugin_descriptor);

    explicit descriptor_storage(const definition& source) : settings(source.settings.pointers()) {
        for (const auto id : source.extensions) extensions.push_back(text(id));
        descriptor.thread_count = source.thread_count;
        descriptor.id = text(source.id);
        descriptor.kind = text(source.kind);
        descriptor.version = text(source.version);
        descriptor.summary = text(source.summary);
        descriptor.license = text(source.license);
        descriptor.needs = text(source.needs);
        descriptor.settings = settings.data();
        descriptor.setting_count = static_cast<uint32_t>(settings.size());
        descriptor.extensions = extensions.data();
        descriptor.extension_count = static_cast<uint32_t>(extensions.size());
    }
};

inline sluice_status negotiate(uint32_t min, uint32_t max, uint32_t* version, sluice_error* error) {
    if (min > SLUICE_ABI_VERSION || max < SLUICE_ABI_VERSION)
        return guard(error, [&] {
            fail(SLUICE_UNSUPPORTED, "the plugin speaks ABI ", SLUICE_ABI_VERSION >> 16, ".",
                 SLUICE_ABI_VERSION & 0xffffu, ", the host ", min >> 16, ".", min & 0xffffu, " to ",
                 max >> 16, ".", max & 0xffffu, "; build both from the same release");
        });
    *version = SLUICE_ABI_VERSION;
    return SLUICE_OK;
}

template <typename Class>
const sluice_plugin_library* library() {
    static const sluice_plugin_library table = [] {
        sluice_plugin_library made = SLUICE_INIT(sluice_plugin_library);
        made.abi_version = SLUICE_ABI_VERSION;
        made.negotiate = negotiate;
        made.descriptor = [] {
            static const descriptor_storage storage(Class::define());
            return &storage.descriptor;
        };
        if constexpr (requires(host h, sluice_probe_report & r) { Class::probe(h, r); }) {
            made.probe = [](const sluice_host* table_of_host, sluice_probe_report* report,
                            sluice_error* error) {
                return guard(error, [&] {
                    sluice_probe_report found = SLUICE_INIT(sluice_probe_report);
                    Class::probe(host(table_of_host), found);
                    write(report, found, "the probe report");
                });
            };
        }
        made.create = [](const sluice_host* table_of_host, const sluice_settings* given,
                         sluice_plugin** plugin, sluice_error* error) {
            return guard(error, [&] {
                const settings values(Class::define().settings, given);
                *plugin = reinterpret_cast<sluice_plugin*>(new Class(host(table_of_host), values));
            });
        };
        made.destroy = [](sluice_plugin* plugin) { delete reinterpret_cast<Class*>(plugin); };
        made.extension = [](sluice_text id) { return Class::extension(view(id)); };
        return made;
    }();
    return &table;
}

} // namespace detail
} // namespace sluice::plugin

#define SLUICE_PLUGIN(Class)                                                                       \
    extern "C" SLUICE_EXPORT const sluice_plugin_library* sluice_plugin_entry(void) {              \
        return ::sluice::plugin::detail::library<Class>();                                         \
    }
