// The configuration that an operator writes in TOML, as plain typed members. Reading is strict: an
// unknown key, a wrong type or a value out of its range is a sluice::error (SLUICE_INVALID) that
// names the file, the line, the key, the nearest known name, what was expected and what was found.
#pragma once

#include "config/name_pattern.hpp"
#include "config/toml_document.hpp"

#include <sluice/abi/tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sluice {

// One value of a free-form table (settings of a plugin or stage), typed as TOML typed it. The
// plugin's own schema decides later whether it is right.
struct configured_value {
    std::variant<bool, int64_t, double, std::string, std::vector<std::string>> value;
    configuration_origin origin;
};

struct configured_settings {
    configuration_origin origin;  // of the table
    std::filesystem::path folder; // relative paths in it resolve against this
    std::map<std::string, configured_value> values;
};

enum class load_format { safetensors, dummy };

struct model_configuration {
    std::filesystem::path
        path; // absolute; empty: not given (an error only where a model is needed)
    load_format format = load_format::safetensors;
    sluice_element_type compute_type = SLUICE_F32; // F32 or BF16: activations; the residual is F32
    sluice_element_type cache_type = SLUICE_F32;   // F32, BF16 or I8; not given: compute_type
};

// Sizes of steps that are prepared before the first request, which would else wait for them.
enum class warm_sizes {
    none,
    decode, // steps of one row for each of 1, 2, 4 ... sequences, and prompts in whole steps
    all,    // and prompts of any length
};

struct engine_configuration {
    uint32_t tokens_per_step_max = 512; // T: rows of one program; prefill chunks are cut to it
    uint32_t sequences_max = 16;        // S: requests that run together
    uint32_t context_tokens_max = 0;    // longest sequence; 0: the model's, capped by the cache
    uint32_t cache_tokens = 8192;       // size of the KV pool; 0 ("auto"): what memory has room for
    uint32_t tokens_per_block = 16;     // granularity of the KV pool and of prefix reuse
    bool prefix_reuse = true;           // keep and share the KV blocks of equal prefixes
    warm_sizes warm = warm_sizes::decode;
    uint32_t worker_count = 0; // 0: one for each core the process may run on
};

enum class speculation_method {
    none,
    prompt_lookup, // what followed the newest tokens where they stood in the same text before
};

// [speculation]: guesses at the next tokens, of which a step checks several at once.
struct speculation_configuration {
    speculation_method method = speculation_method::none;
    uint32_t draft_tokens_max = 15; // guesses for a sequence and step
    uint32_t ngram_min = 2;         // tokens that must have occurred before
    uint32_t ngram_max = 5;         // tokens that are compared to choose among their occurrences
    double row_cost = 0.4; // of a row beyond a step's first, as a share of a step of one row
};

// One line of [placement]: operations whose names match the pattern run on that backend.
struct placement_configuration {
    name_pattern pattern;
    std::string backend;
    configuration_origin origin;
};

// One line of [quantization.formats]: how `sluice quantize` stores modules whose names match.
struct module_format_configuration {
    name_pattern pattern;
    uint32_t bits = 16;      // 4, 8, or 16: as they are stored
    int64_t group_size = 64; // neighbouring inputs that share a scale; -1: the whole row
    bool symmetric = true;   // else each group has a zero point
    configuration_origin origin;
};

// Defaults of a request; a request may override each.
struct generation_configuration {
    uint32_t tokens_max = 128;
    double temperature = 0.0; // 0: greedy
    uint32_t top_k = 0;       // 0: off
    double top_p = 1.0;       // 1: off
    double min_p = 0.0;       // 0: off
    double repetition_penalty = 1.0;
    uint64_t seed = 0;
    std::vector<std::string> stop;
};

// One [[pipeline.stage]]. The graph itself is checked by the pipeline.
struct stage_configuration {
    configuration_origin origin;
    std::string name; // unique
    std::string kind; // "generate", "template" or the id of a plugin
    struct edge {
        std::string stage; // the text before the dot; "request" is the pipeline's own input
        std::string field; // the text after it
        configuration_origin origin;
    };
    std::map<std::string, edge> input; // by port: "prompt" -> "rewrite.text"
    configured_settings settings;
};

struct configuration {
    std::string name;             // of the file, or of the text, for messages
    std::filesystem::path folder; // absolute; relative paths resolved against it

    std::string backend = "onednn";
    std::string router = "specification";
    std::string result_cache = "none";         // "none": no cache
    std::string block_store = "none";          // "none": blocks that leave the pool are forgotten
    std::vector<std::string> backend_fallback; // tried in order; never silent
    std::vector<std::filesystem::path>
        plugin_folders;       // absolute; searched before the install folder
    bool allow_draft = false; // offer and load what is not settled yet
    bool checked = false;     // wrap plugins so that breaches of the ABI's rules end in an error

    model_configuration model;
    engine_configuration engine;
    generation_configuration generation;
    speculation_configuration speculation;
    // In the order of the file: where several patterns match, the last one counts.
    std::vector<placement_configuration> placement;
    std::vector<module_format_configuration> module_formats; // likewise
    std::map<std::string, configured_settings> settings;     // by plugin id
    std::vector<stage_configuration> stages;                 // empty: the default pipeline

    // Where each key that was given stands, by its dotted name ("model.path").
    std::map<std::string, configuration_origin> origins;

    // "configs/a.toml:3" for a key that was given, else "default of <key>".
    std::string where(std::string_view key) const;
    // The settings given for a plugin, or an empty table.
    const configured_settings& settings_of(std::string_view plugin_id) const;
};

// Different settings give different texts.
std::string settings_text(const configured_settings& settings);

// Reads a TOML file. overrides: "section.key=value" each, applied in order after the file; the
// value is read as TOML, and where it is not TOML, as a text.
configuration configuration_from_file(const std::filesystem::path& path,
                                      const std::vector<std::string>& overrides = {});

// Reads TOML text. `folder`: relative paths resolve against it; `name`: for messages.
configuration configuration_from_text(std::string_view text, const std::filesystem::path& folder,
                                      std::string_view name = "configuration",
                                      const std::vector<std::string>& overrides = {});

// The settings of one plugin that a command line gave as "key=value" (sluice quantize --set). Paths
// resolve against `folder`.
configured_settings settings_from_overrides(const std::vector<std::string>& overrides,
                                            const std::filesystem::path& folder);

} // namespace sluice
