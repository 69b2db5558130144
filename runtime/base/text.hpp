// Small text helpers for messages: lists, quoting, sizes, and the nearest names for "did you mean".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// The candidates nearest to `name` by edit distance (Levenshtein, ASCII case ignored), nearest
// first, ties in the candidates' order. Candidates too far to be a slip of the pen are left out, so
// the result may be empty. Names over 200 bytes are never near. Cost is bounded by a band around
// the best distances found, so a list of a hundred thousand tensor names is fine.
std::vector<std::string>
nearest_names(std::string_view name, std::span<const std::string> candidates, size_t count_max = 3);

// `; did you mean "a" or "b"?`, or "" when no candidate is near. Append it to a message.
std::string did_you_mean(std::string_view name, std::span<const std::string> candidates);

std::string join(std::span<const std::string> parts, std::string_view separator);

// The text in double quotes with control characters escaped, cut (with "...") at `bytes_max`: safe
// to put into a message whatever a file held. Bytes that are not UTF-8 become \xNN.
std::string quote(std::string_view text, size_t bytes_max = 80);

// "[2, 3]"; "[]" is a scalar.
std::string shape_text(std::span<const int64_t> shape);

// "0 B", "1023 B", "1.5 KiB", "20.0 GiB".
std::string bytes_text(uint64_t size_bytes);

// "950", "12.3 k", "7.0 M", "6.9 G": counts of parameters or tokens, in powers of a thousand.
std::string count_text(uint64_t count);

// "0.8 s", "42 s", "3 min 07 s", "2 h 05 min".
std::string duration_text(double duration_s);

// The text, or what stands before the suffix.
std::string without_suffix(const std::string& text, std::string_view suffix);
std::string_view trim(std::string_view text); // without ASCII white space at both ends
std::vector<std::string> split(std::string_view text, char separator);
std::string lower_ascii(std::string_view text);

// The whole text as a decimal integer; nothing when it is empty, has other characters or overflows.
std::optional<int64_t> parse_integer(std::string_view text);

// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates, at most U+10FFFF).
bool is_utf8(std::string_view text);

} // namespace sluice
