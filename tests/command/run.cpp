#include "command/command_fixture.hpp"

using namespace sluice::test;

namespace {

std::vector<std::string> quickstart(const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"run", configuration_path("quickstart"), "--set",
                                       "backend=" + default_backend()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

} // namespace

TEST_CASE("run writes the text to standard output and figures to standard error") {
    const auto arguments = quickstart({"--prompt", "The package manager", "--max-tokens", "12"});
    const auto text = sluice_command(arguments);
    REQUIRE_MESSAGE(text.status == 0, text.errors);
    auto with_json = arguments;
    with_json.push_back("--json");
    const auto json = sluice_command(with_json).json();
    check_keys(json, {"text", "token_ids", "finish_reason", "prompt_tokens", "prompt_tokens_reused",
                      "completion_tokens", "draft_tokens", "draft_tokens_accepted",
                      "time_to_first_token_seconds", "tokens_per_second", "duration_seconds",
                      "from_result_cache"});
    CHECK(text.output == json["text"].get<std::string>() + "\n");
    CHECK(text.errors.find("12 tokens") != std::string::npos);
    CHECK(json["token_ids"].size() == 12);
    CHECK(json["completion_tokens"] == 12);
    CHECK(json["finish_reason"] == "tokens_max");
    CHECK(json["from_result_cache"] == false);

    // The ids are those of the text, by the tokenizer alone.
    const auto decoded =
        sluice_command({"tokenize", default_model(), "--decode"}, json["token_ids"].dump());
    CHECK(decoded.output == json["text"].get<std::string>());
}

TEST_CASE("run says how many guessed tokens were right, and the text is that without") {
    const std::vector<std::string> asked{"--prompt", "1 2 3 4 1 2 3 4 1 2 3 4 1 2 3 4",
                                         "--max-tokens", "40"};
    auto arguments = quickstart(asked);
    arguments.push_back("--json");
    const auto plain = sluice_command(arguments).json();
    CHECK(plain["draft_tokens"] == 0);
    arguments.insert(arguments.end(), {"--set", "speculation.method=prompt_lookup"});
    const auto drafted = sluice_command(arguments).json();
    CHECK(drafted["text"] == plain["text"]);
    CHECK(drafted["draft_tokens_accepted"] > 0);
    CHECK(drafted["draft_tokens"] >= drafted["draft_tokens_accepted"]);

    arguments = quickstart(asked);
    arguments.insert(arguments.end(), {"--set", "speculation.method=prompt_lookup"});
    CHECK(sluice_command(arguments).errors.find(" guessed tokens were right") != std::string::npos);
    CHECK(sluice_command(quickstart(asked)).errors.find("guessed") == std::string::npos);
}

TEST_CASE("a stop text ends the text and is not part of it") {
    const auto plain = sluice_command(quickstart({"--prompt", "The package manager", "--max-tokens",
                                                  "24", "--json"}))
                           .json();
    const auto text = plain["text"].get<std::string>();
    REQUIRE(text.size() > 12);
    const auto stop = text.substr(8, 3);
    const auto json = sluice_command(quickstart({"--prompt", "The package manager", "--max-tokens",
                                                 "24", "--json", "--set",
                                                 "generation.stop=" + nlohmann::json{stop}.dump()}))
                          .json();
    CHECK(json["finish_reason"] == "stop_text");
    CHECK(json["text"] == text.substr(0, text.find(stop)));
}

TEST_CASE("an interrupt ends the request in order") {
    // More tokens than a second is enough for, on any machine of today.
    const auto result = sluice_command(quickstart({"--prompt", "A", "--max-tokens", "2000",
                                                   "--json", "--set", "backend=reference"}),
                                       {}, "timeout --preserve-status --signal=INT 1.5");
    const auto json = result.json();
    CHECK(json["finish_reason"] == "cancelled");
    CHECK(json["token_ids"].size() < 2000);
}

TEST_CASE("explain says what runs each operation") {
    const std::vector<std::string> base{"explain", configuration_path("quickstart"), "--set",
                                        "backend=" + default_backend()};
    const auto with = [&](const std::vector<std::string>& more) {
        auto arguments = base;
        arguments.insert(arguments.end(), more.begin(), more.end());
        return sluice_command(arguments);
    };
    const auto json = with({"--json"}).json();
    check_keys(json, {"configuration", "pipeline", "backend", "device", "router", "operations",
                      "expansions", "weights"});
    CHECK(json["backend"] == default_backend());
    CHECK(json["router"] == "specification");
    REQUIRE(json["operations"].size() > 50);
    for (const auto& operation : json["operations"]) {
        check_keys(operation, {"operation", "plugin", "kernel", "remark"});
        CHECK(!operation["plugin"].get<std::string>().empty());
    }
    bool grouped = false;
    for (const auto& weight : json["weights"])
        grouped |= weight["stored"].get<std::string>().find("groups of 64") != std::string::npos;
    CHECK(grouped);

    const auto text = with({});
    CHECK(text.status == 0);
    CHECK(text.output.find("request.prompt -> generate -> text") != std::string::npos);
    CHECK(text.output.find(default_backend()) != std::string::npos);
    const auto program = with({"--program", "--all-layers"});
    CHECK(program.status == 0);
    CHECK(program.output.find("layers.5.route") != std::string::npos);
    CHECK(program.output.size() > with({"--program"}).output.size());

    // Another router changes the program and nothing that is stored.
    const auto inlined = with({"--json", "--set", "router=subprogram"}).json();
    CHECK(inlined["router"] == "subprogram");
    CHECK(inlined["weights"] == json["weights"]);
    CHECK(inlined["pipeline"] == json["pipeline"]);
    CHECK(inlined["operations"].size() > json["operations"].size());
}

TEST_CASE("explain says what a router on the host costs") {
    const std::vector<std::string> base{
        "explain", configuration_path("quickstart"),
        "--set",   "backend=" + default_backend(),
        "--set",   "router=temperature",
        "--set",   "plugin_folders=[\"" SLUICE_TEST_PLUGIN_DIR "\"]"};
    const auto text = sluice_command(base);
    REQUIRE_MESSAGE(text.status == 0, text.errors);
    for (const std::string& part :
         {std::string("at 1      host"), std::string("by host function}"),
          std::string("# host: function of router temperature"),
          std::string("placement: 11 segments a step, 15 copies"),
          "5 x layers.*.router : f32[T, 16], 64 B a token, from " + default_backend() + " to host",
          "8 B a token, from host to " + default_backend(),
          std::string("400 B copied for each token"),
          std::string("a step waits for the host 5 times: once in each layer that the function of "
                      "router \"temperature\" routes")})
        CHECK_MESSAGE(text.output.find(part) != std::string::npos, part);
    auto arguments = base;
    arguments.push_back("--json");
    const auto json = sluice_command(arguments).json();
    CHECK(json["host_functions"] == 5);
    CHECK(json["router"] == "temperature");
    CHECK(json["segments"] == 11);
}

TEST_CASE("explain says what a placement puts where, and what it costs") {
    const auto path = configuration_path("experts_on_reference");
    const std::vector<std::string> base{"explain", path, "--set", "backend=" + default_backend()};
    const auto json = [&](const std::string& setting) {
        auto arguments = base;
        arguments.insert(arguments.end(), {"--json", "--set", setting});
        return sluice_command(arguments).json();
    };
    const auto alone = json("placement={}");
    CHECK(alone["segments"] == 1);
    CHECK(alone["crossings"].empty());
    CHECK(alone["backends"].size() == 1);
    if (default_backend() == "reference") return; // then there is nothing to spread

    const auto spread = json("placement.\"layers.5.experts\"=onednn");
    CHECK(spread["segments"] == 9); // four of the five sparse layers leave the main backend
    CHECK(spread["backends"].size() == 2);
    bool found = false;
    for (const auto& crossing : spread["crossings"]) {
        check_keys(crossing, {"value", "type", "from", "to", "bytes", "unit"});
        CHECK(crossing["value"].get<std::string>().find("layers.5.") == std::string::npos);
        found |= crossing["value"] == "layers.3.experts[0-3]" && crossing["to"] == "onednn"
                 && crossing["from"] == "reference" && crossing["bytes"] == 4 * 384
                 && crossing["unit"] == "token";
    }
    CHECK(found);
    const auto text = sluice_command(base);
    REQUIRE_MESSAGE(text.status == 0, text.errors);
    for (const char* part : {"at 1      reference", "placement: 11 segments a step, 20 copies",
                             "copied for each token", "from reference to onednn", " at 1  # "})
        CHECK_MESSAGE(text.output.find(part) != std::string::npos, part);
    check_refused({"explain", path, "--set", "placement.\"layers.*.expert\"=reference"},
                  {"--set placement", "layers.*.expert", "did you mean", "layers.*.experts"});
}
