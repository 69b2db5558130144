// Plugins that break one rule each: every one must end in an error that says which rule, and leave
// the host and the plugins beside it in working order.
#include "../base/error_check.hpp"
#include "../base/temporary_directory.hpp"
#include "plugin/plugin_host.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

namespace {

using namespace sluice;
using sluice::test::check_error;

plugin_manifest manifest_for(const std::string& id) {
    plugin_manifest manifest;
    manifest.id = id;
    manifest.kind = SLUICE_KIND_ROUTER;
    manifest.version = "1.0.0";
    manifest.abi_version = SLUICE_ABI_VERSION;
    manifest.summary = "A router for tests";
    manifest.license = "MIT";
    manifest.library = id + ".so";
    manifest.platform = platform_name();
    manifest.extensions = {SLUICE_ROUTER_EXTENSION};
    return manifest;
}

// A plugin folder of its own, with a host that searches it alone and keeps its log.
class plugin_folder {
  public:
    explicit plugin_folder(bool allow_draft = false) {
        host_options options;
        options.worker_count = 2;
        options.allow_draft = allow_draft;
        options.on_log = [this](log_level, std::string_view message) {
            log_ += std::string(message) + "\n";
        };
        services_ = std::make_shared<host_services>(options);
        plugin_host_options plugin_options;
        plugin_options.folders = {directory_.path()};
        plugin_options.use_install_folder = false;
        plugin_options.allow_draft = allow_draft;
        host_ = std::make_unique<plugin_host>(services_, plugin_options);
    }

    // Puts the library in, with a manifest that is right but for `change`.
    void add(
        const std::string& id,
        const std::function<void(plugin_manifest&)>& change = [](plugin_manifest&) {}) {
        const std::filesystem::path source =
            std::filesystem::path(SLUICE_HOSTILE_DIR) / (id + ".so");
        std::filesystem::copy_file(source, directory_.path() / (id + ".so"));
        plugin_manifest manifest = manifest_for(id);
        change(manifest);
        directory_.write(id + ".toml", manifest_text(manifest));
    }

    std::shared_ptr<plugin_instance> open(const std::string& id) {
        return host_->open(SLUICE_KIND_ROUTER, id);
    }

    plugin_candidate candidate(const std::string& id) {
        for (plugin_candidate& one : host_->candidates(true)) {
            if (one.id == id) return one;
        }
        FAIL("no candidate ", id);
        return {};
    }

    test::temporary_directory& directory() { return directory_; }
    plugin_host& host() { return *host_; }
    const std::string& log() const { return log_; }

  private:
    test::temporary_directory directory_;
    std::string log_;
    std::shared_ptr<host_services> services_;
    std::unique_ptr<plugin_host> host_;
};

struct rule {
    std::string id;
    sluice_status status;
    std::vector<std::string> message_parts;
};

void check_rule(const rule& one) {
    CAPTURE(one.id);
    plugin_folder folder;
    folder.add(one.id);
    folder.add("well_behaved");
    std::vector<std::string> parts = one.message_parts;
    parts.push_back(one.id);
    check_error([&] { folder.open(one.id); }, one.status, parts);
    // Twice: a failure must leave nothing behind.
    check_error([&] { folder.open(one.id); }, one.status, parts);
    CHECK(folder.open("well_behaved")->id() == "well_behaved");
}

void check_routes(plugin_instance& instance) {
    sluice_routing_specification model = SLUICE_INIT(sluice_routing_specification);
    model.expert_count = 8;
    model.choice_count = 2;
    model.scale = 1;
    sluice_router_request request = SLUICE_INIT(sluice_router_request);
    request.expert_count = 8;
    request.choice_count = 2;
    request.model = &model;
    sluice_routing_specification result = SLUICE_INIT(sluice_routing_specification);
    sluice_router_answer answer = SLUICE_INIT(sluice_router_answer);
    answer.specification = &result;
    plugin_call call = instance.call("describe");
    call = instance.router().describe(instance.handle(), &request, &answer, call.error());
    CHECK(result.expert_count == 8);
    CHECK(result.choice_count == 2);
}

} // namespace

TEST_CASE("rules of the library: each breach is refused by name") {
    const std::vector<rule> rules = {
        {"abi_version_wrong",
         SLUICE_UNSUPPORTED,
         {"built for ABI 9.7", "speaks 0.1", "build the plugin again"}},
        {"negotiation_refused", SLUICE_UNSUPPORTED, {"refuses this host", "I speak 7.3 alone"}},
        {"negotiation_out_of_range", SLUICE_UNSUPPORTED, {"chose ABI 0.6", "out of the range"}},
        {"negotiation_missing", SLUICE_INVALID, {"required function negotiate is NULL"}},
        {"library_size_zero", SLUICE_INVALID, {"struct_size", "is 0", "SLUICE_INIT"}},
        {"library_size_tiny", SLUICE_INVALID, {"struct_size", "is 32", "required functions"}},
        {"library_size_garbage", SLUICE_INVALID, {"struct_size", "4294967280"}},
        {"entry_missing", SLUICE_INVALID, {"does not export sluice_plugin_entry", "SLUICE_EXPORT"}},
        {"entry_null", SLUICE_INVALID, {"sluice_plugin_entry answered NULL"}},
        {"entry_throws", SLUICE_INTERNAL, {"sluice_plugin_entry threw", "forbids"}},
        {"create_missing", SLUICE_INVALID, {"required function create is NULL"}},
        {"table_function_missing",
         SLUICE_INVALID,
         {"sluice.router/0", "required function describe is NULL"}},
        {"table_size_tiny",
         SLUICE_INVALID,
         {"sluice.router/0", "struct_size is 8", "before the required function describe"}},
        {"table_missing", SLUICE_INVALID, {"sluice.router/0", "NULL"}},
        {"undefined_symbol", SLUICE_UNAVAILABLE, {"function_that_nobody_wrote"}},
    };
    for (const rule& one : rules) check_rule(one);
}

TEST_CASE("rules of the descriptor: each breach is refused by name") {
    const std::vector<rule> rules = {
        {"kind_unknown", SLUICE_INVALID, {"\"ruoter\"", "did you mean \"router\""}},
        {"kind_other", SLUICE_INVALID, {"quantizer"}},
        {"id_other", SLUICE_INVALID, {"the id is \"somebody_else\"", "must be equal"}},
        {"descriptor_missing", SLUICE_INVALID, {"descriptor() answered NULL"}},
        {"text_huge", SLUICE_INVALID, {"summary has 1099511627776 bytes"}},
        {"text_not_utf8", SLUICE_INVALID, {"summary is not UTF-8"}},
        {"setting_twice", SLUICE_INVALID, {"setting depth is described twice"}},
        {"setting_default_wrong", SLUICE_INVALID, {"depth", "default 9", "bounds 1 to 8"}},
        {"setting_null", SLUICE_INVALID, {"setting 0 is NULL"}},
        {"extension_missing", SLUICE_INVALID, {"\"acme.telepathy/1\"", "NULL"}},
    };
    for (const rule& one : rules) check_rule(one);
}

TEST_CASE("rules of an instance: each breach is refused by name") {
    const std::vector<rule> rules = {
        {"create_throws", SLUICE_INTERNAL, {"create threw an exception", "the coffee is cold"}},
        {"status_unknown", SLUICE_INTERNAL, {"unknown status 0x5a000003", "gave no message"}},
        {"instance_missing", SLUICE_INTERNAL, {"answered OK but gave no instance"}},
        {"probe_unavailable",
         SLUICE_UNAVAILABLE,
         {"cannot run on this machine", "no abacus with 12 rods was found"}},
        {"probe_fails", SLUICE_UNAVAILABLE, {"probe", "the driver answers in riddles"}},
    };
    for (const rule& one : rules) check_rule(one);
}

TEST_CASE("a message without an end is cut, and its control characters are taken out") {
    plugin_folder folder;
    folder.add("message_unterminated");
    try {
        folder.open("message_unterminated");
        FAIL("expected an error");
    } catch (const error& failure) {
        const std::string message = failure.what();
        CHECK(failure.status() == SLUICE_EXHAUSTED);
        CHECK(message.find("message_unterminated: create: out of patience ?[31m") == 0);
        CHECK(message.size() < SLUICE_ERROR_MESSAGE_BYTES + 100);
    }
}

TEST_CASE("structs that have grown are accepted") {
    plugin_folder folder;
    folder.add("library_larger");
    folder.add("table_larger");
    check_routes(*folder.open("library_larger"));
    check_routes(*folder.open("table_larger"));
}

TEST_CASE("two hosts in one process load one library") {
    plugin_folder first;
    first.add("well_behaved");
    const auto instance = first.open("well_behaved");
    {
        host_options options;
        options.worker_count = 1;
        plugin_host second(std::make_shared<host_services>(options),
                           {{first.directory().path()}, false, false, false});
        check_routes(*second.open(SLUICE_KIND_ROUTER, "well_behaved"));
    }
    check_routes(*instance);
}

TEST_CASE("a plugin that cannot be judged from its manifest is loaded by nobody") {
    plugin_folder folder;
    SUBCASE("no manifest") {
        folder.add("well_behaved");
        std::filesystem::remove(folder.directory().path() / "well_behaved.toml");
        check_error([&] { folder.open("well_behaved"); }, SLUICE_UNSUPPORTED,
                    {"no manifest well_behaved.toml", "sluice-plugin-check --manifest"});
        CHECK(folder.candidate("well_behaved").verdict == plugin_verdict::rejected);
    }
    SUBCASE("manifest of another platform") {
        folder.add("well_behaved", [](auto& manifest) { manifest.platform = "linux-vax"; });
        check_error([&] { folder.open("well_behaved"); }, SLUICE_UNSUPPORTED,
                    {"\"linux-vax\"", std::string(platform_name())});
    }
    SUBCASE("manifest of another ABI") {
        folder.add("well_behaved", [](auto& manifest) { manifest.abi_version = 0x00020003; });
        check_error([&] { folder.open("well_behaved"); }, SLUICE_UNSUPPORTED,
                    {"built for ABI 2.3", "this host speaks 0.1"});
    }
    SUBCASE("library is missing") {
        folder.add("well_behaved");
        std::filesystem::remove(folder.directory().path() / "well_behaved.so");
        check_error([&] { folder.open("well_behaved"); }, SLUICE_UNSUPPORTED,
                    {"well_behaved.so is not there"});
    }
    SUBCASE("library outside the folder") {
        folder.add("well_behaved", [](auto& manifest) { manifest.library = "../lib.so"; });
        check_error([&] { folder.open("well_behaved"); }, SLUICE_UNSUPPORTED,
                    {"well_behaved.toml:7", "without folders"});
    }
}

TEST_CASE("a manifest that lies is found out") {
    const std::vector<std::pair<std::function<void(plugin_manifest&)>, std::string>> lies = {
        {[](auto& m) { m.version = "2.0.0"; }, "version is \"2.0.0\" in the manifest, \"1.0.0\""},
        {[](auto& m) { m.summary = "The best router"; }, "summary"},
        {[](auto& m) { m.license = "Apache-2.0"; }, "license"},
        {[](auto& m) { m.needs = "a quantum computer"; }, "needs"},
        {[](auto& m) { m.thread_count = 3; }, "thread_count is 3"},
        {[](auto& m) { m.extensions.push_back("acme.more/1"); }, "acme.more/1"},
        {[](auto& m) {
             setting_schema extra;
             extra.name = "extra";
             extra.type = SLUICE_SETTING_BOOLEAN;
             m.settings.push_back(extra);
         },
         "1 settings are described in the manifest, 0 in the library"},
    };
    for (const auto& [lie, part] : lies) {
        plugin_folder folder;
        folder.add("well_behaved", lie);
        check_error([&] { folder.open("well_behaved"); }, SLUICE_INVALID,
                    {"the manifest is not this library's", part});
    }
}

TEST_CASE("files that are no libraries") {
    plugin_folder folder;
    const auto put = [&](const std::string& id, const std::string& bytes) {
        folder.directory().write(id + ".so", bytes);
        folder.directory().write(id + ".toml", manifest_text(manifest_for(id)));
    };
    std::string library;
    {
        std::ifstream stream(std::filesystem::path(SLUICE_HOSTILE_DIR) / "well_behaved.so",
                             std::ios::binary);
        library.assign(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
        REQUIRE(library.size() > 4096);
    }
    put("empty", "");
    check_error([&] { folder.open("empty"); }, SLUICE_INVALID, {"empty.so", "empty"});
    put("script", "#!/bin/sh\necho I am a plugin\n");
    check_error([&] { folder.open("script"); }, SLUICE_INVALID, {"not a shared library"});
    put("header_cut", library.substr(0, 40));
    check_error([&] { folder.open("header_cut"); }, SLUICE_INVALID, {"cut short"});
    put("segments_cut", library.substr(0, 100));
    check_error([&] { folder.open("segments_cut"); }, SLUICE_INVALID, {"cut short"});
    put("body_cut", library.substr(0, 4096));
    check_error([&] { folder.open("body_cut"); }, SLUICE_INVALID, {"cut short", "bytes"});
    std::string other = library;
    other[18] = char(243); // e_machine: RISC-V
    other[19] = 0;
    put("other_machine", other);
    check_error([&] { folder.open("other_machine"); }, SLUICE_INVALID, {"for RISC-V"});
    std::string narrow = library;
    narrow[4] = 1; // EI_CLASS: 32-bit
    put("narrow", narrow);
    check_error([&] { folder.open("narrow"); }, SLUICE_INVALID, {"not 64-bit"});
    std::filesystem::create_directory(folder.directory().path() / "folder.so");
    folder.directory().write("folder.toml", manifest_text(manifest_for("folder")));
    check_error([&] { folder.open("folder"); }, SLUICE_INVALID, {"folder.so"});
}

TEST_CASE("kinds: a router is no backend, a draft needs leave, a backend needs all of its table") {
    plugin_folder folder;
    folder.add("well_behaved");
    check_error([&] { folder.host().open(SLUICE_KIND_BACKEND, "well_behaved"); }, SLUICE_INVALID,
                {"is a plugin of kind router", "expected one of kind backend"});
    check_error([&] { folder.open("well_behaved")->backend(); }, SLUICE_INVALID,
                {"\"well_behaved\" is a router; expected a backend"});

    const auto as_stage = [](plugin_manifest& manifest) {
        manifest.kind = SLUICE_KIND_STAGE;
        manifest.extensions = {SLUICE_STAGE_EXTENSION};
    };
    folder.add("stage_draft", as_stage);
    check_error([&] { folder.host().open(SLUICE_KIND_STAGE, "stage_draft"); }, SLUICE_UNSUPPORTED,
                {"draft", "allow_draft = true"});
    plugin_folder with_drafts(true);
    with_drafts.add("stage_draft", as_stage);
    CHECK(with_drafts.host().open(SLUICE_KIND_STAGE, "stage_draft")->stage().port_count == 0);

    folder.add("backend_incomplete", [](plugin_manifest& manifest) {
        manifest.kind = SLUICE_KIND_BACKEND;
        manifest.extensions = {SLUICE_BACKEND_EXTENSION};
    });
    check_error([&] { folder.host().open(SLUICE_KIND_BACKEND, "backend_incomplete"); },
                SLUICE_INVALID, {"required function submit is NULL"});
}

TEST_CASE("a missing plugin: the folders searched and the nearest names") {
    plugin_folder folder;
    folder.add("well_behaved");
    folder.add("table_larger");
    check_error([&] { folder.open("well_behavd"); }, SLUICE_UNAVAILABLE,
                {"no plugin \"well_behavd\" of kind router", folder.directory().path().string(),
                 "did you mean \"well_behaved\""});
    check_error([&] { folder.open("zzz"); }, SLUICE_UNAVAILABLE, {"table_larger, well_behaved"});
    const configuration given =
        configuration_from_text("router = \"well_behavd\"\n", "/", "some.toml");
    check_error([&] { folder.host().open(SLUICE_KIND_ROUTER, given.router, given); },
                SLUICE_UNAVAILABLE, {"some.toml:1", "well_behaved"});
}

TEST_CASE("every candidate is explained, and the bad ones spoil nothing") {
    plugin_folder folder;
    folder.add("well_behaved");
    folder.add("create_missing");
    folder.add("probe_unavailable");
    folder.add("undefined_symbol");
    folder.directory().write("nonsense.toml", "this is = = not TOML");
    folder.directory().write("orphan.so", "");
    CHECK(folder.candidate("well_behaved").verdict == plugin_verdict::usable);
    CHECK(folder.candidate("well_behaved").version == "1.0.0");
    CHECK(folder.candidate("create_missing").verdict == plugin_verdict::rejected);
    CHECK(folder.candidate("probe_unavailable").verdict == plugin_verdict::unavailable);
    CHECK(folder.candidate("probe_unavailable").reason.find("abacus") != std::string::npos);
    CHECK(folder.candidate("undefined_symbol").reason.find("function_that_nobody_wrote")
          != std::string::npos);
    CHECK(folder.candidate("nonsense").reason.find("nonsense.toml:1") != std::string::npos);
    CHECK(folder.candidate("orphan").reason.find("no manifest") != std::string::npos);
    // Without a probe no code is loaded, so only the manifests are judged.
    const std::vector<plugin_candidate> unprobed = folder.host().candidates(false);
    CHECK(unprobed.size() == 6);
    CHECK(std::count_if(
              unprobed.begin(), unprobed.end(),
              [](const plugin_candidate& one) { return one.verdict == plugin_verdict::usable; })
          == 4);
}

TEST_CASE("the first folder wins, and says so of the second") {
    plugin_folder first;
    plugin_folder second;
    first.add("well_behaved");
    second.add("well_behaved");
    host_options options;
    options.worker_count = 1;
    plugin_host host(std::make_shared<host_services>(options),
                     {{first.directory().path(), second.directory().path()}, false, false, false});
    const std::vector<plugin_candidate> candidates = host.candidates(false);
    REQUIRE(candidates.size() == 2);
    CHECK(candidates[0].verdict == plugin_verdict::usable);
    CHECK(candidates[1].verdict == plugin_verdict::shadowed);
    CHECK(candidates[1].reason.find(first.directory().path().string()) != std::string::npos);
    // A broken one in the first folder is an error, not a reason to take the other.
    first.directory().write("well_behaved.so", "broken");
    check_error([&] { host.open(SLUICE_KIND_ROUTER, "well_behaved"); }, SLUICE_INVALID,
                {first.directory().path().string()});
}

TEST_CASE("breaches of the host's services are counted and end neither the call nor the host") {
    plugin_folder folder;
    folder.add("team_from_worker");
    folder.add("metric_malformed");
    CHECK(folder.open("team_from_worker")->breach_count() == 1);
    CHECK(folder.log().find("team_run was called from a worker") != std::string::npos);
    CHECK(folder.open("metric_malformed")->breach_count() == 1);
    CHECK(folder.log().find("Cache Hits!") != std::string::npos);
}

TEST_CASE("an unknown or missing fallback backend is named with all reasons") {
    plugin_folder folder;
    folder.add("well_behaved");
    const configuration given = configuration_from_text(
        "backend = \"cuda\"\nbackend_fallback = [\"vulkan\", \"well_behaved\"]\n", "/",
        "some.toml");
    check_error([&] { folder.host().open_backend(given); }, SLUICE_UNAVAILABLE,
                {"\"cuda\"", "\"vulkan\"", "\"well_behaved\" is a plugin of kind router"});
    CHECK(folder.log().find("cuda") != std::string::npos);
}
