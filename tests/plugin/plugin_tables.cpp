// The host's list of required functions against the headers' own [required] marks: each function of
// each kind is taken away in turn.
#include "plugin/plugin_tables.hpp"
#include "../base/error_check.hpp"
#include "base/mapped_file.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

namespace {

using namespace sluice;

struct header_function {
    std::string name;
    bool required;
};

// The functions of a table in the order of the header, with the mark of the comment before each.
std::vector<header_function> functions_of(const std::string& header, const std::string& table) {
    const std::string text = read_text_file(
        std::filesystem::path(SLUICE_SOURCE_DIR) / "abi/include/sluice/abi" / header, 1 << 20);
    const size_t begin = text.find("typedef struct " + table + " {");
    const size_t end = text.find("} " + table + ";");
    REQUIRE(begin != std::string::npos);
    REQUIRE(end != std::string::npos);
    const std::string body = text.substr(begin, end - begin);
    std::vector<header_function> functions;
    // Each function is written "(*name)(".
    size_t from = 0;
    for (size_t at; (at = body.find("(*", from)) != std::string::npos;) {
        const size_t name_end = body.find(")(", at);
        REQUIRE(name_end != std::string::npos);
        const std::string before = body.substr(from, at - from);
        functions.push_back({body.substr(at + 2, name_end - at - 2),
                             before.find("[required]") != std::string::npos});
        from = name_end;
    }
    return functions;
}

void anything() {}

template <typename Table>
void check_kind(std::string_view kind, const std::string& header, const std::string& name,
                size_t first_function) {
    const std::vector<header_function> functions = functions_of(header, name);
    REQUIRE(functions.size() == (sizeof(Table) - first_function) / sizeof(void*));
    Table full = SLUICE_INIT(Table);
    void (*const function)() = anything;
    for (size_t at = first_function; at < sizeof full; at += sizeof function) {
        std::memcpy(reinterpret_cast<char*>(&full) + at, &function, sizeof function);
    }
    CHECK_NOTHROW(checked_tables(kind, &full));
    for (size_t i = 0; i < functions.size(); ++i) {
        CAPTURE(functions[i].name);
        Table lacking = full;
        std::memset(reinterpret_cast<char*>(&lacking) + first_function + i * sizeof function, 0,
                    sizeof function);
        if (!functions[i].required) {
            CHECK_NOTHROW(checked_tables(kind, &lacking));
            continue;
        }
        test::check_error([&] { checked_tables(kind, &lacking); }, SLUICE_INVALID,
                          {functions[i].name, "NULL"});
        // Beyond the end of the struct it is not there either, whatever lies in memory.
        Table cut = full;
        cut.struct_size = uint32_t(first_function + i * sizeof function);
        test::check_error([&] { checked_tables(kind, &cut); }, SLUICE_INVALID, {"ends before"});
    }
}

} // namespace

TEST_CASE("required functions are those that the headers mark so") {
    check_kind<sluice_backend>("backend", "backend.h", "sluice_backend", 8);
    check_kind<sluice_router>("router", "router.h", "sluice_router", 8);
    check_kind<sluice_quantizer>("quantizer", "quantizer.h", "sluice_quantizer", 8);
    check_kind<sluice_block_store>("block_store", "cache.h", "sluice_block_store", 8);
    check_kind<sluice_result_cache>("result_cache", "cache.h", "sluice_result_cache", 8);
    check_kind<sluice_stage>("stage", "draft/stage.h", "sluice_stage", 16);
}

TEST_CASE("optional functions that are absent answer unimplemented") {
    sluice_backend backend = SLUICE_INIT(sluice_backend);
    void (*const function)() = anything;
    for (size_t at = 8; at < sizeof backend; at += sizeof function) {
        std::memcpy(reinterpret_cast<char*>(&backend) + at, &function, sizeof function);
    }
    backend.buffer_map = nullptr;
    backend.measure = nullptr;
    // An older plugin, built before `profile` was added.
    backend.struct_size = offsetof(sluice_backend, profile);
    const plugin_tables tables = checked_tables("backend", &backend);
    CHECK(tables.backend.buffer_map(nullptr, nullptr) == nullptr);
    sluice_error error = SLUICE_INIT(sluice_error);
    CHECK(tables.backend.measure(nullptr, 0, nullptr, &error) == SLUICE_UNIMPLEMENTED);
    CHECK(std::string(error.message).find("measure") != std::string::npos);
    CHECK(tables.backend.profile(nullptr, nullptr, 0, nullptr) == SLUICE_UNIMPLEMENTED);
    CHECK(tables.backend.struct_size == sizeof(sluice_backend));

    // An older router, built before `route` was added.
    sluice_router router = SLUICE_INIT(sluice_router);
    std::memcpy(&router.describe, &function, sizeof function);
    std::memcpy(&router.route, &function, sizeof function);
    CHECK(has_route(checked_tables("router", &router).router));
    router.struct_size = offsetof(sluice_router, route);
    const plugin_tables older = checked_tables("router", &router);
    CHECK_FALSE(has_route(older.router));
    CHECK(older.router.route(nullptr, nullptr, &error) == SLUICE_UNIMPLEMENTED);
    CHECK(std::string(error.message).find("route") != std::string::npos);
}
