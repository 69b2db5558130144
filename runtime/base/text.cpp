#include "base/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace sluice {
namespace {

constexpr size_t name_bytes_max = 200;

char lower_ascii(char character) {
    return character >= 'A' && character <= 'Z' ? char(character - 'A' + 'a') : character;
}

// Levenshtein distance of two lower-case names, or limit + 1 as soon as it must be over `limit`.
size_t edit_distance(std::string_view left, std::string_view right, size_t limit,
                     std::vector<size_t>& row) {
    size_t difference =
        left.size() > right.size() ? left.size() - right.size() : right.size() - left.size();
    if (difference > limit) return limit + 1;
    row.resize(right.size() + 1);
    for (size_t j = 0; j <= right.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= left.size(); ++i) {
        size_t diagonal = row[0];
        size_t row_min = row[0] = i;
        for (size_t j = 1; j <= right.size(); ++j) {
            size_t substituted = diagonal + (left[i - 1] == lower_ascii(right[j - 1]) ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
            row_min = std::min(row_min, row[j]);
        }
        if (row_min > limit) return limit + 1;
    }
    return std::min(row.back(), limit + 1);
}

// The length in bytes of the UTF-8 sequence that `text` begins with, or 0 when it is malformed.
size_t utf8_sequence_size(std::string_view text) {
    auto byte = [&](size_t index) { return static_cast<unsigned char>(text[index]); };
    unsigned char lead = byte(0);
    if (lead < 0x80) return 1;
    size_t size = lead >= 0xc2 && lead <= 0xdf ? 2 : (lead & 0xf0) == 0xe0 ? 3 : 0;
    if (lead >= 0xf0 && lead <= 0xf4) size = 4;
    if (size == 0 || text.size() < size) return 0;
    for (size_t i = 1; i < size; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return 0;
    }
    bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
    bool surrogate = lead == 0xed && byte(1) >= 0xa0;
    bool too_large = lead == 0xf4 && byte(1) >= 0x90;
    return overlong || surrogate || too_large ? 0 : size;
}

} // namespace

std::vector<std::string> nearest_names(std::string_view name,
                                       std::span<const std::string> candidates, size_t count_max) {
    struct near_name {
        size_t distance;
        const std::string* name;
    };
    std::vector<near_name> nearest;
    if (name.size() > name_bytes_max || count_max == 0) return {};
    std::string lower = lower_ascii(name);
    std::vector<size_t> row;
    size_t limit = std::max<size_t>(2, name.size() / 3);
    for (const std::string& candidate : candidates) {
        if (candidate.size() > name_bytes_max) continue;
        size_t distance = edit_distance(lower, candidate, limit, row);
        // A distance as long as the name itself shares nothing with it.
        if (distance > limit || distance >= std::max(name.size(), candidate.size())) continue;
        auto place = std::upper_bound(
            nearest.begin(), nearest.end(), distance,
            [](size_t value, const near_name& entry) { return value < entry.distance; });
        nearest.insert(place, {distance, &candidate});
        if (nearest.size() > count_max) nearest.pop_back();
        if (nearest.size() == count_max) limit = std::min(limit, nearest.back().distance);
    }
    std::vector<std::string> names;
    for (const near_name& entry : nearest) names.push_back(*entry.name);
    return names;
}

std::string did_you_mean(std::string_view name, std::span<const std::string> candidates) {
    std::vector<std::string> names = nearest_names(name, candidates);
    if (names.empty()) return {};
    for (std::string& near_name : names) near_name = quote(near_name, name_bytes_max);
    return "; did you mean " + join(names, " or ") + "?";
}

std::string join(std::span<const std::string> parts, std::string_view separator) {
    std::string text;
    for (size_t i = 0; i < parts.size(); ++i) {
        if (i > 0) text += separator;
        text += parts[i];
    }
    return text;
}

std::string quote(std::string_view text, size_t bytes_max) {
    std::string quoted = "\"";
    size_t position = 0;
    while (position < text.size()) {
        size_t size = utf8_sequence_size(text.substr(position));
        if (position + std::max<size_t>(size, 1) > bytes_max) break;
        char character = text[position];
        if (character == '"' || character == '\\') {
            quoted += {'\\', character};
        } else if (character == '\n') {
            quoted += "\\n";
        } else if (size == 0 || static_cast<unsigned char>(character) < 0x20 || character == 0x7f) {
            quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(character));
        } else {
            quoted += text.substr(position, size);
        }
        position += std::max<size_t>(size, 1);
    }
    return quoted + (position < text.size() ? "...\"" : "\"");
}

std::string shape_text(std::span<const int64_t> shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
        text += fmt::format("{}{}", i == 0 ? "" : ", ", shape[i]);
    }
    return text + "]";
}

std::string bytes_text(uint64_t size_bytes) {
    static constexpr const char* units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (size_bytes < 1024) return fmt::format("{} B", size_bytes);
    double value = double(size_bytes) / 1024;
    size_t unit = 0;
    // 1023.95 would print as 1024.0 of the smaller unit.
    while (value >= 1023.95 && unit + 1 < std::size(units)) {
        value /= 1024;
        ++unit;
    }
    return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string count_text(uint64_t count) {
    static constexpr const char* units[] = {"k", "M", "G", "T", "P", "E"};
    if (count < 1000) return fmt::format("{}", count);
    double value = double(count) / 1000;
    size_t unit = 0;
    while (value >= 999.95 && unit + 1 < std::size(units)) {
        value /= 1000;
        ++unit;
    }
    return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string duration_text(double duration_s) {
    if (!(duration_s >= 0) || duration_s > 1e9) return "unknown";
    if (duration_s < 9.95) return fmt::format("{:.1f} s", duration_s);
    auto seconds = int64_t(std::llround(duration_s));
    if (seconds < 60) return fmt::format("{} s", seconds);
    if (seconds < 3600) return fmt::format("{} min {:02} s", seconds / 60, seconds % 60);
    return fmt::format("{} h {:02} min", seconds / 3600, seconds % 3600 / 60);
}

std::string without_suffix(const std::string& text, std::string_view suffix) {
    return text.ends_with(suffix) ? text.substr(0, text.size() - suffix.size()) : text;
}

std::string_view trim(std::string_view text) {
    constexpr std::string_view space = " \t\r\n\f\v";
    size_t first = text.find_first_not_of(space);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(space) - first + 1);
}

std::vector<std::string> split(std::string_view text, char separator) {
    std::vector<std::string> parts;
    size_t first = 0;
    for (size_t at; (at = text.find(separator, first)) != std::string_view::npos; first = at + 1) {
        parts.emplace_back(text.substr(first, at - first));
    }
    parts.emplace_back(text.substr(first));
    return parts;
}

std::string lower_ascii(std::string_view text) {
    std::string lower(text);
    for (char& character : lower) character = lower_ascii(character);
    return lower;
}

std::optional<int64_t> parse_integer(std::string_view text) {
    int64_t value = 0;
    auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        size_t size = utf8_sequence_size(text);
        if (size == 0) return false;
        text.remove_prefix(size);
    }
    return true;
}

} // namespace sluice
