#include "context.hpp"

#include "report.hpp"

#include <dlfcn.h>

namespace sluice::checker {

raw_library::raw_library(const std::filesystem::path& path) : path_(path) {
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        const char* const why = dlerror();
        fail_check("the system cannot load it: {}", why != nullptr ? why : "no reason given");
    }
    entry_ =
        reinterpret_cast<sluice_plugin_entry_function>(dlsym(handle, SLUICE_PLUGIN_ENTRY_SYMBOL));
    require(entry_ != nullptr, "it does not export {}", SLUICE_PLUGIN_ENTRY_SYMBOL);
    table_ = entry_();
    require(table_ != nullptr, "{} answered NULL", SLUICE_PLUGIN_ENTRY_SYMBOL);
    require(SLUICE_HAS_FIELD(sluice_plugin_library, table_, extension),
            "the library's table has struct_size {}, too small for its required members",
            table_->struct_size);
    require(table_->negotiate != nullptr && table_->descriptor != nullptr
                && table_->create != nullptr && table_->destroy != nullptr
                && table_->extension != nullptr,
            "the library's table lacks a required member: negotiate, descriptor, create, destroy "
            "and extension must not be NULL");
}

void raw_library::negotiate() const {
    uint32_t version = 0;
    auto error = SLUICE_INIT(sluice_error);
    const sluice_status status =
        table_->negotiate(SLUICE_ABI_VERSION, SLUICE_ABI_VERSION, &version, &error);
    require(status == SLUICE_OK, "it refuses ABI {}: {}", abi_version_text(SLUICE_ABI_VERSION),
            text_of_array(error.message, sizeof error.message));
    require(version == SLUICE_ABI_VERSION, "asked for ABI {}, it answered {}",
            abi_version_text(SLUICE_ABI_VERSION), abi_version_text(version));
}

plugin_manifest raw_library::manifest() const {
    return manifest_of(*table_, path_.filename().string());
}

raw_instance::raw_instance(const raw_library& library, std::shared_ptr<host_services> services,
                           const configured_settings& settings)
    : library_(library), host_(std::move(services), library.manifest().id) {
    const bound_settings bound(library.manifest(), settings);
    auto error = SLUICE_INIT(sluice_error);
    const sluice_status status = library.table().create(host_.get(), bound.get(), &handle_, &error);
    if (SLUICE_STATUS_CLASS(status) == SLUICE_UNAVAILABLE)
        skip_check("not available here: {}", text_of_array(error.message, sizeof error.message));
    require(status == SLUICE_OK, "create failed ({}): {}", status_name(status),
            text_of_array(error.message, sizeof error.message));
    require(handle_ != nullptr, "create answered OK without an instance");
}

raw_instance::~raw_instance() {
    if (handle_ != nullptr) library_.table().destroy(handle_);
}

const raw_library& context::raw() {
    if (raw_ == nullptr) {
        raw_ = std::make_unique<raw_library>(options_.library);
        raw_->negotiate();
    }
    return *raw_;
}

std::shared_ptr<host_services> context::services(uint32_t worker_count) {
    host_options options;
    options.worker_count = worker_count;
    options.allow_draft = true;
    options.on_log = [](log_level, std::string_view) {};
    return std::make_shared<host_services>(std::move(options));
}

std::shared_ptr<plugin_instance> context::open_path(const std::filesystem::path& library,
                                                    const configured_settings& settings,
                                                    uint32_t worker_count) {
    plugin_host_options options;
    options.use_install_folder = false;
    options.allow_draft = true;
    plugin_host host(services(worker_count), std::move(options));
    return host.open_path(library, settings);
}

std::shared_ptr<plugin_instance> context::open(const configured_settings& settings,
                                               uint32_t worker_count) {
    return open_path(options_.library, settings, worker_count);
}

plugin_instance& context::plugin() {
    if (plugin_ == nullptr) plugin_ = open(options_.settings);
    return *plugin_;
}

plugin_instance& context::oracle() {
    if (options_.oracle.empty())
        skip_check("the reference backend was not found beside the plugin; give it with --oracle");
    if (oracle_ == nullptr) oracle_ = open_path(options_.oracle, {}, 2);
    return *oracle_;
}

std::mt19937_64 context::random(std::string_view purpose) const {
    // FNV-1a: the same in every standard library, unlike std::hash.
    uint64_t mixed = 14695981039346656037ULL ^ options_.seed;
    for (const char c : purpose) {
        mixed ^= static_cast<unsigned char>(c);
        mixed *= 1099511628211ULL;
    }
    return std::mt19937_64(mixed);
}

configured_settings one_setting(const std::string& name,
                                std::variant<bool, int64_t, double, std::string> value) {
    configured_settings settings;
    settings.folder = std::filesystem::current_path();
    std::visit([&](auto& held) { settings.values[name].value = std::move(held); }, value);
    return settings;
}

std::vector<settings_variant> settings_variants(const plugin_manifest& manifest) {
    std::vector<settings_variant> variants;
    for (const auto& setting : manifest.settings)
        if (setting.required) return variants;
    variants.push_back({"the defaults", {}});
    for (const auto& setting : manifest.settings) {
        const auto add = [&](const std::string& shown, auto value) {
            variants.push_back({fmt::format("{} = {}", setting.name, shown),
                                one_setting(setting.name, std::move(value))});
        };
        if (setting.type == SLUICE_SETTING_BOOLEAN) {
            const bool flipped = setting.default_integer == 0;
            add(flipped ? "true" : "false", flipped);
        }
        for (const auto& choice : setting.choices)
            if (choice != setting.default_text) add('"' + choice + '"', choice);
        if (setting.type == SLUICE_SETTING_INTEGER && setting.integer_min != setting.integer_max)
            for (const int64_t bound : {setting.integer_min, setting.integer_max})
                if (bound != setting.default_integer) add(std::to_string(bound), bound);
    }
    return variants;
}

} // namespace sluice::checker
