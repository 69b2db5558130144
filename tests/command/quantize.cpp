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

TEST_CASE("gptq calibrates with tokens, and says what each module learned from") {
    const temporary_directory folder;
    std::string tokens;
    for (int i = 0; i < 700; ++i) {
        tokens += char(i * 7 % 250);
        tokens += char(i % 2);
    }
    folder.write("text.u16", tokens);
    folder.write("mix.toml", "backend = \"reference\"\n[quantization.formats]\n"
                             "\"model.layers.*.self_attn.**\" = \"int8 g32\"\n"
                             "[settings.gptq]\ndamping = 0.02\n");
    const auto target = (folder.path() / "out").string();
    const std::vector<std::string> arguments{"quantize",
                                             golden_model("qwen3_moe"),
                                             "--quantizer",
                                             "gptq",
                                             "-o",
                                             target,
                                             "--calibration",
                                             (folder.path() / "text.u16").string(),
                                             "--window",
                                             "64",
                                             "--config",
                                             (folder.path() / "mix.toml").string()};
    check_refused(arguments, {"tokens of the calibration text came to this expert", "at least 64",
                              "--expert-tokens-min"});
    auto allowed = arguments;
    allowed.insert(allowed.end(), {"--expert-tokens-min", "0"});
    const auto result = sluice_command(allowed);
    REQUIRE_MESSAGE(result.status == 0, result.errors);
    for (const char* part : {"of rounding", "tokens min", "damping", "8 bits in groups of 32",
                             "that 640 tokens gave it"})
        CHECK_MESSAGE(result.output.find(part) != std::string::npos, part);
    const auto report =
        nlohmann::json::parse(read_file(folder.path() / "out/quantization_report.json"));
    CHECK(report["calibration_tokens"] == 640);
    for (const auto& module : report["modules"])
        if (module["quantized"].get<bool>()) CHECK(module["damping"] == 0.02);

    check_refused({"quantize", golden_model("llama"), "--quantizer", "gptq", "-o", target},
                  {"wants statistics", "--calibration"});
    const auto copy = folder.path() / "with_words";
    fs::copy(golden_model("llama"), copy);
    fs::copy(default_model() + "/tokenizer.json", copy);
    folder.write("text.txt", "The quick brown fox jumps over the lazy dog.\n");
    check_refused({"quantize", copy.string(), "--quantizer", "gptq", "-o", target, "--force",
                   "--calibration", (folder.path() / "text.txt").string()},
                  {"text.txt", "outside of the vocabulary of 512"});
}
