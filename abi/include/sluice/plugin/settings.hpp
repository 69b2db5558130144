// Declaring a plugin's settings, and reading them.
#pragma once

#include <sluice/abi/plugin.h>
#include <sluice/plugin/error.hpp>

#include <deque>
#include <memory>
#include <span>
#include <vector>

namespace sluice::plugin {

// The schema of a plugin's settings, in the order of declaration. Built once, then immutable.
//   schema().integer("layers", "how many", 4, 1, 100).text("mode", "which", "fast", {"fast",
//   "slow"})
class schema {
  public:
    schema& boolean(std::string_view name, std::string_view help, bool fallback) {
        add(SLUICE_SETTING_BOOLEAN, name, help).default_integer = fallback ? 1 : 0;
        return *this;
    }
    schema& integer(std::string_view name, std::string_view help, int64_t fallback, int64_t min,
                    int64_t max) {
        auto& added = add(SLUICE_SETTING_INTEGER, name, help);
        added.default_integer = fallback;
        added.integer_min = min;
        added.integer_max = max;
        return *this;
    }
    schema& number(std::string_view name, std::string_view help, double fallback, double min,
                   double max) {
        auto& added = add(SLUICE_SETTING_NUMBER, name, help);
        added.default_number = fallback;
        added.number_min = min;
        added.number_max = max;
        return *this;
    }
    schema& text(std::string_view name, std::string_view help, std::string_view fallback,
                 const std::vector<std::string_view>& choices = {}) {
        auto& added = add(SLUICE_SETTING_TEXT, name, help);
        added.default_text = plugin::text(fallback);
        const auto& allowed = keep(choices);
        added.choices = allowed.data();
        added.choice_count = static_cast<uint32_t>(allowed.size());
        return *this;
    }
    schema& path(std::string_view name, std::string_view help, std::string_view fallback) {
        add(SLUICE_SETTING_PATH, name, help).default_text = plugin::text(fallback);
        return *this;
    }
    schema& texts(std::string_view name, std::string_view help,
                  const std::vector<std::string_view>& fallback = {}) {
        auto& added = add(SLUICE_SETTING_TEXT_LIST, name, help);
        const auto& kept = keep(fallback);
        added.default_texts = kept.data();
        added.default_text_count = static_cast<uint32_t>(kept.size());
        return *this;
    }
    // The setting declared last has no default.
    schema& required() {
        descriptions_.back().required = 1;
        return *this;
    }

    const std::deque<sluice_setting_description>& descriptions() const { return descriptions_; }
    std::vector<const sluice_setting_description*> pointers() const {
        std::vector<const sluice_setting_description*> result;
        for (const auto& description : descriptions_) result.push_back(&description);
        return result;
    }

  private:
    // Names and helps are string literals: they live as long as the library.
    sluice_setting_description& add(uint32_t type, std::string_view name, std::string_view help) {
        auto& added = descriptions_.emplace_back(SLUICE_INIT(sluice_setting_description));
        added.type = type;
        added.name = plugin::text(name);
        added.help = plugin::text(help);
        return added;
    }
    const std::vector<sluice_text>& keep(const std::vector<std::string_view>& texts) {
        auto kept = std::make_shared<std::vector<sluice_text>>();
        for (const auto each : texts) kept->push_back(plugin::text(each));
        lists_.push_back(std::move(kept));
        return *lists_.back();
    }
    std::deque<sluice_setting_description> descriptions_;
    // Shared by copies of the schema, whose descriptions point into them.
    std::vector<std::shared_ptr<const std::vector<sluice_text>>> lists_;
};

// The values that the host hands to `create`. Borrowed.
class settings {
  public:
    settings(const schema& declared, const sluice_settings* given)
        : declared_(&declared), given_(given) {
        const size_t expected = declared.descriptions().size();
        const size_t found = given == nullptr ? 0 : given->count;
        if (found != expected)
            fail(SLUICE_INVALID, "expected ", expected, " settings, one for each declared, found ",
                 found);
    }

    bool boolean(std::string_view name) const {
        return find(name, SLUICE_SETTING_BOOLEAN).integer != 0;
    }
    int64_t integer(std::string_view name) const {
        return find(name, SLUICE_SETTING_INTEGER).integer;
    }
    double number(std::string_view name) const { return find(name, SLUICE_SETTING_NUMBER).number; }
    std::string_view text(std::string_view name) const {
        return view(find(name, SLUICE_SETTING_TEXT).text);
    }
    std::string_view path(std::string_view name) const {
        return view(find(name, SLUICE_SETTING_PATH).text);
    }
    std::vector<std::string_view> texts(std::string_view name) const {
        const auto& found = find(name, SLUICE_SETTING_TEXT_LIST);
        std::vector<std::string_view> result;
        for (uint64_t i = 0; i < found.text_count; ++i) result.push_back(view(found.texts[i]));
        return result;
    }
    // Whether the configuration named it.
    bool given(std::string_view name) const { return find(name, 0).is_default == 0; }

  private:
    const sluice_setting& find(std::string_view name, uint32_t type) const {
        const auto& descriptions = declared_->descriptions();
        for (size_t i = 0; i < descriptions.size(); ++i) {
            if (view(descriptions[i].name) != name) continue;
            const auto& found = *given_->settings[i];
            if (type != 0 && found.type != type)
                fail(SLUICE_INTERNAL, "setting '", name, "' came with type ", found.type,
                     ", declared as ", type);
            return found;
        }
        fail(SLUICE_INTERNAL, "setting '", name, "' is not declared");
    }
    const schema* declared_;
    const sluice_settings* given_;
};

} // namespace sluice::plugin
