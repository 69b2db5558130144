#define PCRE2_CODE_UNIT_WIDTH 8

#include "tokenizer/pattern.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "tokenizer/regex_translation.hpp"
#include "tokenizer/unicode.hpp"

#include <pcre2.h>

#include <utility>

namespace sluice::tokenization {

namespace {

// Steps of one search, and memory of the interpreter that takes over where the stack of compiled
// code does not suffice. Ordinary tokenizer expressions need a few steps a character.
constexpr uint32_t match_step_limit = 10'000'000;
constexpr uint32_t match_depth_limit = 1'000'000;
constexpr uint32_t match_heap_limit_kib = 256 * 1024;

template <auto Free>
struct freer {
    template <typename T>
    void operator()(T* object) const {
        Free(object);
    }
};

using code_owner = std::unique_ptr<pcre2_code, freer<pcre2_code_free>>;
using compile_context_owner =
    std::unique_ptr<pcre2_compile_context, freer<pcre2_compile_context_free>>;
using match_context_owner = std::unique_ptr<pcre2_match_context, freer<pcre2_match_context_free>>;
using match_data_owner = std::unique_ptr<pcre2_match_data, freer<pcre2_match_data_free>>;

std::string pcre2_message(int code) {
    PCRE2_UCHAR buffer[256] = {};
    pcre2_get_error_message(code, buffer, sizeof buffer);
    return reinterpret_cast<const char*>(buffer);
}

} // namespace

struct match_workspace::state {
    match_data_owner data;
    match_context_owner context;
};

match_workspace::match_workspace() = default;
match_workspace::~match_workspace() = default;

struct pattern::compiled {
    code_owner code;
    std::string source; // for messages
};

pattern::pattern() = default;
pattern::~pattern() = default;
pattern::pattern(pattern&&) noexcept = default;
pattern& pattern::operator=(pattern&&) noexcept = default;

pattern pattern::literal(std::string text) {
    pattern result;
    result.literal_ = std::move(text);
    return result;
}

pattern pattern::regex(std::string_view oniguruma, const std::string& where) {
    const std::string translated = translate_regex(oniguruma, where);
    const compile_context_owner context(pcre2_compile_context_create(nullptr));
    if (!context) fail(SLUICE_EXHAUSTED, "{}: out of memory for a regular expression", where);
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_bsr(context.get(), PCRE2_BSR_UNICODE);

    int error = 0;
    PCRE2_SIZE offset = 0;
    code_owner code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()),
                                  translated.size(), translated_regex_options(), &error, &offset,
                                  context.get()));
    if (!code) {
        fail(SLUICE_UNSUPPORTED,
             "{}: the regular expression {} is not valid or not supported: {} (translated for "
             "PCRE2 as {}, at byte {})",
             where, quote(oniguruma), pcre2_message(error), quote(translated), offset);
    }
    // Without just-in-time compilation, which some processors lack, matching is slower only.
    (void)pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);

    pattern result;
    result.code_ = std::make_unique<compiled>();
    result.code_->code = std::move(code);
    result.code_->source = quote(oniguruma);
    return result;
}

pattern pattern::from_json(const json_view& node) {
    if (const auto text = node.find("String")) return literal(std::string(text->as_text()));
    if (const auto expression = node.find("Regex")) {
        return regex(expression->as_text(), expression->where());
    }
    node.fail_expected("{\"String\": ...} or {\"Regex\": ...}");
}

void pattern::find(std::string_view text, std::vector<match_span>& spans,
                   match_workspace& workspace) const {
    spans.clear();
    if (text.empty()) {
        spans.push_back({0, 0, false});
        return;
    }
    if (code_) {
        find_regex(text, spans, workspace);
        return;
    }
    std::size_t previous = 0;
    const auto add = [&](std::size_t begin, std::size_t end) {
        if (previous != begin) spans.push_back({previous, begin, false});
        spans.push_back({begin, end, true});
        previous = end;
    };
    if (literal_.empty()) { // matches before every character and at the end
        for (std::size_t position = 0; position < text.size();) {
            add(position, position);
            position += utf8_length(text[position]);
        }
        add(text.size(), text.size());
        return;
    }
    for (std::size_t begin = text.find(literal_); begin != std::string_view::npos;
         begin = text.find(literal_, previous)) {
        add(begin, begin + literal_.size());
    }
    if (previous != text.size()) spans.push_back({previous, text.size(), false});
}

void pattern::find_regex(std::string_view text, std::vector<match_span>& spans,
                         match_workspace& workspace) const {
    std::size_t previous = 0; // the end of the last match
    std::size_t from = 0;
    bool matched = false;
    match_span found{};
    while (from <= text.size() && search(text, from, workspace, found)) {
        // An empty match right behind the last match does not count.
        if (found.begin == found.end && matched && found.end == previous) {
            from += from < text.size() ? utf8_length(text[from]) : 1;
            continue;
        }
        if (previous != found.begin) spans.push_back({previous, found.begin, false});
        spans.push_back(found);
        previous = found.end;
        from = found.end;
        matched = true;
    }
    if (previous != text.size()) spans.push_back({previous, text.size(), false});
}

bool pattern::search(std::string_view text, std::size_t from, match_workspace& workspace,
                     match_span& found) const {
    if (!workspace.state_) {
        auto state = std::make_unique<match_workspace::state>();
        state->data.reset(pcre2_match_data_create(1, nullptr));
        state->context.reset(pcre2_match_context_create(nullptr));
        if (!state->data || !state->context) {
            fail(SLUICE_EXHAUSTED, "out of memory for matching a regular expression");
        }
        pcre2_set_match_limit(state->context.get(), match_step_limit);
        pcre2_set_depth_limit(state->context.get(), match_depth_limit);
        pcre2_set_heap_limit(state->context.get(), match_heap_limit_kib);
        workspace.state_ = std::move(state);
    }
    const auto match = [&](uint32_t options) {
        return pcre2_match(code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                           text.size(), from, options, workspace.state_->data.get(),
                           workspace.state_->context.get());
    };
    int status = match(PCRE2_NO_UTF_CHECK);
    if (status == PCRE2_ERROR_JIT_STACKLIMIT) status = match(PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT);
    if (status == PCRE2_ERROR_NOMATCH) return false;
    if (status < 0) {
        fail(SLUICE_EXHAUSTED,
             "the tokenizer's regular expression {} gave up on a text of {} bytes: {}; use a "
             "shorter text",
             code_->source, text.size(), pcre2_message(status));
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(workspace.state_->data.get());
    // \K inside a look-around can put the start of a match behind its end.
    if (offsets[0] > offsets[1] || offsets[1] < from) return false;
    found = {offsets[0], offsets[1], true};
    return true;
}

} // namespace sluice::tokenization
