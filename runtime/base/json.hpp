// Strict JSON for files of unknown origin: bounded size, depth and number of values, no duplicate
// keys, and typed getters whose errors name the file and the dotted path of the key.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <compare>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

struct json_limits {
    uint64_t size_bytes_max = uint64_t(64) << 20; // never over 1 GiB
    uint32_t depth_max = 64;                      // nested arrays and objects
    uint32_t values_max = 4u << 20;               // about 30 bytes of memory each
};

// `integer` is a number written without fraction and exponent that fits int64; every other number
// is `number`.
enum class json_kind : uint8_t { null, boolean, integer, number, text, array, object };

struct json_tree; // the parsed document, in json.cpp

// One value of a parsed document. A view shares ownership of the document, so it is cheap to copy
// and never dangles. Documents never change, so views may be used from several threads.
//
// Getters by name fail with INVALID when the view is no object, the key is missing, or the value
// has another type or is out of range. The overloads with a default use it when the key is missing
// or null, which is how Hugging Face's configurations say "not set".
class json_view {
  public:
    class iterator;

    json_view(std::shared_ptr<const json_tree> tree, uint32_t index)
        : tree_(std::move(tree)), index_(index) {}

    json_kind kind() const;
    bool is_null() const { return kind() == json_kind::null; }
    bool is_text() const { return kind() == json_kind::text; }
    bool is_array() const { return kind() == json_kind::array; }
    bool is_object() const { return kind() == json_kind::object; }

    // Members of an object.
    bool contains(std::string_view name) const;                 // also when it is null
    std::optional<json_view> find(std::string_view name) const; // nothing when missing or null
    json_view at(std::string_view name) const;                  // fails when missing
    int64_t integer(std::string_view name, int64_t min, int64_t max) const;
    int64_t integer(std::string_view name, int64_t min, int64_t max, int64_t default_value) const;
    double number(std::string_view name) const; // integers are numbers too
    double number(std::string_view name, double default_value) const;
    double number(std::string_view name, double min, double max) const; // both included
    double number(std::string_view name, double min, double max, double default_value) const;
    bool boolean(std::string_view name) const;
    bool boolean(std::string_view name, bool default_value) const;
    std::string text(std::string_view name) const;
    std::string text(std::string_view name, std::string_view default_value) const;
    json_view array(std::string_view name) const;
    json_view object(std::string_view name) const;
    std::optional<json_view> array_if_present(std::string_view name) const;
    std::optional<json_view> object_if_present(std::string_view name) const;
    std::vector<std::string> keys() const; // in the file's order
    // Fails on the first key that is not listed, naming the nearest that is.
    void expect_only(std::initializer_list<std::string_view> names) const;

    // The value itself.
    int64_t as_integer(int64_t min = INT64_MIN, int64_t max = INT64_MAX) const;
    double as_number() const;
    double as_number(double min, double max) const;
    bool as_boolean() const;
    std::string_view as_text() const; // lives as long as any view of the document
    json_view as_array() const;       // itself
    json_view as_object() const;      // itself
    // [name, ...]; each element a text.
    std::vector<std::string> as_text_list() const;
    // Each element an integer in the range; at most `count_max` of them.
    std::vector<int64_t> as_integer_list(int64_t min, int64_t max, size_t count_max) const;

    // Elements of an array or members of an object, in the file's order; 0 for any other kind.
    size_t size() const;
    json_view operator[](size_t position) const; // fails past the end
    iterator begin() const;
    iterator end() const;
    std::string_view key() const; // of a member; "" for an element or the root

    const std::string& source() const; // the file's path, or what the text was called
    std::string path() const;          // "rope_scaling.factor", "layers[3]"; "" for the root
    std::string where() const;         // "config.json: rope_scaling.factor": how messages begin
    std::string describe() const;      // "the text \"abc\"", "an array of 3": for messages

    // Fails with "<where>: expected <expected>, found <describe>". The getters use it, and so may
    // callers whose expectation is finer than a type and a range.
    [[noreturn]] void fail_expected(std::string_view expected) const;
    [[noreturn]] void fail_unsupported(std::string_view reason) const; // "<where>: <reason>"

    // A copy that keeps the order of keys, to be changed and written.
    nlohmann::ordered_json to_json() const;

  private:
    std::optional<json_view> locate(std::string_view name) const; // null members too

    std::shared_ptr<const json_tree> tree_;
    uint32_t index_;
};

class json_view::iterator {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = json_view;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = json_view;

    iterator(const json_view* parent, size_t position) : parent_(parent), position_(position) {}
    json_view operator*() const { return (*parent_)[position_]; }
    iterator& operator++() {
        ++position_;
        return *this;
    }
    bool operator==(const iterator& other) const { return position_ == other.position_; }

  private:
    const json_view* parent_; // alive while iterating
    size_t position_;
};

// Parses one JSON value (RFC 8259: no comments, no NaN). `source` is what messages call the text.
// Fails with INVALID, naming line and column.
json_view parse_json(std::string_view text, std::string source, const json_limits& limits = {});

// The same for a file; errors of reading are read_text_file's.
json_view read_json_file(const std::filesystem::path& path, const json_limits& limits = {});

} // namespace sluice
