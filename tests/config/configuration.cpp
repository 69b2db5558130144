#include "config/configuration.hpp"
#include "../base/error_check.hpp"
#include "../base/temporary_directory.hpp"

#include <doctest/doctest.h>

namespace {

using namespace sluice;
using sluice::test::check_error;

configuration read(const std::string& text, const std::vector<std::string>& overrides = {}) {
    return configuration_from_text(text, "/etc/sluice", "a.toml", overrides);
}

// A text that is refused: for which line, and with what in the message.
struct wrong {
    std::string text;
    std::string line;
    std::vector<std::string> parts;
};

void check_refused(const std::vector<wrong>& all) {
    for (const wrong& one : all) {
        CAPTURE(one.text);
        std::vector<std::string> parts = one.parts;
        parts.push_back("a.toml:" + one.line + ":");
        check_error([&] { read(one.text); }, SLUICE_INVALID, parts);
    }
}

} // namespace

TEST_CASE("an empty configuration has the defaults") {
    const configuration c = read("");
    CHECK(c.backend == "onednn");
    CHECK(c.router == "specification");
    CHECK(c.result_cache == "none");
    CHECK(c.block_store == "none");
    CHECK(c.backend_fallback.empty());
    CHECK(c.plugin_folders.empty());
    CHECK(!c.allow_draft);
    CHECK(c.model.path.empty());
    CHECK(c.model.format == load_format::safetensors);
    CHECK(c.model.compute_type == SLUICE_F32);
    CHECK(c.model.cache_type == SLUICE_F32);
    CHECK(c.engine.tokens_per_step_max == 512);
    CHECK(c.engine.sequences_max == 16);
    CHECK(c.engine.context_tokens_max == 0);
    CHECK(c.engine.cache_tokens == 8192);
    CHECK(c.engine.warm == warm_sizes::decode);
    CHECK(c.engine.tokens_per_block == 16);
    CHECK(c.engine.prefix_reuse);
    CHECK(c.engine.worker_count == 0);
    CHECK(c.generation.tokens_max == 128);
    CHECK(c.generation.temperature == 0.0);
    CHECK(c.generation.top_p == 1.0);
    CHECK(c.generation.repetition_penalty == 1.0);
    CHECK(c.speculation.method == speculation_method::none);
    CHECK(c.speculation.draft_tokens_max == 15);
    CHECK(c.speculation.ngram_min == 2);
    CHECK(c.speculation.ngram_max == 5);
    CHECK(c.speculation.row_cost == 0.4);
    CHECK(c.stages.empty());
    CHECK(c.settings.empty());
    CHECK(c.where("backend") == "default of backend");
}

TEST_CASE("a full configuration is read, paths resolve against its folder") {
    const test::temporary_directory directory;
    const std::filesystem::path path = directory.write("full.toml", R"(
backend = "reference"
router = "subprogram"
result_cache = "memory"
block_store = "disk"
backend_fallback = ["onednn", "vulkan"]
plugin_folders = ["plugins", "/opt/plugins"]
allow_draft = true
checked = true
[model]
path = "../models/tiny"
load_format = "dummy"
compute_type = "bfloat16"
[engine]
tokens_per_step_max = 64
sequences_max = 4
context_tokens_max = 256
cache_tokens = 1024
warm = "all"
tokens_per_block = 32
prefix_reuse = false
worker_count = 2
[generation]
tokens_max = 7
temperature = 0.7
top_k = 40
top_p = 0.9
min_p = 0.05
repetition_penalty = 1.1
seed = 42
stop = ["\n\n", "END"]
[speculation]
method = "prompt_lookup"
draft_tokens_max = 7
ngram_min = 3
ngram_max = 4
row_cost = 0.05
[settings.reference]
depth = 3
names = ["a"]
[settings.memory]
ratio = 1.5
flag = true
[[pipeline.stage]]
name = "rewrite"
kind = "template"
input = { prompt = "request.prompt" }
settings = { text = "Q: {prompt}" }
[[pipeline.stage]]
name = "answer"
kind = "generate"
[pipeline.stage.input]
prompt = "rewrite.text"
)");
    const configuration c = configuration_from_file(path);
    const std::filesystem::path folder = directory.path();
    CHECK(c.folder == folder);
    CHECK(c.backend == "reference");
    CHECK(c.backend_fallback == std::vector<std::string>{"onednn", "vulkan"});
    CHECK(c.plugin_folders
          == std::vector<std::filesystem::path>{folder / "plugins", "/opt/plugins"});
    CHECK(c.allow_draft);
    CHECK(c.checked);
    CHECK(c.model.path == folder.parent_path() / "models/tiny");
    CHECK(c.model.format == load_format::dummy);
    CHECK(c.engine.warm == warm_sizes::all);
    CHECK(c.model.compute_type == SLUICE_BF16);
    CHECK(c.model.cache_type == SLUICE_BF16); // follows the compute type
    CHECK(c.engine.tokens_per_block == 32);
    CHECK(!c.engine.prefix_reuse);
    CHECK(c.generation.seed == 42);
    CHECK(c.generation.stop == std::vector<std::string>{"\n\n", "END"});
    CHECK(c.speculation.method == speculation_method::prompt_lookup);
    CHECK(c.speculation.draft_tokens_max == 7);
    CHECK(c.speculation.ngram_min == 3);
    CHECK(c.speculation.ngram_max == 4);
    CHECK(c.speculation.row_cost == 0.05);
    CHECK(std::get<int64_t>(c.settings_of("reference").values.at("depth").value) == 3);
    CHECK(c.settings_of("reference").values.at("depth").origin.line == 39);
    CHECK(c.settings_of("reference").folder == folder);
    CHECK(std::get<double>(c.settings_of("memory").values.at("ratio").value) == 1.5);
    CHECK(std::get<bool>(c.settings_of("memory").values.at("flag").value));
    CHECK(c.settings_of("nobody").values.empty());
    REQUIRE(c.stages.size() == 2);
    CHECK(c.stages[0].name == "rewrite");
    CHECK(c.stages[0].input.at("prompt").stage == "request");
    CHECK(std::get<std::string>(c.stages[0].settings.values.at("text").value) == "Q: {prompt}");
    CHECK(c.stages[1].kind == "generate");
    CHECK(c.stages[1].input.at("prompt").field == "text");
    CHECK(c.where("model.path") == path.string() + ":11");
}

TEST_CASE("overrides take the place of the file's values and are checked as they are") {
    const std::string text = "[model]\ncompute_type = \"float32\"\n";
    const configuration c =
        read(text, {"backend=reference", "model.compute_type=bfloat16", "generation.stop=[\"x\"]",
                    "engine.cache_tokens=64", "settings.reference.depth=2", "model.path=tiny"});
    CHECK(c.backend == "reference");
    CHECK(c.model.compute_type == SLUICE_BF16);
    CHECK(c.model.path == "/etc/sluice/tiny");
    CHECK(c.generation.stop.size() == 1);
    CHECK(c.engine.cache_tokens == 64);
    CHECK(read(text, {"engine.cache_tokens=auto"}).engine.cache_tokens == 0);
    CHECK(read("[engine]\ncache_tokens = \"auto\"\ncontext_tokens_max = 9000\n", {})
              .engine.context_tokens_max
          == 9000);
    CHECK(std::get<int64_t>(c.settings_of("reference").values.at("depth").value) == 2);
    CHECK(c.where("backend") == "--set backend=reference");
    check_error([&] { read(text, {"engine.worker_cuont=2"}); }, SLUICE_INVALID,
                {"--set engine.worker_cuont=2", "unknown key", "did you mean \"worker_count\""});
    check_error([&] { read(text, {"engine.worker_count=many"}); }, SLUICE_INVALID,
                {"--set engine.worker_count=many", "an integer", "\"many\""});
}

// Each with the line where it is wrong, and what the message must say beside it.
TEST_CASE("formats of modules stand in the order of the file") {
    const configuration c = configuration_from_text(R"(
[quantization.formats]
"model.layers.*.self_attn.**" = "int8"
"model.layers.{0-3}.mlp.**" = "int4 g128 asymmetric"
"lm_head" = "16"
"model.layers.9.mlp.down_proj" = "int8 row"
)",
                                                    "/", "a.toml");
    REQUIRE(c.module_formats.size() == 4);
    CHECK(c.module_formats[0].pattern.matches("model.layers.7.self_attn.q_proj"));
    CHECK(c.module_formats[0].bits == 8);
    CHECK(c.module_formats[0].group_size == 64);
    CHECK(c.module_formats[0].symmetric);
    CHECK(c.module_formats[1].bits == 4);
    CHECK(c.module_formats[1].group_size == 128);
    CHECK(!c.module_formats[1].symmetric);
    CHECK(c.module_formats[2].bits == 16);
    CHECK(c.module_formats[3].group_size == -1);
    CHECK(c.module_formats[3].origin.line == 6);
}

TEST_CASE("malformed formats of modules are refused") {
    const std::vector<std::pair<std::string, std::vector<std::string>>> all = {
        {"[quantization]\nformat = 4\n", {"did you mean \"formats\""}},
        {"[quantization.formats]\na = \"int5\"\n", {"\"int8\" or \"int4\"", "\"int5\""}},
        {"[quantization.formats]\na = \"int4  g64\"\n", {"behind it"}},
        {"[quantization.formats]\na = \"16 g64\"\n", {"behind it"}},
        {"[quantization.formats]\na = \"g64 int4\"\n", {"behind it"}},
        {"[quantization.formats]\na = 4\n", {"a text", "the integer 4"}},
        {"[quantization.formats]\n\"a..b\" = \"16\"\n", {"in this pattern"}},
    };
    for (const auto& [text, parts] : all) {
        CAPTURE(text);
        check_error([&] { read(text); }, SLUICE_INVALID, parts);
    }
}

TEST_CASE("malformed configurations are refused by file, line, key and nearest name") {
    const std::string stage = "[[pipeline.stage]]\nname = \"a\"\nkind = \"generate\"\n";
    const std::vector<wrong> all = {
        {"backnd = \"onednn\"\n", "1", {"backnd", "unknown key", "did you mean \"backend\""}},
        {"\n\nrouters = \"x\"\n", "3", {"did you mean \"router\""}},
        {"xyzzy = 1\n", "1", {"expected one of", "allow_draft", "backend"}},
        {"backend = 3\n", "1", {"backend", "expected a text", "the integer 3"}},
        {"backend = \"One DNN\"\n", "1", {"a plugin id", "[a-z]", "\"One DNN\""}},
        {"backend = \"../../evil\"\n", "1", {"a plugin id"}},
        {"backend = \"\"\n", "1", {"a plugin id"}},
        {"backend = \"" + std::string(65, 'a') + "\"\n", "1", {"at most 64"}},
        {"result_cache = false\n", "1", {"result_cache", "expected a text", "false"}},
        {"backend_fallback = \"onednn\"\n", "1", {"an array", "the text \"onednn\""}},
        {"backend_fallback = [\"x\", 2]\n", "1", {"backend_fallback[1]", "the integer 2"}},
        {"backend_fallback = [\"onednn\"]\n", "1", {"the backend itself"}},
        {"plugin_folders = [\"\"]\n", "1", {"plugin_folders", "a path"}},
        {"allow_draft = \"yes\"\n", "1", {"true or false", "\"yes\""}},
        {"allow_draft = 1\n", "1", {"true or false", "the integer 1"}},
        {"model = \"tiny\"\n", "1", {"model", "expected a table", "\"tiny\""}},
        {"[modle]\npath = \"x\"\n", "1", {"modle", "did you mean \"model\""}},
        {"[model]\npaht = \"x\"\n", "2", {"model.paht", "did you mean \"path\""}},
        {"[model]\npath = [\"x\"]\n", "2", {"model.path", "a text", "an array"}},
        {"[model]\npath = \"\"\n", "2", {"model.path", "a path"}},
        {"[model]\npath = \"a\\u0000b\"\n", "2", {"model.path", "a path"}},
        {"[model]\nload_format = \"safetensor\"\n",
         "2",
         {"\"safetensors\", \"dummy\"", "did you mean \"safetensors\""}},
        {"[model]\ncompute_type = \"float16\"\n",
         "2",
         {"\"float32\", \"bfloat16\"", "\"float16\"", "did you mean"}},
        {"[model]\n\ncache_type = 16\n", "3", {"cache_type", "the integer 16"}},
        {"[model]\ncache_type = \"int4\"\n", "2", {"\"bfloat16\", \"int8\"", "\"int4\""}},
        {"[engine]\ntokens_per_step_max = 0\n", "2", {"from 1 to 65536", "found 0"}},
        {"[engine]\ntokens_per_step_max = -5\n", "2", {"from 1 to", "-5"}},
        {"[engine]\ntokens_per_step_max = 1000000000000\n", "2", {"1000000000000"}},
        {"[engine]\ntokens_per_step_max = 512.0\n", "2", {"an integer", "the number 512"}},
        {"[engine]\nsequences_max = 600\n", "2", {"tokens_per_step_max = 512"}},
        {"[engine]\ncache_tokens = 8\n", "2", {"tokens_per_block = 16"}},
        {"[engine]\ncache_tokens = \"all\"\n", "2", {"integer", "auto", "all"}},
        {"[engine]\nwarm = \"prefill\"\n", "2", {"none", "decode", "all", "prefill"}},
        {"[engine]\ncontext_tokens_max = 9000\n", "2", {"cache_tokens = 8192"}},
        {"[engine]\nworker_count = 5000\n", "2", {"from 0 to 1024"}},
        {"[engine]\nworker_cout = 5\n", "2", {"did you mean \"worker_count\""}},
        {"[engine]\nprefix_reuse = \"on\"\n", "2", {"true or false"}},
        {"[generation]\ntemperature = \"hot\"\n", "2", {"a number", "\"hot\""}},
        {"[generation]\ntemperature = -0.5\n", "2", {"from 0 to 100", "-0.5"}},
        {"[generation]\ntemperature = nan\n", "2", {"from 0 to 100", "nan"}},
        {"[generation]\ntemperature = inf\n", "2", {"from 0 to 100", "inf"}},
        {"[generation]\ntop_p = 0\n", "2", {"top_p", "over 0"}},
        {"[generation]\ntop_p = 1.01\n", "2", {"from 0 to 1"}},
        {"[generation]\nrepetition_penalty = 0\n", "2", {"over 0"}},
        {"[generation]\nseed = -1\n", "2", {"from 0 to 9223372036854775807"}},
        {"[generation]\nseed = 2024-01-01\n", "2", {"an integer", "date or time 2024-01-01"}},
        {"[generation]\nmax_tokens = 5\n", "2", {"generation.max_tokens", "unknown key"}},
        {"[generation]\nstop = [\"\"]\n", "2", {"empty text"}},
        {"[generation]\nstop = [\n  \"a\",\n  5]\n", "4", {"stop[1]", "the integer 5"}},
        {"[settings]\nonednn = 3\n", "2", {"settings.onednn", "a table"}},
        {"[settings.\"One DNN\"]\na = 1\n", "1", {"the id of a plugin"}},
        {"[settings.onednn]\na = 1\n[settings.onednn]\nb = 2\n", "3", {"not TOML"}},
        {"[settings.onednn]\na = 1\na = 2\n", "3", {"not TOML"}},
        {"[settings.onednn]\na = { b = 1 }\n", "2", {"settings.onednn.a", "a table"}},
        {"[settings.onednn]\na = [1, 2]\n", "2", {"settings.onednn.a[0]", "texts only"}},
        {"[settings.onednn]\na = 07:32:00\n", "2", {"date or time"}},
        {"[pipeline]\nstages = 3\n", "2", {"did you mean \"stage\""}},
        {"[pipeline]\nstage = 3\n", "2", {"[[pipeline.stage]]", "the integer 3"}},
        {"[pipeline.stage]\nname = \"a\"\n", "1", {"[[pipeline.stage]]", "a table"}},
        {"[[pipeline.stage]]\nkind = \"generate\"\n", "1", {"name", "missing"}},
        {"[[pipeline.stage]]\nname = \"a\"\n", "1", {"kind", "missing"}},
        {"[[pipeline.stage]]\nname = \"a\"\nkin = \"x\"\n",
         "3",
         {"stage.kin", "did you mean \"kind\""}},
        {"[[pipeline.stage]]\nname = \"request\"\nkind = \"x\"\n", "2", {"own input"}},
        {stage + stage, "5", {"a.toml:1", "the name \"a\" already"}},
        {stage + "inputs = []\n", "4", {"did you mean \"input\""}},
        {stage + "input = { p = 3 }\n", "4", {"pipeline.stage \"a\".input.p", "a text"}},
        {stage + "input = { p = \"x\" }\n", "4", {"\"stage.field\"", "\"x\""}},
        {stage + "input = { p = \"x.\" }\n", "4", {"\"stage.field\""}},
        {stage + "input = { p = \"x.y.z\" }\n", "4", {"\"stage.field\""}},
        {stage + "settings = [\"x\"]\n", "4", {"a table", "an array"}},
        {"backend = \"a\"\nbackend = \"b\"\n", "2", {"not TOML"}},
        {"backend = onednn\n", "1", {"not TOML"}},
        {"[engine\nworker_count = 1\n", "1", {"not TOML"}},
    };
    CHECK(all.size() >= 30);
    check_refused(all);
}

TEST_CASE("a malformed [speculation] likewise") {
    check_refused({
        {"[speculation]\nmethod = \"draft_model\"\n",
         "2",
         {"speculation.method", "\"none\", \"prompt_lookup\"", "\"draft_model\""}},
        {"[speculation]\ndraft_tokens_max = 0\n", "2", {"draft_tokens_max", "from 1 to 255"}},
        {"[speculation]\ndraft_tokens = 8\n", "2", {"did you mean \"draft_tokens_max\""}},
        {"[speculation]\nngram_min = 0\n", "2", {"ngram_min", "from 1 to 64"}},
        {"[speculation]\nngram_min = 6\n", "2", {"ngram_min", "ngram_max = 5", "at most"}},
        {"[speculation]\nngram_min = 3\nngram_max = 2\n", "3", {"ngram_min = 3", "at least"}},
        {"[speculation]\nrow_cost = 1.5\n", "2", {"row_cost", "from 0 to 1"}},
    });
}

TEST_CASE("a file that is not there is named") {
    check_error([] { configuration_from_file("/nonexistent/sluice.toml"); }, SLUICE_UNAVAILABLE,
                {"/nonexistent/sluice.toml"});
}
