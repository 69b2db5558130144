#include "command/command_fixture.hpp"

#include <set>

using namespace sluice::test;

namespace {

namespace fs = std::filesystem;

std::vector<std::string> quantize(const std::string& model, const fs::path& target,
                                  const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"quantize", golden_model(model), "--quantizer", "rtn",
                                       "-o",       target.string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

} // namespace

TEST_CASE("a model is quantized, and what was written runs") {
    const temporary_directory folder;
    const auto target = folder.path() / "quantized";
    const auto json = sluice_command(quantize("llama", target,
                                              {"--set", "attention=8", "--set", "mlp=8", "--set",
                                               "group_size=32", "--json"}))
                          .json();
    check_keys(json, {"model", "target", "quantizer", "bytes_before", "bytes_after", "modules"});
    CHECK(json["bytes_after"] < json["bytes_before"]);
    size_t quantized = 0;
    for (const auto& module : json["modules"]) {
        check_keys(module, {"name", "kind", "rows", "columns", "quantized", "bits", "bytes_before",
                            "bytes_after", "fallback"});
        if (!module["quantized"].get<bool>()) continue;
        ++quantized;
        CHECK(module["bits"] == 8);
        CHECK(module["group_size"] == 32);
        CHECK(module["error_relative"] > 0.0);
        CHECK(module["error_relative"] < 1e-3);
    }
    CHECK(quantized > 0);

    const auto verified =
        sluice_command({"verify", target.string(), "--golden", golden_logits("llama"), "--backend",
                        default_backend(), "--tolerance", "0.5", "--margin", "0.5", "--json"})
            .json();
    CHECK(verified["passed"] == true);
    CHECK(verified["max_abs_error"] > 1e-3); // it is not the original
    const auto inspected = sluice_command({"inspect", target.string(), "--json"}).json();
    CHECK(inspected["quantization"] == "gptq");
}

TEST_CASE("the table sums up the kinds") {
    const temporary_directory folder;
    const auto result = sluice_command(quantize("deepseek_v3", folder.path() / "out"));
    REQUIRE_MESSAGE(result.status == 0, result.errors);
    for (const char* part : {"embedding", "attention", "shared expert", "router", "fallbacks",
                             "in all", "8 bits in groups of 64", "4 bits in groups of 64"})
        CHECK_MESSAGE(result.output.find(part) != std::string::npos, part);
    CHECK(result.errors.empty()); // no progress in a pipe
}

TEST_CASE("quantize refuses what it cannot do") {
    const temporary_directory folder;
    const auto target = folder.path() / "out";
    check_refused({"quantize", golden_model("llama"), "--quantizer", "rtm", "-o", target.string()},
                  {"rtm", "rtn"});
    check_refused(
        {"quantize", golden_model("llama"), "--quantizer", "specification", "-o", target.string()},
        {"specification"});
    check_refused(quantize("llama", target, {"--set", "grup_size=32"}),
                  {"grup_size", "group_size"});
    check_refused(quantize("llama", target, {"--set", "mlp=5"}), {"mlp", "\"4\", \"8\", \"16\""});
    check_refused(quantize("llama", target, {"--set", "group_size=33"}), {"group_size", "33"});
    check_refused({"quantize", "/no/such/model", "--quantizer", "rtn", "-o", target.string()},
                  {"/no/such/model"});
    check_refused({"quantize", default_model(), "--quantizer", "rtn", "-o", target.string()},
                  {"quantized already"});
    CHECK(!fs::exists(target / "config.json"));

    folder.write("file", "x");
    check_refused(quantize("llama", folder.path()), {"has files already", "--force"});
    CHECK(sluice_command(quantize("llama", folder.path(), {"--force"})).status == 0);
    CHECK(fs::exists(folder.path() / "config.json"));
}

TEST_CASE("the same model is quantized to the same bytes, whatever the number of workers") {
    const temporary_directory folder;
    REQUIRE(sluice_command(quantize("qwen3_moe", folder.path() / "a")).status == 0);
    REQUIRE(sluice_command(quantize("qwen3_moe", folder.path() / "b"), {}, "taskset -c 0").status
            == 0);
    CHECK(read_file(folder.path() / "a/model.safetensors")
          == read_file(folder.path() / "b/model.safetensors"));
    CHECK(read_file(folder.path() / "a/config.json") == read_file(folder.path() / "b/config.json"));
}
