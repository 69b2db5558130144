#include "plugin/plugin_library.hpp"

#include "base/text.hpp"
#include "plugin/library_file.hpp"
#include "plugin/plugin_call.hpp"

#ifndef BOOST_DLL_USE_STD_FS
#define BOOST_DLL_USE_STD_FS
#endif
#include <boost/dll/shared_library.hpp>

#include <dlfcn.h>

namespace sluice {

struct plugin_library::shared {
    boost::dll::shared_library library;
};

plugin_library::plugin_library(const std::filesystem::path& library_path,
                               const plugin_manifest& manifest)
    : plugin_library(library_path) {
    const std::string difference = manifest_difference(manifest, manifest_);
    if (!difference.empty()) {
        fail(SLUICE_INVALID,
             "{}: the manifest is not this library's: {}; write it again with sluice-plugin-check "
             "--manifest",
             path_.string(), difference);
    }
}

plugin_library::plugin_library(const std::filesystem::path& library_path)
    : path_(std::filesystem::absolute(library_path).lexically_normal()),
      shared_(std::make_unique<shared>()) {
    load();
    negotiate();
    describe();
}

plugin_library::plugin_library(const sluice_plugin_library& functions)
    : path_(text_of(functions.descriptor()->id)), functions_(&functions) {
    negotiate();
    describe();
}

plugin_library::~plugin_library() = default;

void plugin_library::load() {
    const std::string fault = library_file_fault(path_);
    if (!fault.empty()) fail(SLUICE_INVALID, "{}: {}", path_.string(), fault);
    using mode = boost::dll::load_mode::type;
    // NODELETE: the destructor of the library object closes the handle, the code stays in memory.
    // Threads, thread-local destructors and tables of the plugin may outlive every handle.
    const auto modes = static_cast<mode>(int{boost::dll::load_mode::rtld_now}
                                         | int{boost::dll::load_mode::rtld_local} | RTLD_NODELETE);
    try {
        shared_->library.load(path_, modes);
    } catch (const std::exception& failure) {
        // Boost puts the loader's own text (dlerror) into the message.
        fail(SLUICE_UNAVAILABLE, "{}: the system's loader refused it: {}", path_.string(),
             failure.what());
    }
    if (!shared_->library.has(SLUICE_PLUGIN_ENTRY_SYMBOL)) {
        fail(SLUICE_INVALID,
             "{}: it does not export {}, so it is no plugin; export it with SLUICE_EXPORT and C "
             "linkage",
             path_.string(), SLUICE_PLUGIN_ENTRY_SYMBOL);
    }
    const auto entry = reinterpret_cast<sluice_plugin_entry_function>(
        &shared_->library.get<const sluice_plugin_library*()>(SLUICE_PLUGIN_ENTRY_SYMBOL));
    functions_ = guarded(path_.string(), SLUICE_PLUGIN_ENTRY_SYMBOL, [&] { return entry(); });
    if (functions_ == nullptr) {
        fail(SLUICE_INVALID, "{}: {} answered NULL", path_.string(), SLUICE_PLUGIN_ENTRY_SYMBOL);
    }
}

void plugin_library::negotiate() {
    const std::string path = path_.string();
    const uint32_t size = functions_->struct_size;
    if (!SLUICE_HAS_FIELD(sluice_plugin_library, functions_, negotiate) || size > struct_size_max) {
        fail(SLUICE_INVALID,
             "{}: struct_size of sluice_plugin_library is {}; expected {}; use SLUICE_INIT to set "
             "it",
             path, size, sizeof(sluice_plugin_library));
    }
    if (functions_->negotiate == nullptr) {
        fail(SLUICE_INVALID, "{}: the required function negotiate is NULL", path);
    }
    const std::string built = abi_version_text(functions_->abi_version);
    const std::string spoken = abi_version_text(SLUICE_ABI_VERSION);
    sluice_error error = SLUICE_INIT(sluice_error);
    uint32_t version = 0;
    const sluice_status status = guarded(path, "negotiate", [&] {
        return functions_->negotiate(SLUICE_ABI_VERSION, SLUICE_ABI_VERSION, &version, &error);
    });
    if (status != SLUICE_OK) {
        const std::string reason = text_of_array(error.message, sizeof error.message);
        fail(SLUICE_UNSUPPORTED,
             "{}: the plugin, built for ABI {}, refuses this host, which speaks {}: {}", path,
             built, spoken, reason.empty() ? "it gave no reason" : reason);
    }
    if (version != SLUICE_ABI_VERSION) {
        fail(
            SLUICE_UNSUPPORTED,
            "{}: the plugin chose ABI {}, which is out of the range it was offered ({} to {}); its "
            "negotiate is wrong",
            path, abi_version_text(version), spoken, spoken);
    }
    if (functions_->abi_version != SLUICE_ABI_VERSION) {
        fail(SLUICE_UNSUPPORTED,
             "{}: the plugin was built for ABI {}, this host speaks {}, and while the major number "
             "is "
             "0 they must be equal; build the plugin again with this host's headers",
             path, built, spoken);
    }
}

void plugin_library::describe() {
    const std::string path = path_.string();
    if (!SLUICE_HAS_FIELD(sluice_plugin_library, functions_, extension)) {
        fail(
            SLUICE_INVALID,
            "{}: struct_size of sluice_plugin_library is {}, which ends before required functions; "
            "expected {}; use SLUICE_INIT to set it",
            path, functions_->struct_size, sizeof(sluice_plugin_library));
    }
    const auto require = [&](bool there, std::string_view name) {
        if (!there) fail(SLUICE_INVALID, "{}: the required function {} is NULL", path, name);
    };
    require(functions_->descriptor != nullptr, "descriptor");
    require(functions_->create != nullptr, "create");
    require(functions_->destroy != nullptr, "destroy");
    require(functions_->extension != nullptr, "extension");
    try {
        manifest_ = guarded(path, "descriptor",
                            [&] { return manifest_of(*functions_, path_.filename().string()); });
        descriptor_ = functions_->descriptor();
        if (manifest_.id != path_.stem().string()) {
            fail(SLUICE_INVALID,
                 "descriptor: the id is {}, but the file's stem is {}; they must be equal",
                 quote(manifest_.id), quote(path_.stem().string()));
        }
        for (const std::string& id : manifest_.extensions) {
            const void* table =
                guarded("", "extension", [&] { return functions_->extension(text_view(id)); });
            if (table == nullptr) {
                fail(SLUICE_INVALID,
                     "the descriptor names the extension {}, but extension() answers NULL for it",
                     quote(id));
            }
        }
        const std::string_view id = extension_of_kind(manifest_.kind);
        const void* table =
            guarded("", "extension", [&] { return functions_->extension(text_view(id)); });
        tables_ = checked_tables(manifest_.kind, table);
    } catch (const error& failure) {
        const std::string_view message = failure.what();
        if (message.starts_with(path)) throw;
        fail(failure.status(), "{}: {}", path, message);
    }
}

plugin_library::probe_result plugin_library::probe(std::shared_ptr<host_services> services) const {
    probe_result result;
    if (functions_->probe == nullptr) return result;
    const host_table host(std::move(services), manifest_.id);
    sluice_probe_report report = SLUICE_INIT(sluice_probe_report);
    sluice_error error = SLUICE_INIT(sluice_error);
    const sluice_status status = guarded(
        manifest_.id, "probe", [&] { return functions_->probe(host.get(), &report, &error); });
    check(status, error, manifest_.id, "probe");
    result.score = report.score;
    result.reason = text_of_array(report.reason, sizeof report.reason);
    return result;
}

std::string manifest_text_of_file(const std::filesystem::path& library) {
    return manifest_text(plugin_library(library).manifest());
}

} // namespace sluice
