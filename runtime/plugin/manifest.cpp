#include "plugin/manifest.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "config/toml_document.hpp"
#include "plugin/plugin_call.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sluice {

namespace {

constexpr uint32_t format_version_known = 1;
constexpr size_t setting_count_max = 256;
constexpr size_t extension_count_max = 64;
constexpr size_t choice_count_max = 64;
constexpr size_t default_text_count_max = 64;
constexpr size_t word_bytes_max = 200;
constexpr size_t sentence_bytes_max = 1000;

const std::vector<std::string> type_names = {"boolean", "integer", "number",
                                             "text",    "path",    "text_list"};
const std::vector<std::string> kind_names = {SLUICE_KIND_BACKEND,      SLUICE_KIND_ROUTER,
                                             SLUICE_KIND_QUANTIZER,    SLUICE_KIND_BLOCK_STORE,
                                             SLUICE_KIND_RESULT_CACHE, SLUICE_KIND_STAGE};

bool is_identifier(std::string_view text) {
    if (text.empty() || text.size() > 64 || text[0] < 'a' || text[0] > 'z') return false;
    return std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    });
}

template <typename Value>
Value required(const toml_table_reader& reader, std::string_view key, std::optional<Value> value) {
    if (!value) reader.refuse_missing(key, "it in every manifest");
    return std::move(*value);
}

uint32_t read_abi_version(toml_table_reader& reader) {
    const std::string text = required(reader, "abi_version", reader.text("abi_version"));
    const std::vector<std::string> parts = split(text, '.');
    if (parts.size() == 2) {
        const auto major = parse_integer(parts[0]);
        const auto minor = parse_integer(parts[1]);
        if (major && minor && *major >= 0 && *major < 65536 && *minor >= 0 && *minor < 65536) {
            return SLUICE_ABI_VERSION_MAKE(*major, *minor);
        }
    }
    reader.refuse("abi_version",
                  fmt::format("expected \"major.minor\", found the text {}", quote(text)));
}

// The rules that hold for a schema wherever it comes from. `where` stands before the message.
void check_schema(const setting_schema& setting, const std::string& where) {
    if (!is_identifier(setting.name)) {
        fail(SLUICE_INVALID,
             "{}: setting name {}: expected [a-z][a-z0-9_-]* of at most 64 characters", where,
             quote(setting.name));
    }
    const auto refuse = [&](std::string_view message) {
        fail(SLUICE_INVALID, "{}: setting {}: {}", where, setting.name, message);
    };
    if (setting.type < SLUICE_SETTING_BOOLEAN || setting.type > SLUICE_SETTING_TEXT_LIST) {
        refuse(fmt::format("type {} is unknown; expected SLUICE_SETTING_*", setting.type));
    }
    if (setting.integer_min > setting.integer_max || setting.number_min > setting.number_max
        || !std::isfinite(setting.number_min) || !std::isfinite(setting.number_max)
        || !std::isfinite(setting.default_number)) {
        refuse("its bounds or default are not finite and in order");
    }
    if (setting.required) return;
    if (setting.type == SLUICE_SETTING_INTEGER && (setting.integer_min | setting.integer_max) != 0
        && (setting.default_integer < setting.integer_min
            || setting.default_integer > setting.integer_max)) {
        refuse(fmt::format("its default {} is out of its bounds {} to {}", setting.default_integer,
                           setting.integer_min, setting.integer_max));
    }
    if (setting.type == SLUICE_SETTING_NUMBER
        && (setting.number_min != 0 || setting.number_max != 0)
        && (setting.default_number < setting.number_min
            || setting.default_number > setting.number_max)) {
        refuse(fmt::format("its default {} is out of its bounds {} to {}", setting.default_number,
                           setting.number_min, setting.number_max));
    }
    if (setting.type == SLUICE_SETTING_TEXT && !setting.choices.empty()
        && std::find(setting.choices.begin(), setting.choices.end(), setting.default_text)
               == setting.choices.end()) {
        refuse(fmt::format("its default {} is none of its choices", quote(setting.default_text)));
    }
}

void check_schemas(const std::vector<setting_schema>& settings, const std::string& where) {
    for (size_t i = 0; i < settings.size(); ++i) {
        check_schema(settings[i], where);
        for (size_t j = 0; j < i; ++j) {
            if (settings[j].name == settings[i].name) {
                fail(SLUICE_INVALID, "{}: setting {} is described twice", where, settings[i].name);
            }
        }
    }
}

setting_schema read_setting(const toml_node& table) {
    toml_table_reader reader(table, "setting");
    setting_schema setting;
    setting.name = required(reader, "name", reader.text("name", word_bytes_max));
    const std::string type = required(reader, "type", reader.choice("type", type_names));
    setting.type = static_cast<uint32_t>(std::find(type_names.begin(), type_names.end(), type)
                                         - type_names.begin() + 1);
    setting.help = reader.text("help", sentence_bytes_max).value_or("");
    setting.required = reader.boolean("required").value_or(false);
    constexpr int64_t lowest = std::numeric_limits<int64_t>::min();
    constexpr int64_t highest = std::numeric_limits<int64_t>::max();
    constexpr double number_lowest = std::numeric_limits<double>::lowest();
    constexpr double number_highest = std::numeric_limits<double>::max();
    switch (setting.type) {
    case SLUICE_SETTING_BOOLEAN:
        setting.default_integer = reader.boolean("default").value_or(false) ? 1 : 0;
        break;
    case SLUICE_SETTING_INTEGER:
        setting.default_integer = reader.integer("default", lowest, highest).value_or(0);
        setting.integer_min = reader.integer("minimum", lowest, highest).value_or(0);
        setting.integer_max = reader.integer("maximum", lowest, highest).value_or(0);
        break;
    case SLUICE_SETTING_NUMBER:
        setting.default_number =
            reader.number("default", number_lowest, number_highest).value_or(0);
        setting.number_min = reader.number("minimum", number_lowest, number_highest).value_or(0);
        setting.number_max = reader.number("maximum", number_lowest, number_highest).value_or(0);
        break;
    case SLUICE_SETTING_TEXT:
    case SLUICE_SETTING_PATH:
        setting.default_text = reader.text("default", sentence_bytes_max).value_or("");
        setting.choices =
            reader.texts("choices", choice_count_max, word_bytes_max).value_or(setting.choices);
        break;
    default:
        setting.default_texts = reader.texts("default", default_text_count_max, sentence_bytes_max)
                                    .value_or(setting.default_texts);
        break;
    }
    reader.finish();
    return setting;
}

// A plain file name: the library lies beside its manifest, wherever a manifest would like it.
void check_library_name(const toml_table_reader& reader, const std::string& library) {
    if (library.empty() || library[0] == '.' || library.find('/') != std::string::npos
        || library.find('\0') != std::string::npos) {
        reader.refuse("library", fmt::format("expected a file name without folders, found {}",
                                             quote(library)));
    }
}

plugin_manifest read_manifest(const toml_node& document) {
    toml_table_reader reader(document, "");
    plugin_manifest manifest;
    const int64_t version =
        required(reader, "format_version", reader.integer("format_version", 1, 1 << 20));
    if (version != format_version_known) {
        reader.refuse("format_version",
                      fmt::format("this host reads format {}, found {}; use a newer "
                                  "host, or write the manifest again with "
                                  "sluice-plugin-check --manifest",
                                  format_version_known, version));
    }
    manifest.id = required(reader, "id", reader.text("id", word_bytes_max));
    if (!is_identifier(manifest.id)) {
        reader.refuse("id",
                      fmt::format("expected [a-z][a-z0-9_-]* of at most 64 characters, found {}",
                                  quote(manifest.id)));
    }
    manifest.kind = required(reader, "kind", reader.choice("kind", kind_names));
    manifest.version = required(reader, "version", reader.text("version", word_bytes_max));
    manifest.abi_version = read_abi_version(reader);
    manifest.library = required(reader, "library", reader.text("library", word_bytes_max));
    check_library_name(reader, manifest.library);
    manifest.platform = required(reader, "platform", reader.text("platform", word_bytes_max));
    manifest.summary = reader.text("summary", sentence_bytes_max).value_or("");
    manifest.license = reader.text("license", word_bytes_max).value_or("");
    manifest.needs = reader.text("needs", sentence_bytes_max).value_or("");
    manifest.thread_count =
        static_cast<uint32_t>(reader.integer("thread_count", 0, 65536).value_or(0));
    manifest.extensions = reader.texts("extensions", extension_count_max, word_bytes_max)
                              .value_or(std::vector<std::string>{});
    if (const std::vector<toml_node>* settings = reader.tables("setting")) {
        if (settings->size() > setting_count_max) {
            reader.refuse("setting", fmt::format("expected at most {} settings, found {}",
                                                 setting_count_max, settings->size()));
        }
        for (const toml_node& setting : *settings) {
            manifest.settings.push_back(read_setting(setting));
            check_schema(manifest.settings.back(), setting.origin.text());
        }
    }
    reader.finish();
    check_schemas(manifest.settings, document.origin.file);
    return manifest;
}

std::string toml_string(std::string_view text) {
    std::string result = "\"";
    for (char c : text) {
        const auto byte = static_cast<uint8_t>(c);
        if (c == '"' || c == '\\')
            result += {'\\', c};
        else if (byte < 0x20 || byte == 0x7f)
            result += fmt::format("\\u{:04x}", byte);
        else
            result += c;
    }
    return result + '"';
}

std::string toml_strings(const std::vector<std::string>& texts) {
    std::vector<std::string> quoted;
    for (const std::string& text : texts) quoted.push_back(toml_string(text));
    return fmt::format("[{}]", join(quoted, ", "));
}

// TOML tells numbers from integers by the point.
std::string toml_number(double number) {
    std::string text = fmt::format("{}", number);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
}

std::string setting_text(const setting_schema& setting) {
    std::string text =
        fmt::format("\n[[setting]]\nname = {}\ntype = {}\nhelp = {}\n", toml_string(setting.name),
                    toml_string(setting_type_name(setting.type)), toml_string(setting.help));
    const bool has_default = !setting.required;
    if (setting.required) text += "required = true\n";
    switch (setting.type) {
    case SLUICE_SETTING_BOOLEAN:
        if (has_default) text += fmt::format("default = {}\n", setting.default_integer != 0);
        break;
    case SLUICE_SETTING_INTEGER:
        if (has_default) text += fmt::format("default = {}\n", setting.default_integer);
        if ((setting.integer_min | setting.integer_max) != 0) {
            text += fmt::format("minimum = {}\nmaximum = {}\n", setting.integer_min,
                                setting.integer_max);
        }
        break;
    case SLUICE_SETTING_NUMBER:
        if (has_default) text += fmt::format("default = {}\n", toml_number(setting.default_number));
        if (setting.number_min != 0 || setting.number_max != 0) {
            text += fmt::format("minimum = {}\nmaximum = {}\n", toml_number(setting.number_min),
                                toml_number(setting.number_max));
        }
        break;
    case SLUICE_SETTING_TEXT_LIST:
        if (has_default) text += fmt::format("default = {}\n", toml_strings(setting.default_texts));
        break;
    default:
        if (has_default) text += fmt::format("default = {}\n", toml_string(setting.default_text));
        if (!setting.choices.empty()) {
            text += fmt::format("choices = {}\n", toml_strings(setting.choices));
        }
    }
    return text;
}

// ---- From the descriptor ----

std::string word(sluice_text text, std::string_view what, size_t limit) {
    if (text.size > limit) {
        fail(SLUICE_INVALID, "descriptor: {} has {} bytes; expected at most {}", what, text.size,
             limit);
    }
    if (text.size > 0 && text.data == nullptr) {
        fail(SLUICE_INVALID, "descriptor: {} is NULL, with a size of {}", what, text.size);
    }
    if (text.size > 0 && !is_utf8({text.data, static_cast<size_t>(text.size)})) {
        fail(SLUICE_INVALID, "descriptor: {} is not UTF-8", what);
    }
    return text_of(text, limit);
}

// Empty where the plugin was built before lists had defaults.
std::vector<std::string> default_texts_of(const sluice_setting_description& description,
                                          std::string_view name) {
    if (!SLUICE_HAS_FIELD(sluice_setting_description, &description, default_text_count)) return {};
    const uint32_t count = description.default_text_count;
    if (count > default_text_count_max || (count > 0 && description.default_texts == nullptr)) {
        fail(SLUICE_INVALID,
             "descriptor: setting {}: a default of {} texts; expected at most {}, and an array of "
             "them",
             name, count, default_text_count_max);
    }
    std::vector<std::string> texts;
    for (uint32_t i = 0; i < count; ++i) {
        texts.push_back(
            word(description.default_texts[i], "default of a setting", sentence_bytes_max));
    }
    return texts;
}

setting_schema schema_of(const sluice_setting_description* description, uint32_t index) {
    if (description == nullptr
        || !SLUICE_HAS_FIELD(sluice_setting_description, description, required)) {
        fail(SLUICE_INVALID, "descriptor: setting {} is NULL or its struct_size is {}; expected {}",
             index, description == nullptr ? 0 : description->struct_size,
             sizeof(sluice_setting_description));
    }
    setting_schema setting;
    setting.name =
        word(description->name, fmt::format("name of setting {}", index), word_bytes_max);
    setting.type = description->type;
    setting.help = word(description->help, "help of a setting", sentence_bytes_max);
    setting.required = description->required != 0;
    // Only what the type uses, so that a manifest written and read again says the same.
    const uint32_t type = setting.type;
    if (type == SLUICE_SETTING_INTEGER) {
        setting.integer_min = description->integer_min;
        setting.integer_max = description->integer_max;
    } else if (type == SLUICE_SETTING_NUMBER) {
        setting.number_min = description->number_min;
        setting.number_max = description->number_max;
    } else if (type == SLUICE_SETTING_TEXT || type == SLUICE_SETTING_PATH) {
        if (description->choice_count > choice_count_max
            || (description->choice_count > 0 && description->choices == nullptr)) {
            fail(SLUICE_INVALID, "descriptor: setting {}: {} choices; expected at most {}",
                 setting.name, description->choice_count, choice_count_max);
        }
        for (uint32_t i = 0; i < description->choice_count; ++i) {
            setting.choices.push_back(word(description->choices[i], "a choice", word_bytes_max));
        }
    }
    if (!setting.required) {
        if (type == SLUICE_SETTING_INTEGER) setting.default_integer = description->default_integer;
        if (type == SLUICE_SETTING_BOOLEAN) {
            setting.default_integer = description->default_integer != 0 ? 1 : 0;
        }
        if (type == SLUICE_SETTING_NUMBER) setting.default_number = description->default_number;
        if (type == SLUICE_SETTING_TEXT || type == SLUICE_SETTING_PATH) {
            setting.default_text =
                word(description->default_text, "default of a setting", sentence_bytes_max);
        }
        if (type == SLUICE_SETTING_TEXT_LIST) {
            setting.default_texts = default_texts_of(*description, setting.name);
        }
    }
    check_schema(setting, "descriptor");
    return setting;
}

const sluice_plugin_descriptor& descriptor_of(const sluice_plugin_library& library) {
    const sluice_plugin_descriptor* descriptor = library.descriptor();
    if (descriptor == nullptr) fail(SLUICE_INVALID, "descriptor() answered NULL");
    if (!SLUICE_HAS_FIELD(sluice_plugin_descriptor, descriptor, extensions)) {
        fail(SLUICE_INVALID, "descriptor: struct_size is {}; expected at least {}",
             descriptor->struct_size, sizeof(sluice_plugin_descriptor));
    }
    if (descriptor->setting_count > setting_count_max
        || (descriptor->setting_count > 0 && descriptor->settings == nullptr)) {
        fail(SLUICE_INVALID, "descriptor: {} settings; expected at most {}, and an array of them",
             descriptor->setting_count, setting_count_max);
    }
    if (descriptor->extension_count > extension_count_max
        || (descriptor->extension_count > 0 && descriptor->extensions == nullptr)) {
        fail(SLUICE_INVALID, "descriptor: {} extensions; expected at most {}, and an array of them",
             descriptor->extension_count, extension_count_max);
    }
    return *descriptor;
}

std::string list_difference(const std::vector<std::string>& manifest,
                            const std::vector<std::string>& library) {
    return fmt::format("{} in the manifest, {} in the library", toml_strings(manifest),
                       toml_strings(library));
}

} // namespace

std::string_view setting_type_name(uint32_t type) {
    if (type < 1 || type > type_names.size()) return "unknown";
    return type_names[type - 1];
}

std::string_view platform_name() {
#if defined(__x86_64__)
    return "linux-x86_64";
#elif defined(__aarch64__)
    return "linux-aarch64";
#else
    return "linux-other";
#endif
}

std::string abi_version_text(uint32_t abi_version) {
    return fmt::format("{}.{}", abi_version >> 16, abi_version & 0xffff);
}

plugin_manifest manifest_from_file(const std::filesystem::path& path) {
    return read_manifest(toml_parse_file(path));
}

plugin_manifest manifest_from_text(std::string_view text, std::string_view name) {
    return read_manifest(toml_parse(text, name));
}

plugin_manifest manifest_of(const sluice_plugin_library& library, std::string_view library_file) {
    const sluice_plugin_descriptor& descriptor = descriptor_of(library);
    plugin_manifest manifest;
    manifest.id = word(descriptor.id, "id", word_bytes_max);
    if (!is_identifier(manifest.id)) {
        fail(SLUICE_INVALID,
             "descriptor: id {}: expected [a-z][a-z0-9_-]* of at most 64 characters",
             quote(manifest.id));
    }
    manifest.kind = word(descriptor.kind, "kind", word_bytes_max);
    if (std::find(kind_names.begin(), kind_names.end(), manifest.kind) == kind_names.end()) {
        fail(SLUICE_INVALID, "descriptor: kind {}: expected one of {}{}", quote(manifest.kind),
             join(kind_names, ", "), did_you_mean(manifest.kind, kind_names));
    }
    manifest.version = word(descriptor.version, "version", word_bytes_max);
    manifest.abi_version = library.abi_version;
    manifest.summary = word(descriptor.summary, "summary", sentence_bytes_max);
    manifest.license = word(descriptor.license, "license", word_bytes_max);
    manifest.needs = word(descriptor.needs, "needs", sentence_bytes_max);
    manifest.thread_count = descriptor.thread_count;
    manifest.library = library_file;
    manifest.platform = platform_name();
    for (uint32_t i = 0; i < descriptor.extension_count; ++i) {
        manifest.extensions.push_back(
            word(descriptor.extensions[i], "id of an extension", word_bytes_max));
    }
    for (uint32_t i = 0; i < descriptor.setting_count; ++i) {
        manifest.settings.push_back(schema_of(descriptor.settings[i], i));
    }
    check_schemas(manifest.settings, "descriptor");
    return manifest;
}

std::string manifest_text(const plugin_manifest& manifest) {
    std::string text = fmt::format(
        "# Written by sluice-plugin-check --manifest; the host compares it with the library.\n"
        "format_version = {}\nid = {}\nkind = {}\nversion = {}\nabi_version = {}\nlibrary = {}\n"
        "platform = {}\nsummary = {}\nlicense = {}\nneeds = {}\nthread_count = {}\n"
        "extensions = {}\n",
        manifest.format_version, toml_string(manifest.id), toml_string(manifest.kind),
        toml_string(manifest.version), toml_string(abi_version_text(manifest.abi_version)),
        toml_string(manifest.library), toml_string(manifest.platform),
        toml_string(manifest.summary), toml_string(manifest.license), toml_string(manifest.needs),
        manifest.thread_count, toml_strings(manifest.extensions));
    for (const setting_schema& setting : manifest.settings) text += setting_text(setting);
    return text;
}

std::string manifest_difference(const plugin_manifest& manifest, const plugin_manifest& library) {
    const auto differ = [](std::string_view what, std::string_view mine, std::string_view its) {
        return mine == its ? std::string()
                           : fmt::format("{} is {} in the manifest, {} in the library", what,
                                         quote(mine), quote(its));
    };
    for (std::string difference :
         {differ("id", manifest.id, library.id), differ("kind", manifest.kind, library.kind),
          differ("version", manifest.version, library.version),
          differ("abi_version", abi_version_text(manifest.abi_version),
                 abi_version_text(library.abi_version)),
          differ("summary", manifest.summary, library.summary),
          differ("license", manifest.license, library.license),
          differ("needs", manifest.needs, library.needs)}) {
        if (!difference.empty()) return difference;
    }
    if (manifest.thread_count != library.thread_count) {
        return fmt::format("thread_count is {} in the manifest, {} in the library",
                           manifest.thread_count, library.thread_count);
    }
    if (manifest.extensions != library.extensions) {
        return "extensions are " + list_difference(manifest.extensions, library.extensions);
    }
    if (manifest.settings == library.settings) return {};
    for (size_t i = 0; i < std::min(manifest.settings.size(), library.settings.size()); ++i) {
        if (manifest.settings[i] == library.settings[i]) continue;
        return fmt::format("setting {} is described otherwise in the manifest than in the library "
                           "(there: {})",
                           quote(manifest.settings[i].name), quote(library.settings[i].name));
    }
    return fmt::format("{} settings are described in the manifest, {} in the library",
                       manifest.settings.size(), library.settings.size());
}

} // namespace sluice
