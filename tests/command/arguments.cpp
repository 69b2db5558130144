// Wrong arguments end in status 2 and a message that says what to do.
#include "command/command_fixture.hpp"

using namespace sluice::test;

TEST_CASE("help and version are no errors") {
    const auto help = sluice_command({"--help"});
    CHECK(help.status == 0);
    for (const char* name : {"run", "explain", "plugins", "inspect", "tokenize", "verify", "eval",
                             "quantize", "bench"})
        CHECK_MESSAGE(help.output.find(name) != std::string::npos, name);
    const auto version = sluice_command({"--version"});
    CHECK(version.status == 0);
    CHECK(version.output == SLUICE_VERSION "\n");
    CHECK(sluice_command({"quantize", "--help"}).status == 0);
}

TEST_CASE("wrong command lines are refused") {
    check_refused({}, {"subcommand is required"});
    check_refused({"run"}, {"CONFIG is required"});
    check_refused({"run", configuration_path("quickstart")}, {"--prompt is required"});
    check_refused({"run", configuration_path("quickstart"), "--prompt", "x", "--bogus"},
                  {"--bogus"});
    check_refused({"eval"}, {"subcommand"});
    check_refused({"inspect"}, {"MODEL_DIR is required"});
    check_refused({"quantize", golden_model("llama")}, {"is required"});
    check_refused({"verify", golden_model("llama"), "--golden", "x", "--dtype", "float7"},
                  {"float7", "float32", "bfloat16"});
    check_refused({"bench", configuration_path("quickstart"), "--batch", "0"}, {"--batch"});
}

TEST_CASE("wrong configurations name the file, the key and the nearest name") {
    check_refused({"run", "no-such.toml", "--prompt", "x"}, {"no-such.toml", "no such file"});
    const auto quickstart = configuration_path("quickstart");
    check_refused({"run", quickstart, "--prompt", "x", "--set", "backnd=\"reference\""},
                  {"--set backnd", "unknown key", "did you mean \"backend\""});
    check_refused({"run", quickstart, "--prompt", "x", "--set", "backend=refrence"},
                  {"refrence", "reference"});
    check_refused({"run", quickstart, "--prompt", "x", "--set", "router=specificaton"},
                  {"specificaton", "specification"});
    check_refused({"run", quickstart, "--prompt", "x", "--set", "model.path=/nowhere"},
                  {"/nowhere", "model.path"});
    check_refused({"run", quickstart, "--prompt", "x", "--set", "engine.cache_tokens=many"},
                  {"engine.cache_tokens", "integer", "many"});

    const temporary_directory folder;
    const auto file = folder.write("wrong.toml", "backend = \"reference\"\n\n[model]\npaht = 1\n");
    check_refused({"explain", file.string()}, {"wrong.toml:4", "paht", "did you mean", "path"});
    const auto broken = folder.write("broken.toml", "backend = [\n");
    check_refused({"explain", broken.string()}, {"broken.toml"});
}
