// The rules over the whole source tree.
#include "rules.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>

using namespace sluice::tidy;

namespace {

// Tables, and kernels whose loop nest with its tiles and tails reads better in one piece.
const std::vector<std::string> long_functions = {
    "runtime/program/operation_table.cpp",
};

const std::vector<std::string> long_files = {};

// A test case may list many cases.
length_limits limits_of(const source_file& source) {
    length_limits limits;
    if (source.in("tests")) limits.function_lines = 100;
    return limits;
}

const std::vector<source_file>& tree() {
    static const std::vector<source_file> sources = read_sources(SLUICE_SOURCE_DIR);
    return sources;
}

template <typename Rule>
void check_tree(Rule rule) {
    REQUIRE(tree().size() > 50);
    std::string found;
    for (const source_file& source : tree())
        for (const std::string& complaint : rule(source)) found += "\n" + complaint;
    CHECK_MESSAGE(found.empty(), found);
}

} // namespace

TEST_CASE("lines are ASCII of at most 100 columns") {
    check_tree([](const source_file& source) { return check_lines(source, {}); });
}

TEST_CASE("functions and files are short") {
    check_tree([](const source_file& source) {
        return check_lengths(source, limits_of(source), long_functions, long_files);
    });
}

TEST_CASE("files let off the length limits exist and need it") {
    for (const auto* list : {&long_functions, &long_files}) {
        for (const std::string& path : *list) {
            const auto found = std::find_if(tree().begin(), tree().end(), [&](const auto& source) {
                return source.path == path;
            });
            CHECK_MESSAGE((found != tree().end()
                           && !check_lengths(*found, limits_of(*found), {}, {}).empty()),
                          path);
        }
    }
}

TEST_CASE("headers are guarded") { check_tree(check_guard); }

TEST_CASE("libraries leave the process and its output alone") { check_tree(check_library_manners); }

TEST_CASE(
    "includes follow the arrows: plugins and backends to the contract, runtime to the contract") {
    std::vector<std::string> paths;
    std::transform(tree().begin(), tree().end(), std::back_inserter(paths),
                   [](const source_file& source) { return source.path; });
    check_tree([&](const source_file& source) { return check_includes(source, paths); });
}
