// Stages that are plugins, by the draft of the contract.
#include "pipeline/pipeline.hpp"
#include "pipeline/scripted_stage.hpp"
#include "pipeline/stages.hpp"
#include "plugin/manifest.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

using namespace sluice;
using namespace sluice::test;
using namespace std::chrono_literals;

namespace {

const std::filesystem::path folder = SLUICE_STAGE_DIR;

// Services and plugins that know the folder of the test's plugin.
struct fixture {
    std::shared_ptr<host_services> services;
    std::unique_ptr<plugin_host> plugins;

    explicit fixture(bool allow_draft) {
        std::ofstream(folder / "shout.toml") << manifest_text_of_file(folder / "shout.so");
        host_options options;
        options.worker_count = 1;
        options.allow_draft = allow_draft;
        services = std::make_shared<host_services>(std::move(options));
        offer_stage_host(*services);
        plugin_host_options searched;
        searched.folders = {folder};
        searched.use_install_folder = false;
        searched.allow_draft = allow_draft;
        plugins = std::make_unique<plugin_host>(services, std::move(searched));
    }

    pipeline make() {
        const std::vector<stage_configuration> stages{
            configured("loud", "shout", {{"text", "request.prompt"}})};
        return pipeline(
            std::make_shared<pipeline_graph>(stages, [&](const stage_configuration& configured) {
                return make_plugin_stage(configured, *plugins);
            }));
    }
};

pipeline_request prompt(std::string text) {
    pipeline_request request;
    request.fields["prompt"] = std::move(text);
    return request;
}

std::string read_all(generation& stream, generation_event& last, int& pieces) {
    std::string text;
    while (auto event = stream.wait(10s)) {
        text += event->text;
        if (event->finished) {
            last = *event;
        } else {
            ++pieces;
        }
    }
    return text;
}

} // namespace

TEST_CASE("a plugin's answer is streamed, and its failures end the request") {
    fixture made(true);
    pipeline runs = made.make();
    generation_event last;
    int pieces = 0;
    CHECK(read_all(*runs.run(prompt("hello")), last, pieces) == "HELLO");
    CHECK(pieces == 5);
    CHECK(last.reason == finish_reason::end_token);

    read_all(*runs.run(prompt("fail this")), last, pieces);
    CHECK(last.reason == finish_reason::failed);
    CHECK(last.status == SLUICE_UNAVAILABLE);
    CHECK(last.message == "failed: fail this");

    read_all(*runs.run(prompt("wrong one")), last, pieces);
    CHECK(last.status == SLUICE_INVALID);
    CHECK(last.message.find("lacks the field \"text\"") != std::string::npos);

    CHECK_THROWS_WITH_AS(runs.run(prompt("refuse it")), doctest::Contains("refused: refuse it"),
                         error);

    const auto waiting = runs.run(prompt("wait"));
    CHECK_FALSE(waiting->wait(30ms).has_value());
    waiting->cancel();
    CHECK(read_all(*waiting, last, pieces) == "WAIT");
}

TEST_CASE("many requests at once") {
    fixture made(true);
    pipeline runs = made.make();
    std::vector<std::shared_ptr<generation>> streams;
    for (int i = 0; i < 40; ++i) streams.push_back(runs.run(prompt(fmt::format("r{}", i))));
    for (int i = 0; i < 40; ++i) {
        generation_event last;
        int pieces = 0;
        CHECK(read_all(*streams[size_t(i)], last, pieces) == fmt::format("R{}", i));
    }
}

TEST_CASE("without allow_draft a stage plugin is not loaded") {
    fixture made(false);
    CHECK_THROWS_WITH_AS(made.make(), doctest::Contains("draft"), error);
}
