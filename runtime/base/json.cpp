#include "base/json.hpp"

#include "base/error.hpp"
#include "base/mapped_file.hpp"
#include "base/text.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace sluice {

namespace {

struct text_range {
    uint32_t offset;
    uint32_t size;
};

// Children of a container: positions in json_tree::children.
struct child_range {
    uint32_t first;
    uint32_t count;
};

struct json_node {
    json_kind kind = json_kind::null;
    uint32_t parent = 0; // the root is its own parent
    text_range key{};
    union {
        int64_t integer = 0;
        double number;
        bool boolean;
        text_range text;
        child_range children;
    };
};

constexpr uint64_t size_bytes_limit = uint64_t(1) << 30; // offsets are 32-bit

} // namespace

// Flat, so that a large document is a few large allocations, and destroying it recurses nowhere.
struct json_tree {
    std::string source;
    std::string characters; // keys and texts
    std::vector<json_node> nodes;
    // For an array its nodes in order; for an object its nodes in order, then again sorted by key.
    std::vector<uint32_t> children;

    std::string_view view(text_range range) const {
        return std::string_view(characters).substr(range.offset, range.size);
    }
};

namespace {

std::string append_step(const json_tree& tree, uint32_t index, std::string path) {
    const json_node& node = tree.nodes[index];
    const json_node& parent = tree.nodes[node.parent];
    if (parent.kind == json_kind::array) {
        auto first = tree.children.begin() + parent.children.first;
        auto place = std::find(first, first + parent.children.count, index);
        return path + fmt::format("[{}]", place - first);
    }
    std::string_view key = tree.view(node.key);
    bool is_plain =
        !key.empty() && key.size() <= 80 && std::all_of(key.begin(), key.end(), [](char character) {
            return character == '_' || character == '-' || (character >= '0' && character <= '9')
                   || (character >= 'a' && character <= 'z')
                   || (character >= 'A' && character <= 'Z');
        });
    if (!is_plain) return path + "[" + quote(key, 120) + "]";
    return path + (path.empty() ? "" : ".") + std::string(key);
}

std::string path_of(const json_tree& tree, uint32_t index) {
    std::vector<uint32_t> steps;
    for (; index != 0; index = tree.nodes[index].parent) steps.push_back(index);
    std::string path;
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
        path = append_step(tree, *step, std::move(path));
    }
    return path;
}

// Receives nlohmann's parse events, which come without recursion, and builds the tree. Every event
// that would break a limit ends the parse: the callback records why and returns false.
class tree_builder final : public nlohmann::json_sax<nlohmann::json> {
  public:
    tree_builder(json_tree& tree, const json_limits& limits) : tree_(tree), limits_(limits) {}

    const std::string& failure() const { return failure_; }

    bool null() override { return add(json_node{}); }
    bool boolean(bool value) override {
        json_node node;
        node.kind = json_kind::boolean;
        node.boolean = value;
        return add(node);
    }
    bool number_integer(int64_t value) override {
        json_node node;
        node.kind = json_kind::integer;
        node.integer = value;
        return add(node);
    }
    bool number_unsigned(uint64_t value) override {
        return value > uint64_t(INT64_MAX) ? number_float(double(value), {})
                                           : number_integer(int64_t(value));
    }
    bool number_float(double value, const std::string&) override {
        json_node node;
        node.kind = json_kind::number;
        node.number = value;
        return add(node);
    }
    bool string(std::string& value) override {
        json_node node;
        node.kind = json_kind::text;
        node.text = store(value);
        return add(node);
    }
    bool binary(binary_t&) override { return stop("binary values are not JSON"); }
    bool key(std::string& value) override {
        key_ = store(value);
        return true;
    }
    bool start_object(size_t) override { return open(json_kind::object); }
    bool start_array(size_t) override { return open(json_kind::array); }
    bool end_object() override {
        uint32_t index = open_.back().node;
        close();
        return sort_keys(index);
    }
    bool end_array() override {
        close();
        return true;
    }
    bool parse_error(size_t, const std::string&,
                     const nlohmann::detail::exception& problem) override {
        return stop(plain_message(problem.what()));
    }

  private:
    struct open_container {
        uint32_t node;
        size_t pending_first; // of its children in pending_
    };

    // "[json.exception.parse_error.101] parse error at line 1, ..." without its tag, bounded,
    // ASCII.
    static std::string plain_message(std::string_view message) {
        size_t tag_end = message.find("] ");
        if (message.starts_with('[') && tag_end != std::string_view::npos) {
            message.remove_prefix(tag_end + 2);
        }
        std::string plain(message.substr(0, 240));
        for (char& character : plain) {
            if (auto code = static_cast<unsigned char>(character); code < 0x20 || code > 0x7e) {
                character = '?';
            }
        }
        return plain + (message.size() > 240 ? "..." : "");
    }

    bool stop(std::string reason) {
        failure_ = std::move(reason);
        return false;
    }

    text_range store(std::string_view text) {
        text_range range{uint32_t(tree_.characters.size()), uint32_t(text.size())};
        tree_.characters += text;
        return range;
    }

    bool add(json_node node) {
        if (tree_.nodes.size() >= limits_.values_max) {
            return stop(fmt::format("expected at most {} values, found more", limits_.values_max));
        }
        auto index = uint32_t(tree_.nodes.size());
        if (!open_.empty()) {
            node.parent = open_.back().node;
            if (tree_.nodes[node.parent].kind == json_kind::object) node.key = key_;
            pending_.push_back(index);
        }
        tree_.nodes.push_back(node);
        return true;
    }

    bool open(json_kind kind) {
        if (open_.size() >= limits_.depth_max) {
            return stop(fmt::format("expected at most {} nested arrays and objects, found more",
                                    limits_.depth_max));
        }
        json_node node;
        node.kind = kind;
        node.children = {};
        auto index = uint32_t(tree_.nodes.size());
        if (!add(node)) return false;
        open_.push_back({index, pending_.size()});
        return true;
    }

    void close() {
        auto [index, first] = open_.back();
        open_.pop_back();
        tree_.nodes[index].children = {uint32_t(tree_.children.size()),
                                       uint32_t(pending_.size() - first)};
        tree_.children.insert(tree_.children.end(), pending_.begin() + std::ptrdiff_t(first),
                              pending_.end());
        pending_.resize(first);
    }

    // Writes the sorted half of an object's children, and refuses a key that is there twice:
    // readers disagree on which one counts, so a file could show each of them another content.
    bool sort_keys(uint32_t index) {
        child_range range = tree_.nodes[index].children;
        auto key_of = [&](uint32_t child) { return tree_.view(tree_.nodes[child].key); };
        tree_.children.reserve(tree_.children.size() + range.count);
        for (uint32_t i = 0; i < range.count; ++i) {
            tree_.children.push_back(tree_.children[range.first + i]);
        }
        auto first = tree_.children.begin() + range.first + range.count;
        std::sort(first, tree_.children.end(),
                  [&](uint32_t left, uint32_t right) { return key_of(left) < key_of(right); });
        auto twice =
            std::adjacent_find(first, tree_.children.end(), [&](uint32_t left, uint32_t right) {
                return key_of(left) == key_of(right);
            });
        if (twice == tree_.children.end()) return true;
        uint32_t child = *twice;
        while (!open_.empty())
            close(); // the document is refused; its paths need the parents closed
        return stop(fmt::format("the key {} is there twice; remove one",
                                append_step(tree_, child, path_of(tree_, index))));
    }

    json_tree& tree_;
    const json_limits& limits_;
    std::vector<open_container> open_;
    std::vector<uint32_t> pending_; // children of the open containers, innermost last
    text_range key_{};
    std::string failure_;
};

std::string range_text(int64_t min, int64_t max) {
    if (min == INT64_MIN && max == INT64_MAX) return "an integer";
    if (max == INT64_MAX) return fmt::format("an integer of at least {}", min);
    if (min == max) return fmt::format("{}", min);
    return fmt::format("an integer from {} to {}", min, max);
}

nlohmann::ordered_json copy(const json_view& view) {
    switch (view.kind()) {
    case json_kind::null:
        return nullptr;
    case json_kind::boolean:
        return view.as_boolean();
    case json_kind::integer:
        return view.as_integer();
    case json_kind::number:
        return view.as_number();
    case json_kind::text:
        return std::string(view.as_text());
    case json_kind::array: {
        auto list = nlohmann::ordered_json::array();
        for (json_view element : view) list.push_back(copy(element));
        return list;
    }
    case json_kind::object:
        break;
    }
    // Straight into the container: its own insertion would search all keys each time.
    nlohmann::ordered_json::object_t members;
    for (json_view member : view) {
        static_cast<std::vector<nlohmann::ordered_json::object_t::value_type>&>(members)
            .emplace_back(std::string(member.key()), copy(member));
    }
    return members;
}

} // namespace

json_view parse_json(std::string_view text, std::string source, const json_limits& limits) {
    uint64_t size_bytes_max = std::min(limits.size_bytes_max, size_bytes_limit);
    if (text.size() > size_bytes_max) {
        fail(SLUICE_INVALID, "{}: expected at most {} of JSON, found {}", source,
             bytes_text(size_bytes_max), bytes_text(text.size()));
    }
    if (trim(text).empty()) fail(SLUICE_INVALID, "{}: expected JSON, found nothing", source);
    // The parser takes a zero byte for the end of the text, so what follows would go unseen.
    if (size_t zero = text.find('\0'); zero != std::string_view::npos) {
        fail(SLUICE_INVALID, "{}: not acceptable JSON: a zero byte at offset {}", source, zero);
    }
    auto tree = std::make_shared<json_tree>();
    tree->source = std::move(source);
    tree_builder builder(*tree, limits);
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
        fail(SLUICE_INVALID, "{}: not acceptable JSON: {}", tree->source, builder.failure());
    }
    return json_view(std::move(tree), 0);
}

json_view read_json_file(const std::filesystem::path& path, const json_limits& limits) {
    std::string text = read_text_file(path, std::min(limits.size_bytes_max, size_bytes_limit));
    return parse_json(text, path.string(), limits);
}

json_kind json_view::kind() const { return tree_->nodes[index_].kind; }

std::optional<json_view> json_view::locate(std::string_view name) const {
    if (!is_object()) fail_expected("an object");
    child_range range = tree_->nodes[index_].children;
    auto first = tree_->children.begin() + range.first + range.count;
    auto last = first + range.count;
    auto key_of = [&](uint32_t child) { return tree_->view(tree_->nodes[child].key); };
    auto place = std::lower_bound(first, last, name, [&](uint32_t child, std::string_view wanted) {
        return key_of(child) < wanted;
    });
    if (place == last || key_of(*place) != name) return std::nullopt;
    return json_view(tree_, *place);
}

std::optional<json_view> json_view::find(std::string_view name) const {
    auto member = locate(name);
    if (member && member->is_null()) member.reset();
    return member;
}

bool json_view::contains(std::string_view name) const { return locate(name).has_value(); }

json_view json_view::at(std::string_view name) const {
    if (auto member = locate(name)) return *member;
    std::string place = path().empty() ? "at the top level" : "in " + path();
    fail(SLUICE_INVALID, "{}: expected the key {} {}, found none{}", source(), quote(name), place,
         did_you_mean(name, keys()));
}

int64_t json_view::integer(std::string_view name, int64_t min, int64_t max) const {
    return at(name).as_integer(min, max);
}
int64_t json_view::integer(std::string_view name, int64_t min, int64_t max,
                           int64_t default_value) const {
    auto member = find(name);
    return member ? member->as_integer(min, max) : default_value;
}
double json_view::number(std::string_view name) const { return at(name).as_number(); }
double json_view::number(std::string_view name, double default_value) const {
    auto member = find(name);
    return member ? member->as_number() : default_value;
}
double json_view::number(std::string_view name, double min, double max) const {
    return at(name).as_number(min, max);
}
double json_view::number(std::string_view name, double min, double max,
                         double default_value) const {
    auto member = find(name);
    return member ? member->as_number(min, max) : default_value;
}
bool json_view::boolean(std::string_view name) const { return at(name).as_boolean(); }
bool json_view::boolean(std::string_view name, bool default_value) const {
    auto member = find(name);
    return member ? member->as_boolean() : default_value;
}
std::string json_view::text(std::string_view name) const { return std::string(at(name).as_text()); }
std::string json_view::text(std::string_view name, std::string_view default_value) const {
    auto member = find(name);
    return std::string(member ? member->as_text() : default_value);
}
json_view json_view::array(std::string_view name) const { return at(name).as_array(); }
json_view json_view::object(std::string_view name) const { return at(name).as_object(); }
std::optional<json_view> json_view::array_if_present(std::string_view name) const {
    auto member = find(name);
    if (member) member->as_array();
    return member;
}
std::optional<json_view> json_view::object_if_present(std::string_view name) const {
    auto member = find(name);
    if (member) member->as_object();
    return member;
}

std::vector<std::string> json_view::keys() const {
    std::vector<std::string> names;
    for (json_view member : as_object()) names.emplace_back(member.key());
    return names;
}

void json_view::expect_only(std::initializer_list<std::string_view> names) const {
    std::vector<std::string> expected(names.begin(), names.end());
    for (json_view member : as_object()) {
        if (std::find(names.begin(), names.end(), member.key()) != names.end()) continue;
        fail(SLUICE_INVALID, "{}: unknown key; expected one of: {}{}", member.where(),
             join(expected, ", "), did_you_mean(member.key(), expected));
    }
}

int64_t json_view::as_integer(int64_t min, int64_t max) const {
    const json_node& node = tree_->nodes[index_];
    if (node.kind != json_kind::integer || node.integer < min || node.integer > max) {
        fail_expected(range_text(min, max));
    }
    return node.integer;
}

double json_view::as_number() const {
    const json_node& node = tree_->nodes[index_];
    if (node.kind == json_kind::integer) return double(node.integer);
    if (node.kind != json_kind::number) fail_expected("a number");
    return node.number;
}

double json_view::as_number(double min, double max) const {
    if (kind() == json_kind::integer || kind() == json_kind::number) {
        double value = as_number();
        if (value >= min && value <= max) return value;
    }
    fail_expected(fmt::format("a number from {} to {}", min, max));
}

bool json_view::as_boolean() const {
    if (kind() != json_kind::boolean) fail_expected("true or false");
    return tree_->nodes[index_].boolean;
}

std::string_view json_view::as_text() const {
    if (kind() != json_kind::text) fail_expected("a text");
    return tree_->view(tree_->nodes[index_].text);
}

json_view json_view::as_array() const {
    if (kind() != json_kind::array) fail_expected("an array");
    return *this;
}

json_view json_view::as_object() const {
    if (kind() != json_kind::object) fail_expected("an object");
    return *this;
}

std::vector<std::string> json_view::as_text_list() const {
    std::vector<std::string> list;
    for (json_view element : as_array()) list.emplace_back(element.as_text());
    return list;
}

std::vector<int64_t> json_view::as_integer_list(int64_t min, int64_t max, size_t count_max) const {
    if (as_array().size() > count_max) {
        fail_expected(fmt::format("an array of at most {}", count_max));
    }
    std::vector<int64_t> list;
    for (json_view element : *this) list.push_back(element.as_integer(min, max));
    return list;
}

size_t json_view::size() const {
    return is_array() || is_object() ? tree_->nodes[index_].children.count : 0;
}

json_view json_view::operator[](size_t position) const {
    if (position >= size()) fail_expected(fmt::format("at least {} elements", position + 1));
    return json_view(tree_, tree_->children[tree_->nodes[index_].children.first + position]);
}

json_view::iterator json_view::begin() const { return {this, 0}; }
json_view::iterator json_view::end() const { return {this, size()}; }

std::string_view json_view::key() const { return tree_->view(tree_->nodes[index_].key); }
const std::string& json_view::source() const { return tree_->source; }
std::string json_view::path() const { return path_of(*tree_, index_); }

std::string json_view::where() const {
    std::string position = path();
    return position.empty() ? source() : source() + ": " + position;
}

std::string json_view::describe() const {
    switch (kind()) {
    case json_kind::null:
        return "null";
    case json_kind::boolean:
        return as_boolean() ? "true" : "false";
    case json_kind::integer:
        return fmt::format("{}", as_integer());
    case json_kind::number:
        return fmt::format("the number {}", as_number());
    case json_kind::text:
        return "the text " + quote(as_text());
    case json_kind::array:
        return fmt::format("an array of {}", size());
    case json_kind::object:
        return fmt::format("an object of {} keys", size());
    }
    return "nothing";
}

void json_view::fail_expected(std::string_view expected) const {
    fail(SLUICE_INVALID, "{}: expected {}, found {}", where(), expected, describe());
}

void json_view::fail_unsupported(std::string_view reason) const {
    fail(SLUICE_UNSUPPORTED, "{}: {}", where(), reason);
}

nlohmann::ordered_json json_view::to_json() const { return copy(*this); }

} // namespace sluice
