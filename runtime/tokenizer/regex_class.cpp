#include "tokenizer/regex_class.hpp"

#include "tokenizer/unicode.hpp"
#include "tokenizer/unicode_tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <utility>

namespace sluice::tokenization {

namespace {

// PCRE2's own white space has U+180E too; the reference follows the property White_Space.
constexpr const char* white_space_items =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
    "\\x{205f}\\x{3000}";
constexpr const char* alphabetic_symbol_items =
    "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";
// Marks that became alphabetic, and modifiers that became lowercase, after Unicode 14.
constexpr const char* later_alphabetic_items =
    "\\x{363}-\\x{36f}\\x{897}\\x{c04}\\x{cf3}\\x{f82}-\\x{f83}\\x{1dd3}-\\x{1de6}"
    "\\x{10d69}\\x{10efc}\\x{11080}-\\x{11081}\\x{11241}\\x{113b8}-\\x{113c0}\\x{113c2}"
    "\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113cd}\\x{11f00}-\\x{11f01}\\x{11f03}"
    "\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f40}\\x{1611e}-\\x{1612e}\\x{1e08f}";
constexpr const char* later_lowercase_items =
    "\\x{10fc}\\x{a7f2}-\\x{a7f4}\\x{ab69}\\x{1e030}-\\x{1e06d}";

struct script_addition {
    const char* script;
    const char* items;
};

// Characters that these scripts gained after Unicode 14.
constexpr script_addition script_additions[] = {
    {"arabic", "\\x{897}\\x{10ec2}-\\x{10ec4}\\x{10efc}-\\x{10eff}"},
    {"cyrillic", "\\x{1c89}-\\x{1c8a}\\x{1e030}-\\x{1e06d}\\x{1e08f}"},
    {"devanagari", "\\x{11b00}-\\x{11b09}"},
    {"han", "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"},
    {"hiragana", "\\x{1b132}"},
    {"kannada", "\\x{cf3}"},
    {"katakana", "\\x{1b155}"},
    {"lao", "\\x{ece}"},
    {"latin", "\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{1df25}-\\x{1df2a}"},
    {"myanmar", "\\x{116d0}-\\x{116e3}"},
};

struct category_name {
    const char* brief; // as both libraries know it
    const char* full;  // Oniguruma only; lower case, without separators
};

constexpr category_name category_names[] = {
    {"L", "letter"},
    {"Lu", "uppercaseletter"},
    {"Ll", "lowercaseletter"},
    {"Lt", "titlecaseletter"},
    {"Lm", "modifierletter"},
    {"Lo", "otherletter"},
    {"M", "mark"},
    {"Mn", "nonspacingmark"},
    {"Mc", "spacingmark"},
    {"Me", "enclosingmark"},
    {"N", "number"},
    {"Nd", "decimalnumber"},
    {"Nl", "letternumber"},
    {"No", "othernumber"},
    {"P", "punctuation"},
    {"Pc", "connectorpunctuation"},
    {"Pd", "dashpunctuation"},
    {"Ps", "openpunctuation"},
    {"Pe", "closepunctuation"},
    {"Pi", "initialpunctuation"},
    {"Pf", "finalpunctuation"},
    {"Po", "otherpunctuation"},
    {"S", "symbol"},
    {"Sm", "mathsymbol"},
    {"Sc", "currencysymbol"},
    {"Sk", "modifiersymbol"},
    {"So", "othersymbol"},
    {"Z", "separator"},
    {"Zs", "spaceseparator"},
    {"Zl", "lineseparator"},
    {"Zp", "paragraphseparator"},
    {"Cc", "control"},
    {"Cf", "format"},
    {"Co", "privateuse"},
};

std::string lowered(std::string_view name) {
    std::string output;
    for (const char byte : name) {
        if (byte == ' ' || byte == '_' || byte == '-') continue;
        output += static_cast<char>(std::tolower(static_cast<unsigned char>(byte)));
    }
    return output;
}

std::string_view category_letters(utf8proc_category_t category) {
    constexpr std::string_view letters =
        "CnLuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCo";
    return letters.substr(static_cast<std::size_t>(category) * 2, 2);
}

// PCRE2's category plus the characters of it that PCRE2 10.42 does not know yet. `brief` is a
// major category ("L") or a minor one ("Lu").
std::string category_items(std::string_view brief) {
    std::string items = fmt::format("\\p{{{}}}", brief);
    uint32_t first = 0;
    uint32_t last = 0;
    const auto flush = [&] {
        if (last != 0) items += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", first, last);
    };
    for (const category_range& range : characters_assigned_after_unicode_14()) {
        if (!category_letters(range.category).starts_with(brief)) continue;
        if (last == 0 || range.first != last + 1) {
            flush();
            first = range.first;
        }
        last = range.last;
    }
    flush();
    return items;
}

std::string alphabetic_items() {
    return category_items("L") + category_items("Nl") + alphabetic_symbol_items
           + later_alphabetic_items + "\\p{Alphabetic}";
}

character_set complement_of(std::string items) {
    character_set set;
    set.alternatives.push_back("[^" + std::move(items) + "]");
    return set;
}

character_set set_of(std::string items) { return character_set{std::move(items), {}}; }

// The names that Oniguruma knows both as properties and inside of [: :], with one meaning.
std::optional<character_set> common_set(const std::string& name) {
    if (name == "alpha") return set_of(alphabetic_items());
    if (name == "digit") return digit_set();
    if (name == "alnum") return set_of(alphabetic_items() + category_items("Nd"));
    if (name == "upper") return set_of(category_items("Lu") + "\\p{Uppercase}");
    if (name == "lower")
        return set_of(category_items("Ll") + later_lowercase_items + "\\p{Lowercase}");
    if (name == "space") return white_space_set();
    if (name == "blank") return set_of("\\x{9}\\p{Zs}");
    if (name == "cntrl") return set_of("\\p{Cc}");
    if (name == "xdigit") return hexadecimal_digit_set();
    if (name == "ascii") return set_of("\\x{0}-\\x{7f}");
    if (name == "word") {
        return set_of(alphabetic_items() + category_items("M") + category_items("Nd")
                      + category_items("Pc"));
    }
    return std::nullopt;
}

} // namespace

void character_set::add(const character_set& other) {
    items += other.items;
    alternatives.insert(alternatives.end(), other.alternatives.begin(), other.alternatives.end());
}

std::string expression_of(const character_set& set, bool negated) {
    if (set.alternatives.empty()) return (negated ? "[^" : "[") + set.items + "]";
    std::string any;
    if (!set.items.empty()) any = "[" + set.items + "]";
    for (const std::string& alternative : set.alternatives) {
        if (!any.empty()) any += "|";
        any += alternative;
    }
    return negated ? "(?:(?!" + any + ")(?s:.))" : "(?:" + any + ")";
}

std::string escaped_character(uint32_t code_point) {
    if (code_point < 0x80 && std::isalnum(static_cast<int>(code_point)) != 0) {
        return std::string(1, static_cast<char>(code_point));
    }
    return fmt::format("\\x{{{:x}}}", code_point);
}

character_set white_space_set() { return set_of(white_space_items); }

character_set word_set(bool in_brackets) {
    character_set set = *common_set("word");
    // On its own, \w takes these numbers of Latin-1 for word characters too.
    if (!in_brackets) set.items += "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
    return set;
}

character_set digit_set() { return set_of(category_items("Nd")); }

character_set hexadecimal_digit_set() { return set_of("0-9a-fA-F"); }

std::optional<character_set> property_set(std::string_view name) {
    const std::string plain = lowered(name);
    if (plain.empty() || !std::all_of(plain.begin(), plain.end(), [](char byte) {
            return std::isalnum(static_cast<unsigned char>(byte)) != 0;
        })) {
        return std::nullopt;
    }
    for (const category_name& known : category_names) {
        if (plain == lowered(known.brief) || plain == known.full) {
            return set_of(category_items(known.brief));
        }
    }
    if (plain == "any") return set_of("\\x{0}-\\x{10ffff}");
    if (plain == "punct") return set_of(category_items("P"));
    if (plain == "whitespace") return white_space_set();
    if (plain == "alphabetic") return common_set("alpha");
    if (plain == "uppercase") return common_set("upper");
    if (plain == "lowercase") return common_set("lower");
    // What PCRE2 10.42 does not know is unassigned to it, so these are written by what they lack.
    std::string assigned;
    for (const char* major : {"L", "M", "N", "P", "S", "Z"}) assigned += category_items(major);
    if (plain == "c" || plain == "other") return complement_of(assigned);
    if (plain == "cn" || plain == "unassigned") {
        return complement_of(assigned + "\\p{Cc}\\p{Cf}\\p{Co}\\p{Cs}");
    }
    if (auto common = common_set(plain)) return common;
    // "sc:" because a bare name means Script_Extensions to PCRE2 and Script to Oniguruma.
    std::string items = fmt::format("\\p{{sc:{}}}", plain);
    for (const script_addition& addition : script_additions) {
        if (plain == addition.script) items += addition.items;
    }
    return set_of(std::move(items));
}

std::optional<character_set> bracket_set(std::string_view name) {
    if (name == "punct") return set_of(category_items("P") + category_items("S"));
    return common_set(std::string(name));
}

} // namespace sluice::tokenization
