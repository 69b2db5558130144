#include "pipeline/stages.hpp"

#include "base/text.hpp"

#include <algorithm>

namespace sluice {

namespace {

// A run of plain text, or the name of a field to put there.
struct template_part {
    bool is_field = false;
    std::string text;
};

bool is_field_name(std::string_view name) {
    const auto is_word = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
               || c == '_';
    };
    return !name.empty() && std::all_of(name.begin(), name.end(), is_word);
}

std::vector<template_part> parse_template(std::string_view text, const std::string& where) {
    std::vector<template_part> parts(1);
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if ((c == '{' || c == '}') && i + 1 < text.size() && text[i + 1] == c) {
            parts.back().text += c;
            ++i;
        } else if (c == '{') {
            const size_t end = text.find('}', i);
            const std::string_view name = text.substr(i + 1, end - i - 1);
            if (end == std::string_view::npos || !is_field_name(name)) {
                fail(SLUICE_INVALID,
                     "{}: expected a field such as {{prompt}} at character {} of the template, "
                     "found {}; write {{{{ for a brace",
                     where, i, quote(text.substr(i, 20)));
            }
            parts.push_back({true, std::string(name)});
            parts.push_back({});
            i = end;
        } else if (c == '}') {
            fail(SLUICE_INVALID,
                 "{}: a }} at character {} of the template closes nothing; write }}}} for a brace",
                 where, i);
        } else {
            parts.back().text += c;
        }
    }
    return parts;
}

class template_stage final : public stage {
  public:
    explicit template_stage(const stage_configuration& configured) {
        const std::string stage_name = fmt::format("stage \"{}\" (template)", configured.name);
        for (const auto& [key, value] : configured.settings.values) {
            if (key == "text") continue;
            fail(SLUICE_INVALID, "{}: {} has no setting \"{}\"; it knows \"text\"",
                 value.origin.text(), stage_name, key);
        }
        const auto found = configured.settings.values.find("text");
        if (found == configured.settings.values.end()) {
            fail(SLUICE_INVALID,
                 "{}: {} has no `text`; expected the template, such as "
                 "text = \"Question: {{prompt}}\"",
                 configured.origin.text(), stage_name);
        }
        const std::string where = fmt::format("{}: {}", found->second.origin.text(), stage_name);
        const auto* text = std::get_if<std::string>(&found->second.value);
        if (text == nullptr) fail(SLUICE_INVALID, "{}: `text` must be a text", where);
        parts_ = parse_template(*text, where);
        for (const template_part& part : parts_) {
            const auto same_name = [&](const field_description& field) {
                return field.name == part.text;
            };
            if (part.is_field && std::none_of(inputs_.begin(), inputs_.end(), same_name)) {
                inputs_.push_back({part.text, field_type::text, true});
            }
        }
    }

    const std::vector<field_description>& inputs() const override { return inputs_; }

    const std::vector<field_description>& outputs() const override {
        static const std::vector<field_description> fields{{"text", field_type::text, true}};
        return fields;
    }

    void start(const record& input, std::shared_ptr<stage_call> call) override {
        std::string text;
        for (const template_part& part : parts_) {
            text +=
                part.is_field ? std::get<std::string>(input.find(part.text)->second) : part.text;
        }
        record output;
        output["text"] = std::move(text);
        call->finish(std::move(output), ended_normally());
    }

  private:
    std::vector<template_part> parts_;
    std::vector<field_description> inputs_;
};

} // namespace

std::unique_ptr<stage> make_template_stage(const stage_configuration& configured) {
    return std::make_unique<template_stage>(configured);
}

} // namespace sluice
