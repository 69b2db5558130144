// The CUDA backend on a GPU: the golden models, the default model, and the checker. Each case says
// that it is skipped, and why, where there is no device.
#include "command/command_fixture.hpp"

using namespace sluice::test;

namespace {

// The verdict of the host on the cuda plugin.
const nlohmann::json& candidate() {
    static const nlohmann::json found = [] {
        for (const auto& each : sluice_command({"plugins", "--json"}).json()["plugins"])
            if (each["id"] == "cuda") return each;
        return nlohmann::json{{"verdict", "missing"}, {"reason", "it was not built"}};
    }();
    return found;
}

bool has_device() {
    if (candidate()["verdict"] == "usable") return true;
    MESSAGE("skipped: no CUDA device: ", candidate()["reason"].get<std::string>());
    return false;
}

nlohmann::json verify(const std::string& family, const std::string& type,
                      const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"verify",    golden_model(family),
                                       "--golden",  golden_logits(family),
                                       "--backend", "cuda",
                                       "--dtype",   type,
                                       "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto result = sluice_command(arguments);
    REQUIRE_MESSAGE(!result.output.empty(), result.errors);
    return nlohmann::json::parse(result.output);
}

const char* const families[] = {"llama",     "qwen3",       "mixtral",
                                "qwen3_moe", "deepseek_v2", "deepseek_v3"};

} // namespace

TEST_CASE("without a device the plugin says that it is unavailable, in the driver's words") {
    if (candidate()["verdict"] == "usable") return;
    CHECK(candidate()["verdict"] == "unavailable");
    CHECK(candidate()["reason"].get<std::string>().find("driver") != std::string::npos);
}

TEST_CASE("the golden models in float32") {
    if (!has_device()) return;
    for (const std::string family : families) {
        CAPTURE(family);
        const auto json = verify(family, "float32");
        CHECK(json["passed"] == true);
        CHECK(json["max_abs_error"] < 1e-3);
        CHECK(json["greedy_agreement"] == 1.0);
        CHECK(json["continuation_tokens_agreeing"] == 16);
    }
    CHECK(verify("llama", "float32", {"--chunk", "1"})["passed"] == true);
    CHECK(verify("deepseek_v3", "float32", {"--chunk", "7"})["passed"] == true);
}

TEST_CASE("the golden models in bfloat16") {
    if (!has_device()) return;
    for (const std::string family : families) {
        CAPTURE(family);
        CHECK(verify(family, "bfloat16", {"--margin", "0.1"})["greedy_agreement"] >= 0.95);
    }
}

TEST_CASE("the default model writes what the reference writes") {
    if (!has_device()) return;
    const auto text_of = [](const std::string& backend) {
        return sluice_command({"run", configuration_path("quickstart"), "--prompt",
                               "The package manager installs", "--max-tokens", "24", "--set",
                               "backend=" + backend, "--json"})
            .json()["text"]
            .get<std::string>();
    };
    CHECK(text_of("cuda") == text_of("reference"));
}

TEST_CASE("the checker passes on the plugin") {
    if (!has_device()) return;
    const temporary_directory files;
    const auto log = (files.path() / "log").string();
    const auto line = std::string(SLUICE_PLUGIN_CHECK) + " " + SLUICE_PLUGIN_BUILD_DIR
                      + "/cuda.so >" + log + " 2>&1";
    const int status = std::system(line.c_str());
    CHECK_MESSAGE(status == 0, read_file(log));
}
