#include "config/toml_document.hpp"
#include "../base/error_check.hpp"
#include "../base/temporary_directory.hpp"

#include <doctest/doctest.h>

using namespace sluice;
using sluice::test::check_error;

TEST_CASE("a document keeps types, order and lines") {
    const toml_node document = toml_parse("zebra = true\n"
                                          "apple = 3 # first come, first kept\n"
                                          "[section]\n"
                                          "number = 1e3\n"
                                          "text = \"\"\"a\n"
                                          "b\"\"\"\n"
                                          "when = 2024-05-06\n"
                                          "list = [1,\n"
                                          "  \"two\"]\n"
                                          "[[many]]\n"
                                          "x = 1\n"
                                          "[[many]]\n"
                                          "x = 2\n",
                                          "a.toml");
    REQUIRE(document.members.size() == 4);
    CHECK(document.members[0].key == "zebra");
    CHECK(document.find("zebra")->boolean);
    CHECK(document.find("apple")->integer == 3);
    CHECK(document.find("apple")->origin.text() == "a.toml:2");
    const toml_node& section = *document.find("section");
    CHECK(section.origin.line == 3);
    CHECK(section.find("number")->number == 1000.0);
    CHECK(section.find("text")->text == "a\nb");
    CHECK(section.find("text")->origin.line == 5);
    CHECK(section.find("when")->kind == toml_kind::date);
    CHECK(section.find("when")->text == "2024-05-06");
    CHECK(section.find("list")->origin.line == 8);
    CHECK(section.find("list")->items[1].origin.line == 9);
    CHECK(document.find("many")->items[1].origin.line == 12);
    CHECK(document.find("nothing") == nullptr);
}

TEST_CASE("what is not TOML is refused with its line") {
    const std::vector<std::pair<std::string, std::string>> wrong = {
        {"a = \n", "a.toml:1"},
        {"a = 1\nb = = 2\n", "a.toml:2"},
        {"a = 1\na = 2\n", "a.toml:2"},
        {"[a]\nx = 1\n[a]\ny = 2\n", "a.toml:3"},
        {"a = \"open\nb = 1\n", "a.toml:1"},
        {"a = [1, 2\n", "a.toml"},
        {"a = 99999999999999999999\n", "a.toml:1"},
        {"a = \"\\q\"\n", "a.toml:1"},
        {"a = \"\xff\"\n", "a.toml"},
        {std::string("a = 1\0b = 2", 11), "a.toml:1"},
        {"just words\n", "a.toml:1"},
        {"a = 1\n[ = true\n", "a.toml:2"}, // headers without a name
        {"[[\nb = 1\n", "a.toml:1"},
        {"a = [\n[1],\n[2]]\n [[ \xc3\xa9 ]]\n", "a.toml:4"},
        {"[.a]\n", "a.toml:1"},
        {"[]\n", "a.toml:1"},
        {"[", "a.toml:1"},
        {"[[", "a.toml:1"},
        {"[#\n", "a.toml:1"},
        {"a = 64N\xc4\xae\n", "a.toml:1"}, // letters where white space may stand
        {"a = 1\xc3\x8f\n", "a.toml:1"},
        {"a = 1\xef\xb8\xbc\n", "a.toml:1"},
        {"\xc3\xa9 = 1\n", "a.toml:1"},
        {"a = \"\"\"\\\xc4\xae\"\"\"\n", "a.toml:1"},
    };
    for (const auto& [text, place] : wrong) {
        CAPTURE(text);
        check_error([&] { toml_parse(text, "a.toml"); }, SLUICE_INVALID, {place, "not TOML"});
    }
}

TEST_CASE("texts keep every character, also after a line that a backslash joins") {
    const toml_node document =
        toml_parse("a = \"\"\"x\\\n   \xc4\xae \xef\xb8\xbc\"\"\" # \xc4\xae\n"
                   "b = '\xc3\xa9'\n",
                   "a.toml");
    CHECK(document.find("a")->text == "x\xc4\xae \xef\xb8\xbc");
    CHECK(document.find("b")->text == "\xc3\xa9");
}

TEST_CASE("limits: size, nesting, parts of a key") {
    check_error([] { toml_parse(std::string(toml_size_bytes_max + 1, '\n'), "a.toml"); },
                SLUICE_INVALID, {"a.toml", "1048577 bytes", "at most 1048576"});
    const auto nested = [](size_t depth) {
        return fmt::format("a = {}{}", std::string(depth, '['), std::string(depth, ']'));
    };
    CHECK_NOTHROW(toml_parse(nested(20), "a.toml"));
    check_error([&] { toml_parse(nested(100), "a.toml"); }, SLUICE_INVALID, {"a.toml:1", "deep"});
    check_error([&] { toml_parse(nested(100000), "a.toml"); }, SLUICE_INVALID, {"a.toml:1"});
    const auto dotted = [](size_t parts) {
        std::string text = "\n\na";
        for (size_t i = 1; i < parts; ++i) text += ".a";
        return text;
    };
    CHECK_NOTHROW(toml_parse(dotted(20) + " = 1", "a.toml"));
    for (const std::string& text :
         {dotted(400000) + " = 1", fmt::format("[{}]", dotted(400000).substr(2)),
          fmt::format("x = {{{} = 1}}", dotted(400000).substr(2))}) {
        check_error([&] { toml_parse(text, "a.toml"); }, SLUICE_INVALID,
                    {"a.toml", "more than 32 parts"});
    }
    // Dots in texts and comments are no keys, and texts of every form end where they do.
    const std::string dots(100, '.');
    for (const std::string& text :
         {std::string("a = \"") + dots + "\"", std::string("a = '") + dots + "'",
          std::string("a = 1 # ") + dots,
          std::string("a = \"\"\"") + dots + "\n\"" + dots + "\"\"\"",
          std::string("a = '''") + dots + "\n'" + dots + "'''",
          std::string("a = \"\\\"") + dots + "\"", std::string("a = \"\"\n# ") + dots,
          std::string("a = \"\"\"x\"\"\"\"\"\n# ") + dots}) {
        CAPTURE(text);
        CHECK_NOTHROW(toml_parse(text, "a.toml"));
    }
    check_error([&] { toml_parse(std::string("a = \"\"\n") + dotted(100) + " = 1", "a.toml"); },
                SLUICE_INVALID, {"a.toml:4", "parts"});
}

TEST_CASE("files: one that is not there, is a folder, or is empty") {
    const test::temporary_directory directory;
    check_error([&] { toml_parse_file(directory.path() / "none.toml"); }, SLUICE_UNAVAILABLE,
                {"none.toml"});
    check_error([&] { toml_parse_file(directory.path()); }, SLUICE_INVALID,
                {directory.path().string()});
    CHECK(toml_parse_file(directory.write("empty.toml", "")).members.empty());
}

TEST_CASE("overrides: values as TOML, names and paths without quotes, tables on the way") {
    toml_node document = toml_parse("a = 1\n[b]\nc = 2\n", "a.toml");
    toml_override(document, "a=5");
    CHECK(document.find("a")->integer == 5);
    CHECK(document.find("a")->origin.text() == "--set a=5");
    toml_override(document, " b.c = \"text\" ");
    CHECK(document.find("b")->find("c")->text == "text");
    toml_override(document, "b.d.e=../models/x");
    CHECK(document.find("b")->find("d")->find("e")->text == "../models/x");
    toml_override(document, "b.f=a=b");
    CHECK(document.find("b")->find("f")->text == "a=b");
    toml_override(document, "b.g=");
    CHECK(document.find("b")->find("g")->text.empty());
    toml_override(document, "b.h=[\"x\", \"y\"]");
    CHECK(document.find("b")->find("h")->items.size() == 2);
    toml_override(document, "b.i=2024-05-06");
    CHECK(document.find("b")->find("i")->kind == toml_kind::text);
    toml_override(document, "b.j=1\nb.k = 2");
    CHECK(document.find("b")->find("j")->text == "1\nb.k = 2"); // one key, whatever the value is
    CHECK(document.find("b")->find("k") == nullptr);
    toml_override(document, "b.l=reference");
    CHECK(document.find("b")->find("l")->text == "reference");

    check_error([&] { toml_override(document, "a"); }, SLUICE_INVALID,
                {"--set a", "section.key=value"});
    check_error([&] { toml_override(document, "=1"); }, SLUICE_INVALID, {"section.key=value"});
    check_error([&] { toml_override(document, "b..c=1"); }, SLUICE_INVALID, {"empty"});
    check_error([&] { toml_override(document, "a.x=1"); }, SLUICE_INVALID,
                {"a is the integer 5", "--set a=5", "not a table"});
}
