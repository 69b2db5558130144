// The file that keeps which kernels were measured as the fastest: what is written comes back, and
// nothing that may stand in its place is an error.
#include "tuning_cache.hpp"

#include "base/temporary_directory.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

using namespace sluice::cuda;
using sluice::test::temporary_directory;

namespace {

const tuning_identity card{{"device", "NVIDIA H100 80GB HBM3"}, {"driver", "cuda12.8"}};
const tuning_key key{"product", "bfloat16 x int4/64, [128 x 1536 x 2048]", 8};

struct opened {
    std::vector<std::string> warnings;
    tuning_cache cache;

    explicit opened(const std::filesystem::path& folder, const tuning_identity& identity = card)
        : cache(folder, identity,
                [this](const std::string& message) { warnings.push_back(message); }) {}
};

// Where the choices of the card are.
std::filesystem::path file_in(const std::filesystem::path& folder) {
    return opened(folder / "absent").cache.path().filename();
}

} // namespace

TEST_CASE("what was measured comes back in the next process") {
    const temporary_directory files;
    const auto folder = files.path() / "sluice" / "cuda"; // made when something is kept
    {
        opened first(folder);
        CHECK(first.cache.find(key) == nullptr);
        first.cache.save();
        CHECK_FALSE(std::filesystem::exists(folder));
        first.cache.remember(key, {"few rows, 8 warps", 9.5, 12.25});
        CHECK_FALSE(first.cache.find(key)->from_file);
        first.cache.save();
        CHECK(first.warnings.empty());
    }
    opened second(folder);
    const tuned_choice* found = second.cache.find(key);
    REQUIRE(found != nullptr);
    CHECK(found->variant == "few rows, 8 warps");
    CHECK(found->us == 9.5);
    CHECK(found->us_rule == 12.25);
    CHECK(found->from_file);
    CHECK(second.cache.find({key.family, key.operands, 16}) == nullptr);
    CHECK(second.warnings.empty());
    // Nothing but the file is left in the folder, under a name that says what it is for.
    const auto entries = std::filesystem::directory_iterator(folder);
    CHECK(std::distance(begin(entries), end(entries)) == 1);
    CHECK(second.cache.path().filename() == "NVIDIA-H100-80GB-HBM3_cuda12.8.json");
}

TEST_CASE("a name cannot lead out of the folder") {
    const temporary_directory files;
    opened strange(files.path(), {{"device", "../../etc/passwd"}});
    CHECK(strange.cache.path().parent_path() == files.path());
}

TEST_CASE("without a folder nothing is kept") {
    opened none("");
    none.cache.remember(key, {"a", 1, 2});
    none.cache.save();
    CHECK(none.cache.find(key)->variant == "a");
    CHECK(none.cache.path().empty());
    CHECK(none.warnings.empty());
}

TEST_CASE("a file that cannot be used is told of, left out and replaced") {
    const std::string useful =
        R"({"family": "f", "operands": "o", "rows": 1, "variant": "v", "us": 1, "us_rule": 1})";
    const std::string own = nlohmann::json(card).dump();
    const std::string contents[] = {
        "",
        "not JSON",
        "[]",
        "{}",
        R"({"measured_on": 3, "choices": []})",
        R"({"measured_on": {"device": "another"}, "choices": [)" + useful + "]}",
        R"({"measured_on": )" + own + R"(, "choices": {}})",
        R"({"measured_on": )" + own + R"(, "choices": [)" + useful + ", 3]}",
        R"({"measured_on": )" + own + R"(, "choices": [{"family": "f"}]})",
        R"({"measured_on": )" + own + R"(, "choices": [)" + useful, // cut short
        std::string(100000, '['),
        std::string("\0\xff\xfe", 3),
    };
    for (const auto& content : contents) {
        CAPTURE(content.substr(0, 200));
        const temporary_directory files;
        files.write(file_in(files.path()), content);
        opened found(files.path());
        CHECK(found.cache.choices().empty());
        REQUIRE(found.warnings.size() == 1);
        CHECK(found.warnings[0].find(found.cache.path().string()) != std::string::npos);
        found.cache.remember(key, {"v", 1, 2});
        found.cache.save();
        opened again(files.path());
        CHECK(again.warnings.empty());
        CHECK(again.cache.choices().size() == 1);
    }
}

TEST_CASE("another card, driver or version of the kernels has a file of its own") {
    const temporary_directory files;
    opened here(files.path());
    here.cache.remember(key, {"v", 1, 2});
    here.cache.save();
    auto other = card;
    other["driver"] = "cuda13.0";
    opened there(files.path(), other);
    CHECK(there.cache.path() != here.cache.path());
    CHECK(there.cache.find(key) == nullptr);
    CHECK(there.warnings.empty());
}

TEST_CASE("a folder that cannot be written is told of once") {
    const temporary_directory files;
    const auto folder = files.write("plain", "a file") / "folder";
    opened found(folder);
    found.warnings.clear();
    found.cache.remember(key, {"v", 1, 2});
    found.cache.save();
    found.cache.save();
    CHECK(found.warnings.size() == 1);
    CHECK(found.cache.find(key)->variant == "v");
}

TEST_CASE("what another process measured meanwhile stays") {
    const temporary_directory files;
    opened first(files.path()), second(files.path());
    tuning_key other = key;
    other.rows = 64;
    first.cache.remember(key, {"first's", 1, 2});
    second.cache.remember(key, {"second's", 1, 2});
    second.cache.remember(other, {"second's", 1, 2});
    second.cache.save();
    first.cache.save();
    CHECK(first.cache.find(key)->variant == "first's");
    REQUIRE(first.cache.find(other) != nullptr);
    CHECK(first.cache.find(other)->from_file);
    opened third(files.path());
    CHECK(third.cache.find(key)->variant == "first's");
    CHECK(third.cache.find(other)->variant == "second's");
}

TEST_CASE("several processes that save at once lose nothing, and readers see whole files") {
    const temporary_directory files;
    constexpr int writers = 8, saves = 20;
    std::vector<pid_t> started;
    for (int writer = 0; writer < writers; ++writer) {
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            opened own(files.path());
            for (int i = 0; i < saves; ++i) {
                own.cache.remember({"product", "writer " + std::to_string(writer), i}, {"v", 1, 2});
                own.cache.save();
            }
            ::_exit(own.warnings.empty() ? 0 : 1);
        }
        started.push_back(child);
    }
    for (const pid_t child : started) {
        int status = -1;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    opened all(files.path());
    CHECK(all.warnings.empty());
    CHECK(all.cache.choices().size() == size_t{writers} * saves);
}

TEST_CASE("the folder is the environment's, where it names a whole path") {
    const char* names[] = {"XDG_CACHE_HOME", "HOME"};
    std::string kept[2];
    for (int i = 0; i < 2; ++i)
        if (const char* value = std::getenv(names[i])) kept[i] = value;
    const auto folder = [&](const char* cache, const char* home) {
        ::setenv(names[0], cache, 1);
        ::setenv(names[1], home, 1);
        return default_tuning_folder();
    };
    CHECK(folder("/cache", "/home/a") == "/cache/sluice/cuda");
    CHECK(folder("", "/home/a") == "/home/a/.cache/sluice/cuda");
    CHECK(folder("relative", "/home/a") == "/home/a/.cache/sluice/cuda");
    CHECK(folder("", "").empty());
    for (int i = 0; i < 2; ++i) ::setenv(names[i], kept[i].c_str(), 1);
}
