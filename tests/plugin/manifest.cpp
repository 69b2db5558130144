#include "plugin/manifest.hpp"
#include "../base/error_check.hpp"

#include <sluice/plugin/settings.hpp>

#include <doctest/doctest.h>

#include <limits>

namespace {

using namespace sluice;
using sluice::test::check_error;

const std::string good = R"(format_version = 1
id = "acme"
kind = "router"
version = "1.2.3"
abi_version = "0.1"
library = "acme.so"
platform = "linux-x86_64"
)";

// The good manifest with one line taken out or put in its place.
std::string changed(const std::string& line, const std::string& replacement) {
    std::string text = good;
    const size_t at = text.find(line);
    REQUIRE(at != std::string::npos);
    return text.replace(at, line.size(), replacement);
}

// What a library with one setting says, in the C structs and as a manifest.
sluice_setting_description declared_setting;
plugin_manifest manifest_with(const sluice_setting_description& description) {
    declared_setting = description;
    auto library = SLUICE_INIT(sluice_plugin_library);
    library.descriptor = [] {
        static const sluice_setting_description* const settings[] = {&declared_setting};
        static const sluice_plugin_descriptor descriptor = [] {
            auto made = SLUICE_INIT(sluice_plugin_descriptor);
            made.id = {"acme", 4};
            made.kind = {"router", 6};
            made.settings = settings;
            made.setting_count = 1;
            return made;
        }();
        return &descriptor;
    };
    return manifest_of(library, "acme.so");
}

} // namespace

TEST_CASE("a manifest is written and read back as the same") {
    plugin_manifest manifest;
    manifest.id = "acme-2_x";
    manifest.kind = SLUICE_KIND_BACKEND;
    manifest.version = "1.2.3-rc1";
    manifest.abi_version = SLUICE_ABI_VERSION_MAKE(0, 1);
    manifest.summary = "Says \"hello\" \\ \t with \xc3\xa9 and\nlines";
    manifest.license = "Apache-2.0 OR MIT";
    manifest.needs = "x86-64 with AVX2";
    manifest.thread_count = 4;
    manifest.library = "acme-2_x.so";
    manifest.platform = platform_name();
    manifest.extensions = {"sluice.backend/0", "acme.more/3"};
    setting_schema one;
    one.name = "whole";
    one.type = SLUICE_SETTING_INTEGER;
    one.help = "A whole number.";
    one.default_integer = std::numeric_limits<int64_t>::min();
    one.integer_min = std::numeric_limits<int64_t>::min();
    one.integer_max = std::numeric_limits<int64_t>::max();
    manifest.settings.push_back(one);
    one = {};
    one.name = "ratio";
    one.type = SLUICE_SETTING_NUMBER;
    one.default_number = 0.1;
    one.number_min = -1e300;
    one.number_max = 3;
    manifest.settings.push_back(one);
    one = {};
    one.name = "mode";
    one.type = SLUICE_SETTING_TEXT;
    one.default_text = "a";
    one.choices = {"a", "b"};
    manifest.settings.push_back(one);
    one = {};
    one.name = "folder";
    one.type = SLUICE_SETTING_PATH;
    one.required = true;
    manifest.settings.push_back(one);
    one = {};
    one.name = "flag";
    one.type = SLUICE_SETTING_BOOLEAN;
    one.default_integer = 1;
    manifest.settings.push_back(one);
    one = {};
    one.name = "names";
    one.type = SLUICE_SETTING_TEXT_LIST;
    one.default_texts = {"first", "", "with \"quotes\""};
    manifest.settings.push_back(one);

    const std::string text = manifest_text(manifest);
    CAPTURE(text);
    const plugin_manifest read = manifest_from_text(text, "acme.toml");
    CHECK(manifest_difference(manifest, read) == "");
    CHECK(read.library == manifest.library);
    CHECK(read.platform == manifest.platform);
    CHECK(read.settings == manifest.settings);
    CHECK(manifest_text(read) == text);
}

TEST_CASE("the default of a list goes from the plugin's declaration into its manifest") {
    const auto schema = plugin::schema().texts("names", "Some names.", {"a", "b c"});
    const auto copy = schema; // the texts belong to all copies
    const auto& description = copy.descriptions().front();
    const auto defaults = [](const sluice_setting_description& of) {
        return manifest_with(of).settings.at(0).default_texts;
    };
    CHECK(defaults(description) == std::vector<std::string>{"a", "b c"});
    // A plugin that was built before the field existed has none, whatever lies behind its struct.
    auto older = description;
    older.struct_size = offsetof(sluice_setting_description, default_texts);
    CHECK(defaults(older).empty());
    auto missing = description;
    missing.default_texts = nullptr;
    check_error([&] { manifest_with(missing); }, SLUICE_INVALID, {"names", "2 texts", "an array"});
    auto many = description;
    many.default_text_count = 1u << 30;
    check_error([&] { manifest_with(many); }, SLUICE_INVALID, {"names", "expected at most 64"});
}

TEST_CASE("a manifest that is wrong is refused by file, line and key") {
    CHECK_NOTHROW(manifest_from_text(good, "acme.toml"));
    struct wrong {
        std::string text;
        std::vector<std::string> parts;
    };
    const std::string setting = good + "[[setting]]\nname = \"depth\"\n";
    const std::vector<wrong> all = {
        {"", {"format_version", "missing"}},
        {changed("format_version = 1", "format_version = 2"), {":1:", "format 1", "found 2"}},
        {changed("format_version = 1", "format_version = \"1\""), {":1:", "an integer"}},
        {changed("id = \"acme\"\n", ""), {"id", "missing"}},
        {changed("\"acme\"", "\"Acme Corp\""), {":2:", "[a-z][a-z0-9_-]*"}},
        {changed("\"acme\"", "\"../acme\""), {":2:", "id"}},
        {changed("router", "ruoter"), {":3:", "\"ruoter\"", "did you mean \"router\""}},
        {changed("\"1.2.3\"", "1.2"), {":4:", "a text", "1.2"}},
        {changed("\"0.1\"", "\"0.1.2\""), {":5:", "major.minor"}},
        {changed("\"0.1\"", "\"0.70000\""), {":5:", "major.minor"}},
        {changed("\"0.1\"", "\"-1.0\""), {":5:", "major.minor"}},
        {changed("acme.so", "../../evil.so"), {":6:", "without folders"}},
        {changed("acme.so", "/usr/lib/evil.so"), {":6:", "without folders"}},
        {changed("acme.so", "acme\\u0000.so"), {":6:", "without folders"}},
        {changed("acme.so", ""), {":6:", "without folders"}},
        {changed("platform", "platfrom"), {":7:", "platfrom", "platform"}},
        {good + "sumary = \"x\"\n", {":8:", "sumary", "did you mean \"summary\""}},
        {good + "thread_count = -1\n", {":8:", "from 0 to"}},
        {good + "extensions = [1]\n", {":8:", "extensions[0]", "the integer 1"}},
        {good + "setting = 3\n", {":8:", "[[setting]]"}},
        {setting, {":8:", "type", "missing"}},
        {setting + "type = \"integr\"\n", {":10:", "did you mean \"integer\""}},
        {setting + "type = \"integer\"\nchoices = [\"a\"]\n", {":11:", "unknown key"}},
        {setting + "type = \"integer\"\ndefault = 1.5\n", {":11:", "an integer"}},
        {setting + "type = \"text_list\"\ndefault = \"a\"\n", {":11:", "default"}},
        {setting + "type = \"text_list\"\ndefault = [1]\n", {":11:", "default[0]"}},
        {setting + "type = \"integer\"\ndefault = 5\nminimum = 1\nmaximum = 2\n",
         {":8:", "out of its bounds"}},
        {setting + "type = \"integer\"\nminimum = 3\nmaximum = 2\n", {":8:", "in order"}},
        {setting + "type = \"text\"\nchoices = [\"a\"]\ndefault = \"b\"\n",
         {"none of its choices"}},
        {setting + "type = \"boolean\"\n[[setting]]\nname = \"depth\"\ntype = \"path\"\n",
         {"described twice"}},
        {good + "id = \"again\"\n", {":8:", "not TOML"}},
        {"\xff\xfe", {"not TOML"}},
        {std::string(2 << 20, ' '), {"bytes"}},
    };
    for (const wrong& one : all) {
        CAPTURE(one.text.substr(0, 400));
        std::vector<std::string> parts = one.parts;
        parts.push_back("acme.toml");
        check_error([&] { manifest_from_text(one.text, "acme.toml"); }, SLUICE_INVALID, parts);
    }
}
