#include "model/gptq_config.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "model/checkpoint.hpp"

#include <nlohmann/json.hpp>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

namespace sluice {
namespace {

constexpr size_t overrides_max = 4096;
constexpr size_t pattern_bytes_max = 4096;
constexpr int64_t group_size_max = int64_t(1) << 30;
// A match of a module name against a sane pattern takes some hundred steps.
constexpr uint32_t match_steps_max = 100'000;
constexpr uint32_t match_memory_kib_max = 1024;

struct code_deleter {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct match_data_deleter {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct match_context_deleter {
    void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

std::string pcre2_message(int code) {
    PCRE2_UCHAR buffer[256] = {};
    pcre2_get_error_message(code, buffer, sizeof(buffer));
    return reinterpret_cast<const char*>(buffer);
}

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::unique_ptr<pcre2_code, code_deleter> compile(const std::string& pattern) {
    if (pattern.size() > pattern_bytes_max) {
        fail(SLUICE_INVALID, "dynamic[{}]: expected a pattern of at most {} bytes, found {}",
             quote(pattern), pattern_bytes_max, pattern.size());
    }
    int code = 0;
    PCRE2_SIZE offset = 0;
    std::unique_ptr<pcre2_code, code_deleter> compiled(pcre2_compile(
        units(pattern), pattern.size(), PCRE2_UTF | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &code,
        &offset, nullptr));
    if (!compiled) {
        fail(SLUICE_INVALID,
             "dynamic[{}]: expected a regular expression, found an error at byte {}: {}",
             quote(pattern, 160), offset, pcre2_message(code));
    }
    return compiled;
}

void check_bits(uint32_t bits, const std::string& where) {
    if (bits == 2 || bits == 3) {
        fail(SLUICE_UNSUPPORTED,
             "{}: expected 4 or 8, found {}: weights of {} bits are not supported", where, bits,
             bits);
    }
    if (bits != 4 && bits != 8) fail(SLUICE_INVALID, "{}: expected 4 or 8, found {}", where, bits);
}

void check_group_size(int64_t group_size, const std::string& where) {
    if (group_size == -1 || (group_size > 0 && group_size <= group_size_max)) return;
    fail(SLUICE_INVALID, "{}: expected -1 (the whole row) or 1 to {}, found {}", where,
         group_size_max, group_size);
}

// `bits` and `group_size` with the checks above, when present.
std::optional<uint32_t> read_bits(const json_view& view) {
    auto member = view.find("bits");
    if (!member) return std::nullopt;
    auto bits = uint32_t(member->as_integer(1, 64));
    check_bits(bits, member->where());
    return bits;
}

std::optional<int64_t> read_group_size(const json_view& view) {
    auto member = view.find("group_size");
    if (!member) return std::nullopt;
    int64_t group_size = member->as_integer();
    check_group_size(group_size, member->where());
    return group_size;
}

gptq_format read_format(const json_view& view) {
    // GPTQModel writes both keys; older files have the first, or neither.
    std::string format = lower_ascii(view.text("checkpoint_format", view.text("format", "gptq")));
    if (format != "gptq" && format != "gptq_v2") {
        std::string key = view.find("checkpoint_format") ? "checkpoint_format" : "format";
        view.at(key).fail_unsupported(fmt::format(
            "expected gptq or gptq_v2, found {}: repacked formats are not read", quote(format)));
    }
    return format == "gptq_v2" ? gptq_format::gptq_v2 : gptq_format::gptq;
}

// Lists of lists of names (transformers), or one list of names.
std::vector<std::string> read_modules(const json_view& view) {
    std::vector<std::string> names;
    for (json_view element : view.as_array()) {
        if (element.is_text()) {
            names.emplace_back(element.as_text());
        } else if (element.is_array()) {
            for (std::string& name : element.as_text_list()) names.push_back(std::move(name));
        } else {
            element.fail_expected("a module name, or a list of them");
        }
    }
    for (const std::string& name : names) {
        if (name.empty()) view.fail_expected("module names that are not empty");
    }
    return names;
}

gptq_override read_override(const json_view& member) {
    gptq_override entry;
    std::string_view pattern = member.key();
    entry.is_quantized = !pattern.starts_with("-:");
    if (pattern.starts_with("-:") || pattern.starts_with("+:")) pattern.remove_prefix(2);
    entry.pattern = pattern;
    member.as_object();
    if (!entry.is_quantized) return entry;
    // Other keys there tune how the weights were found, not how they are stored.
    entry.bits = read_bits(member);
    entry.group_size = read_group_size(member);
    if (auto value = member.find("sym")) entry.symmetric = value->as_boolean();
    if (auto value = member.find("desc_act")) entry.activation_order = value->as_boolean();
    return entry;
}

} // namespace

struct gptq_config::compiled_override {
    gptq_override entry;
    std::unique_ptr<pcre2_code, code_deleter> code;

    bool matches(std::string_view name) const {
        std::unique_ptr<pcre2_match_data, match_data_deleter> data(
            pcre2_match_data_create_from_pattern(code.get(), nullptr));
        std::unique_ptr<pcre2_match_context, match_context_deleter> context(
            pcre2_match_context_create(nullptr));
        if (!data || !context) fail(SLUICE_EXHAUSTED, "out of memory for a regular expression");
        pcre2_set_match_limit(context.get(), match_steps_max);
        pcre2_set_depth_limit(context.get(), match_steps_max);
        pcre2_set_heap_limit(context.get(), match_memory_kib_max);
        int result =
            pcre2_match(code.get(), units(name), name.size(), 0, 0, data.get(), context.get());
        if (result >= 0) return true;
        if (result == PCRE2_ERROR_NOMATCH) return false;
        fail(SLUICE_INVALID, "quantization_config.dynamic[{}]: cannot match the module {}: {}",
             quote(entry.pattern, 160), quote(name, 160), pcre2_message(result));
    }
};

gptq_config::gptq_config(gptq_parameters defaults, gptq_format format)
    : defaults_(defaults), format_(format) {
    check_bits(defaults.bits, "bits");
    check_group_size(defaults.group_size, "group_size");
}

gptq_config gptq_config::parse(const json_view& view) {
    view.as_object();
    std::string method = lower_ascii(view.text("quant_method"));
    if (method != "gptq") {
        view.at("quant_method")
            .fail_unsupported(fmt::format("expected gptq, found {}", quote(method)));
    }
    if (std::string pack = view.text("pack_dtype", "int32");
        pack != "int32" && pack != "torch.int32") {
        view.at("pack_dtype")
            .fail_unsupported(fmt::format("expected int32, found {}", quote(pack)));
    }
    if (view.boolean("is_marlin_format", false)) {
        view.at("is_marlin_format").fail_unsupported("weights repacked for marlin are not read");
    }
    gptq_format format = read_format(view);
    gptq_parameters defaults;
    view.at("bits");
    defaults.bits = read_bits(view).value_or(defaults.bits);
    defaults.group_size = read_group_size(view).value_or(defaults.group_size);
    defaults.symmetric = view.boolean("sym", true);
    defaults.activation_order = view.boolean("desc_act", false);
    gptq_config config(defaults, format);
    config.lm_head_ = view.boolean("lm_head", false);
    if (auto modules = view.find("modules_in_block_to_quantize")) {
        config.modules_in_block_ = read_modules(*modules);
    }
    // GPTQModel writes false for "no map" in places.
    auto dynamic = view.find("dynamic");
    if (dynamic && dynamic->kind() != json_kind::boolean) {
        if (dynamic->as_object().size() > overrides_max) {
            dynamic->fail_expected(fmt::format("at most {} patterns", overrides_max));
        }
        for (json_view member : *dynamic) {
            gptq_override entry = read_override(member);
            try {
                config.add_override(std::move(entry));
            } catch (const error& problem) {
                fail(problem.status(), "{}: {}", view.where(), problem.what());
            }
        }
    }
    return config;
}

std::optional<gptq_config> gptq_config::of(const checkpoint& model) {
    auto view = model.config().object_if_present("quantization_config");
    if (!view) return std::nullopt;
    return parse(*view);
}

void gptq_config::add_override(gptq_override entry) {
    std::string where = "dynamic[" + quote(entry.pattern, 160) + "]";
    if (entry.bits) check_bits(*entry.bits, where + ".bits");
    if (entry.group_size) check_group_size(*entry.group_size, where + ".group_size");
    auto compiled = std::make_shared<compiled_override>();
    compiled->code = compile(entry.pattern);
    bool is_negative = !entry.is_quantized;
    compiled->entry = std::move(entry);
    // GPTQModel sorts negative patterns to the front, so the order among the others decides.
    auto place = overrides_.end();
    if (is_negative) {
        place = std::find_if(overrides_.begin(), overrides_.end(),
                             [](const auto& other) { return other->entry.is_quantized; });
    }
    overrides_.insert(place, std::move(compiled));
}

void gptq_config::set_modules_in_block(std::vector<std::string> name_ends) {
    modules_in_block_ = std::move(name_ends);
}

std::optional<gptq_parameters> gptq_config::resolve(std::string_view name) const {
    bool is_lm_head = name == "lm_head" || name.ends_with(".lm_head");
    if (is_lm_head && !lm_head_) return std::nullopt;
    if (!is_lm_head && !modules_in_block_.empty()
        && std::none_of(modules_in_block_.begin(), modules_in_block_.end(),
                        [&](const std::string& end) { return name.ends_with(end); })) {
        return std::nullopt;
    }
    gptq_parameters parameters = defaults_;
    for (const auto& override_entry : overrides_) {
        if (!override_entry->matches(name)) continue;
        const gptq_override& entry = override_entry->entry;
        if (!entry.is_quantized) return std::nullopt;
        parameters.bits = entry.bits.value_or(parameters.bits);
        parameters.group_size = entry.group_size.value_or(parameters.group_size);
        parameters.symmetric = entry.symmetric.value_or(parameters.symmetric);
        parameters.activation_order = entry.activation_order.value_or(parameters.activation_order);
        break;
    }
    return parameters;
}

nlohmann::ordered_json gptq_config::to_json(std::string_view producer) const {
    const char* format = format_ == gptq_format::gptq_v2 ? "gptq_v2" : "gptq";
    nlohmann::ordered_json json;
    json["bits"] = defaults_.bits;
    auto dynamic = nlohmann::ordered_json::object();
    for (const auto& override_entry : overrides_) {
        const gptq_override& entry = override_entry->entry;
        auto values = nlohmann::ordered_json::object();
        if (entry.bits) values["bits"] = *entry.bits;
        if (entry.group_size) values["group_size"] = *entry.group_size;
        if (entry.symmetric) values["sym"] = *entry.symmetric;
        if (entry.activation_order) values["desc_act"] = *entry.activation_order;
        std::string key = (entry.is_quantized ? "+:" : "-:") + entry.pattern;
        if (!dynamic.contains(key)) dynamic[key] = values; // the first match decides
    }
    if (!dynamic.empty()) json["dynamic"] = dynamic;
    json["group_size"] = defaults_.group_size;
    json["desc_act"] = defaults_.activation_order;
    json["sym"] = defaults_.symmetric;
    json["lm_head"] = lm_head_;
    json["quant_method"] = "gptq";
    json["checkpoint_format"] = format;
    json["pack_dtype"] = "int32";
    if (!modules_in_block_.empty()) {
        json["modules_in_block_to_quantize"] = nlohmann::ordered_json::array({modules_in_block_});
    }
    json["meta"] = {{"quantizer", nlohmann::ordered_json::array({producer})}};
    return json;
}

std::string gptq_config::exact_pattern(std::string_view module_name) {
    std::string pattern;
    for (char character : module_name) {
        if (std::string_view("\\.^$|()[]{}*+?").find(character) != std::string_view::npos) {
            pattern += '\\';
        }
        pattern += character;
    }
    return pattern + "$";
}

} // namespace sluice
