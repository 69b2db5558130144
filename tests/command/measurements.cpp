// verify, eval and bench.
#include "command/command_fixture.hpp"

#include "model/safetensors.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

using namespace sluice;
using namespace sluice::test;

namespace {

std::vector<std::string> verify(const std::string& model, const std::string& golden,
                                const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{
        "verify",    golden_model(model), "--golden", golden_logits(golden),
        "--backend", default_backend(),   "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

// The golden file's first sequence, and the mean NLL that its own logits give.
struct golden_sequence {
    std::vector<int32_t> tokens;
    std::vector<std::vector<double>> probabilities; // of what follows each token but the last
    double mean_nll = 0;                            // of tokens 1 to the last
};

golden_sequence read_sequence(const std::string& family) {
    const auto file = safetensors_file::open(golden_logits(family));
    const auto ids = file->tensor(*file->find_entry("input_ids"));
    const auto logits = file->tensor(*file->find_entry("logits"));
    const auto length = size_t(ids.shape.at(1));
    const auto width = size_t(logits.shape.at(2));
    const auto* id = reinterpret_cast<const int32_t*>(ids.bytes.data());
    const auto* row = reinterpret_cast<const float*>(logits.bytes.data());
    golden_sequence result;
    result.tokens.assign(id, id + length);
    for (size_t i = 0; i + 1 < length; ++i, row += width) {
        auto& p = result.probabilities.emplace_back(width);
        for (size_t v = 0; v < width; ++v) p[v] = std::exp(double(row[v]));
        const double sum = std::accumulate(p.begin(), p.end(), 0.0);
        for (double& each : p) each /= sum;
        result.mean_nll -= std::log(p[size_t(result.tokens[i + 1])]);
    }
    result.mean_nll /= double(length - 1);
    return result;
}

} // namespace

TEST_CASE("verify passes on the golden models") {
    for (const char* family :
         {"llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3"}) {
        CAPTURE(family);
        const auto json = sluice_command(verify(family, family)).json();
        check_keys(json, {"max_abs_error", "greedy_agreement", "rows", "rows_over_margin",
                          "continuation_tokens", "continuation_tokens_agreeing", "passed"});
        CHECK(json["passed"] == true);
        CHECK(json["max_abs_error"] < 1e-3);
        CHECK(json["greedy_agreement"] == 1.0);
        CHECK(json["rows"] == 80);
        CHECK(json["continuation_tokens_agreeing"] == 16);
    }
    const auto narrow = sluice_command(verify("mixtral", "mixtral", {"--dtype", "bfloat16"}));
    CHECK(nlohmann::json::parse(narrow.output)["dtype"] == "bfloat16");
    CHECK(sluice_command(verify("llama", "llama", {"--chunk", "1"})).status == 0);
}

TEST_CASE("verify fails with status 1 where the logits are others") {
    const auto other = sluice_command(verify("llama", "qwen3"));
    CHECK(other.status == 1);
    const auto json = nlohmann::json::parse(other.output);
    CHECK(json["passed"] == false);
    CHECK(json["max_abs_error"] > 0.1);
    CHECK(sluice_command(verify("llama", "llama", {"--tolerance", "0"})).status == 1);
    check_refused({"verify", golden_model("llama"), "--golden", golden_model("llama") + "/none",
                   "--backend", default_backend()},
                  {"none"});
    check_refused({"verify", golden_model("llama"), "--golden",
                   golden_model("llama") + "/model.safetensors", "--backend", default_backend()},
                  {"input_ids", "found neither"});
}

namespace {

std::string write_tokens(const temporary_directory& folder, const std::vector<int32_t>& tokens) {
    std::string bytes;
    for (const int32_t token : tokens) {
        bytes += static_cast<char>(token & 0xff);
        bytes += static_cast<char>(token >> 8);
    }
    return folder.write("tokens.u16", bytes).string();
}

std::string write_config(const temporary_directory& folder, const std::string& family) {
    return folder
        .write(family + ".toml", "backend = \"" + default_backend() + "\"\n[model]\npath = \""
                                     + golden_model(family) + "\"\n")
        .string();
}

} // namespace

TEST_CASE("eval nll gives what the golden logits give") {
    const auto golden = read_sequence("deepseek_v3");
    const temporary_directory folder;
    const auto tokens = write_tokens(folder, golden.tokens);
    const auto config = write_config(folder, "deepseek_v3");
    const auto window = std::to_string(golden.tokens.size() - 1);
    const auto json =
        sluice_command({"eval", "nll", config, "--tokens", tokens, "--window", window, "--json"})
            .json();
    check_keys(json, {"mean_nll", "perplexity", "tokens", "windows", "seconds"});
    CHECK(json["windows"] == 1);
    CHECK(json["tokens"] == golden.tokens.size() - 1);
    CHECK(json["mean_nll"].get<double>() == doctest::Approx(golden.mean_nll).epsilon(1e-5));
    CHECK(json["perplexity"].get<double>()
          == doctest::Approx(std::exp(golden.mean_nll)).epsilon(1e-4));
    check_refused({"eval", "nll", config, "--tokens", tokens, "--window", "1000"},
                  {"tokens.u16", "1001"});
    const auto odd = folder.write("odd.u16", "abc").string();
    check_refused({"eval", "nll", config, "--tokens", odd, "--window", "1"},
                  {"odd.u16", "3 bytes"});
}

TEST_CASE("eval compare gives what two models' golden logits give") {
    const auto base = read_sequence("qwen3"), other = read_sequence("llama");
    REQUIRE(base.tokens == other.tokens);
    const size_t rows = base.probabilities.size();
    std::vector<double> divergences;
    double agreements = 0;
    for (size_t row = 0; row < rows; ++row) {
        const auto &p = base.probabilities[row], &q = other.probabilities[row];
        double sum = 0;
        for (size_t i = 0; i < p.size(); ++i) sum += p[i] * std::log(p[i] / q[i]);
        divergences.push_back(sum);
        agreements += std::max_element(p.begin(), p.end()) - p.begin()
                              == std::max_element(q.begin(), q.end()) - q.begin()
                          ? 1
                          : 0;
    }
    const temporary_directory folder;
    const auto tokens = write_tokens(folder, base.tokens);
    const auto qwen3 = write_config(folder, "qwen3"), llama = write_config(folder, "llama");
    const auto window = std::to_string(rows);
    const auto compared = [&](const std::string& left, const std::string& right) {
        return sluice_command({"eval", "compare", left, right, "--tokens", tokens, "--window",
                               window, "--json"})
            .json();
    };
    const auto found = compared(qwen3, llama);
    CHECK(found["tokens"] == rows);
    CHECK(found["base_perplexity"].get<double>()
          == doctest::Approx(std::exp(base.mean_nll)).epsilon(1e-4));
    CHECK(found["other_perplexity"].get<double>()
          == doctest::Approx(std::exp(other.mean_nll)).epsilon(1e-4));
    CHECK(found["perplexity_increase"].get<double>()
          == doctest::Approx(std::exp(other.mean_nll - base.mean_nll) - 1).epsilon(1e-3));
    const double mean = std::accumulate(divergences.begin(), divergences.end(), 0.0) / double(rows);
    CHECK(found["divergence_mean"].get<double>() == doctest::Approx(mean).epsilon(1e-4));
    CHECK(found["divergence_max"].get<double>()
          == doctest::Approx(*std::max_element(divergences.begin(), divergences.end()))
                 .epsilon(1e-4));
    CHECK(found["top_1_agreement"].get<double>() == doctest::Approx(agreements / double(rows)));

    const auto same = compared(qwen3, qwen3);
    CHECK(same["divergence_max"] == 0.0);
    CHECK(same["top_1_agreement"] == 1.0);
    CHECK(same["perplexity_increase"] == 0.0);
    check_refused({"eval", "compare", qwen3, configuration_path("quickstart"), "--tokens", tokens,
                   "--window", window},
                  {"vocabulary of 512", "8192"});
}

TEST_CASE("bench --profile says where the time of a step goes, and what is between steps") {
    const auto json = sluice_command({"bench", configuration_path("quickstart"), "--profile",
                                      "--prompt-tokens", "16", "--decode-tokens", "4", "--json"})
                          .json();
    for (const char* phase : {"prefill", "decode"}) {
        REQUIRE(json[phase].is_array());
        CHECK(json[phase].size() > 5);
    }
    CHECK(json["decode_step"].value("host_seconds", 0.0) > 0.0);
    CHECK(json["decode_step"].value("seconds", 0.0)
          > json["decode_step"].value("host_seconds", 0.0));
}

TEST_CASE("bench reports speeds and their shares of the machine's limits") {
    const auto json = sluice_command({"bench", configuration_path("quickstart"), "--set",
                                      "backend=" + default_backend(), "--prompt-tokens", "32",
                                      "--decode-tokens", "4", "--repetitions", "2", "--json"})
                          .json();
    for (const char* key :
         {"prefill_tokens_per_second", "decode_tokens_per_second", "bytes_per_step",
          "decode_bandwidth_share", "prefill_matrix_peak_share", "operations_per_prompt_token",
          "measured_bandwidth_bytes_per_second", "measured_matrix_peak_operations_per_second"}) {
        CAPTURE(key);
        CHECK(json.value(key, 0.0) > 0.0);
    }
    CHECK(json["decode_step"].value("host_seconds", 0.0) > 0.0);
    CHECK(json["decode_step"].value("host_share", 1.0) < 1.0);
    CHECK(json["prefill_tokens_per_second_all"].size() == 2);
    CHECK(json["backend"] == default_backend());
}

TEST_CASE("bench --prompt compares what follows a text with and without speculation") {
    const std::vector<std::string> arguments{"bench",           configuration_path("quickstart"),
                                             "--set",           "backend=" + default_backend(),
                                             "--prompt",        "1 2 3 4 1 2 3 4 1 2 3 4 1 2 3 4",
                                             "--decode-tokens", "24",
                                             "--repetitions",   "2"};
    auto with_json = arguments;
    with_json.push_back("--json");
    const auto json = sluice_command(with_json).json();
    check_keys(json, {"plain", "speculation", "ratio", "row_cost", "equal_tokens", "same_text"});
    CHECK(json["same_text"] == true);
    CHECK(json["equal_tokens"] == 25);
    CHECK(json["ratio"] > 0.0);
    CHECK(json["plain"]["draft_tokens"] == 0);
    CHECK(json["plain"]["rows_per_step"] == 1.0);
    CHECK(json["plain"]["tokens_per_second_all"].size() == 2);
    CHECK(json["speculation"]["draft_tokens_accepted"] > 0);
    CHECK(json["speculation"]["rows_per_step"] > 1.0);
    CHECK(sluice_command(arguments).output.find("the text is the same") != std::string::npos);
}
