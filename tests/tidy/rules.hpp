#pragma once

#include "source_text.hpp"

#include <string>
#include <vector>

// The rules of the tree that a compiler does not check. Each answers one line a violation, as
// "path:line: what was found; what is expected".
namespace sluice::tidy {

using complaints = std::vector<std::string>;

struct length_limits {
    int columns = 100;
    int function_lines = 70;
    int file_lines = 600;
};

// ASCII, no tabs, no spaces at line ends, a line break at the end, and the column limit.
complaints check_lines(const source_file& source, const length_limits& limits);

// Functions and files over the limits. `long_functions` and `long_files` name the files that are
// let off: kernels, and tables of cases.
complaints check_lengths(const source_file& source, const length_limits& limits,
                         const std::vector<std::string>& long_functions,
                         const std::vector<std::string>& long_files);

// #pragma once in C++ headers, the guard SLUICE_..._H in C headers.
complaints check_guard(const source_file& source);

// What a library must not do to the process that it is loaded into: end it, or write to its output.
complaints check_library_manners(const source_file& source);

// Who may include whom. `paths` are all sources of the tree, sorted.
complaints check_includes(const source_file& source, const std::vector<std::string>& paths);

} // namespace sluice::tidy
