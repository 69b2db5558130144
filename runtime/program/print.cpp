#include "program/print.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "program/operation_table.hpp"

#include <span>

namespace sluice {

namespace {

std::string enumerator(std::span<const char* const> names, uint32_t value) {
    return value < names.size() ? names[value] : fmt::format("{}", value);
}

constexpr const char* rope_scalings[] = {"plain", "linear", "llama3", "yarn", "table"};
constexpr const char* activations[] = {"silu", "gelu_erf",     "gelu_tanh",
                                       "relu", "relu_squared", "swiglu_oai"};
constexpr const char* gate_layouts[] = {"split", "concat", "interleaved"};
constexpr const char* mla_forms[] = {"any", "expanded", "absorbed"};
constexpr const char* zero_experts[] = {"none", "identity", "zero"};
constexpr const char* unary_functions[] = {"exp",      "log",  "sqrt",       "sigmoid",
                                           "softplus", "tanh", "reciprocal", "affine",
                                           "clamp",    "abs",  "ceil"};
constexpr const char* binary_functions[] = {
    "add",        "subtract", "multiply", "divide",        "maximum", "minimum", "less",
    "less_equal", "equal",    "greater",  "greater_equal", "and",     "or"};
constexpr const char* reduce_functions[] = {"sum", "maximum", "minimum", "mean"};
constexpr const char* scores[] = {"softmax", "sigmoid", "sqrt_softplus", "identity"};
constexpr const char* score_stages[] = {"before_choice", "after_choice"};
constexpr const char* group_scores[] = {"maximum", "topk_sum"};
constexpr const char* mask_values[] = {"minus_infinity", "zero"};
constexpr const char* weight_sources[] = {"score", "choice"};
constexpr const char* renormalizations[] = {"none", "add", "clamp"};
constexpr const char* scale_conditions[] = {"always", "not_renormalized"};
constexpr const char* sample_methods[] = {"greedy"};
constexpr const char* capacity_policies[] = {"drop", "reroute"};

// Collects "name value" of what is not the default, 0.
class attribute_list {
  public:
    template <typename Number>
    void number(const char* name, Number value) {
        if (value != Number{}) entry(fmt::format("{} {}", name, value));
    }
    void name(const char* name, std::span<const char* const> names, uint32_t value) {
        if (value != 0) always(name, names, value);
    }
    void always(const char* name, std::span<const char* const> names, uint32_t value) {
        entry(fmt::format("{} {}", name, enumerator(names, value)));
    }
    void flag(const char* name, uint32_t value) {
        if (value != 0) entry(name);
    }
    void entry(const std::string& text) {
        if (!text_.empty()) text_ += ", ";
        text_ += text;
    }
    std::string text() const { return text_.empty() ? "" : " {" + text_ + "}"; }

  private:
    std::string text_;
};

void list(attribute_list&, const std::monostate&) {}
void list(attribute_list& out, const sluice_embed_attributes& a) { out.number("scale", a.scale); }
void list(attribute_list& out, const sluice_rms_norm_attributes& a) {
    out.number("epsilon", a.epsilon);
    out.number("weight_offset", a.weight_offset);
    out.number("group_width", a.group_width);
}
void list(attribute_list& out, const sluice_layer_norm_attributes& a) {
    out.number("epsilon", a.epsilon);
}
void list(attribute_list& out, const sluice_rope_attributes& a) {
    out.number("dimension", a.dimension);
    out.flag("interleaved", a.interleaved);
    out.flag("inverse", a.inverse);
    out.number("base", a.base);
    out.name("scaling", rope_scalings, a.scaling);
    out.number("factor", a.factor);
    out.number("original_length", a.original_length);
    out.number("low_frequency_factor", a.low_frequency_factor);
    out.number("high_frequency_factor", a.high_frequency_factor);
    out.number("beta_fast", a.beta_fast);
    out.number("beta_slow", a.beta_slow);
    out.number("truncate_bounds", a.truncate_bounds);
    out.number("magnitude", a.magnitude);
    if (a.table_count != 0) out.entry(fmt::format("table of {}", a.table_count));
}
void list(attribute_list& out, const sluice_activation_attributes& a) {
    out.always("activation", activations, a.activation);
    out.name("gate_layout", gate_layouts, a.gate_layout);
    out.number("alpha", a.alpha);
    out.number("clamp", a.clamp);
}
void list(attribute_list& out, const sluice_kv_gather_attributes& a) {
    out.entry(fmt::format("part {}", a.part));
}
void list(attribute_list& out, const sluice_attention_attributes& a) {
    out.number("kv_heads", a.kv_heads);
    out.number("scale", a.scale);
    out.number("softcap", a.softcap);
    out.number("window", a.window);
}
void list(attribute_list& out, const sluice_mla_attention_attributes& a) {
    out.number("scale", a.scale);
    out.name("form", mla_forms, a.form);
}
void list(attribute_list& out, const sluice_routing_specification& a) {
    out.entry(fmt::format("choose {} of {}", a.choice_count, a.expert_count));
    if (a.group_count > 1) {
        out.entry(fmt::format("groups {} of {}", a.group_choice_count, a.group_count));
        out.always("group_score", group_scores, a.group_score);
        out.number("group_score_count", a.group_score_count);
        out.always("mask_value", mask_values, a.mask_value);
    }
    out.always("score", scores, a.score);
    out.name("score_stage", score_stages, a.score_stage);
    out.name("weight_source", weight_sources, a.weight_source);
    out.name("renormalize", renormalizations, a.renormalize);
    out.number("renormalize_epsilon", a.renormalize_epsilon);
    if (a.scale != 1.0f) out.entry(fmt::format("scale {}", a.scale));
    out.name("scale_condition", scale_conditions, a.scale_condition);
    out.number("logit_softcap", a.logit_softcap);
    if (a.capacity_factor > 0) {
        out.number("capacity_factor", a.capacity_factor);
        out.always("capacity_policy", capacity_policies, a.capacity_policy);
    }
}
void list(attribute_list& out, const sluice_moe_ffn_attributes& a) {
    out.always("activation", activations, a.activation);
    out.name("gate_layout", gate_layouts, a.gate_layout);
    out.number("alpha", a.alpha);
    out.number("clamp", a.clamp);
    out.flag("weight_on_input", a.weight_on_input);
    out.name("zero_expert", zero_experts, a.zero_expert);
}
void list(attribute_list& out, const sluice_axis_attributes& a) {
    out.entry(fmt::format("axis {}", a.axis));
    out.number("begin", a.begin);
}
void list(attribute_list& out, const sluice_unary_attributes& a) {
    if (a.function != SLUICE_UNARY_AFFINE && a.function != SLUICE_UNARY_CLAMP) return;
    out.entry(fmt::format("a {}", a.a));
    out.entry(fmt::format("b {}", a.b));
}
void list(attribute_list&, const sluice_binary_attributes&) {} // in the operation's name
void list(attribute_list& out, const sluice_fill_attributes& a) {
    out.entry(fmt::format("value {}", a.value));
}
void list(attribute_list&, const sluice_reduce_attributes&) {} // in the operation's name
void list(attribute_list& out, const sluice_accumulate_attributes& a) {
    out.entry(fmt::format("expert {}", a.expert));
}
void list(attribute_list& out, const sluice_sample_attributes& a) {
    out.always("method", sample_methods, a.method);
}
void list(attribute_list&, const sluice_transpose_attributes&) {} // needs the rank; see below

// "unary" and its like are named by their function, which says more.
std::string function_name(const program_operation& operation) {
    if (const auto* a = std::get_if<sluice_unary_attributes>(&operation.attributes)) {
        return enumerator(unary_functions, a->function);
    }
    if (const auto* a = std::get_if<sluice_binary_attributes>(&operation.attributes)) {
        return enumerator(binary_functions, a->function);
    }
    if (const auto* a = std::get_if<sluice_reduce_attributes>(&operation.attributes)) {
        return "reduce_" + enumerator(reduce_functions, a->function);
    }
    return operation_name(operation.kind);
}

std::string attributes_text(const program& printed, const program_operation& operation) {
    attribute_list out;
    if (is_host_function(operation)) {
        const auto& a = std::get<sluice_routing_specification>(operation.attributes);
        return fmt::format(" {{choose {} of {}, by host function}}", a.choice_count,
                           a.expert_count);
    }
    std::visit([&](const auto& attributes) { list(out, attributes); }, operation.attributes);
    if (const auto* a = std::get_if<sluice_transpose_attributes>(&operation.attributes)) {
        const size_t rank = printed.value(operation.inputs[0]).dimensions.size();
        std::string order;
        for (size_t axis = 0; axis < rank; ++axis) {
            order += fmt::format("{}{}", axis == 0 ? "" : " ", a->order[axis]);
        }
        out.entry("order " + order);
    }
    return out.text();
}

std::string reference(const program& printed, value_number number) {
    if (number == value_none) return "_";
    const program_value& value = printed.value(number);
    const std::string name = value.name.empty() ? fmt::format("{}", number) : value.name;
    switch (value.kind) {
    case SLUICE_VALUE_INPUT:
        return "$" + name;
    case SLUICE_VALUE_WEIGHT:
        return "@" + name;
    case SLUICE_VALUE_STATE:
        return "!" + name;
    default:
        return "%" + name;
    }
}

std::string format_text(const sluice_weight_format& format) {
    std::string text(element_type_name(format.element_type));
    if (format.layout == SLUICE_WEIGHT_GPTQ) text += " gptq";
    if (format.scale_type != SLUICE_ELEMENT_UNKNOWN) {
        text += fmt::format(" scales {} per {}x{}", element_type_name(format.scale_type),
                            std::max(1u, format.group_rows),
                            format.group_columns == 0 ? std::string("row")
                                                      : fmt::format("{}", format.group_columns));
    }
    return text;
}

std::string roles_text(uint32_t roles) {
    constexpr const char* names[] = {"linear", "grouped", "embedding",
                                     "vector", "latent",  "tensor"};
    std::string text;
    for (size_t bit = 0; bit < std::size(names); ++bit) {
        if ((roles & 1u << bit) == 0) continue;
        text += text.empty() ? "" : "|";
        text += names[bit];
    }
    return text.empty() ? "unused" : text;
}

std::string state_text(const program_state& state) {
    constexpr const char* kinds[] = {"?", "paged", "paged_window", "per_sequence"};
    std::string text = fmt::format("!{} = state {} [", state.name, enumerator(kinds, state.kind));
    for (size_t part = 0; part < state.part_width.size(); ++part) {
        text += fmt::format("{}{}[{}]", part == 0 ? "" : ", ",
                            element_type_name(state.part_type[part]), state.part_width[part]);
        if (state.group_of(part) != 0) text += fmt::format(" by {}", state.group_of(part));
    }
    text += fmt::format("] {{tokens_per_block {}", state.tokens_per_block);
    if (state.group != 0) text += fmt::format(", group {}", state.group);
    if (state.window != 0) text += fmt::format(", window {}", state.window);
    return text + "}";
}

// The N of "layers.N.rest"; -1 where the name is of another form.
int64_t layer_of(const std::string& name) {
    constexpr std::string_view prefix = "layers.";
    if (!name.starts_with(prefix)) return -1;
    int64_t layer = 0;
    size_t at = prefix.size();
    for (; at < name.size() && name[at] >= '0' && name[at] <= '9' && layer < 1000000; ++at) {
        layer = layer * 10 + (name[at] - '0');
    }
    return at > prefix.size() && at < name.size() && name[at] == '.' ? layer : -1;
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
        text.replace(at, from.size(), to);
        at += to.size();
    }
}

struct section {
    int64_t layer; // -1: between layers
    std::string text;
};

// The text with "layers.N.", "layers.N+1." ... and "layers.N-1." in place of the numbers of
// `period` layers from `first` on and of the one before them.
std::string without_numbers(std::string text, int64_t first, int64_t period) {
    for (int64_t i = -1; i < period; ++i) {
        const std::string offset = i == 0 ? "" : fmt::format("{:+}", i);
        replace_all(text, fmt::format("layers.{}.", first + i), fmt::format("layers.N{}.", offset));
    }
    return text;
}

class folder {
  public:
    explicit folder(const std::vector<section>& sections) : sections_(sections) {}

    // Layers may alternate, so runs of up to four layers are looked for.
    std::string text() const {
        std::string out;
        for (size_t i = 0; i < sections_.size();) {
            size_t best = 1;
            size_t best_count = 1;
            for (size_t period = 1; period <= 4; ++period) {
                const size_t count = repetitions(i, period);
                if (count > 1 && count * period > best * best_count) {
                    best = period;
                    best_count = count;
                }
            }
            out += best_count > 1 ? folded(i, best, best_count) : sections_[i].text;
            i += best * best_count;
        }
        return out;
    }

  private:
    std::string run(size_t begin, size_t period) const {
        std::string text;
        for (size_t i = begin; i < begin + period; ++i) text += sections_[i].text;
        return without_numbers(std::move(text), sections_[begin].layer,
                               static_cast<int64_t>(period));
    }

    bool is_run(size_t begin, size_t period) const {
        if (begin + period > sections_.size() || sections_[begin].layer < 0) return false;
        for (size_t i = begin + 1; i < begin + period; ++i) {
            if (sections_[i].layer != sections_[i - 1].layer + 1) return false;
        }
        return true;
    }

    size_t repetitions(size_t begin, size_t period) const {
        if (!is_run(begin, period)) return 1;
        const std::string first = run(begin, period);
        size_t count = 1;
        for (size_t next = begin + period; is_run(next, period); next += period, ++count) {
            if (sections_[next].layer != sections_[next - 1].layer + 1) break;
            if (run(next, period) != first) break;
        }
        return count;
    }

    std::string folded(size_t begin, size_t period, size_t count) const {
        const int64_t first = sections_[begin].layer;
        const int64_t last = sections_[begin + period * (count - 1)].layer;
        const std::string step = period == 1 ? "" : fmt::format(" by {}", period);
        return fmt::format("# for N in {} to {}{}:\n{}# end\n", first, last, step,
                           run(begin, period));
    }

    const std::vector<section>& sections_;
};

void print_declarations(std::string& out, const program& printed, bool fold) {
    for (value_number i = 0; i < printed.values().size(); ++i) {
        const program_value& value = printed.values()[i];
        if (value.kind == SLUICE_VALUE_INPUT) {
            out += fmt::format("{} = input : {}\n", reference(printed, i), print_value_type(value));
        }
    }
    std::vector<section> sections;
    const auto append = [&](int64_t layer, const std::string& line) {
        if (sections.empty() || sections.back().layer != layer) sections.push_back({layer, ""});
        sections.back().text += line;
    };
    for (const program_state& state : printed.states()) {
        append(fold ? layer_of(state.name) : -1, state_text(state) + "\n");
    }
    out += folder(sections).text();
    sections.clear();
    for (value_number i = 0; i < printed.values().size(); ++i) {
        const program_value& value = printed.values()[i];
        if (value.kind != SLUICE_VALUE_WEIGHT) continue;
        const std::string line =
            fmt::format("{} = weight : {} {{{}}}\n", reference(printed, i), print_value_type(value),
                        roles_text(value.weight_role));
        const size_t at = value.name.find("layers.");
        append(at == std::string::npos || !fold ? -1 : layer_of(value.name.substr(at)), line);
    }
    out += folder(sections).text();
}

// The outputs; where `fold`, those of consecutive layers as one.
std::string outputs_text(const program& printed, bool fold) {
    std::string text;
    const std::vector<value_number>& outputs = printed.outputs();
    for (size_t i = 0; i < outputs.size();) {
        const auto layer = [&](size_t j) { return layer_of(printed.value(outputs[j]).name); };
        const auto folded = [&](size_t j) {
            return without_numbers(reference(printed, outputs[j]), layer(j), 1);
        };
        size_t end = i + 1;
        while (fold && layer(i) >= 0 && end < outputs.size() && layer(end) == layer(end - 1) + 1
               && folded(end) == folded(i)) {
            ++end;
        }
        text += text.empty() ? "" : ", ";
        text += end - i == 1
                    ? reference(printed, outputs[i])
                    : fmt::format("{} for N in {} to {}", folded(i), layer(i), layer(end - 1));
        i = end;
    }
    return text;
}

} // namespace

std::string print_value_type(const program_value& value) {
    if (value.kind == SLUICE_VALUE_STATE) return "state";
    if (value.kind == SLUICE_VALUE_WEIGHT) {
        return format_text(value.weight_format) + dimensions_text(value.dimensions);
    }
    return std::string(element_type_name(value.element_type)) + dimensions_text(value.dimensions);
}

std::string print_operation(const program& printed, uint32_t operation) {
    if (operation >= printed.operations().size()) {
        fail(SLUICE_INVALID, "program {}: there is no operation {}, the program has {}",
             printed.name(), operation, printed.operations().size());
    }
    const program_operation& shown = printed.operations()[operation];
    std::string results;
    std::string types;
    for (const value_number output : shown.outputs) {
        results += (results.empty() ? "" : ", ") + reference(printed, output);
        if (output == value_none) continue;
        types += (types.empty() ? "" : ", ") + print_value_type(printed.value(output));
    }
    std::string operands;
    for (const value_number input : shown.inputs) {
        operands += (operands.empty() ? "" : ", ") + reference(printed, input);
    }
    const std::string placement =
        shown.placement == 0 ? "" : fmt::format(" at {}", shown.placement);
    return fmt::format("{} = {}({}){} : {}{}", results, function_name(shown), operands,
                       attributes_text(printed, shown), types, placement);
}

std::string print_program(const program& printed, const print_options& options) {
    std::string out = fmt::format("program {}\n", printed.name());
    if (options.declarations) print_declarations(out, printed, options.fold_layers);
    std::vector<section> sections;
    for (uint32_t i = 0; i < printed.operations().size(); ++i) {
        const int64_t layer = layer_of(printed.operations()[i].name);
        const int64_t key = options.fold_layers ? layer : -1;
        if (sections.empty() || sections.back().layer != key) sections.push_back({key, ""});
        std::string line = print_operation(printed, i);
        if (options.remark) {
            const std::string remark = options.remark(i);
            if (!remark.empty()) line += "  # " + remark;
        }
        sections.back().text += line + "\n";
    }
    out += folder(sections).text();
    return out + "return " + outputs_text(printed, options.fold_layers) + "\n";
}

} // namespace sluice
