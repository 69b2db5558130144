// Runs the sluice command.
#pragma once

#include "base/temporary_directory.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <sys/wait.h>

namespace sluice::test {

struct outcome {
    int status = -1;
    std::string output; // standard output
    std::string errors; // standard error

    nlohmann::json json() const {
        REQUIRE_MESSAGE(status == 0, errors);
        return nlohmann::json::parse(output);
    }
};

inline std::string read_file(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

inline std::string shell_quoted(std::string_view text) {
    std::string quoted = "'";
    for (const char c : text) {
        if (c == '\'')
            quoted += "'\\''";
        else
            quoted += c;
    }
    quoted += "'";
    return quoted;
}

// `before`: a program that starts the command, such as "timeout 1".
inline outcome sluice_command(const std::vector<std::string>& arguments,
                              std::string_view input = {}, const std::string& before = {}) {
    const temporary_directory files;
    files.write("input", input);
    std::string line = before;
    const auto add = [&](const char* separator, const std::string& word) {
        line += separator;
        line += shell_quoted(word);
    };
    add(" ", SLUICE_COMMAND);
    for (const auto& argument : arguments) add(" ", argument);
    add(" <", (files.path() / "input").string());
    add(" >", (files.path() / "output").string());
    add(" 2>", (files.path() / "errors").string());
    const int status = std::system(line.c_str());
    outcome result;
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    result.output = read_file(files.path() / "output");
    result.errors = read_file(files.path() / "errors");
    return result;
}

// The command fails with status 2 and one line that says these things, and prints nothing else.
inline void check_refused(const std::vector<std::string>& arguments,
                          const std::vector<std::string>& parts, std::string_view input = {}) {
    const auto result = sluice_command(arguments, input);
    CHECK(result.status == 2);
    CHECK_MESSAGE(result.output.empty(), result.output);
    for (const auto& part : parts)
        CHECK_MESSAGE(result.errors.find(part) != std::string::npos, result.errors,
                      " <- lacks: ", part);
}

inline void check_keys(const nlohmann::json& json, const std::vector<std::string>& keys) {
    for (const auto& key : keys) CHECK_MESSAGE(json.contains(key), key);
}

inline std::filesystem::path source_folder() { return SLUICE_SOURCE_DIR; }

inline std::string golden_model(const std::string& family) {
    return (std::filesystem::path(SLUICE_TEST_DATA_DIR) / "models" / family).string();
}

inline std::string golden_logits(const std::string& family) {
    return golden_model(family) + "/golden.safetensors";
}

inline std::string default_model() {
    return (source_folder() / "samples/models/docs-moe-31m-gptq-int4").string();
}

inline std::string configuration_path(const std::string& name) {
    return (source_folder() / "configs" / (name + ".toml")).string();
}

// oneDNN where it was built; builds without it test the rest with the other backend.
inline std::string default_backend() {
    const auto library = std::filesystem::path(SLUICE_PLUGIN_BUILD_DIR) / "onednn.so";
    return std::filesystem::exists(library) ? "onednn" : "reference";
}

} // namespace sluice::test
