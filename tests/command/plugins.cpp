#include "command/command_fixture.hpp"

#include <algorithm>
#include <map>

using namespace sluice::test;

TEST_CASE("plugins lists what ships") {
    const auto json = sluice_command({"plugins", "--json"}).json();
    CHECK(json["folders"].size() == 1);
    std::map<std::string, std::string> kinds;
    for (const auto& plugin : json["plugins"]) {
        check_keys(plugin, {"library", "manifest", "kind", "id", "version", "summary", "verdict",
                            "score", "reason"});
        if (plugin["verdict"] == "unavailable") { // its device is not here
            CHECK(!plugin["reason"].get<std::string>().empty());
            continue;
        }
        CHECK(plugin["verdict"] == "usable");
        kinds[plugin["id"]] = plugin["kind"];
    }
    CHECK(kinds["reference"] == "backend");
    CHECK(kinds["specification"] == "router");
    CHECK(kinds["subprogram"] == "router");
    CHECK(kinds["memory"] == "result_cache");
    CHECK(kinds["rtn"] == "quantizer");
    const auto text = sluice_command({"plugins"});
    CHECK(text.status == 0);
    for (const auto& [id, kind] : kinds) CHECK(text.output.find(id) != std::string::npos);
}

TEST_CASE("plugins explains what it rejects, and a bad one spoils nothing") {
    const temporary_directory folder;
    folder.write("broken.so", "not a library");
    folder.write("nameless.toml", "id = 1\n");
    const auto explained =
        sluice_command({"plugins", "--explain", "--folder", folder.path().string()});
    REQUIRE_MESSAGE(explained.status == 0, explained.errors);
    CHECK(explained.output.find(folder.path().string()) != std::string::npos);
    CHECK(explained.output.find("rejected") != std::string::npos);
    CHECK(explained.output.find("broken.so") != std::string::npos);

    const auto json =
        sluice_command({"plugins", "--folder", folder.path().string(), "--json"}).json();
    CHECK(json["folders"][0] == folder.path().string());
    size_t usable = 0, rejected = 0, others = 0;
    for (const auto& plugin : json["plugins"]) {
        if (plugin["verdict"] == "usable")
            ++usable;
        else
            ++others;
        if (plugin["verdict"] != "rejected") continue;
        ++rejected;
        CHECK(!plugin["reason"].get<std::string>().empty());
    }
    CHECK(usable >= 5);
    CHECK(rejected == 2);
    const auto text = sluice_command({"plugins", "--folder", folder.path().string()});
    CHECK(text.output.find(std::to_string(others) + " more cannot be used") != std::string::npos);
}

TEST_CASE("the first of two plugins of one name is taken") {
    const temporary_directory folder;
    const std::filesystem::path built = SLUICE_PLUGIN_BUILD_DIR;
    for (const char* name : {"rtn.so", "rtn.toml"})
        std::filesystem::copy_file(built / name, folder.path() / name);
    const auto config =
        folder.write("config.toml", "plugin_folders = [\"" + folder.path().string() + "\"]\n");
    const auto json = sluice_command({"plugins", config.string(), "--json"}).json();
    std::map<std::string, std::string> verdicts; // by library
    for (const auto& plugin : json["plugins"])
        if (plugin["id"] == "rtn") verdicts[plugin["library"]] = plugin["verdict"];
    REQUIRE(verdicts.size() == 2);
    CHECK(verdicts[(folder.path() / "rtn.so").string()] == "usable");
    CHECK(std::count_if(verdicts.begin(), verdicts.end(),
                        [](const auto& each) { return each.second == "shadowed"; })
          == 1);
}

TEST_CASE("a folder that is not there is an error") {
    check_refused({"plugins", "--folder", "/no/such/folder"}, {"/no/such/folder"});
}
