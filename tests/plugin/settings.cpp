#include "plugin/settings.hpp"
#include "../base/error_check.hpp"

#include <doctest/doctest.h>

#include <cstring>

namespace {

using namespace sluice;
using sluice::test::check_error;

setting_schema schema(const std::string& name, uint32_t type) {
    setting_schema result;
    result.name = name;
    result.type = type;
    return result;
}

// A plugin with one setting of each type.
plugin_manifest plugin() {
    plugin_manifest manifest;
    manifest.id = "acme";
    setting_schema depth = schema("depth", SLUICE_SETTING_INTEGER);
    depth.default_integer = 3;
    depth.integer_min = 1;
    depth.integer_max = 8;
    setting_schema ratio = schema("ratio", SLUICE_SETTING_NUMBER);
    ratio.default_number = 0.5;
    ratio.number_max = 1;
    setting_schema mode = schema("mode", SLUICE_SETTING_TEXT);
    mode.default_text = "fast";
    mode.choices = {"fast", "exact"};
    setting_schema folder = schema("folder", SLUICE_SETTING_PATH);
    folder.default_text = "cache";
    setting_schema verbose = schema("verbose", SLUICE_SETTING_BOOLEAN);
    verbose.default_integer = 1;
    manifest.settings = {depth,  ratio,   mode,
                         folder, verbose, schema("names", SLUICE_SETTING_TEXT_LIST)};
    return manifest;
}

configured_settings given(const std::string& toml) {
    return configuration_from_text("[settings.acme]\n" + toml, "/etc/sluice", "some.toml")
        .settings_of("acme");
}

std::string text(const sluice_setting& setting) {
    return {setting.text.data, size_t(setting.text.size)};
}

} // namespace

TEST_CASE("settings: defaults are filled in, in the order of the schema") {
    const plugin_manifest manifest = plugin();
    const bound_settings bound(manifest, given(""));
    const sluice_settings* all = bound.get();
    REQUIRE(all->count == 6);
    for (uint32_t i = 0; i < all->count; ++i) {
        CHECK(all->settings[i]->is_default == 1);
        CHECK(all->settings[i]->type == manifest.settings[i].type);
        CHECK(all->settings[i]->struct_size == sizeof(sluice_setting));
    }
    CHECK(all->settings[0]->integer == 3);
    CHECK(all->settings[1]->number == 0.5);
    CHECK(text(*all->settings[2]) == "fast");
    CHECK(text(*all->settings[3]) == "/etc/sluice/cache");
    CHECK(all->settings[4]->integer == 1);
    CHECK(all->settings[5]->text_count == 0);
}

TEST_CASE("settings: a list of texts has its own default, and an empty one can be given") {
    plugin_manifest manifest = plugin();
    manifest.settings[5].default_texts = {"a", "", "c d"};
    const bound_settings bound(manifest, given(""));
    const sluice_setting& names = *bound.get()->settings[5];
    CHECK(names.is_default == 1);
    REQUIRE(names.text_count == 3);
    CHECK(std::string(names.texts[2].data, names.texts[2].size) == "c d");
    const bound_settings emptied(manifest, given("names = []"));
    CHECK(emptied.get()->settings[5]->is_default == 0);
    CHECK(emptied.get()->settings[5]->text_count == 0);
}

TEST_CASE("settings: given values take their place, paths are resolved") {
    const bound_settings bound(plugin(), given("depth = 8\nratio = 1\nmode = \"exact\"\n"
                                               "folder = \"../data/x\"\nverbose = false\n"
                                               "names = [\"a\", \"\", \"c d\"]\n"));
    const sluice_settings* all = bound.get();
    CHECK(all->settings[0]->integer == 8);
    CHECK(all->settings[0]->is_default == 0);
    CHECK(all->settings[1]->number == 1.0); // an integer where a number is wanted
    CHECK(text(*all->settings[2]) == "exact");
    CHECK(text(*all->settings[3]) == "/etc/data/x");
    CHECK(all->settings[4]->integer == 0);
    REQUIRE(all->settings[5]->text_count == 3);
    CHECK(std::string(all->settings[5]->texts[2].data, all->settings[5]->texts[2].size) == "c d");
}

TEST_CASE("settings: what is wrong is refused with place and nearest name") {
    const auto refuse = [](const std::string& toml, const std::vector<std::string>& parts) {
        CAPTURE(toml);
        std::vector<std::string> all = parts;
        all.push_back("some.toml:2: settings.acme.");
        check_error([&] { bound_settings(plugin(), given(toml)); }, SLUICE_INVALID, all);
    };
    refuse("depht = 2", {"depht", "no such setting", "did you mean \"depth\""});
    refuse("zzzzzzzz = 2", {"it has depth, ratio, mode, folder, verbose, names"});
    refuse("depth = 9", {"an integer from 1 to 8", "the integer 9"});
    refuse("depth = 0", {"an integer from 1 to 8", "the integer 0"});
    refuse("depth = 2.0", {"an integer", "the number 2"});
    refuse("depth = \"2\"", {"an integer", "the text \"2\""});
    refuse("ratio = 1.5", {"a number from 0 to 1", "1.5"});
    refuse("ratio = nan", {"a number from 0 to 1", "nan"});
    refuse("ratio = true", {"a number", "true"});
    refuse("mode = \"exakt\"", {"\"fast\", \"exact\"", "did you mean \"exact\""});
    refuse("mode = 3", {"a text", "\"fast\", \"exact\"", "the integer 3"});
    refuse("folder = 3", {"a path", "the integer 3"});
    refuse("verbose = 1", {"true or false", "the integer 1"});
    refuse("names = \"a\"", {"a list of texts", "the text \"a\""});
}

TEST_CASE("settings: choices that are numbers may be written as numbers") {
    plugin_manifest manifest = plugin();
    manifest.settings[2].choices = {"4", "8"};
    const bound_settings bound(manifest, given("mode = 8"));
    CHECK(text(*bound.get()->settings[2]) == "8");
    check_error([&] { bound_settings(manifest, given("mode = 5")); }, SLUICE_INVALID,
                {"\"4\", \"8\"", "the integer 5"});
}

TEST_CASE("settings: a required one must be there") {
    plugin_manifest manifest = plugin();
    manifest.settings[2].required = true;
    manifest.settings[2].help = "How to do it.";
    check_error([&] { bound_settings(manifest, given("depth = 2")); }, SLUICE_INVALID,
                {"some.toml:1", "settings.acme.mode is missing", "a text", "How to do it."});
    check_error([&] { bound_settings(manifest, {}); }, SLUICE_INVALID,
                {"settings.acme.mode is missing"});
    CHECK_NOTHROW(bound_settings(manifest, given("mode = \"fast\"")));
}

TEST_CASE("settings of a plugin without any") {
    plugin_manifest manifest;
    manifest.id = "acme";
    CHECK(bound_settings(manifest, {}).get()->count == 0);
    check_error([&] { bound_settings(manifest, given("a = 1")); }, SLUICE_INVALID,
                {"it has no settings"});
}

TEST_CASE("settings from a command line are read as TOML or as texts") {
    const configured_settings table =
        settings_from_overrides({"depth=4", "mode=exact", "names=[\"x\"]", "folder=a/b"}, "/base");
    const bound_settings bound(plugin(), table);
    CHECK(bound.get()->settings[0]->integer == 4);
    CHECK(text(*bound.get()->settings[2]) == "exact");
    CHECK(text(*bound.get()->settings[3]) == "/base/a/b");
    CHECK(bound.get()->settings[5]->text_count == 1);
    check_error([] { bound_settings(plugin(), settings_from_overrides({"dept=4"}, "/")); },
                SLUICE_INVALID, {"--set dept=4", "did you mean \"depth\""});
}
