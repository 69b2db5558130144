#include "config/toml_document.hpp"

#include "base/error.hpp"
#include "base/mapped_file.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

// The parser asserts in places that malformed text reaches (version 3.3: a table header without a
// name), and takes the assertions for granted where NDEBUG is set. Here they are checked in every
// build, and end in an error as all malformed text does.
namespace sluice {
namespace {
struct toml_assertion {
    const char* expression;
};
[[noreturn, gnu::noinline]] void toml_assertion_failed(const char* expression) {
    throw toml_assertion{expression};
}
} // namespace
} // namespace sluice
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_ASSERT(expression)                                                                    \
    (static_cast<bool>(expression) ? void() : sluice::toml_assertion_failed(#expression))
#define TOML_ENABLE_WINDOWS_COMPAT 0
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

namespace sluice {

namespace {

// Walks over the text as the parser will and refuses what the parser is not fit for: keys of very
// many parts, each of which it makes a nested table that it takes apart recursively, and headers
// without a name.
class key_scanner {
  public:
    key_scanner(std::string_view text, std::string_view name) : text_(text), name_(name) {}

    void scan() {
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c == '"' || c == '\'')
                skip_string(c);
            else if (c == '#')
                skip_comment();
            else
                step(c);
        }
    }

  private:
    void step(char c) {
        if (c == '[' && !in_value_ && depth_ == 0) check_header();
        if (c == '=') in_value_ = true;
        if (c == '[' || c == '{') ++depth_;
        if ((c == ']' || c == '}') && depth_ > 0) --depth_;
        if (c == '\n' && depth_ == 0) in_value_ = false;
        ++at_;
        if (c == '\n') ++line_;
        if (c == '.') {
            if (++dots_ >= toml_key_parts_max) {
                fail(SLUICE_INVALID,
                     "{}:{}: a key has more than {} parts; expected at most that many", name_,
                     line_, toml_key_parts_max);
            }
        } else if (std::string_view("\n=,{}[]").find(c) != std::string_view::npos) {
            dots_ = 0;
        }
    }

    // The parser does not look before it reads the name of a table.
    void check_header() {
        size_t at = at_ + 1;
        const auto skip_blanks = [&] {
            while (at < text_.size() && (text_[at] == ' ' || text_[at] == '\t')) ++at;
        };
        skip_blanks();
        if (at < text_.size() && text_[at] == '[') ++at;
        skip_blanks();
        // An end of the text and a closing bracket are found by the parser.
        const char c = at < text_.size() ? text_[at] : ']';
        const bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
                          || std::string_view("_-\"'[]").find(c) != std::string_view::npos;
        if (!fits) {
            fail(SLUICE_INVALID, "{}:{}: not TOML: expected the name of a table after [", name_,
                 line_);
        }
    }

    void skip_comment() {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    }

    void skip_string(char quote_mark) {
        const bool is_long = text_.substr(at_, 3) == std::string(3, quote_mark);
        at_ += is_long ? 3 : 1;
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c == '\n') {
                ++line_;
                if (!is_long) return; // not TOML; the parser will say so
            }
            if (c == '\\' && quote_mark == '"') {
                // The escaped byte is no end of the string; a line end is left to be counted.
                at_ += at_ + 1 < text_.size() && text_[at_ + 1] != '\n' ? 2 : 1;
                continue;
            }
            if (c == quote_mark) {
                if (!is_long) {
                    ++at_;
                    return;
                }
                if (text_.substr(at_, 3) == std::string(3, quote_mark)) {
                    at_ += 3;
                    // Up to two quotes more may stand before the closing three.
                    while (at_ < text_.size() && text_[at_] == quote_mark) ++at_;
                    return;
                }
            }
            ++at_;
        }
    }

    std::string_view text_;
    std::string_view name_;
    size_t at_ = 0;
    uint32_t line_ = 1;
    uint32_t dots_ = 0;
    uint32_t depth_ = 0; // of brackets
    bool in_value_ = false;
};

template <typename Value>
std::string printed(const Value& value) {
    std::ostringstream stream;
    stream << value;
    return stream.str();
}

toml_node converted(const toml::node& node, std::string_view name, uint32_t depth,
                    configuration_origin fallback) {
    toml_node result;
    result.origin = {std::string(name), node.source().begin.line, node.source().begin.column};
    // Tables that only dotted keys imply have no place of their own in every case.
    if (result.origin.line == 0) result.origin = std::move(fallback);
    if (depth > toml_depth_max) {
        refuse_at(
            result.origin,
            fmt::format("tables and arrays lie more than {} deep in each other", toml_depth_max));
    }
    switch (node.type()) {
    case toml::node_type::boolean:
        result.kind = toml_kind::boolean;
        result.boolean = node.as_boolean()->get();
        break;
    case toml::node_type::integer:
        result.kind = toml_kind::integer;
        result.integer = node.as_integer()->get();
        break;
    case toml::node_type::floating_point:
        result.kind = toml_kind::number;
        result.number = node.as_floating_point()->get();
        break;
    case toml::node_type::string:
        result.kind = toml_kind::text;
        result.text = node.as_string()->get();
        break;
    case toml::node_type::array:
        result.kind = toml_kind::array;
        for (const toml::node& item : *node.as_array()) {
            result.items.push_back(converted(item, name, depth + 1, result.origin));
        }
        break;
    case toml::node_type::table: {
        result.kind = toml_kind::table;
        for (auto&& [key, member] : *node.as_table()) {
            const auto& source = key.source().begin;
            toml_node value = converted(
                member, name, depth + 1,
                source.line ? configuration_origin{std::string(name), source.line, source.column}
                            : result.origin);
            // The key is what a reader looks for: of a multi-line value it is the first line.
            if (source.line != 0) {
                value.origin.line = source.line;
                value.origin.column = source.column;
            }
            result.members.push_back({std::string(key.str()), std::move(value)});
        }
        // toml++ keeps keys by the alphabet; messages should name the first in the file.
        std::stable_sort(result.members.begin(), result.members.end(),
                         [](const auto& a, const auto& b) {
                             return std::pair(a.value.origin.line, a.value.origin.column)
                                    < std::pair(b.value.origin.line, b.value.origin.column);
                         });
        break;
    }
    case toml::node_type::date:
        result.kind = toml_kind::date;
        result.text = printed(node.as_date()->get());
        break;
    case toml::node_type::time:
        result.kind = toml_kind::date;
        result.text = printed(node.as_time()->get());
        break;
    default:
        result.kind = toml_kind::date;
        result.text = printed(node.as_date_time()->get());
        break;
    }
    return result;
}

void set_origin(toml_node& node, const configuration_origin& origin) {
    node.origin = origin;
    for (toml_node& item : node.items) set_origin(item, origin);
    for (toml_member& member : node.members) set_origin(member.value, origin);
}

// Made safe for messages, without quotes around it.
std::string printable(std::string_view text) {
    const std::string quoted = quote(text, 120);
    return quoted.size() < 2 ? quoted : quoted.substr(1, quoted.size() - 2);
}

// The right side of an override.
toml_node override_value(std::string_view text, std::string_view name) {
    toml_node as_text;
    as_text.kind = toml_kind::text;
    as_text.text = text;
    if (text.find('\n') != std::string_view::npos) return as_text;
    try {
        toml_node document = toml_parse(fmt::format("value = {}", text), name);
        if (document.members.size() == 1 && document.members[0].key == "value"
            && document.members[0].value.kind != toml_kind::date) {
            return std::move(document.members[0].value);
        }
    } catch (const error&) {
        // Not TOML: names and paths need no quotes on a command line.
    }
    return as_text;
}

} // namespace

std::string configuration_origin::text() const {
    return line == 0 ? file : fmt::format("{}:{}", file, line);
}

std::string_view toml_kind_name(toml_kind kind) {
    switch (kind) {
    case toml_kind::boolean:
        return "true or false";
    case toml_kind::integer:
        return "an integer";
    case toml_kind::number:
        return "a number";
    case toml_kind::text:
        return "a text";
    case toml_kind::date:
        return "a date or time";
    case toml_kind::array:
        return "an array";
    default:
        return "a table";
    }
}

const toml_node* toml_node::find(std::string_view key) const {
    for (const toml_member& member : members) {
        if (member.key == key) return &member.value;
    }
    return nullptr;
}

toml_node* toml_node::find(std::string_view key) {
    return const_cast<toml_node*>(std::as_const(*this).find(key));
}

std::string toml_node::description() const {
    switch (kind) {
    case toml_kind::boolean:
        return boolean ? "true" : "false";
    case toml_kind::integer:
        return fmt::format("the integer {}", integer);
    case toml_kind::number:
        return fmt::format("the number {}", number);
    case toml_kind::text:
        return fmt::format("the text {}", quote(text));
    case toml_kind::date:
        return fmt::format("the date or time {}", text);
    case toml_kind::array:
        return "an array";
    default:
        return "a table";
    }
}

void refuse_at(const configuration_origin& origin, const std::string& message) {
    fail(SLUICE_INVALID, "{}: {}", origin.text(), message);
}

toml_node toml_parse(std::string_view text, std::string_view name) {
    if (text.size() > toml_size_bytes_max) {
        fail(SLUICE_INVALID, "{}: {} bytes; expected TOML of at most {} bytes", name, text.size(),
             toml_size_bytes_max);
    }
    key_scanner(text, name).scan();
    try {
        const toml::table table = toml::parse(text);
        return converted(table, name, 0, {std::string(name), 1, 1});
    } catch (const toml::parse_error& failure) {
        fail(SLUICE_INVALID, "{}:{}: not TOML: {} (column {})", name, failure.source().begin.line,
             failure.description(), failure.source().begin.column);
    } catch (const toml_assertion& failure) {
        fail(SLUICE_INVALID, "{}: not TOML: the parser could make nothing of it ({})", name,
             failure.expression);
    }
}

toml_node toml_parse_file(const std::filesystem::path& path) {
    return toml_parse(read_text_file(path, toml_size_bytes_max), path.string());
}

void toml_override(toml_node& document, std::string_view assignment) {
    const configuration_origin origin{fmt::format("--set {}", printable(assignment)), 0, 0};
    const size_t equals = assignment.find('=');
    if (equals == std::string_view::npos || trim(assignment.substr(0, equals)).empty()) {
        refuse_at(origin, "expected section.key=value");
    }
    const std::vector<std::string> path = split(trim(assignment.substr(0, equals)), '.');
    if (path.size() > toml_key_parts_max) {
        refuse_at(origin, fmt::format("a key has at most {} parts", toml_key_parts_max));
    }
    toml_node* table = &document;
    for (size_t i = 0; i < path.size(); ++i) {
        if (path[i].empty())
            refuse_at(origin, "a part of the key is empty; expected section.key=value");
        const bool last = i + 1 == path.size();
        toml_node* member = table->find(path[i]);
        if (member == nullptr) {
            table->members.push_back({path[i], {}});
            member = &table->members.back().value;
            member->origin = origin;
        }
        if (last) {
            *member = override_value(trim(assignment.substr(equals + 1)), origin.file);
            set_origin(*member, origin);
        } else if (member->kind != toml_kind::table) {
            const std::vector<std::string> way(path.begin(), path.begin() + i + 1);
            refuse_at(origin,
                      fmt::format("{} is {} at {}, not a table that an override can reach into",
                                  join(way, "."), member->description(), member->origin.text()));
        }
        table = member;
    }
}

toml_table_reader::toml_table_reader(const toml_node& table, std::string prefix)
    : table_(table), prefix_(std::move(prefix)) {
    if (table.kind != toml_kind::table) {
        refuse_at(table.origin,
                  fmt::format("{}: expected a table, found {}", prefix_, table.description()));
    }
}

std::string toml_table_reader::name(std::string_view key) const {
    return prefix_.empty() ? std::string(key) : fmt::format("{}.{}", prefix_, key);
}

const configuration_origin& toml_table_reader::origin(std::string_view key) const {
    const toml_node* node = table_.find(key);
    return node ? node->origin : table_.origin;
}

void toml_table_reader::refuse(std::string_view key, const std::string& message) const {
    refuse_at(origin(key), fmt::format("{}: {}", name(key), message));
}

void toml_table_reader::refuse_missing(std::string_view key, std::string_view expected) const {
    for (const auto& [present, node] : table_.members) {
        const std::string names[] = {std::string(key)};
        if (known_.contains(present) || nearest_names(present, names).empty()) continue;
        refuse_at(node.origin, fmt::format("{}: unknown key, and {} is missing; did you mean that?",
                                           name(printable(present)), name(key)));
    }
    refuse(key, fmt::format("is missing; expected {}", expected));
}

const toml_node* toml_table_reader::any(std::string_view key) {
    known_.emplace(key);
    return table_.find(key);
}

const toml_node* toml_table_reader::take(std::string_view key, toml_kind kind) {
    const toml_node* node = any(key);
    if (node != nullptr && node->kind != kind) {
        refuse(key,
               fmt::format("expected {}, found {}", toml_kind_name(kind), node->description()));
    }
    return node;
}

std::optional<bool> toml_table_reader::boolean(std::string_view key) {
    const toml_node* node = take(key, toml_kind::boolean);
    return node ? std::optional(node->boolean) : std::nullopt;
}

std::optional<int64_t> toml_table_reader::integer(std::string_view key, int64_t minimum,
                                                  int64_t maximum) {
    const toml_node* node = take(key, toml_kind::integer);
    if (node == nullptr) return std::nullopt;
    if (node->integer < minimum || node->integer > maximum) {
        refuse(key, fmt::format("expected an integer from {} to {}, found {}", minimum, maximum,
                                node->integer));
    }
    return node->integer;
}

std::optional<double> toml_table_reader::number(std::string_view key, double minimum,
                                                double maximum) {
    const toml_node* node = any(key);
    if (node == nullptr) return std::nullopt;
    if (node->kind != toml_kind::number && node->kind != toml_kind::integer) {
        refuse(key, fmt::format("expected a number, found {}", node->description()));
    }
    const double value =
        node->kind == toml_kind::number ? node->number : static_cast<double>(node->integer);
    if (!std::isfinite(value) || value < minimum || value > maximum) {
        refuse(key,
               fmt::format("expected a number from {} to {}, found {}", minimum, maximum, value));
    }
    return value;
}

std::optional<std::string> toml_table_reader::text(std::string_view key, size_t bytes_max) {
    const toml_node* node = take(key, toml_kind::text);
    if (node == nullptr) return std::nullopt;
    if (node->text.size() > bytes_max) {
        refuse(key, fmt::format("expected a text of at most {} bytes, found {} bytes", bytes_max,
                                node->text.size()));
    }
    return node->text;
}

std::optional<std::string> toml_table_reader::choice(std::string_view key,
                                                     const std::vector<std::string>& choices) {
    std::optional<std::string> value = text(key);
    if (value && std::find(choices.begin(), choices.end(), *value) == choices.end()) {
        refuse(key, fmt::format("expected one of {}; found {}{}",
                                fmt::format("\"{}\"", fmt::join(choices, "\", \"")), quote(*value),
                                did_you_mean(*value, choices)));
    }
    return value;
}

std::optional<std::vector<std::string>>
toml_table_reader::texts(std::string_view key, size_t count_max, size_t bytes_max) {
    const toml_node* node = take(key, toml_kind::array);
    if (node == nullptr) return std::nullopt;
    if (node->items.size() > count_max) {
        refuse(key,
               fmt::format("expected at most {} texts, found {}", count_max, node->items.size()));
    }
    std::vector<std::string> result;
    for (const toml_node& item : node->items) {
        if (item.kind != toml_kind::text) {
            refuse_at(item.origin, fmt::format("{}[{}]: expected a text, found {}", name(key),
                                               result.size(), item.description()));
        }
        if (item.text.size() > bytes_max) {
            refuse_at(item.origin,
                      fmt::format("{}[{}]: expected at most {} bytes, found {}", name(key),
                                  result.size(), bytes_max, item.text.size()));
        }
        result.push_back(item.text);
    }
    return result;
}

const toml_node* toml_table_reader::table(std::string_view key) {
    return take(key, toml_kind::table);
}

const std::vector<toml_node>* toml_table_reader::tables(std::string_view key) {
    const toml_node* node = any(key);
    if (node == nullptr) return nullptr;
    if (node->kind != toml_kind::array) {
        refuse(key, fmt::format("expected tables headed [[{}]], found {}", name(key),
                                node->description()));
    }
    for (const toml_node& item : node->items) {
        if (item.kind != toml_kind::table) {
            refuse_at(item.origin, fmt::format("{}: expected tables headed [[{}]], found {} in it",
                                               name(key), name(key), item.description()));
        }
    }
    return &node->items;
}

void toml_table_reader::finish() const {
    for (const auto& [key, node] : table_.members) {
        if (known_.contains(key)) continue;
        const std::vector<std::string> names(known_.begin(), known_.end());
        std::string hint = did_you_mean(key, names);
        if (hint.empty()) hint = fmt::format("; expected one of {}", join(names, ", "));
        refuse_at(node.origin, fmt::format("{}: unknown key{}", name(printable(key)), hint));
    }
}

} // namespace sluice
