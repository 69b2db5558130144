// Character classes of Oniguruma, written for PCRE2.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::tokenization {

// A set of characters as PCRE2 can say it: what may stand inside one pair of brackets, and whole
// expressions of one character each for what may not (PCRE2 has no nested classes).
struct character_set {
    std::string items;
    std::vector<std::string> alternatives;

    bool empty() const { return items.empty() && alternatives.empty(); }
    void add(const character_set& other);
};

// An expression that matches one character of the set, or one that is not in it.
std::string expression_of(const character_set& set, bool negated);

// One character, escaped so that it stands for itself inside and outside of brackets.
std::string escaped_character(uint32_t code_point);

character_set white_space_set();
character_set word_set(bool in_brackets); // \w
character_set digit_set();                // \d
character_set hexadecimal_digit_set();

// The set of \p{name}, or nothing if Oniguruma or this runtime has no such property. Names that
// are no known category are taken for scripts.
std::optional<character_set> property_set(std::string_view name);

// The set of [:name:], or nothing.
std::optional<character_set> bracket_set(std::string_view name);

} // namespace sluice::tokenization
