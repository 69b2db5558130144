#define PCRE2_CODE_UNIT_WIDTH 8

#include "tokenizer/regex_translation.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "tokenizer/regex_class.hpp"
#include "tokenizer/unicode.hpp"

#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>
#include <vector>

namespace sluice::tokenization {

namespace {

constexpr std::size_t pattern_bytes_limit = std::size_t{1} << 14;
constexpr int nesting_limit = 100;
constexpr uint32_t repeat_limit = 65535; // of PCRE2

bool is_digit(char byte) { return byte >= '0' && byte <= '9'; }

// Recursive descent over the expression; `output_` grows as it goes.
class translator {
  public:
    translator(std::string_view input, const std::string& where) : input_(input), where_(where) {}

    std::string run() {
        if (input_.size() > pattern_bytes_limit) {
            refuse(fmt::format("is {} bytes long, the limit is {}", input_.size(),
                               pattern_bytes_limit));
        }
        translate_group_body(0);
        if (!at_end()) refuse("has an unmatched \")\"");
        return std::move(output_);
    }

  private:
    enum class atom_state { none, single, repeated, fixed_point };

    bool at_end() const { return position_ >= input_.size(); }
    char peek() const { return at_end() ? '\0' : input_[position_]; }
    bool next_is(std::string_view text) const { return input_.substr(position_).starts_with(text); }

    bool accept(std::string_view text) {
        if (!next_is(text)) return false;
        position_ += text.size();
        return true;
    }

    [[noreturn]] void refuse(const std::string& why) const {
        fail(SLUICE_UNSUPPORTED, "{}: the regular expression {} {} (at byte {})", where_,
             quote(input_), why, position_);
    }

    uint32_t take_character() {
        if (at_end()) refuse("ends too early");
        return utf8_next(input_, position_);
    }

    // A sequence of branches up to ")" or the end. An isolated option such as (?i) holds to the end
    // of the enclosing group, branches included, which here becomes a group of its own.
    void translate_group_body(int depth) {
        if (depth > nesting_limit) refuse("nests its groups too deep");
        const bool insensitive = insensitive_;
        int isolated = 0;
        atom_state state = atom_state::none;
        std::size_t atom = output_.size();
        while (!at_end() && peek() != ')') {
            const char byte = peek();
            if (translate_quantifier(state, atom)) continue;
            previous_folded_ = state == atom_state::single ? previous_folded_ : 0;
            atom = output_.size();
            if (byte == '|') {
                ++position_;
                output_ += '|';
                state = atom_state::none;
            } else if (byte == '(') {
                state = translate_group(depth, isolated);
                previous_folded_ = 0;
            } else if (byte == '[') {
                ++position_;
                const auto [set, negated] = translate_class(depth);
                output_ += expression_of(set, negated);
                state = atom_state::single;
                previous_folded_ = 0;
            } else {
                state = translate_atom();
            }
        }
        output_.append(static_cast<std::size_t>(isolated), ')');
        insensitive_ = insensitive;
        previous_folded_ = 0;
    }

    // "(" and what belongs to it.
    atom_state translate_group(int depth, int& isolated) {
        ++position_;
        if (!accept("?")) {
            ++group_count_;
            return finish_group("(", depth, atom_state::single);
        }
        if (accept("#")) {
            while (peek() != ')') {
                if (at_end()) refuse("has a comment without end");
                ++position_;
            }
            ++position_;
            return atom_state::none;
        }
        for (const char* lookaround : {"=", "!", "<=", "<!"}) {
            if (accept(lookaround)) {
                return finish_group(std::string("(?") + lookaround, depth, atom_state::fixed_point);
            }
        }
        for (const char* plain : {":", ">"}) {
            if (accept(plain)) {
                return finish_group(std::string("(?") + plain, depth, atom_state::single);
            }
        }
        if (accept("<")) {
            ++group_count_;
            const std::string name = take_group_name();
            return finish_group("(?<" + name + ">", depth, atom_state::single);
        }
        return translate_options(depth, isolated);
    }

    atom_state finish_group(const std::string& opening, int depth, atom_state state) {
        output_ += opening;
        translate_group_body(depth + 1);
        if (!accept(")")) refuse("has an unmatched \"(\"");
        output_ += ')';
        return state;
    }

    std::string take_group_name() {
        std::string name;
        while (std::isalnum(static_cast<unsigned char>(peek())) != 0 || peek() == '_') {
            name += input_[position_++];
        }
        if (name.empty() || is_digit(name.front()) || name.size() > 32 || !accept(">")) {
            refuse("has a group name that is not supported");
        }
        return name;
    }

    // (?im-im) and (?im-im: ...). Ruby's m lets the dot match a newline, which is PCRE2's s.
    atom_state translate_options(int depth, int& isolated) {
        std::string options;
        bool off = false;
        const bool insensitive = insensitive_;
        for (;; ++position_) {
            const char byte = peek();
            if (byte == 'i') {
                options += 'i';
                insensitive_ = !off;
            } else if (byte == 'm') {
                options += 's';
            } else if (byte == '-' && !off) {
                options += '-';
                off = true;
            } else {
                break;
            }
        }
        if (accept(")")) {
            output_ += "(?" + options + ":";
            ++isolated;
            return atom_state::none;
        }
        if (!accept(":")) refuse("has a group or option that is not supported");
        const atom_state state = finish_group("(?" + options + ":", depth, atom_state::single);
        insensitive_ = insensitive;
        return state;
    }

    // *, +, ?, {n,m}. Returns false if there is none at this place.
    bool translate_quantifier(atom_state& state, std::size_t atom) {
        std::string quantifier;
        const char byte = peek();
        if (byte == '*' || byte == '+' || byte == '?') {
            ++position_;
            quantifier = byte;
            // After these three, and only these, "+" means possessive in Ruby's syntax.
            if (peek() == '?' || peek() == '+') quantifier += input_[position_++];
        } else if (byte == '{') {
            quantifier = take_interval();
            if (quantifier.empty()) return false;
        } else {
            return false;
        }
        if (state == atom_state::none || state == atom_state::fixed_point) {
            refuse("repeats something that cannot be repeated");
        }
        if (state == atom_state::repeated) {
            output_.insert(atom, "(?:");
            output_ += ')';
        }
        output_ += quantifier;
        state = atom_state::repeated;
        return true;
    }

    // {n}, {n,}, {n,m} or {,m}; empty if the brace is a character like any other.
    std::string take_interval() {
        std::size_t cursor = position_ + 1;
        const auto number = [&]() -> int64_t {
            if (cursor >= input_.size() || !is_digit(input_[cursor])) return -1;
            int64_t value = 0;
            while (cursor < input_.size() && is_digit(input_[cursor])) {
                value = std::min<int64_t>(value * 10 + (input_[cursor++] - '0'), repeat_limit + 1);
            }
            return value;
        };
        const int64_t least = number();
        int64_t most = least;
        const bool comma = cursor < input_.size() && input_[cursor] == ',';
        if (comma) {
            ++cursor;
            most = number();
        }
        if (cursor >= input_.size() || input_[cursor] != '}' || (least < 0 && most < 0)) return {};
        if (least > repeat_limit || most > repeat_limit || (most >= 0 && most < least)) {
            refuse("has a repeat range that is not supported");
        }
        position_ = cursor + 1;
        std::string interval = fmt::format("{{{}", std::max<int64_t>(least, 0));
        if (comma) interval += most < 0 ? "," : fmt::format(",{}", most);
        interval += '}';
        // {n}? is an optional {n} in Ruby, so its "?" is left to be read as the next quantifier.
        if (comma && peek() == '?') {
            ++position_;
            interval += '?';
        }
        return interval;
    }

    atom_state translate_atom() {
        const char byte = peek();
        if (byte == '^' || byte == '$' || byte == '.') {
            ++position_;
            output_ += byte;
            previous_folded_ = 0;
            return byte == '.' ? atom_state::single : atom_state::fixed_point;
        }
        if (byte == '\\') return translate_escape();
        emit_literal(take_character());
        return atom_state::single;
    }

    // Oniguruma folds some pairs of letters to one character when it ignores case; PCRE2 does not.
    void emit_literal(uint32_t code_point) {
        if (insensitive_) {
            const std::string folded = lowercase(encoded(code_point));
            const uint32_t current = folded.size() == 1 ? static_cast<unsigned char>(folded[0]) : 0;
            const bool pair = (previous_folded_ == 's' && (current == 's' || current == 't'))
                              || (previous_folded_ == 'f'
                                  && (current == 'f' || current == 'i' || current == 'l'));
            if (pair || expands_when_folded(code_point)) {
                refuse("ignores case where several letters fold to one");
            }
            previous_folded_ = current;
        }
        output_ += escaped_character(code_point);
    }

    static std::string encoded(uint32_t code_point) {
        std::string text;
        utf8_append(text, code_point);
        return text;
    }

    static bool expands_when_folded(uint32_t code_point) {
        if (code_point < 0x80) return false;
        utf8proc_int32_t folded[8];
        int boundary = 0;
        return utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), folded, 8,
                                       UTF8PROC_CASEFOLD, &boundary)
               > 1;
    }

    atom_state translate_escape() {
        previous_folded_ = 0;
        if (auto set = take_class_escape(false)) {
            output_ += expression_of(set->first, set->second);
            return atom_state::single;
        }
        const char byte = position_ + 1 < input_.size() ? input_[position_ + 1] : '\0';
        switch (byte) {
        case 'b':
        case 'B': {
            position_ += 2;
            const std::string word = expression_of(word_set(false), false);
            output_ += byte == 'b' ? fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word)
                                   : fmt::format("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", word);
            return atom_state::fixed_point;
        }
        case 'A':
        case 'z':
        case 'Z':
        case 'G':
            position_ += 2;
            output_ += {'\\', byte};
            return atom_state::fixed_point;
        case 'R':
            position_ += 2;
            output_ += "(?>\\x{d}\\x{a}|[\\x{a}-\\x{d}\\x{85}\\x{2028}\\x{2029}])";
            return atom_state::single;
        case 'N':
            position_ += 2;
            output_ += "[^\\x{a}]";
            return atom_state::single;
        case 'O':
            position_ += 2;
            output_ += "(?s:.)";
            return atom_state::single;
        case 'k':
            if (position_ + 2 < input_.size() && input_[position_ + 2] == '<') {
                position_ += 3;
                output_ += "\\k{" + take_group_name() + "}";
                return atom_state::single;
            }
            break;
        case 'K':
        case 'X':
        case 'g':
        case 'y':
        case 'Y':
            refuse(fmt::format("uses \\{}, which is not supported", byte));
        default:
            break;
        }
        if (byte >= '1' && byte <= '9') return translate_back_reference();
        emit_literal(take_character_escape(false));
        return atom_state::single;
    }

    // \1 to \9 where there are so many groups; an octal character otherwise.
    atom_state translate_back_reference() {
        const int number = input_[position_ + 1] - '0';
        const bool longer = position_ + 2 < input_.size() && is_digit(input_[position_ + 2]);
        if (longer || number > group_count_) {
            refuse("has a back reference or octal character that is not supported");
        }
        position_ += 2;
        output_ += fmt::format("\\g{{{}}}", number);
        return atom_state::single;
    }

    // \d \D \w \W \s \S \h \H \p{..} \P{..}: the set and whether it is negated.
    std::optional<std::pair<character_set, bool>> take_class_escape(bool in_brackets) {
        if (position_ + 1 >= input_.size()) refuse("ends with a backslash");
        const char byte = input_[position_ + 1];
        const bool upper = std::isupper(static_cast<unsigned char>(byte)) != 0;
        std::optional<character_set> set;
        switch (std::tolower(static_cast<unsigned char>(byte))) {
        case 'd':
            set = digit_set();
            break;
        case 'w':
            set = word_set(in_brackets);
            break;
        case 's':
            set = white_space_set();
            break;
        case 'h':
            set = hexadecimal_digit_set();
            break; // in PCRE2: horizontal space
        case 'p':
            return take_property(upper);
        default:
            return std::nullopt;
        }
        position_ += 2;
        return std::pair(std::move(*set), upper);
    }

    std::pair<character_set, bool> take_property(bool negated) {
        position_ += 2;
        if (!accept("{")) refuse("has a \\p without braces");
        if (accept("^")) negated = !negated;
        const std::size_t end = input_.find('}', position_);
        if (end == std::string_view::npos) refuse("has a \\p{ without end");
        const std::string_view name = input_.substr(position_, end - position_);
        auto set = property_set(name);
        if (!set) refuse("names a character property that is not supported");
        position_ = end + 1;
        return {std::move(*set), negated};
    }

    // A backslash and the one character that it and what follows stand for.
    uint32_t take_character_escape(bool in_class) {
        ++position_;
        const uint32_t code_point = take_character();
        switch (code_point) {
        case 't':
            return '\t';
        case 'n':
            return '\n';
        case 'r':
            return '\r';
        case 'f':
            return '\f';
        case 'v':
            return '\v'; // in PCRE2: vertical space
        case 'a':
            return '\a';
        case 'e':
            return 0x1b;
        case 'b':
            if (in_class) return '\b';
            break;
        case 'x':
            return take_hexadecimal_escape();
        case 'u':
            return take_hexadecimal(4, 4);
        case '0':
            return take_octal(2);
        case 'c':
        case 'C':
        case 'M':
            refuse("uses a control or meta character");
        default:
            break;
        }
        if (code_point >= '1' && code_point <= '7' && in_class) {
            --position_;
            return take_octal(3);
        }
        if (code_point < 0x80 && std::isalnum(static_cast<int>(code_point)) != 0) {
            refuse(fmt::format("uses \\{}, which is not supported", static_cast<char>(code_point)));
        }
        return code_point;
    }

    uint32_t take_hexadecimal_escape() {
        if (!accept("{")) {
            const uint32_t value = take_hexadecimal(1, 2);
            if (value >= 0x80) refuse("has a byte that is not a character");
            return value;
        }
        const uint32_t value = take_hexadecimal(1, 8);
        if (!accept("}")) refuse("has a \\x{ without end");
        return value;
    }

    uint32_t take_hexadecimal(int least, int most) {
        uint32_t value = 0;
        int count = 0;
        while (count < most && std::isxdigit(static_cast<unsigned char>(peek())) != 0) {
            const char byte = static_cast<char>(std::tolower(input_[position_++]));
            value =
                value << 4 | static_cast<uint32_t>(is_digit(byte) ? byte - '0' : byte - 'a' + 10);
            ++count;
        }
        if (count < least) refuse("has too few hexadecimal digits");
        return checked_code_point(value);
    }

    uint32_t take_octal(int most) {
        uint32_t value = 0;
        for (int count = 0; count < most && peek() >= '0' && peek() <= '7'; ++count) {
            value = value * 8 + static_cast<uint32_t>(input_[position_++] - '0');
        }
        if (value >= 0x80) refuse("has a byte that is not a character");
        return value;
    }

    uint32_t checked_code_point(uint32_t value) const {
        if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
            refuse("has a character code that is not Unicode");
        }
        return value;
    }

    // The inside of brackets, up to and with "]". Returns the set and whether it is negated.
    std::pair<character_set, bool> translate_class(int depth) {
        if (depth > nesting_limit) refuse("nests its classes too deep");
        const bool negated = accept("^");
        std::vector<character_set> operands(1);
        bool first = true;
        while (first || peek() != ']') {
            if (at_end()) refuse("has a class without end");
            if (accept("&&")) {
                operands.emplace_back();
            } else if (peek() == '[') {
                translate_nested_class(operands.back(), depth);
            } else {
                translate_class_item(operands.back());
            }
            first = false;
        }
        ++position_;
        for (const character_set& operand : operands) {
            if (operand.empty()) refuse("has an empty class");
        }
        if (operands.size() == 1) return {std::move(operands[0]), negated};
        // A character of every operand: look ahead for all but the last.
        std::string all = "(?:";
        for (std::size_t index = 0; index + 1 < operands.size(); ++index) {
            all += "(?=" + expression_of(operands[index], false) + ")";
        }
        all += expression_of(operands.back(), false) + ")";
        return {character_set{{}, {std::move(all)}}, negated};
    }

    void translate_nested_class(character_set& set, int depth) {
        if (next_is("[:")) {
            const std::size_t end = input_.find(":]", position_ + 2);
            if (end != std::string_view::npos && end - position_ < 20) {
                std::string_view name = input_.substr(position_ + 2, end - position_ - 2);
                const bool negated = name.starts_with('^');
                if (negated) name.remove_prefix(1);
                auto named = bracket_set(name);
                if (!named) refuse(fmt::format("uses [:{}:], which is not supported", name));
                position_ = end + 2;
                add_to_set(set, *named, negated);
                return;
            }
        }
        ++position_;
        const auto [nested, negated] = translate_class(depth + 1);
        add_to_set(set, nested, negated);
    }

    static void add_to_set(character_set& set, const character_set& other, bool negated) {
        if (negated) {
            set.alternatives.push_back(expression_of(other, true));
        } else {
            set.add(other);
        }
    }

    void translate_class_item(character_set& set) {
        if (peek() == '\\') {
            if (auto escape = take_class_escape(true)) {
                if (next_is("-") && !next_is("-]")) refuse("has a range that begins with a class");
                add_to_set(set, escape->first, escape->second);
                return;
            }
        }
        const uint32_t low = take_class_character();
        if (!next_is("-") || next_is("-]") || next_is("-&&")) {
            set.items += escaped_character(low);
            return;
        }
        ++position_;
        if (peek() == '[') refuse("has a range that ends with a class");
        if (peek() == '\\' && take_class_escape(true)) refuse("has a range that ends with a class");
        const uint32_t high = take_class_character();
        if (high < low) refuse("has an empty range in a class");
        constexpr uint32_t last_expanding = 0xfb17;
        for (uint32_t c = low; insensitive_ && c <= std::min(high, last_expanding); ++c) {
            if (expands_when_folded(c)) refuse("ignores case where several letters fold to one");
        }
        set.items += escaped_character(low) + "-" + escaped_character(high);
        if (next_is("-") && !next_is("-]")) { // "a-c-e": a hyphen after a range is itself
            ++position_;
            set.items += escaped_character('-');
        }
    }

    uint32_t take_class_character() {
        const uint32_t code_point = peek() == '\\' ? take_character_escape(true) : take_character();
        if (insensitive_ && expands_when_folded(code_point)) {
            refuse("ignores case where several letters fold to one");
        }
        return code_point;
    }

    std::string_view input_;
    const std::string& where_;
    std::string output_;
    std::size_t position_ = 0;
    int group_count_ = 0;
    bool insensitive_ = false;
    uint32_t previous_folded_ = 0; // the ASCII letter just emitted while ignoring case, or 0
};

} // namespace

uint32_t translated_regex_options() {
    // ^ and $ are always those of lines in Ruby's syntax.
    return PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK;
}

std::string translate_regex(std::string_view oniguruma, const std::string& where) {
    return translator(oniguruma, where).run();
}

} // namespace sluice::tokenization
