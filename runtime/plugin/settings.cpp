#include "plugin/settings.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "plugin/plugin_call.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

namespace sluice {

namespace {

std::string found_text(const configured_value& value) {
    struct visitor {
        std::string operator()(bool v) const { return v ? "true" : "false"; }
        std::string operator()(int64_t v) const { return fmt::format("the integer {}", v); }
        std::string operator()(double v) const { return fmt::format("the number {}", v); }
        std::string operator()(const std::string& v) const { return "the text " + quote(v); }
        std::string operator()(const std::vector<std::string>&) const { return "a list of texts"; }
    };
    return std::visit(visitor{}, value.value);
}

std::string_view expected_text(uint32_t type) {
    switch (type) {
    case SLUICE_SETTING_BOOLEAN:
        return "true or false";
    case SLUICE_SETTING_INTEGER:
        return "an integer";
    case SLUICE_SETTING_NUMBER:
        return "a number";
    case SLUICE_SETTING_TEXT:
        return "a text";
    case SLUICE_SETTING_PATH:
        return "a path";
    default:
        return "a list of texts";
    }
}

std::string resolved_path(const std::string& text, const configured_settings& given) {
    if (text.empty()) return text;
    const std::filesystem::path path(text);
    if (path.is_absolute() || given.folder.empty()) return path.lexically_normal().string();
    return (given.folder / path).lexically_normal().string();
}

std::vector<std::string> names_of(const plugin_manifest& plugin) {
    std::vector<std::string> names;
    for (const setting_schema& schema : plugin.settings) names.push_back(schema.name);
    return names;
}

void refuse_unknown(const plugin_manifest& plugin, const configured_settings& given) {
    const std::vector<std::string> names = names_of(plugin);
    for (const auto& [key, value] : given.values) {
        if (std::find(names.begin(), names.end(), key) != names.end()) continue;
        std::string hint = did_you_mean(key, names);
        if (hint.empty()) {
            hint = names.empty() ? "; it has no settings" : "; it has " + join(names, ", ");
        }
        refuse_at(value.origin, fmt::format("settings.{}.{}: the plugin has no such setting{}",
                                            plugin.id, key, hint));
    }
}

} // namespace

bound_settings::bound_settings(const plugin_manifest& plugin, const configured_settings& given)
    : settings_(SLUICE_INIT(sluice_settings)) {
    refuse_unknown(plugin, given);
    entries_.reserve(plugin.settings.size());
    for (const setting_schema& schema : plugin.settings) {
        sluice_setting& setting = entries_.emplace_back(SLUICE_INIT(sluice_setting));
        setting.type = schema.type;
        const std::string name = fmt::format("settings.{}.{}", plugin.id, schema.name);
        const auto found = given.values.find(schema.name);
        if (found != given.values.end()) {
            take(schema, found->second, given, name, setting);
        } else if (schema.required) {
            const std::string where = given.origin.file.empty() ? "" : given.origin.text() + ": ";
            fail(SLUICE_INVALID, "{}{} is missing; the plugin requires {} ({})", where, name,
                 expected_text(schema.type), schema.help);
        } else {
            take_default(schema, given, setting);
        }
    }
    for (const sluice_setting& setting : entries_) pointers_.push_back(&setting);
    settings_.count = static_cast<uint32_t>(pointers_.size());
    settings_.settings = pointers_.data();
}

sluice_text bound_settings::keep(std::string text) {
    return text_view(texts_.emplace_back(std::move(text)));
}

void bound_settings::keep_list(const std::vector<std::string>& texts, sluice_setting& setting) {
    std::vector<sluice_text>& list = lists_.emplace_back();
    for (const std::string& text : texts) list.push_back(keep(text));
    setting.texts = list.data();
    setting.text_count = list.size();
}

void bound_settings::take_default(const setting_schema& schema, const configured_settings& given,
                                  sluice_setting& setting) {
    setting.is_default = 1;
    setting.integer = schema.default_integer;
    setting.number = schema.default_number;
    if (schema.type == SLUICE_SETTING_PATH) {
        setting.text = keep(resolved_path(schema.default_text, given));
    } else if (schema.type == SLUICE_SETTING_TEXT) {
        setting.text = keep(schema.default_text);
    } else if (schema.type == SLUICE_SETTING_TEXT_LIST) {
        keep_list(schema.default_texts, setting);
    }
}

namespace {

using refusal = std::function<void(const std::string& expected)>;

int64_t integer_of(const setting_schema& schema, const configured_value& value,
                   const refusal& refuse) {
    const int64_t* given = std::get_if<int64_t>(&value.value);
    const bool bounded = (schema.integer_min | schema.integer_max) != 0;
    if (!given || (bounded && (*given < schema.integer_min || *given > schema.integer_max)))
        refuse(bounded
                   ? fmt::format("an integer from {} to {}", schema.integer_min, schema.integer_max)
                   : "an integer");
    return *given;
}

double number_of(const setting_schema& schema, const configured_value& value,
                 const refusal& refuse) {
    const double* given = std::get_if<double>(&value.value);
    const int64_t* integer = std::get_if<int64_t>(&value.value);
    const double number = given ? *given : integer ? double(*integer) : NAN;
    const bool bounded = schema.number_min != 0 || schema.number_max != 0;
    if (!std::isfinite(number)
        || (bounded && (number < schema.number_min || number > schema.number_max)))
        refuse(bounded ? fmt::format("a number from {} to {}", schema.number_min, schema.number_max)
                       : "a finite number");
    return number;
}

} // namespace

void bound_settings::take(const setting_schema& schema, const configured_value& value,
                          const configured_settings& given, const std::string& name,
                          sluice_setting& setting) {
    const refusal refuse = [&](const std::string& expected) {
        refuse_at(value.origin,
                  fmt::format("{}: expected {}, found {}", name, expected, found_text(value)));
    };
    const auto check_choice = [&](const std::string& text) {
        if (schema.choices.empty()) return;
        if (std::find(schema.choices.begin(), schema.choices.end(), text) != schema.choices.end()) {
            return;
        }
        refuse_at(value.origin, fmt::format("{}: expected one of \"{}\"; found {}{}", name,
                                            fmt::join(schema.choices, "\", \""), quote(text),
                                            did_you_mean(text, schema.choices)));
    };
    switch (schema.type) {
    case SLUICE_SETTING_BOOLEAN: {
        const bool* given_value = std::get_if<bool>(&value.value);
        if (!given_value) refuse("true or false");
        setting.integer = *given_value ? 1 : 0;
        break;
    }
    case SLUICE_SETTING_INTEGER:
        setting.integer = integer_of(schema, value, refuse);
        break;
    case SLUICE_SETTING_NUMBER:
        setting.number = number_of(schema, value, refuse);
        break;
    case SLUICE_SETTING_TEXT:
    case SLUICE_SETTING_PATH: {
        // Choices that are numbers ("4", "8", "16") may be written as numbers.
        const int64_t* integer = std::get_if<int64_t>(&value.value);
        const std::string digits = integer ? std::to_string(*integer) : "";
        const bool is_choice =
            std::find(schema.choices.begin(), schema.choices.end(), digits) != schema.choices.end();
        const std::string* text =
            integer && is_choice ? &digits : std::get_if<std::string>(&value.value);
        if (!text && !schema.choices.empty())
            refuse(fmt::format("a text, one of \"{}\"", fmt::join(schema.choices, "\", \"")));
        if (!text) refuse(std::string(expected_text(schema.type)));
        if (schema.type == SLUICE_SETTING_PATH) {
            setting.text = keep(resolved_path(*text, given));
        } else {
            check_choice(*text);
            setting.text = keep(*text);
        }
        break;
    }
    default: {
        const auto* texts = std::get_if<std::vector<std::string>>(&value.value);
        if (!texts) refuse("a list of texts");
        keep_list(*texts, setting);
    }
    }
}

} // namespace sluice
