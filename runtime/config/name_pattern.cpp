#include "config/name_pattern.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace sluice {

namespace {

constexpr size_t pattern_bytes_max = 512;
constexpr int64_t number_max = 1 << 20;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

uint32_t read_number(std::string_view text) {
    const auto number = parse_integer(trim(text));
    if (!number || *number < 0 || *number > number_max || !is_digit(trim(text)[0])) {
        fail(SLUICE_INVALID, "{} is no number from 0 to {}", quote(text), number_max);
    }
    return uint32_t(*number);
}

// "0-3,7"
std::vector<number_range> read_ranges(std::string_view text) {
    std::vector<number_range> ranges;
    for (const std::string& item : split(text, ',')) {
        const size_t dash = item.find('-');
        number_range range;
        range.first = read_number(std::string_view(item).substr(0, dash));
        range.last = dash == std::string::npos
                         ? range.first
                         : read_number(std::string_view(item).substr(dash + 1));
        if (range.last < range.first) {
            fail(SLUICE_INVALID, "the range {} ends before it begins", quote(item));
        }
        ranges.push_back(range);
    }
    return ranges;
}

bool contains(const std::vector<number_range>& ranges, uint64_t number) {
    return std::any_of(ranges.begin(), ranges.end(), [&](const number_range& range) {
        return number >= range.first && number <= range.last;
    });
}

// The end of the digits that begin at `at`, where a number in the ranges stands there; else `at`.
size_t number_end(const std::vector<number_range>& ranges, std::string_view name, size_t at) {
    if (at > 0 && is_digit(name[at - 1])) return at;
    size_t end = at;
    uint64_t number = 0;
    while (end < name.size() && is_digit(name[end]) && number <= uint64_t(number_max)) {
        number = number * 10 + uint64_t(name[end++] - '0');
    }
    const bool whole = end == name.size() || !is_digit(name[end]);
    return whole && contains(ranges, number) ? end : at;
}

} // namespace

name_pattern::name_pattern(std::string_view text) : text_(text) {
    if (text.empty() || text.size() > pattern_bytes_max) {
        fail(SLUICE_INVALID, "expected a pattern of 1 to {} characters", pattern_bytes_max);
    }
    if (text.back() == ']') {
        const size_t bracket = text.find('[');
        if (bracket == std::string_view::npos) fail(SLUICE_INVALID, "\"]\" without \"[\"");
        experts_ = read_ranges(text.substr(bracket + 1, text.size() - bracket - 2));
        text = text.substr(0, bracket);
    }
    std::vector<std::string> parts = split(text, '.');
    if (parts.size() > 1 && parts.back() == "**") {
        open_ended_ = true;
        parts.pop_back();
    }
    for (const std::string& each : parts) read_part(each);
}

void name_pattern::read_part(std::string_view text) {
    if (text.empty()) fail(SLUICE_INVALID, "a part between dots is empty");
    if (text.find("**") != std::string_view::npos) {
        fail(SLUICE_INVALID, "\"**\" can only be the last part, after a dot");
    }
    part& pieces = parts_.emplace_back();
    std::string literal;
    const auto end_literal = [&] {
        if (!literal.empty()) pieces.emplace_back(std::move(literal));
        literal.clear();
    };
    for (size_t at = 0; at < text.size(); ++at) {
        if (text[at] == '*') {
            end_literal();
            pieces.emplace_back(any_characters{});
        } else if (text[at] == '{') {
            end_literal();
            const size_t close = text.find('}', at);
            if (close == std::string_view::npos) fail(SLUICE_INVALID, "\"{{\" without \"}}\"");
            pieces.emplace_back(read_ranges(text.substr(at + 1, close - at - 1)));
            at = close;
        } else if (text[at] == '[' || text[at] == ']' || text[at] == '}') {
            fail(SLUICE_INVALID,
                 "{} is out of place; experts stand in brackets at the end, as in [0-31], and "
                 "numbers in braces, as in {{0-11}}",
                 quote(text.substr(at, 1)));
        } else {
            literal += text[at];
        }
    }
    end_literal();
}

// All places that the pieces so far may reach, so that the cost is bounded whatever the pattern.
bool name_pattern::part_matches(const part& pieces, std::string_view name) {
    std::vector<bool> reached(name.size() + 1, false);
    reached[0] = true;
    for (const piece& each : pieces) {
        std::vector<bool> next(name.size() + 1, false);
        for (size_t at = 0; at <= name.size(); ++at) {
            if (!reached[at]) continue;
            if (const auto* literal = std::get_if<std::string>(&each)) {
                if (name.substr(at).starts_with(*literal)) next[at + literal->size()] = true;
            } else if (const auto* ranges = std::get_if<std::vector<number_range>>(&each)) {
                const size_t end = number_end(*ranges, name, at);
                if (end != at) next[end] = true;
            } else {
                std::fill(next.begin() + ptrdiff_t(at), next.end(), true);
                break;
            }
        }
        reached = std::move(next);
    }
    return reached[name.size()];
}

bool name_pattern::matches(std::string_view name) const {
    const std::vector<std::string> found = split(name, '.');
    const bool count_fits =
        open_ended_ ? found.size() > parts_.size() : found.size() == parts_.size();
    if (!count_fits) return false;
    for (size_t i = 0; i < parts_.size(); ++i) {
        if (!part_matches(parts_[i], found[i])) return false;
    }
    return true;
}

std::string name_pattern::generalised() const {
    std::string text;
    for (const part& pieces : parts_) {
        if (!text.empty()) text += '.';
        for (const piece& each : pieces) {
            const auto* literal = std::get_if<std::string>(&each);
            text += literal != nullptr ? generalised_name(*literal) : "*";
        }
    }
    return open_ended_ ? text + ".**" : text;
}

std::string generalised_name(std::string_view name) {
    std::string text;
    for (size_t i = 0; i < name.size(); ++i) {
        // Digits within a word, as in "norm2", are a part of it.
        const bool begins = i == 0 || name[i - 1] == '.';
        size_t end = i;
        while (begins && end < name.size() && is_digit(name[end])) ++end;
        const bool number = end > i && (end == name.size() || name[end] == '.');
        if (number) {
            text += '*';
            i = end - 1;
        } else {
            text += name[i];
        }
    }
    return text;
}

std::string ranges_text(const std::vector<uint32_t>& numbers) {
    std::string text;
    for (size_t i = 0; i < numbers.size();) {
        size_t last = i;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
        if (!text.empty()) text += ',';
        text += last == i ? fmt::format("{}", numbers[i])
                          : fmt::format("{}-{}", numbers[i], numbers[last]);
        i = last + 1;
    }
    return text;
}

} // namespace sluice
