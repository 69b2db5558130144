// Every configuration that ships runs, and switching a plugin changes what runs, not what is said.
#include "command/command_fixture.hpp"

#include <algorithm>

using namespace sluice::test;

namespace {

namespace fs = std::filesystem;

const std::string prompt = "The package manager installs";

nlohmann::json run(const fs::path& path, const std::vector<std::string>& settings = {},
                   bool own_backend = false) {
    std::vector<std::string> arguments{"run",          path.string(), "--prompt", prompt,
                                       "--max-tokens", "16",          "--json"};
    // Only a build without oneDNN needs this.
    if (!own_backend && default_backend() != "onednn")
        arguments.insert(arguments.end(), {"--set", "backend=" + default_backend()});
    for (const auto& setting : settings) arguments.insert(arguments.end(), {"--set", setting});
    return sluice_command(arguments).json();
}

std::vector<fs::path> shipped() {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(source_folder() / "configs"))
        if (entry.path().extension() == ".toml") paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    return paths;
}

} // namespace

TEST_CASE("every shipped configuration runs") {
    const auto paths = shipped();
    CHECK(paths.size() >= 8);
    for (const auto& path : paths) {
        CAPTURE(path);
        const auto json = run(path);
        CHECK(json["completion_tokens"] > 0);
        CHECK(!json["text"].get<std::string>().empty());
    }
}

TEST_CASE("backend, router and cache are switched by one setting, and the text stays") {
    const auto quickstart = configuration_path("quickstart");
    const auto expected = run(quickstart);
    for (const char* setting : {"backend=reference", "router=subprogram", "result_cache=memory",
                                "engine.prefix_reuse=false", "engine.worker_count=1",
                                "speculation.method=prompt_lookup"}) {
        CAPTURE(setting);
        const auto found = run(quickstart, {setting});
        CHECK(found["token_ids"] == expected["token_ids"]);
        CHECK(found["text"] == expected["text"]);
    }
    const auto all =
        run(quickstart, {"backend=reference", "router=subprogram", "result_cache=memory"});
    CHECK(all["token_ids"] == expected["token_ids"]);
    for (const char* name : {"reference", "subprogram_router", "result_cache",
                             "experts_on_reference", "speculation"}) {
        CAPTURE(name);
        CHECK(run(configuration_path(name))["token_ids"] == expected["token_ids"]);
    }
}

TEST_CASE("what is meant to change the text does") {
    const auto expected = run(configuration_path("quickstart"));
    CHECK(run(configuration_path("plain_gate"))["token_ids"] != expected["token_ids"]);

    const auto sampling = configuration_path("sampling");
    const auto drawn = run(sampling);
    CHECK(drawn["token_ids"] != expected["token_ids"]);
    CHECK(run(sampling)["token_ids"] == drawn["token_ids"]); // the seed is in the file
    CHECK(run(sampling, {"generation.seed=8"})["token_ids"] != drawn["token_ids"]);
    CHECK(
        run(sampling, {"generation.temperature=0", "generation.repetition_penalty=1"})["token_ids"]
        == expected["token_ids"]);
}

TEST_CASE("the pipeline's template is part of the prompt") {
    const auto direct = sluice_command({"run", configuration_path("quickstart"), "--set",
                                        "backend=" + default_backend(), "--set",
                                        "generation.repetition_penalty=1.1", "--prompt",
                                        prompt + " is used to", "--max-tokens", "16", "--json"})
                            .json();
    const auto staged = run(configuration_path("pipeline"));
    CHECK(staged["token_ids"] == direct["token_ids"]);
    CHECK(staged["prompt_tokens"] == direct["prompt_tokens"]);
}
