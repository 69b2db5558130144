#include "config/configuration.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

namespace sluice {

namespace {

namespace fs = std::filesystem;

constexpr size_t id_bytes_max = 64;
constexpr size_t list_count_max = 64;
constexpr size_t path_bytes_max = 4096;

// Ids of plugins and names of stages: what may stand in a file's stem and in an edge.
bool is_id(std::string_view text) {
    if (text.empty() || text.size() > id_bytes_max || text[0] < 'a' || text[0] > 'z') return false;
    return std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    });
}

constexpr std::string_view id_rule = "[a-z][a-z0-9_-]* of at most 64 characters";

template <typename Target, typename Source>
void assign(Target& target, std::optional<Source>&& source) {
    if (source) target = static_cast<Target>(std::move(*source));
}

fs::path resolved(const fs::path& folder, std::string_view text) {
    const fs::path path{std::string(text)};
    return (path.is_absolute() ? path : folder / path).lexically_normal();
}

class configuration_reader {
  public:
    configuration_reader(const toml_node& document, configuration& result)
        : document_(document), result_(result) {}

    void read() {
        toml_table_reader reader(document_, "");
        assign(result_.backend, id(reader, "backend", "a plugin id"));
        assign(result_.router, id(reader, "router", "a plugin id"));
        assign(result_.result_cache, id(reader, "result_cache", "a plugin id or \"none\""));
        assign(result_.block_store, id(reader, "block_store", "a plugin id or \"none\""));
        assign(result_.backend_fallback, reader.texts("backend_fallback", list_count_max));
        for (const std::string& fallback : result_.backend_fallback) {
            require_id(reader, "backend_fallback", fallback, "plugin ids");
            if (fallback == result_.backend) {
                reader.refuse(
                    "backend_fallback",
                    fmt::format("{} is the backend itself; name others", quote(fallback)));
            }
        }
        if (auto folders = reader.texts("plugin_folders", list_count_max, path_bytes_max)) {
            for (const std::string& folder : *folders) {
                result_.plugin_folders.push_back(path(reader, "plugin_folders", folder));
            }
        }
        assign(result_.allow_draft, reader.boolean("allow_draft"));
        assign(result_.checked, reader.boolean("checked"));
        if (const toml_node* table = reader.table("model"))
            read_model(*table);
        else
            result_.model.cache_type = result_.model.compute_type;
        if (const toml_node* table = reader.table("engine")) read_engine(*table);
        if (const toml_node* table = reader.table("generation")) read_generation(*table);
        if (const toml_node* table = reader.table("speculation")) read_speculation(*table);
        if (const toml_node* table = reader.table("placement")) read_placement(*table);
        if (const toml_node* table = reader.table("quantization")) read_quantization(*table);
        if (const toml_node* table = reader.table("settings")) read_settings(*table);
        if (const toml_node* table = reader.table("pipeline")) read_pipeline(*table);
        reader.finish();
        note_origins(document_, "");
    }

  private:
    void require_id(const toml_table_reader& reader, std::string_view key, std::string_view text,
                    std::string_view what) {
        if (!is_id(text)) {
            reader.refuse(key, fmt::format("expected {} ({}), found the text {}", what, id_rule,
                                           quote(text)));
        }
    }

    std::optional<std::string> id(toml_table_reader& reader, std::string_view key,
                                  std::string_view what) {
        std::optional<std::string> value = reader.text(key);
        if (value) require_id(reader, key, *value, what);
        return value;
    }

    fs::path path(const toml_table_reader& reader, std::string_view key, const std::string& text) {
        if (text.empty() || text.find('\0') != std::string::npos) {
            reader.refuse(key, fmt::format("expected a path, found the text {}", quote(text)));
        }
        return resolved(result_.folder, text);
    }

    void read_model(const toml_node& table) {
        toml_table_reader reader(table, "model");
        model_configuration& model = result_.model;
        if (auto text = reader.text("path", path_bytes_max))
            model.path = path(reader, "path", *text);
        if (auto format = reader.choice("load_format", {"safetensors", "dummy"})) {
            model.format = *format == "dummy" ? load_format::dummy : load_format::safetensors;
        }
        if (auto name = reader.choice("compute_type", {"float32", "bfloat16"})) {
            model.compute_type = *element_type_from_name(*name);
        }
        model.cache_type = model.compute_type;
        if (auto name = reader.choice("cache_type", {"float32", "bfloat16", "int8"})) {
            model.cache_type = *element_type_from_name(*name);
        }
        reader.finish();
    }

    void read_engine(const toml_node& table) {
        toml_table_reader reader(table, "engine");
        engine_configuration& engine = result_.engine;
        assign(engine.tokens_per_step_max, reader.integer("tokens_per_step_max", 1, 65536));
        assign(engine.sequences_max, reader.integer("sequences_max", 1, 4096));
        assign(engine.context_tokens_max, reader.integer("context_tokens_max", 1, 1 << 24));
        read_cache_tokens(reader);
        assign(engine.tokens_per_block, reader.integer("tokens_per_block", 1, 1024));
        assign(engine.prefix_reuse, reader.boolean("prefix_reuse"));
        if (auto name = reader.choice("warm", {"none", "decode", "all"})) {
            engine.warm = *name == "none"     ? warm_sizes::none
                          : *name == "decode" ? warm_sizes::decode
                                              : warm_sizes::all;
        }
        assign(engine.worker_count, reader.integer("worker_count", 0, 1024));
        reader.finish();
        if (engine.sequences_max > engine.tokens_per_step_max) {
            reader.refuse("sequences_max",
                          fmt::format("{} sequences, each with a row a step, do not fit into "
                                      "engine.tokens_per_step_max = {}; expected at most that many",
                                      engine.sequences_max, engine.tokens_per_step_max));
        }
        if (engine.cache_tokens == 0) return; // settled when the weights are loaded
        if (engine.cache_tokens < engine.tokens_per_block) {
            reader.refuse("cache_tokens",
                          fmt::format("{} tokens hold no block of engine.tokens_per_block = {}; "
                                      "expected at least that many",
                                      engine.cache_tokens, engine.tokens_per_block));
        }
        if (engine.context_tokens_max > engine.cache_tokens) {
            reader.refuse("context_tokens_max",
                          fmt::format("a sequence of {} tokens does not fit into "
                                      "engine.cache_tokens = {}; expected at most that many",
                                      engine.context_tokens_max, engine.cache_tokens));
        }
    }

    // A number, or "auto".
    void read_cache_tokens(toml_table_reader& reader) {
        const toml_node* node = reader.any("cache_tokens");
        if (node != nullptr && node->kind == toml_kind::text && node->text == "auto") {
            result_.engine.cache_tokens = 0;
        } else if (node != nullptr && node->kind == toml_kind::text) {
            reader.refuse("cache_tokens", fmt::format("expected an integer or \"auto\", found the "
                                                      "text {}",
                                                      quote(node->text)));
        } else {
            assign(result_.engine.cache_tokens, reader.integer("cache_tokens", 1, 1 << 30));
        }
    }

    void read_generation(const toml_node& table) {
        toml_table_reader reader(table, "generation");
        generation_configuration& generation = result_.generation;
        assign(generation.tokens_max, reader.integer("tokens_max", 1, 1 << 24));
        assign(generation.temperature, reader.number("temperature", 0, 100));
        assign(generation.top_k, reader.integer("top_k", 0, 1 << 24));
        assign(generation.top_p, reader.number("top_p", 0, 1));
        assign(generation.min_p, reader.number("min_p", 0, 1));
        assign(generation.repetition_penalty, reader.number("repetition_penalty", 0, 100));
        assign(generation.seed, reader.integer("seed", 0, std::numeric_limits<int64_t>::max()));
        assign(generation.stop, reader.texts("stop", list_count_max, 1024));
        reader.finish();
        if (generation.top_p <= 0) reader.refuse("top_p", "expected a number over 0; 1 is off");
        if (generation.repetition_penalty <= 0) {
            reader.refuse("repetition_penalty", "expected a number over 0; 1 is off");
        }
        for (const std::string& stop : generation.stop) {
            if (stop.empty()) {
                reader.refuse("stop", "an empty text would stop every answer; remove it");
            }
        }
    }

    void read_speculation(const toml_node& table) {
        toml_table_reader reader(table, "speculation");
        speculation_configuration& speculation = result_.speculation;
        if (auto name = reader.choice("method", {"none", "prompt_lookup"})) {
            speculation.method = *name == "prompt_lookup" ? speculation_method::prompt_lookup
                                                          : speculation_method::none;
        }
        assign(speculation.draft_tokens_max, reader.integer("draft_tokens_max", 1, 255));
        assign(speculation.ngram_min, reader.integer("ngram_min", 1, 64));
        assign(speculation.ngram_max, reader.integer("ngram_max", 1, 64));
        assign(speculation.row_cost, reader.number("row_cost", 0, 1));
        reader.finish();
        if (speculation.ngram_min > speculation.ngram_max) {
            if (table.find("ngram_max") != nullptr) {
                reader.refuse("ngram_max",
                              fmt::format("{} is less than speculation.ngram_min = "
                                          "{}; expected at least that many",
                                          speculation.ngram_max, speculation.ngram_min));
            }
            reader.refuse("ngram_min",
                          fmt::format("{} is more than speculation.ngram_max = {}; expected at "
                                      "most that many",
                                      speculation.ngram_min, speculation.ngram_max));
        }
    }

    void read_placement(const toml_node& table) {
        toml_table_reader reader(table, "placement");
        read_patterns(reader, table, "placement", "backend",
                      [&](const std::string& key, const toml_node& node) {
                          const std::string backend = *id(reader, key, "the id of a backend");
                          result_.placement.push_back({pattern(reader, key), backend, node.origin});
                      });
    }

    void read_quantization(const toml_node& table) {
        toml_table_reader reader(table, "quantization");
        const toml_node* formats = reader.table("formats");
        reader.finish();
        if (formats == nullptr) return;
        toml_table_reader lines(*formats, "quantization.formats");
        read_patterns(lines, *formats, "quantization.formats", "format",
                      [&](const std::string& key, const toml_node& node) {
                          module_format_configuration line{pattern(lines, key), 16, 64, true, {}};
                          line.origin = node.origin;
                          read_format(lines, key, line);
                          result_.module_formats.push_back(std::move(line));
                      });
    }

    // "int4", "int8 g128 asymmetric", "int4 row", "16": the width, then what differs.
    void read_format(toml_table_reader& reader, const std::string& key,
                     module_format_configuration& line) {
        const std::string text = *reader.text(key);
        const auto refuse = [&] {
            reader.refuse(key, fmt::format("expected \"16\", \"int8\" or \"int4\", the last two "
                                           "with \"g32\", \"g64\", \"g128\" or \"row\" and "
                                           "\"asymmetric\" behind it, found the text {}",
                                           quote(text)));
        };
        bool is_first = true;
        for (size_t begin = 0; begin <= text.size();) {
            const size_t end = std::min(text.find(' ', begin), text.size());
            const std::string_view word = std::string_view(text).substr(begin, end - begin);
            if (is_first && word == "int4")
                line.bits = 4;
            else if (is_first && word == "int8")
                line.bits = 8;
            else if (is_first ? word != "16" : line.bits == 16)
                refuse();
            else if (word == "g32" || word == "g64" || word == "g128")
                line.group_size = word == "g32" ? 32 : word == "g64" ? 64 : 128;
            else if (word == "row")
                line.group_size = -1;
            else if (word == "asymmetric")
                line.symmetric = false;
            else if (!is_first)
                refuse();
            is_first = false;
            begin = end + 1;
        }
    }

    // Calls `read` with each line of a table of patterns.
    template <typename Function>
    void read_patterns(const toml_table_reader& reader, const toml_node& table,
                       std::string_view name, std::string_view what, Function&& read) {
        if (table.members.size() > list_count_max) {
            refuse_at(table.origin, fmt::format("{}: expected at most {} patterns, found {}", name,
                                                list_count_max, table.members.size()));
        }
        for (const auto& [key, node] : table.members) {
            if (node.kind == toml_kind::table) {
                reader.refuse(key, fmt::format("expected \"pattern\" = \"{}\", found a table; a "
                                               "pattern with dots stands in quotes",
                                               what));
            }
            read(key, node);
        }
    }

    name_pattern pattern(const toml_table_reader& reader, const std::string& key) {
        try {
            return name_pattern(key);
        } catch (const error& problem) {
            reader.refuse(key, fmt::format("in this pattern {}; examples are "
                                           "\"layers.*.experts\", \"layers.{{0-11}}.**\" "
                                           "and \"layers.*.experts[0-31]\"",
                                           problem.what()));
        }
    }

    void read_settings(const toml_node& table) {
        toml_table_reader reader(table, "settings");
        for (const auto& [plugin_id, node] : table.members) {
            reader.any(plugin_id);
            require_id(reader, plugin_id, plugin_id, "the id of a plugin");
            result_.settings[plugin_id] = free_table(node, fmt::format("settings.{}", plugin_id));
        }
    }

    configured_settings free_table(const toml_node& table, const std::string& prefix) {
        const toml_table_reader reader(table, prefix);
        configured_settings result;
        result.origin = table.origin;
        result.folder = result_.folder;
        for (const auto& [key, node] : table.members) {
            result.values[key] = {free_value(reader, key, node), node.origin};
        }
        return result;
    }

    decltype(configured_value::value) free_value(const toml_table_reader& reader,
                                                 const std::string& key, const toml_node& node) {
        switch (node.kind) {
        case toml_kind::boolean:
            return node.boolean;
        case toml_kind::integer:
            return node.integer;
        case toml_kind::number:
            return node.number;
        case toml_kind::text:
            return node.text;
        case toml_kind::array: {
            std::vector<std::string> texts;
            for (const toml_node& item : node.items) {
                if (item.kind != toml_kind::text) {
                    refuse_at(
                        item.origin,
                        fmt::format("{}[{}]: expected a text (lists hold texts only), found {}",
                                    reader.name(key), texts.size(), item.description()));
                }
                texts.push_back(item.text);
            }
            return texts;
        }
        default:
            reader.refuse(key,
                          fmt::format("expected a text, number, integer, true, false or a list "
                                      "of texts; found {}",
                                      node.description()));
        }
    }

    void read_pipeline(const toml_node& table) {
        toml_table_reader reader(table, "pipeline");
        const std::vector<toml_node>* stages = reader.tables("stage");
        reader.finish();
        if (stages == nullptr) return;
        if (stages->size() > list_count_max) {
            reader.refuse("stage", fmt::format("expected at most {} stages, found {}",
                                               list_count_max, stages->size()));
        }
        for (const toml_node& stage : *stages) read_stage(stage);
    }

    void read_stage(const toml_node& table) {
        toml_table_reader reader(table, "pipeline.stage");
        stage_configuration& stage = result_.stages.emplace_back();
        stage.origin = table.origin;
        assign(stage.name, id(reader, "name", "the name of a stage"));
        assign(stage.kind,
               id(reader, "kind", "\"generate\", \"template\" or the id of a stage plugin"));
        const toml_node* input = reader.table("input");
        const toml_node* settings = reader.table("settings");
        reader.finish();
        if (stage.name.empty()) reader.refuse_missing("name", "a text");
        if (stage.kind.empty()) {
            reader.refuse_missing("kind", "\"generate\", \"template\" or a plugin id");
        }
        if (stage.name == "request") {
            reader.refuse("name", "\"request\" is the pipeline's own input; choose another name");
        }
        for (size_t i = 0; i + 1 < result_.stages.size(); ++i) {
            if (result_.stages[i].name != stage.name) continue;
            reader.refuse("name", fmt::format("the stage at {} has the name {} already",
                                              result_.stages[i].origin.text(), quote(stage.name)));
        }
        const std::string prefix = fmt::format("pipeline.stage {}", quote(stage.name));
        if (input) read_edges(*input, prefix + ".input", stage);
        stage.settings.folder = result_.folder;
        stage.settings.origin = table.origin;
        if (settings) stage.settings = free_table(*settings, prefix + ".settings");
    }

    void read_edges(const toml_node& table, const std::string& prefix, stage_configuration& stage) {
        toml_table_reader reader(table, prefix);
        for (const auto& [port, node] : table.members) {
            const std::string edge = *reader.text(port);
            const size_t dot = edge.find('.');
            if (dot == std::string::npos || dot == 0 || dot + 1 == edge.size()
                || edge.find('.', dot + 1) != std::string::npos) {
                reader.refuse(
                    port, fmt::format("expected \"stage.field\", found the text {}", quote(edge)));
            }
            stage.input[port] = {edge.substr(0, dot), edge.substr(dot + 1), node.origin};
        }
    }

    void note_origins(const toml_node& table, const std::string& prefix) {
        for (const auto& [key, node] : table.members) {
            const std::string name = prefix.empty() ? key : prefix + "." + key;
            result_.origins[name] = node.origin;
            if (node.kind == toml_kind::table) note_origins(node, name);
        }
    }

    const toml_node& document_;
    configuration& result_;
};

configuration read_document(toml_node document, const fs::path& folder, std::string_view name,
                            const std::vector<std::string>& overrides) {
    for (const std::string& assignment : overrides) toml_override(document, assignment);
    configuration result;
    result.name = name;
    result.folder = fs::absolute(folder).lexically_normal();
    configuration_reader(document, result).read();
    return result;
}

} // namespace

std::string configuration::where(std::string_view key) const {
    const auto found = origins.find(std::string(key));
    if (found != origins.end()) return found->second.text();
    return fmt::format("default of {}", key);
}

const configured_settings& configuration::settings_of(std::string_view plugin_id) const {
    static const configured_settings none;
    const auto found = settings.find(std::string(plugin_id));
    return found != settings.end() ? found->second : none;
}

std::string settings_text(const configured_settings& settings) {
    struct visitor {
        std::string operator()(bool value) const { return fmt::format("{}", value); }
        std::string operator()(int64_t value) const { return fmt::format("{}", value); }
        std::string operator()(double value) const { return fmt::format("{}", value); }
        std::string operator()(const std::string& value) const {
            return fmt::format("{}:{}", value.size(), value);
        }
        std::string operator()(const std::vector<std::string>& values) const {
            std::string text = fmt::format("{} of", values.size());
            for (const std::string& value : values) text.append(" ").append((*this)(value));
            return text;
        }
    };
    std::string text;
    for (const auto& [name, given] : settings.values) {
        text += fmt::format("{} = {}, ", name, std::visit(visitor{}, given.value));
    }
    return text;
}

configuration configuration_from_file(const std::filesystem::path& path,
                                      const std::vector<std::string>& overrides) {
    return read_document(toml_parse_file(path), fs::absolute(path).parent_path(), path.string(),
                         overrides);
}

configuration configuration_from_text(std::string_view text, const std::filesystem::path& folder,
                                      std::string_view name,
                                      const std::vector<std::string>& overrides) {
    return read_document(toml_parse(text, name), folder, name, overrides);
}

configured_settings settings_from_overrides(const std::vector<std::string>& overrides,
                                            const std::filesystem::path& folder) {
    // Read as the settings of some plugin in an otherwise empty configuration.
    toml_node document;
    for (const std::string& assignment : overrides) toml_override(document, assignment);
    toml_node root;
    toml_node settings;
    settings.members.push_back({"plugin", std::move(document)});
    root.members.push_back({"settings", std::move(settings)});
    configuration result = read_document(std::move(root), folder, "--set", {});
    configured_settings table = std::move(result.settings["plugin"]);
    table.origin = {"--set", 0, 0};
    return table;
}

} // namespace sluice
