// TOML as a tree of the runtime's own, each node with its line, and strict reading of its tables.
// The parser itself (toml++) is seen by one source file only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// Where a value was written. `line` is 0 when it did not come from a file (an override).
struct configuration_origin {
    std::string file; // as the caller named it; of an override "--set section.key=value"
    uint32_t line = 0;
    uint32_t column = 0;

    // "configs/quickstart.toml:12", or "--set engine.sequences_max=0"
    std::string text() const;
};

enum class toml_kind { boolean, integer, number, text, date, array, table };
std::string_view toml_kind_name(toml_kind kind); // "an integer", with its article

struct toml_member;

struct toml_node {
    toml_kind kind = toml_kind::table;
    bool boolean = false;
    int64_t integer = 0;
    double number = 0;
    std::string text; // of a text; of a date as it was written
    std::vector<toml_node> items;
    std::vector<toml_member> members; // of a table, in the order of the file
    configuration_origin origin;

    const toml_node* find(std::string_view key) const; // member of a table, or nullptr
    toml_node* find(std::string_view key);
    // "the integer 12", "the text \"abc\"", "a table": what was found, for messages
    std::string description() const;
};

struct toml_member {
    std::string key;
    toml_node value;
};

constexpr uint64_t toml_size_bytes_max = 1 << 20;
constexpr uint32_t toml_key_parts_max = 32; // a.b.c has 3
constexpr uint32_t toml_depth_max = 32;     // of tables and arrays in each other

// Parses; throws SLUICE_INVALID "name:line: ..." for what is not TOML or over the limits.
toml_node toml_parse(std::string_view text, std::string_view name);
toml_node toml_parse_file(const std::filesystem::path& path);

// Applies "section.key=value" to a document; a part of the key that holds dots stands in double
// quotes. The value is read as TOML, and where it is not TOML (or is a date), as a text. Tables on
// the way are made where they are missing.
void toml_override(toml_node& document, std::string_view assignment);

// Reads the members of one table, each at most once. What was not asked for when `finish` is called
// is an unknown key. Every error names the place, the dotted key, what was expected and found.
class toml_table_reader {
  public:
    // prefix: the table's dotted name, "" for the document. The node outlives the reader.
    toml_table_reader(const toml_node& table, std::string prefix);

    // A value of the type, or nothing where the key is absent.
    std::optional<bool> boolean(std::string_view key);
    std::optional<int64_t> integer(std::string_view key, int64_t minimum, int64_t maximum);
    // An integer in the file is taken as a number; infinities and NaN are refused.
    std::optional<double> number(std::string_view key, double minimum, double maximum);
    std::optional<std::string> text(std::string_view key, size_t bytes_max = 4096);
    std::optional<std::string> choice(std::string_view key,
                                      const std::vector<std::string>& choices);
    std::optional<std::vector<std::string>> texts(std::string_view key, size_t count_max,
                                                  size_t bytes_max = 4096);
    const toml_node* table(std::string_view key);               // or nullptr
    const std::vector<toml_node>* tables(std::string_view key); // [[key]], or nullptr
    const toml_node* any(std::string_view key);                 // of any type, or nullptr

    // Throws where a member was not asked for.
    void finish() const;
    // Throws for a required member that is not there; names a member that may be meant for it.
    [[noreturn]] void refuse_missing(std::string_view key, std::string_view expected) const;
    // Throws SLUICE_INVALID "file:line: prefix.key: message".
    [[noreturn]] void refuse(std::string_view key, const std::string& message) const;
    // The place of a member, or of the table where there is no such member.
    const configuration_origin& origin(std::string_view key) const;
    std::string name(std::string_view key) const; // dotted

  private:
    const toml_node* take(std::string_view key, toml_kind kind);

    const toml_node& table_;
    std::string prefix_;
    std::set<std::string, std::less<>> known_;
};

// A table, with its keys read into a plain struct, refuses with this.
[[noreturn]] void refuse_at(const configuration_origin& origin, const std::string& message);

} // namespace sluice
