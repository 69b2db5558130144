// Runs the embedding samples as their users would.
#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

namespace {

const std::filesystem::path model_folder =
    std::filesystem::path(SLUICE_SOURCE_DIR) / "samples/models/docs-moe-31m-gptq-int4";

struct outcome {
    int status = -1;
    std::string output;
};

outcome run(const std::string& command) {
    outcome result;
    FILE* pipe = popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::array<char, 4096> chunk{};
    while (const size_t size = fread(chunk.data(), 1, chunk.size(), pipe)) {
        result.output.append(chunk.data(), size);
    }
    const int status = pclose(pipe);
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    return result;
}

// A configuration in a file of its own, removed with it.
class configuration_file {
  public:
    explicit configuration_file(const std::string& text)
        : path_(std::filesystem::temp_directory_path()
                / ("sluice-samples-" + std::to_string(getpid()) + ".toml")) {
        std::ofstream(path_) << text;
    }
    ~configuration_file() { std::filesystem::remove(path_); }
    configuration_file(const configuration_file&) = delete;
    configuration_file& operator=(const configuration_file&) = delete;
    std::string path() const { return path_.string(); }

  private:
    std::filesystem::path path_;
};

std::string toml(const std::string& backend) {
    return "backend = \"" + backend
           + "\"\nplugin_folders = [\"" SLUICE_PLUGIN_BUILD_DIR "\"]\n[model]\npath = \""
           + model_folder.string() + "\"\n[engine]\nworker_count = 2\n";
}

std::string sample(const std::string& name) { return SLUICE_BINARY_DIR "/bin/" + name; }

} // namespace

TEST_CASE("both samples stream the same greedy text, on either backend") {
    REQUIRE_MESSAGE(std::filesystem::exists(model_folder), "the default model is missing");
    for (const std::string backend : {"onednn", "reference"}) {
        CAPTURE(backend);
        const configuration_file configured(toml(backend));
        std::string arguments = " ";
        arguments.append(configured.path()).append(" 'The package manager' 12 2>/dev/null");
        const outcome c = run(sample("embed_c") + arguments);
        CHECK(c.status == 0);
        CHECK(c.output.size() > 12);
        const outcome cpp = run(sample("embed_cpp") + arguments);
        CHECK(cpp.status == 0);
        CHECK(cpp.output.starts_with(c.output));
        CHECK(cpp.output.find("seed 1:") != std::string::npos);
        CHECK(cpp.output.find("seed 2:") != std::string::npos);
    }
}

TEST_CASE("the samples say what is wrong") {
    for (const std::string name : {"embed_c", "embed_cpp"}) {
        CAPTURE(name);
        CHECK(run(sample(name) + " 2>&1").status == 2);
        const outcome missing = run(sample(name) + " /no/such.toml hello 2>&1");
        CHECK(missing.status == 1);
        CHECK(missing.output.find("/no/such.toml") != std::string::npos);
    }
}
