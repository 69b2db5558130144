#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

// A source file as text, and the few facts of its structure that can be read without compiling it.
namespace sluice::tidy {

struct source_file {
    std::string path; // relative to the source tree, with '/'
    std::string text;

    // Whether the file lies in this folder, given as "abi/include".
    bool in(std::string_view folder) const;
    // "cpp", "hpp", "h", "c" ...
    std::string_view extension() const;
};

struct included_file {
    std::string name; // as written, without quotes or brackets
    bool quoted;      // "name", else <name>
    int line;
};

struct function_extent {
    std::string head; // the declaration's text on one line
    int first_line;
    int last_line;
    int lines() const { return last_line - first_line + 1; }
};

struct function_list {
    std::vector<function_extent> functions;
    bool balanced; // false: the braces do not pair up and the list cannot be trusted
};

// The C and C++ sources of the tree, without build folders; sorted by path.
std::vector<source_file> read_sources(const std::filesystem::path& root);

// The text with comments, literals and, on demand, preprocessor lines turned into spaces. Line
// breaks stay, so that line numbers hold.
enum class directives { keep, blank };
std::string code_of(std::string_view text, directives keep = directives::blank);

std::vector<std::string_view> lines_of(std::string_view text);
int line_at(std::string_view text, size_t offset);

std::vector<included_file> includes_of(std::string_view text);

// Functions, member functions and test cases, from the first line of the declaration to the closing
// brace. A lambda counts as part of the function around it.
function_list functions_of(std::string_view text);

} // namespace sluice::tidy
