#include "source_text.hpp"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <regex>

namespace sluice::tidy {
namespace fs = std::filesystem;
namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

std::string read_text(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Where the literal that begins at `at` with a quote ends: one past its closing quote.
size_t end_of_quoted(std::string_view text, size_t at) {
    const char quote = text[at];
    for (size_t i = at + 1; i < text.size(); ++i) {
        if (text[i] == '\\') {
            ++i;
        } else if (text[i] == quote || text[i] == '\n') {
            return i + 1;
        }
    }
    return text.size();
}

// The same for R"tag( ... )tag", with `at` on the quote.
size_t end_of_raw(std::string_view text, size_t at) {
    const size_t open = text.find('(', at);
    if (open == std::string_view::npos) return text.size();
    const std::string close = ")" + std::string(text.substr(at + 1, open - at - 1)) + "\"";
    const size_t end = text.find(close, open);
    return end == std::string_view::npos ? text.size() : end + close.size();
}

// One past the end of a directive, over its continuation lines.
size_t end_of_directive(std::string_view text, size_t at) {
    while (true) {
        const size_t end = text.find('\n', at);
        if (end == std::string_view::npos) return text.size();
        if (end == 0 || text[end - 1] != '\\') return end;
        at = end + 1;
    }
}

bool first_on_line(std::string_view text, size_t at) {
    while (at > 0 && text[at - 1] != '\n') {
        --at;
        if (!is_space(text[at])) return false;
    }
    return true;
}

// One past the end of the comment, literal or directive at `at`, or `at` when there is none.
size_t end_of_opaque(std::string_view text, size_t at, directives keep) {
    const char c = text[at];
    const std::string_view two = text.substr(at, 2);
    if (two == "//") return std::min(text.find('\n', at), text.size());
    if (two == "/*") {
        const size_t end = text.find("*/", at + 2);
        return end == std::string_view::npos ? text.size() : end + 2;
    }
    if (c == '#' && keep == directives::blank && first_on_line(text, at))
        return end_of_directive(text, at);
    if (c == '"') {
        const bool raw = at > 0 && text[at - 1] == 'R' && (at < 2 || !is_word(text[at - 2]));
        return raw ? end_of_raw(text, at) : end_of_quoted(text, at);
    }
    // A quote inside a number separates digits.
    if (c == '\'' && (at == 0 || !is_word(text[at - 1]))) return end_of_quoted(text, at);
    return at;
}

std::string one_line(std::string_view text) {
    std::string line;
    for (const char c : text) {
        if (!is_space(c)) {
            line += c;
        } else if (!line.empty() && line.back() != ' ') {
            line += ' ';
        }
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    return line;
}

enum class block { scope, function, member_initializer, value };

// What a brace opens, told from the text between the last ';', '{' or '}' and the brace.
block kind_of(const std::string& head) {
    static const std::regex scope(
        R"(^(export |inline |template ?<.*> ?)*(namespace\b|extern\b|enum\b).*)");
    static const std::regex record(R"((^|[ >])(class|struct|union)\b)");
    static const std::regex tail(
        R"(( ?(const|noexcept|override|final|mutable|try|&&?|noexcept ?\(.*\)|-> ?[^(){}]+))+$)");
    static const std::regex constructor(R"(\)( ?noexcept)? ?: ?[A-Za-z_])");
    const bool parenthesis_last = [&] {
        const std::string bare = std::regex_replace(head, tail, "");
        return !bare.empty() && bare.back() == ')';
    }();
    if (std::regex_search(head, scope) && !parenthesis_last) return block::scope;
    if (std::regex_search(head, constructor))
        return head.back() == ')' || head.back() == '}' ? block::function
                                                        : block::member_initializer;
    if (parenthesis_last) return block::function;
    if (std::regex_search(head, record) && head.find('=') == std::string::npos) return block::scope;
    return block::value;
}

// The offset of the brace that closes the one at `open`, or npos.
size_t closing_brace(std::string_view code, size_t open) {
    int depth = 0;
    for (size_t i = open; i < code.size(); ++i) {
        if (code[i] == '{') ++depth;
        if (code[i] == '}' && --depth == 0) return i;
    }
    return std::string_view::npos;
}

// Where the declaration begins, after an access specifier.
size_t start_of_head(std::string_view code, size_t from, size_t to) {
    while (true) {
        while (from < to && is_space(code[from])) ++from;
        const size_t before = from;
        for (const std::string_view access : {"public:", "private:", "protected:"})
            if (code.substr(from, access.size()) == access) from += access.size();
        if (from == before) return from;
    }
}

} // namespace

bool source_file::in(std::string_view folder) const {
    return path.size() > folder.size() && path.compare(0, folder.size(), folder) == 0
           && path[folder.size()] == '/';
}

std::string_view source_file::extension() const {
    const size_t dot = path.rfind('.');
    return dot == std::string::npos ? std::string_view() : std::string_view(path).substr(dot + 1);
}

std::vector<source_file> read_sources(const fs::path& root) {
    static constexpr std::string_view folders[] = {"abi",     "runtime", "backends",
                                                   "plugins", "samples", "tests"};
    std::vector<source_file> sources;
    for (const std::string_view folder : folders) {
        if (!fs::exists(root / folder)) continue;
        for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
            source_file source{fs::relative(entry.path(), root).generic_string(), ""};
            const std::string_view extension = source.extension();
            if (!entry.is_regular_file()
                || (extension != "c" && extension != "h" && extension != "cpp" && extension != "hpp"
                    && extension != "inc"))
                continue;
            source.text = read_text(entry.path());
            sources.push_back(std::move(source));
        }
    }
    std::sort(sources.begin(), sources.end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    return sources;
}

std::string code_of(std::string_view text, directives keep) {
    std::string code(text);
    size_t at = 0;
    while (at < text.size()) {
        const size_t end = end_of_opaque(text, at, keep);
        if (end == at) {
            ++at;
            continue;
        }
        for (; at < end; ++at)
            if (code[at] != '\n') code[at] = ' ';
    }
    return code;
}

std::vector<std::string_view> lines_of(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
        const size_t end = std::min(text.find('\n'), text.size());
        lines.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
}

int line_at(std::string_view text, size_t offset) {
    return 1
           + static_cast<int>(
               std::count(text.begin(), text.begin() + static_cast<long>(offset), '\n'));
}

std::vector<included_file> includes_of(std::string_view text) {
    static const std::regex include(R"re(^\s*#\s*include\s*(["<])([^">]+)[">])re");
    std::vector<included_file> found;
    int number = 0;
    for (const std::string_view line : lines_of(text)) {
        ++number;
        std::match_results<std::string_view::const_iterator> match;
        if (std::regex_search(line.begin(), line.end(), match, include))
            found.push_back({match[2].str(), match[1] == "\"", number});
    }
    return found;
}

function_list functions_of(std::string_view text) {
    const std::string code = code_of(text);
    function_list list{{}, true};
    size_t head_start = 0;
    int depth = 0;
    for (size_t i = 0; i < code.size(); ++i) {
        if (code[i] == ';') head_start = i + 1;
        if (code[i] == '}') {
            --depth;
            head_start = i + 1;
        }
        if (code[i] != '{') continue;
        head_start = start_of_head(code, head_start, i);
        const std::string head =
            one_line(std::string_view(code).substr(head_start, i - head_start));
        const block kind = kind_of(head);
        if (kind == block::scope) {
            ++depth;
            head_start = i + 1;
            continue;
        }
        const size_t close = closing_brace(code, i);
        if (close == std::string::npos) {
            list.balanced = false;
            return list;
        }
        if (kind == block::function) {
            list.functions.push_back({head, line_at(code, head_start), line_at(code, close)});
            head_start = close + 1; // an initializer's text belongs to the declaration around it
        }
        i = close;
    }
    list.balanced = depth == 0;
    return list;
}

} // namespace sluice::tidy
