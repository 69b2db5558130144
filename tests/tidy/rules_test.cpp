// The rules themselves, on sources with one fault each.
#include "rules.hpp"

#include <doctest/doctest.h>

using namespace sluice::tidy;

namespace {

std::string repeated(const std::string& line, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += line;
    return text;
}

source_file at(const std::string& path, const std::string& text) { return {path, text}; }

} // namespace

TEST_CASE(
    "a long line, a tab, a trailing space, a foreign byte and a missing line break are found") {
    const length_limits limits;
    CHECK(check_lines(at("runtime/a.cpp", repeated("x", 100) + "\n"), limits).empty());
    CHECK(check_lines(at("runtime/a.cpp", repeated("x", 101) + "\n"), limits).size() == 1);
    CHECK(check_lines(at("runtime/a.cpp", "\tint a;\n"), limits).size() == 1);
    CHECK(check_lines(at("runtime/a.cpp", "int a; \n"), limits).size() == 1);
    CHECK(check_lines(at("runtime/a.cpp", "// \xc3\xa9\n"), limits).size() == 1);
    CHECK(check_lines(at("runtime/a.cpp", "int a;"), limits).size() == 1);
}

TEST_CASE("functions are found in namespaces, classes and constructors, lambdas are not") {
    const function_list list = functions_of(R"(
extern "C" {
namespace sluice {
int table[] = {1, 2};
struct point {
    int x{1};
    int f() const noexcept { return x; }
  private:
    enum class side { left, right };
};
point::point(int a) : x{a}, y_(table[0]) {
    auto g = [](int b) { if (b) { return 1; } return '{'; };
}
template <typename T> requires small<T> auto h(T t) -> decltype(t) {
    const char* text = "}}}"; // }
    return R"x(}}})x" ? 1'000 : t;
}
}
}
)");
    CHECK(list.balanced);
    REQUIRE(list.functions.size() == 3);
    CHECK(list.functions[0].head == "int f() const noexcept");
    CHECK(list.functions[0].lines() == 1);
    CHECK(list.functions[1].head == "point::point(int a) : x{a}, y_(table[0])");
    CHECK(list.functions[1].lines() == 3);
    CHECK(list.functions[2].first_line == 14);
    CHECK(list.functions[2].last_line == 17);
}

TEST_CASE("a function of 71 lines is too long, unless its file is let off") {
    const length_limits limits;
    const auto function = [](int lines) {
        return "void f() {\n" + repeated("    g();\n", lines - 2) + "}\n";
    };
    CHECK(check_lengths(at("runtime/a.cpp", function(70)), limits, {}, {}).empty());
    CHECK(check_lengths(at("runtime/a.cpp", function(71)), limits, {}, {}).size() == 1);
    CHECK(check_lengths(at("runtime/a.cpp", function(71)), limits, {"runtime/a.cpp"}, {}).empty());
    CHECK(check_lengths(at("runtime/a.cpp", "void f() {\n"), limits, {}, {}).size() == 1);
}

TEST_CASE("a file of 601 lines is too long, unless it is let off") {
    const source_file file = at("runtime/a.cpp", repeated("int a;\n", 601));
    CHECK(check_lengths(file, {}, {}, {}).size() == 1);
    CHECK(check_lengths(file, {}, {}, {"runtime/a.cpp"}).empty());
}

TEST_CASE("guards") {
    CHECK(check_guard(at("runtime/a.hpp", "#pragma once\nint a;\n")).empty());
    CHECK(check_guard(at("runtime/a.hpp", "int a;\n")).size() == 1);
    CHECK(check_guard(at("abi/a.h", "#ifndef SLUICE_A_H\n#define SLUICE_A_H\n#endif\n")).empty());
    CHECK(check_guard(at("abi/a.h", "#ifndef SLUICE_A_H\n#define SLUICE_B_H\n#endif\n")).size()
          == 1);
}

TEST_CASE("ending the process and writing to its output are found in libraries alone") {
    for (const char* text :
         {"void f() { abort(); }\n", "void f() { std::exit(1); }\n",
          "void f() { std::cout << 1; }\n", "void f() { std::printf(\"a\"); }\n",
          "void f() { fputs(\"a\", stdout); }\n", "void f() { ::_exit (1); }\n"}) {
        CAPTURE(text);
        CHECK(check_library_manners(at("runtime/base/a.cpp", text)).size() == 1);
        CHECK(check_library_manners(at("backends/onednn/a.cpp", text)).size() == 1);
        CHECK(check_library_manners(at("runtime/command/a.cpp", text)).empty());
    }
    for (const char* text :
         {"void f() { queue.abort(); }\n", "// exit(1)\n", "int exit_code;\n",
          "void f() { snprintf(a, 1, \"printf(\"); }\n", "#include <cstdio>\n"}) {
        CAPTURE(text);
        CHECK(check_library_manners(at("runtime/base/a.cpp", text)).empty());
    }
}

TEST_CASE("includes against the arrows are found") {
    const std::vector<std::string> paths = {
        "abi/include/sluice/abi/backend.h", "abi/include/sluice/plugin/backend.hpp",
        "backends/onednn/pack.hpp",         "backends/plain/weight.hpp",
        "backends/reference/pack.hpp",      "plugins/caches/common/keys.hpp",
        "plugins/caches/memory/store.hpp",  "runtime/base/error.hpp",
        "runtime/include/sluice/sluice.h"};
    const auto check = [&](const char* path, const char* include) {
        return check_includes(at(path, std::string("#include ") + include + "\n"), paths).size();
    };
    CHECK(check("abi/include/sluice/abi/backend.h", "<stdint.h>") == 0);
    CHECK(check("abi/include/sluice/abi/backend.h", "<stdio.h>") == 1);
    CHECK(check("abi/include/sluice/abi/host.h", "\"backend.h\"") == 0);
    CHECK(check("abi/include/sluice/abi/host.h", "<sluice/plugin/backend.hpp>") == 1);
    CHECK(check("abi/include/sluice/plugin/host.hpp", "<vector>") == 0);
    CHECK(check("abi/include/sluice/plugin/host.hpp", "<fmt/format.h>") == 1);
    CHECK(check("runtime/base/a.cpp", "\"base/error.hpp\"") == 0);
    CHECK(check("runtime/base/a.cpp", "<oneapi/dnnl/dnnl.hpp>") == 1);
    CHECK(check("runtime/base/a.cpp", "<cuda_runtime.h>") == 1);
    CHECK(check("runtime/base/a.cpp", "\"plain/weight.hpp\"") == 1);
    CHECK(check("runtime/base/a.cpp", "\"base/missing.hpp\"") == 1);
    CHECK(check("backends/onednn/a.cpp", "<oneapi/dnnl/dnnl.hpp>") == 0);
    CHECK(check("backends/onednn/a.cpp", "\"pack.hpp\"") == 0);
    CHECK(check("backends/onednn/a.cpp", "\"plain/weight.hpp\"") == 0);
    CHECK(check("backends/onednn/a.cpp", "\"base/error.hpp\"") == 1);
    CHECK(check("backends/onednn/a.cpp", "\"../reference/pack.hpp\"") == 1);
    CHECK(check("backends/onednn/a.cpp", "<sluice/sluice.h>") == 1);
    CHECK(check("plugins/caches/memory/a.cpp", "\"store.hpp\"") == 0);
    CHECK(check("plugins/caches/memory/a.cpp", "\"../common/keys.hpp\"") == 0);
    CHECK(check("plugins/routers/moe/a.cpp", "\"../../caches/common/keys.hpp\"") == 1);
    CHECK(check("plugins/caches/memory/a.cpp", "\"plain/weight.hpp\"") == 1);
}
