#include "plugin/plugin_host.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "plugin/checked_backend.hpp"
#include "plugin/checked_router.hpp"
#include "plugin/plugin_library.hpp"
#include "plugin/settings.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <optional>
#include <set>
#include <system_error>

namespace sluice {

namespace fs = std::filesystem;

namespace {

constexpr size_t folder_entries_max = 4096;

// Failures that mean "not on this machine, or not now", as opposed to "written wrongly".
bool excuses_fallback(sluice_status status) {
    return SLUICE_STATUS_CLASS(status) != SLUICE_INVALID
           && SLUICE_STATUS_CLASS(status) != SLUICE_CANCELLED;
}

std::string folders_text(const std::vector<fs::path>& folders) {
    std::vector<std::string> names;
    for (const fs::path& folder : folders) names.push_back(folder.string());
    return names.empty() ? "no folder (plugin_folders is empty)" : join(names, ", ");
}

} // namespace

struct plugin_host::found_plugin {
    fs::path manifest_path; // empty: a library without a manifest
    fs::path library_path;
    std::string name; // the file's stem
    std::optional<plugin_manifest> manifest;
    std::string fault; // why the manifest could not be read
};

std::string_view verdict_name(plugin_verdict verdict) {
    switch (verdict) {
    case plugin_verdict::usable:
        return "usable";
    case plugin_verdict::unavailable:
        return "unavailable";
    case plugin_verdict::shadowed:
        return "shadowed";
    default:
        return "rejected";
    }
}

fs::path plugin_install_folder() {
    Dl_info information{};
    std::error_code ignored;
    fs::path self;
    if (dladdr(reinterpret_cast<void*>(&plugin_install_folder), &information) != 0
        && information.dli_fname != nullptr) {
        self = fs::canonical(information.dli_fname, ignored);
    }
    // For the main program the name is as it was started, perhaps without a folder.
    if (self.empty()) self = fs::canonical("/proc/self/exe", ignored);
    if (self.empty()) return {};
    // Beside the library (lib/libsluice.so), or across from the command (bin/sluice).
    const fs::path beside = self.parent_path() / SLUICE_PLUGIN_FOLDER;
    if (fs::is_directory(beside, ignored)) return beside;
    return (self.parent_path() / ".." / "lib" / SLUICE_PLUGIN_FOLDER).lexically_normal();
}

// ---- Instances ----

plugin_instance::plugin_instance(std::shared_ptr<const plugin_library> library,
                                 std::shared_ptr<host_services> services,
                                 const bound_settings& settings, bool checked)
    : library_(std::move(library)),
      host_(std::make_unique<host_table>(std::move(services), library_->manifest().id)) {
    sluice_error error = SLUICE_INIT(sluice_error);
    const sluice_status status = guarded(id(), "create", [&] {
        return library_->functions().create(host_->get(), settings.get(), &created_, &error);
    });
    check(status, error, id(), "create");
    if (created_ == nullptr) {
        fail(SLUICE_INTERNAL, "{}: create answered OK but gave no instance; the plugin is wrong",
             id());
    }
    handle_ = created_;
    if (checked && kind() == SLUICE_KIND_BACKEND) {
        checked_backend_ =
            std::make_unique<checked_backend>(library_->tables().backend, created_, *host_);
        handle_ = checked_backend_->handle();
    } else if (checked && kind() == SLUICE_KIND_ROUTER) {
        checked_router_ =
            std::make_unique<checked_router>(library_->tables().router, created_, *host_);
        handle_ = checked_router_->handle();
    }
}

plugin_instance::~plugin_instance() {
    if (created_ == nullptr) return;
    try {
        if (checked_backend_) checked_backend_->check_all_destroyed();
        guarded(id(), "destroy", [&] { library_->functions().destroy(created_); });
    } catch (const std::exception& failure) {
        host_->breach(failure.what());
    }
}

const std::string& plugin_instance::id() const { return library_->manifest().id; }
const std::string& plugin_instance::kind() const { return library_->manifest().kind; }
const plugin_manifest& plugin_instance::manifest() const { return library_->manifest(); }

const sluice_plugin_descriptor& plugin_instance::descriptor() const {
    return library_->descriptor();
}

void plugin_instance::require_kind(std::string_view expected) const {
    if (kind() == expected) return;
    fail(SLUICE_INVALID, "the plugin {} is a {}; expected a {}", quote(id()), kind(), expected);
}

const sluice_backend& plugin_instance::backend() const {
    require_kind(SLUICE_KIND_BACKEND);
    return checked_backend_ ? checked_backend_->table() : library_->tables().backend;
}

const sluice_router& plugin_instance::router() const {
    require_kind(SLUICE_KIND_ROUTER);
    return checked_router_ ? checked_router_->table() : library_->tables().router;
}

const sluice_quantizer& plugin_instance::quantizer() const {
    require_kind(SLUICE_KIND_QUANTIZER);
    return library_->tables().quantizer;
}

const sluice_block_store& plugin_instance::block_store() const {
    require_kind(SLUICE_KIND_BLOCK_STORE);
    return library_->tables().block_store;
}

const sluice_result_cache& plugin_instance::result_cache() const {
    require_kind(SLUICE_KIND_RESULT_CACHE);
    return library_->tables().result_cache;
}

const sluice_stage& plugin_instance::stage() const {
    require_kind(SLUICE_KIND_STAGE);
    return library_->tables().stage;
}

const void* plugin_instance::extension(std::string_view extension_id) const {
    return guarded(id(), "extension",
                   [&] { return library_->functions().extension(text_view(extension_id)); });
}

// ---- Discovery ----

plugin_host::plugin_host(std::shared_ptr<host_services> services, plugin_host_options options)
    : services_(std::move(services)), options_(std::move(options)), folders_(options_.folders) {
    for (const fs::path& folder : folders_) {
        if (folder.is_absolute()) continue;
        fail(SLUICE_INVALID, "plugin folder {}: expected an absolute path", quote(folder.string()));
    }
    if (options_.use_install_folder) {
        const fs::path folder = plugin_install_folder();
        if (!folder.empty()) folders_.push_back(folder);
    }
}

plugin_host::~plugin_host() = default;

void plugin_host::scan_folder(const fs::path& folder, std::vector<found_plugin>& found) const {
    std::error_code failure;
    std::vector<fs::path> manifests;
    std::set<std::string> libraries;
    fs::directory_iterator entry(folder, failure);
    for (size_t count = 0; !failure && entry != fs::directory_iterator(); ++count) {
        if (count >= folder_entries_max) {
            services_->log(log_level::warning,
                           "plugin folder {}: only the first {} files were read", folder.string(),
                           folder_entries_max);
            break;
        }
        const fs::path& path = entry->path();
        if (path.extension() == ".toml") manifests.push_back(path);
        if (path.extension() == ".so") libraries.insert(path.filename().string());
        entry.increment(failure);
    }
    std::sort(manifests.begin(), manifests.end());
    for (const fs::path& path : manifests) {
        found_plugin& one = found.emplace_back();
        one.manifest_path = path;
        one.name = path.stem().string();
        one.library_path = folder / (one.name + ".so");
        try {
            one.manifest = manifest_from_file(path);
            one.library_path = folder / one.manifest->library;
        } catch (const error& problem) {
            one.fault = problem.what();
        }
        libraries.erase(one.library_path.filename().string());
    }
    for (const std::string& library : libraries) {
        found_plugin& one = found.emplace_back();
        one.library_path = folder / library;
        one.name = one.library_path.stem().string();
        one.fault = fmt::format("{}: it has no manifest {}.toml beside it; write one with "
                                "sluice-plugin-check --manifest",
                                one.library_path.string(), one.name);
    }
}

std::vector<plugin_host::found_plugin> plugin_host::scan() const {
    std::vector<found_plugin> found;
    for (const fs::path& folder : folders_) scan_folder(folder, found);
    return found;
}

// What speaks against the plugin before any of its code is loaded; empty if nothing.
std::string plugin_host::manifest_fault(const found_plugin& found) const {
    if (!found.manifest) return found.fault;
    const plugin_manifest& manifest = *found.manifest;
    const std::string path = found.manifest_path.string();
    if (manifest.id != found.name) {
        return fmt::format("{}: the id is {}, but the manifest's stem is {}; they must be equal",
                           path, quote(manifest.id), quote(found.name));
    }
    if (manifest.platform != platform_name()) {
        return fmt::format("{}: the plugin is for {}, this host is {}", path,
                           quote(manifest.platform), platform_name());
    }
    if (manifest.abi_version != SLUICE_ABI_VERSION) {
        return fmt::format(
            "{}: the plugin was built for ABI {}, this host speaks {}; build it again "
            "with this host's headers",
            path, abi_version_text(manifest.abi_version), abi_version_text(SLUICE_ABI_VERSION));
    }
    if (is_draft_kind(manifest.kind) && !options_.allow_draft) {
        return fmt::format(
            "{}: plugins of kind {} are a draft; set allow_draft = true to load them", path,
            manifest.kind);
    }
    std::error_code ignored;
    if (!fs::exists(found.library_path, ignored)) {
        return fmt::format("{}: the library {} is not there", path, found.library_path.string());
    }
    return {};
}

plugin_candidate plugin_host::examine(const found_plugin& found, bool probe) {
    plugin_candidate candidate;
    candidate.manifest_path = found.manifest_path;
    candidate.library_path = found.library_path;
    candidate.id = found.name;
    if (found.manifest) {
        candidate.kind = found.manifest->kind;
        candidate.id = found.manifest->id;
        candidate.version = found.manifest->version;
        candidate.summary = found.manifest->summary;
    }
    candidate.reason = manifest_fault(found);
    if (!candidate.reason.empty()) return candidate;
    candidate.verdict = plugin_verdict::usable;
    if (!probe) return candidate;
    try {
        const plugin_library::probe_result result = load(found)->probe(services_);
        candidate.score = result.score;
        candidate.reason = result.reason;
        if (result.score == 0) candidate.verdict = plugin_verdict::unavailable;
    } catch (const error& failure) {
        candidate.reason = failure.what();
        candidate.verdict = plugin_verdict::rejected;
    }
    return candidate;
}

std::vector<plugin_candidate> plugin_host::candidates(bool probe) {
    std::vector<plugin_candidate> result;
    for (const found_plugin& found : scan()) {
        plugin_candidate candidate = examine(found, probe);
        for (const plugin_candidate& former : result) {
            if (former.id != candidate.id || former.kind != candidate.kind) continue;
            candidate.verdict = plugin_verdict::shadowed;
            candidate.reason = fmt::format(
                "{} was found first",
                (former.manifest_path.empty() ? former.library_path : former.manifest_path)
                    .string());
            break;
        }
        result.push_back(std::move(candidate));
    }
    return result;
}

// ---- Opening ----

plugin_host::library_pointer plugin_host::load(const found_plugin& found) {
    const fs::path path = fs::weakly_canonical(found.library_path);
    std::lock_guard lock(mutex_);
    library_pointer& library = libraries_[path];
    if (!library) library = std::make_shared<const plugin_library>(path, *found.manifest);
    return library;
}

void plugin_host::refuse_missing(std::string_view kind, std::string_view id,
                                 const std::vector<found_plugin>& found,
                                 const std::string& where) const {
    std::vector<std::string> names;
    for (const found_plugin& one : found) {
        if (one.name == id && one.manifest && one.manifest->kind != kind) {
            fail(SLUICE_INVALID, "{}{} is a plugin of kind {} ({}); expected one of kind {}", where,
                 quote(id), one.manifest->kind, one.manifest_path.string(), kind);
        }
        if (one.manifest && one.manifest->kind == kind) names.push_back(one.name);
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    std::string hint = did_you_mean(id, names);
    if (hint.empty()) {
        hint = names.empty() ? fmt::format("; there is no plugin of kind {} there", kind)
                             : fmt::format("; there are {}", join(names, ", "));
    }
    fail(SLUICE_UNAVAILABLE, "{}no plugin {} of kind {} was found; searched {}{}", where, quote(id),
         kind, folders_text(folders_), hint);
}

plugin_host::library_pointer plugin_host::find(std::string_view kind, std::string_view id,
                                               const std::string& where) {
    const std::vector<found_plugin> found = scan();
    for (const found_plugin& one : found) {
        // The first of that name counts, even if it is broken: to pass over it silently would run
        // something else than what stands there.
        if (one.name != id || (one.manifest && one.manifest->kind != kind)) continue;
        const std::string fault = manifest_fault(one);
        if (!fault.empty()) {
            fail(SLUICE_UNSUPPORTED, "{}the {} {} cannot be loaded: {}", where, kind, quote(id),
                 fault);
        }
        try {
            return load(one);
        } catch (const error& failure) {
            fail(failure.status(), "{}the {} {} cannot be loaded: {}", where, kind, quote(id),
                 failure.what());
        }
    }
    refuse_missing(kind, id, found, where);
}

void plugin_host::require_runnable(const plugin_library& library, const std::string& where) {
    const plugin_library::probe_result probe = library.probe(services_);
    if (probe.score > 0) return;
    const std::string& needs = library.manifest().needs;
    fail(SLUICE_UNAVAILABLE, "{}the {} {} cannot run on this machine: {}{}", where,
         library.manifest().kind, quote(library.manifest().id),
         probe.reason.empty() ? "its probe gave no reason" : probe.reason,
         needs.empty() ? "" : fmt::format(" (it needs {})", needs));
}

std::shared_ptr<plugin_instance> plugin_host::create(library_pointer library,
                                                     const configured_settings& settings) {
    const bound_settings bound(library->manifest(), settings);
    return std::shared_ptr<plugin_instance>(
        new plugin_instance(std::move(library), services_, bound, options_.checked));
}

std::shared_ptr<plugin_instance> plugin_host::open(std::string_view kind, std::string_view id,
                                                   const configured_settings& settings) {
    library_pointer library = find(kind, id, "");
    require_runnable(*library, "");
    return create(std::move(library), settings);
}

std::shared_ptr<plugin_instance> plugin_host::open(std::string_view kind, std::string_view id,
                                                   const configuration& configuration,
                                                   std::string_view key) {
    const std::string where = fmt::format("{}: ", configuration.where(key.empty() ? kind : key));
    library_pointer library = find(kind, id, where);
    require_runnable(*library, where);
    return create(std::move(library), configuration.settings_of(id));
}

// The instance, or none and the reason. Throws what no fallback should hide.
std::shared_ptr<plugin_instance> plugin_host::try_backend(const std::string& id,
                                                          const configuration& configuration,
                                                          const std::string& where,
                                                          std::string& reason) {
    library_pointer library;
    try {
        library = find(SLUICE_KIND_BACKEND, id, where);
        require_runnable(*library, where);
    } catch (const error& failure) {
        reason = failure.what();
        return nullptr;
    }
    const bound_settings bound(library->manifest(), configuration.settings_of(id));
    try {
        return std::shared_ptr<plugin_instance>(
            new plugin_instance(library, services_, bound, options_.checked));
    } catch (const error& failure) {
        if (!excuses_fallback(failure.status())) throw;
        reason = failure.what();
        return nullptr;
    }
}

std::shared_ptr<plugin_instance> plugin_host::open_backend(const configuration& configuration) {
    warn_of_unused_settings(configuration);
    if (configuration.backend_fallback.empty()) {
        return open(SLUICE_KIND_BACKEND, configuration.backend, configuration);
    }
    std::vector<std::string> ids = {configuration.backend};
    ids.insert(ids.end(), configuration.backend_fallback.begin(),
               configuration.backend_fallback.end());
    std::vector<std::string> reasons;
    for (size_t i = 0; i < ids.size(); ++i) {
        const std::string where =
            configuration.where(i == 0 ? "backend" : "backend_fallback") + ": ";
        std::string reason;
        if (auto instance = try_backend(ids[i], configuration, where, reason)) {
            if (i > 0) {
                services_->log(log_level::warning,
                               "the backend {} is used in place of {}, as backend_fallback says",
                               quote(ids[i]), quote(ids[0]));
            }
            return instance;
        }
        services_->log(log_level::warning, "{}", reason);
        reasons.push_back(std::move(reason));
    }
    fail(SLUICE_UNAVAILABLE, "neither the backend {} nor any of backend_fallback can run: {}",
         quote(ids[0]), join(reasons, "; "));
}

std::shared_ptr<plugin_instance> plugin_host::open_path(const fs::path& library_path,
                                                        const configured_settings& settings) {
    found_plugin found;
    found.library_path = fs::absolute(library_path).lexically_normal();
    found.name = found.library_path.stem().string();
    found.manifest_path = found.library_path;
    found.manifest_path.replace_extension(".toml");
    found.manifest = manifest_from_file(found.manifest_path);
    std::string fault = manifest_fault(found);
    if (fault.empty() && found.manifest->library != found.library_path.filename().string()) {
        fault = fmt::format("{}: it is the manifest of {}, not of {}", found.manifest_path.string(),
                            quote(found.manifest->library), found.library_path.filename().string());
    }
    if (!fault.empty()) fail(SLUICE_UNSUPPORTED, "{}", fault);
    library_pointer library = load(found);
    require_runnable(*library, "");
    return create(std::move(library), settings);
}

std::shared_ptr<plugin_instance>
plugin_host::open_built_in(const sluice_plugin_library& functions,
                           const std::function<void(sluice_plugin* created)>& prepare) {
    const std::shared_ptr<plugin_instance> instance =
        create(std::make_shared<const plugin_library>(functions), {});
    prepare(instance->created_);
    return instance;
}

void plugin_host::warn_of_unused_settings(const configuration& configuration) {
    if (configuration.settings.empty()) return;
    std::vector<std::string> names;
    for (const found_plugin& one : scan()) names.push_back(one.name);
    for (const auto& [id, settings] : configuration.settings) {
        if (std::find(names.begin(), names.end(), id) != names.end()) continue;
        services_->log(log_level::warning, "{}: [settings.{}]: no plugin of that name was found{}",
                       settings.origin.text(), id, did_you_mean(id, names));
    }
}

} // namespace sluice
