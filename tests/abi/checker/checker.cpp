// The checker finds what is wrong: plugins with known faults fail the checks that are about these
// faults, and no others.
#include "checks.hpp"

#include <doctest/doctest.h>
#include <fstream>

namespace sluice::checker {
namespace {

const std::filesystem::path faulty_folder = SLUICE_FAULTY_PLUGIN_DIR;

check_options options_of(const std::string& id) {
    check_options options;
    options.library = faulty_folder / (id + ".so");
    options.oracle = std::filesystem::path(SLUICE_PLUGIN_BUILD_DIR) / "reference.so";
    options.iterations = 4;
    return options;
}

void write_manifest(const std::string& id) {
    std::ofstream(faulty_folder / (id + ".toml"))
        << manifest_text_of_file(faulty_folder / (id + ".so"));
}

std::vector<check> checks_of(std::string_view kind, std::string_view containing) {
    std::vector<check> chosen;
    for (const auto& list : {library_checks(), checks_of_kind(kind)})
        for (const auto& each : list)
            if (each.name.find(containing) != std::string::npos) chosen.push_back(each);
    return chosen;
}

// The names of the failed checks, with what they say.
std::map<std::string, std::string> failures(const std::string& id, std::string_view kind,
                                            std::string_view containing = "") {
    write_manifest(id);
    const check_options options = options_of(id);
    std::map<std::string, std::string> found;
    const auto chosen = checks_of(kind, containing);
    REQUIRE_FALSE(chosen.empty());
    for (const auto& each : chosen) {
        const check_result result = run_isolated(
            each, [&] { return context(options); }, 120);
        if (result.outcome == verdict::fail) found[result.name] = result.detail;
    }
    return found;
}

std::vector<std::string> names(const std::map<std::string, std::string>& of) {
    std::vector<std::string> found;
    for (const auto& each : of) found.push_back(each.first);
    return found;
}

} // namespace

TEST_CASE("a router that ignores unknown fields and answers the impossible") {
    const auto found = failures("faulty_router", "router");
    CHECK(names(found)
          == std::vector<std::string>{"router: families", "router: growth of calls",
                                      "router: growth of structs", "router: host functions run",
                                      "router: impossible requests", "router: sub-programs run",
                                      "router: threads"});
    CHECK(found.at("router: families").find("choice_count") != std::string::npos);
    CHECK(found.at("router: growth of structs").find("unknown field") != std::string::npos);
}

TEST_CASE("a host function that is not what it says, and takes what it does not know") {
    const auto found = failures("faulty_host_router", "router", "router: ");
    CHECK(names(found)
          == std::vector<std::string>{"router: growth of calls", "router: host functions run"});
    CHECK(found.at("router: growth of calls").find("unknown field") != std::string::npos);
    CHECK(found.at("router: host functions run").find("says it computes") != std::string::npos);
}

TEST_CASE("a quantizer whose scales do not survive, and that takes NaN") {
    const auto found = failures("faulty_quantizer", "quantizer", "quantizer: ");
    CHECK(names(found)
          == std::vector<std::string>{"quantizer: cancellation", "quantizer: numbers out of range",
                                      "quantizer: rounding"});
    CHECK(found.at("quantizer: rounding").find("changes when it is stored as f16")
          != std::string::npos);
}

TEST_CASE("a cache that mixes namespaces, copies parts and forgets no time") {
    const auto found = failures("faulty_cache", "result_cache", "result cache: ");
    CHECK(names(found)
          == std::vector<std::string>{"result cache: namespaces", "result cache: sizes",
                                      "result cache: time to live"});
}

TEST_CASE("a backend with wrong numbers, a missing primitive and a crash") {
    const auto linear = failures("faulty_backend", "backend", "backend: linear, f32");
    CHECK(linear.contains("backend: linear, f32, weights f32"));
    CHECK(linear.contains("backend: linear, f32, weights int4_g64_gptq"));
    CHECK(linear.begin()->second.find("times the allowed difference") != std::string::npos);
    CHECK(failures("faulty_backend", "backend", "backend: matmul").empty());
    const auto claimed = failures("faulty_backend", "backend", "primitives claimed");
    REQUIRE(claimed.size() == 1);
    CHECK(claimed.begin()->second.find("no iota here") != std::string::npos);
    const auto crash = failures("faulty_backend", "backend", "backend: transpose, f32");
    REQUIRE(crash.size() == 1);
    CHECK(crash.begin()->second.find("crashed with signal 6") != std::string::npos);
}

TEST_CASE("symbols besides the entry, and a manifest that is missing or another's") {
    std::filesystem::remove(faulty_folder / "faulty_exports.toml");
    context bare(options_of("faulty_exports"));
    const auto run = [&](std::string_view name) {
        return run_here(checks_of("", name).at(0), bare);
    };
    const auto exported = run("exported symbols");
    CHECK(exported.outcome == verdict::fail);
    CHECK(exported.detail.find("not_the_entry") != std::string::npos);
    const auto missing = run("library: manifest");
    CHECK(missing.outcome == verdict::fail);
    CHECK(missing.detail.find("--manifest") != std::string::npos);
    write_manifest("faulty_exports");
    CHECK(run("library: manifest").outcome == verdict::pass);
    auto manifest = manifest_from_file(faulty_folder / "faulty_exports.toml");
    manifest.version = "9.9.9";
    std::ofstream(faulty_folder / "faulty_exports.toml") << manifest_text(manifest);
    const auto differs = run("library: manifest");
    CHECK(differs.outcome == verdict::fail);
    CHECK(differs.detail.find("9.9.9") != std::string::npos);
}

TEST_CASE("a check that never ends is ended") {
    const check endless{"endless", [](context&) -> std::string {
                            volatile bool goes_on = true;
                            while (goes_on) {
                            }
                            return {};
                        }};
    const auto result = run_isolated(
        endless, [] { return context(check_options{}); }, 1);
    CHECK(result.outcome == verdict::fail);
    CHECK(result.detail == "did not end within 1 s");
}

} // namespace sluice::checker
