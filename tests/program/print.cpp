// The programs of all families as text. To write them anew after a change that was meant, run the
// tests with SLUICE_WRITE_EXPECTED=1 and read the difference.
#include "program/print.hpp"

#include "model/model_program.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace sluice {

namespace {

std::string data_path(const std::string& name) {
    return std::string(SLUICE_TEST_DATA_DIR) + "/" + name;
}

std::string read_file(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    std::ostringstream text;
    text << stream.rdbuf();
    return text.str();
}

print_options folded() {
    print_options options;
    options.fold_layers = true;
    return options;
}

void compare(const std::string& name, const std::string& text) {
    const std::string path = data_path("programs/" + name + ".txt");
    if (std::getenv("SLUICE_WRITE_EXPECTED") != nullptr) std::ofstream(path) << text;
    const std::string expected = read_file(path);
    REQUIRE_MESSAGE(!expected.empty(), path, " is missing");
    std::istringstream found_lines(text);
    std::istringstream expected_lines(expected);
    std::string found_line;
    std::string expected_line;
    for (int line = 1; std::getline(expected_lines, expected_line); ++line) {
        std::getline(found_lines, found_line);
        REQUIRE_MESSAGE(found_line == expected_line, path, ":", line);
    }
    CHECK(text.size() == expected.size());
}

} // namespace

TEST_CASE("each family's program reads as it should") {
    for (const char* name : {"llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3",
                             "olmoe", "glm4_moe", "gpt_oss"}) {
        CAPTURE(name);
        const auto config = load_model_config(data_path("configs/" + std::string(name) + ".json"));
        const model_program model = build_model_program(config, {});
        compare(name, print_program(model.step, folded()));
    }
}

TEST_CASE("types and caches are the caller's choice") {
    const auto config = load_model_config(data_path("configs/gpt_oss.json"));
    model_program_options options;
    options.compute_type = SLUICE_BF16;
    options.cache_type = SLUICE_F16;
    options.tokens_per_block = 64;
    options.separate_window_group = true;
    const model_program model = build_model_program(config, options);
    CHECK(model.cache_group_count == 2);
    compare("gpt_oss_bf16", print_program(model.step, folded()));
}

TEST_CASE("remarks and unfolded layers") {
    const auto config = load_model_config(data_path("configs/llama.json"));
    const model_program model = build_model_program(config, {});
    print_options options;
    options.declarations = false;
    options.remark = [](uint32_t operation) {
        return operation == 0 ? std::string("gathered") : std::string();
    };
    const std::string text = print_program(model.step, options);
    CHECK(text.starts_with("program llama\n%embed = embed($token_ids, @model.embed_tokens.weight) "
                           ": f32[T, 128]  # gathered\n%layers.0.input_norm"));
    CHECK(text.find("%layers.2.o = ") != std::string::npos);
}

} // namespace sluice
