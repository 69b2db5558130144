#include "checks.hpp"
#include "elf_symbols.hpp"

#include "base/text.hpp"
#include "plugin/library_file.hpp"

#include <algorithm>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sluice::checker {
namespace {

std::string file_is_loadable(context& with) {
    const std::string fault = library_file_fault(with.options().library);
    require(fault.empty(), "{}", fault);
    return platform_name().data();
}

std::string only_entry_exported(context& with) {
    std::vector<std::string> others;
    bool entry = false;
    for (const auto& symbol : elf_dynamic_symbols(with.options().library)) {
        if (!symbol.defined) continue;
        if (symbol.name == SLUICE_PLUGIN_ENTRY_SYMBOL)
            entry = true;
        else
            others.push_back(symbol.name + (symbol.unique ? " (unique)" : ""));
    }
    require(entry, "{} is not exported", SLUICE_PLUGIN_ENTRY_SYMBOL);
    const size_t count = others.size();
    // Type information comes along by itself; what the author wrote says more.
    std::stable_partition(others.begin(), others.end(),
                          [](const std::string& name) { return !name.starts_with("_ZT"); });
    if (count > 5) others.resize(5);
    require(
        count == 0,
        "{} symbols besides {} are exported ({}{}); link with a version script \"{{ global: {}; "
        "local: *; }};\" and compile with -fno-gnu-unique",
        count, SLUICE_PLUGIN_ENTRY_SYMBOL, join(others, ", "), count > 5 ? ", ..." : "",
        SLUICE_PLUGIN_ENTRY_SYMBOL);
    return {};
}

std::string no_host_symbols(context& with) {
    for (const auto& symbol : elf_dynamic_symbols(with.options().library))
        require(symbol.defined || symbol.name.find("sluice") == std::string::npos,
                "it wants the symbol {} from its host; hosts export none, services come through "
                "sluice_host",
                symbol.name);
    return {};
}

std::string entry_repeats(context& with) {
    const raw_library& library = with.raw();
    require(library.enter() == &library.table() && library.enter() == &library.table(),
            "{} does not answer the same table each time", SLUICE_PLUGIN_ENTRY_SYMBOL);
    return {};
}

std::string negotiates(context& with) {
    const raw_library& library = with.raw();
    library.negotiate();
    const uint32_t own = library.table().abi_version;
    require(own == SLUICE_ABI_VERSION, "it was built against ABI {}, this checker speaks {}",
            abi_version_text(own), abi_version_text(SLUICE_ABI_VERSION));
    struct range {
        const char* name;
        uint32_t min, max;
    };
    const range refused[] = {{"later", own + 1, UINT32_MAX}, {"earlier", 0, own - 1}};
    for (const auto& [name, min, max] : refused) {
        uint32_t version = 0;
        auto error = SLUICE_INIT(sluice_error);
        const sluice_status status = library.table().negotiate(min, max, &version, &error);
        require(status != SLUICE_OK, "it takes the range {} to {}, which holds only {} versions",
                abi_version_text(min), abi_version_text(max), name);
        require(SLUICE_STATUS_CLASS(status) == SLUICE_UNSUPPORTED,
                "it refuses {} versions with '{}', expected 'unsupported'", name,
                status_name(status));
        require(error.message[0] != '\0', "it refuses {} versions without a reason", name);
        require(library.table().negotiate(min, max, &version, nullptr) == status,
                "without an error record it answers another status");
    }
    return {};
}

std::string descriptor_is_sound(context& with) {
    // manifest_of checks every text, number and setting of it.
    const plugin_manifest manifest = with.raw().manifest();
    const std::string stem = with.options().library.stem().string();
    require(manifest.id == stem, "its id is '{}', its file's name '{}'; they must agree",
            manifest.id, stem);
    require(!extension_of_kind(manifest.kind).empty(), "its kind '{}' is not known", manifest.kind);
    return fmt::format("{} {} {}", manifest.kind, manifest.id, manifest.version);
}

std::string manifest_agrees(context& with) {
    std::filesystem::path path = with.options().library;
    path.replace_extension(".toml");
    require(std::filesystem::exists(path),
            "there is no {}; write it with sluice-plugin-check --manifest {} > {}",
            path.filename().string(), with.options().library.filename().string(),
            path.filename().string());
    const plugin_manifest written = manifest_from_file(path);
    const std::string difference = manifest_difference(written, with.raw().manifest());
    require(difference.empty(), "{}", difference);
    const plugin_manifest again = manifest_from_text(manifest_text(written), "the manifest");
    require(again.settings == written.settings && again.id == written.id,
            "it does not survive being written and read");
    return {};
}

std::string extensions_answer(context& with) {
    const raw_library& library = with.raw();
    const plugin_manifest manifest = library.manifest();
    for (const auto& id : manifest.extensions)
        require(library.table().extension({id.data(), id.size()}) != nullptr,
                "it lists the extension {} but answers NULL for it", id);
    const std::string_view wanted = extension_of_kind(manifest.kind);
    checked_tables(manifest.kind, library.table().extension({wanted.data(), wanted.size()}));
    constexpr std::string_view unknown = "nobody.nothing/7";
    require(library.table().extension({unknown.data(), unknown.size()}) == nullptr,
            "it answers a table for the unknown extension {}", unknown);
    require(library.table().extension({nullptr, 0}) == nullptr,
            "it answers a table for an empty extension id");
    return {};
}

std::string probes(context& with) {
    const raw_library& library = with.raw();
    if (!SLUICE_HAS_FIELD(sluice_plugin_library, &library.table(), probe)
        || library.table().probe == nullptr)
        skip_check("it has no probe");
    const host_table host(with.services(), library.manifest().id);
    auto report = SLUICE_INIT(sluice_probe_report);
    auto error = SLUICE_INIT(sluice_error);
    const sluice_status status = library.table().probe(host.get(), &report, &error);
    require(status == SLUICE_OK, "the probe failed: {}",
            text_of_array(error.message, sizeof error.message));
    const std::string reason = text_of_array(report.reason, sizeof report.reason);
    require(report.score != 0 || !reason.empty(), "it cannot run here, and does not say why");
    return fmt::format("score {}{}{}", report.score, reason.empty() ? "" : ", ", reason);
}

std::string lives_twice(context& with) {
    const auto services = with.services();
    { const raw_instance first(with.raw(), services); }
    const raw_instance second(with.raw(), services);
    const raw_instance third(with.raw(), with.services());
    require(second.handle() != third.handle(), "two instances share one handle");
    return {};
}

std::string wrong_settings_refused(context& with) {
    const raw_library& library = with.raw();
    const host_table host(with.services(), library.manifest().id);
    const uint32_t declared = static_cast<uint32_t>(library.manifest().settings.size());
    auto setting = SLUICE_INIT(sluice_setting);
    const std::vector<const sluice_setting*> entries(declared + 1, &setting);
    auto settings = SLUICE_INIT(sluice_settings);
    settings.count = declared + 1;
    settings.settings = entries.data();
    sluice_plugin* plugin = nullptr;
    auto error = SLUICE_INIT(sluice_error);
    const sluice_status status = library.table().create(host.get(), &settings, &plugin, &error);
    if (status == SLUICE_OK) {
        library.table().destroy(plugin);
        fail_check("create takes {} settings where {} are declared", declared + 1, declared);
    }
    require(error.message[0] != '\0', "create refuses a wrong number of settings without a reason");
    require(library.table().create(host.get(), &settings, &plugin, nullptr) == status,
            "without an error record create answers another status");
    return {};
}

// Error records of other sizes: what lies beyond struct_size is not the callee's.
std::string error_records_respected(context& with) {
    const raw_library& library = with.raw();
    for (const uint32_t size : {8U, 9U, 24U, 200U}) {
        auto error = SLUICE_INIT(sluice_error);
        std::memset(error.message, 'x', sizeof error.message);
        error.struct_size = size;
        uint32_t version = 0;
        library.table().negotiate(0, 0, &version, &error);
        require(error.struct_size == size, "it changed struct_size of an error record");
        require(error.status != SLUICE_OK, "it did not fill in the status of an error record");
        const size_t room = size - offsetof(sluice_error, message);
        require(room == 0 || std::memchr(error.message, '\0', room) != nullptr,
                "its message does not end within an error record of {} bytes", size);
        for (size_t i = room; i < sizeof error.message; ++i)
            require(error.message[i] == 'x', "it wrote beyond an error record of {} bytes", size);
    }
    return {};
}

std::string settings_within_bounds(context& with) {
    const raw_library& library = with.raw();
    const auto variants = settings_variants(library.manifest());
    if (variants.empty()) skip_check("it has required settings, whose values only its user knows");
    const host_table host(with.services(), library.manifest().id);
    size_t refused = 0;
    for (const auto& variant : variants) {
        const bound_settings bound(library.manifest(), variant.settings);
        sluice_plugin* plugin = nullptr;
        auto error = SLUICE_INIT(sluice_error);
        const sluice_status status =
            library.table().create(host.get(), bound.get(), &plugin, &error);
        if (status == SLUICE_OK) {
            library.table().destroy(plugin);
            continue;
        }
        ++refused;
        // A value within the declared bounds may still be wrong, too much or impossible here.
        require(SLUICE_STATUS_CLASS(status) != SLUICE_INTERNAL && error.message[0] != '\0',
                "create with {} failed ({}): {}", variant.name, status_name(status),
                text_of_array(error.message, sizeof error.message));
    }
    return fmt::format("{} variants, {} refused with a reason", variants.size(), refused);
}

// Standard output, caught in memory while the object lives.
class caught_output {
  public:
    caught_output() : memory_(memfd_create("output", 0)), saved_(dup(STDOUT_FILENO)) {
        std::fflush(stdout);
        dup2(memory_, STDOUT_FILENO);
    }
    ~caught_output() {
        std::fflush(stdout);
        dup2(saved_, STDOUT_FILENO);
        close(saved_);
        close(memory_);
    }
    int64_t size() const {
        std::fflush(stdout);
        struct stat status {};
        return fstat(memory_, &status) == 0 ? status.st_size : 0;
    }

  private:
    int memory_;
    int saved_;
};

std::string silent(context& with) {
    const caught_output output;
    {
        const auto services = with.services();
        const raw_instance instance(with.raw(), services);
    }
    require(output.size() == 0, "it wrote {} bytes to standard output; use the host's log",
            output.size());
    return {};
}

size_t thread_count() {
    size_t count = 0;
    for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator("/proc/self/task"))
        ++count;
    return count;
}

std::string brings_no_threads(context& with) {
    const raw_library& library = with.raw();
    const auto services = with.services();
    services->workers(); // the team's own threads are there from here on
    const size_t before = thread_count();
    const raw_instance instance(library, services);
    const size_t after = thread_count();
    const uint32_t declared = library.manifest().thread_count;
    const size_t started = after > before ? after - before : 0;
    require(started <= declared,
            "creating it started {} threads, its descriptor declares {}; use the host's team",
            started, declared);
    return {};
}

std::string host_opens(context& with) {
    with.plugin();
    return {};
}

} // namespace

std::vector<check> library_checks() {
    return {{"library: file", file_is_loadable},
            {"library: exported symbols", only_entry_exported},
            {"library: wants no symbol of the host", no_host_symbols},
            {"library: entry", entry_repeats},
            {"library: negotiation", negotiates},
            {"library: descriptor", descriptor_is_sound},
            {"library: manifest", manifest_agrees},
            {"library: extensions", extensions_answer},
            {"library: probe", probes},
            {"library: instances", lives_twice},
            {"library: wrong settings", wrong_settings_refused},
            {"library: error records", error_records_respected},
            {"library: settings within bounds", settings_within_bounds},
            {"library: standard output", silent},
            {"library: threads", brings_no_threads},
            {"library: host", host_opens}};
}

} // namespace sluice::checker
