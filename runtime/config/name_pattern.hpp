// Patterns over dotted names, as [placement] has them: "layers.*.experts", "layers.{0-11}.**",
// "layers.*.experts[0-31]".
//
//   *        any characters within one part of the name
//   {0-3,7}  a number in one of the ranges
//   **       as the last part: any further parts, one at least
//   [0-31]   at the end: of the experts of the operation only these
//
// Everything else stands for itself. A pattern matches whole names.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sluice {

struct number_range {
    uint32_t first = 0;
    uint32_t last = 0; // included
};

class name_pattern {
  public:
    // Fails with SLUICE_INVALID saying what is wrong with the text.
    explicit name_pattern(std::string_view text);

    bool matches(std::string_view name) const;
    const std::string& text() const { return text_; }
    // The numbers in brackets; empty: there are none.
    const std::vector<number_range>& experts() const { return experts_; }
    // The pattern without brackets and with "*" for every number, to be compared with names that
    // are generalised likewise.
    std::string generalised() const;

  private:
    struct any_characters {};
    using piece = std::variant<std::string, any_characters, std::vector<number_range>>;
    using part = std::vector<piece>;

    void read_part(std::string_view text);
    static bool part_matches(const part& pieces, std::string_view name);

    std::string text_;
    std::vector<part> parts_;
    bool open_ended_ = false; // "**" at the end
    std::vector<number_range> experts_;
};

// "layers.*.experts" for "layers.3.experts".
std::string generalised_name(std::string_view name);

// "0-31", "5", "0-3,8-11" of rising numbers.
std::string ranges_text(const std::vector<uint32_t>& numbers);

} // namespace sluice
