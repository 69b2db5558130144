#include "rules.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <regex>
#include <string_view>

namespace sluice::tidy {
namespace fs = std::filesystem;
namespace {

bool contains(const std::vector<std::string>& list, const std::string& value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

std::string complaint(const source_file& source, int line, const std::string& what) {
    return source.path + ":" + std::to_string(line) + ": " + what;
}

bool starts_with(std::string_view text, std::string_view start) {
    return text.substr(0, start.size()) == start;
}

// backends/NAME, plugins/KIND/NAME, or nothing for a file of neither.
std::string plugin_folder_of(const source_file& source) {
    static const std::regex folder("^(backends/[^/]+|plugins/[^/]+/[^/]+)/");
    std::smatch match;
    return std::regex_search(source.path, match, folder) ? match[1].str() : "";
}

// The file of the tree that an include means: beside the includer, or below one of the folders that
// targets of the tree have on their include path. Nothing for a system header.
std::string resolve(const source_file& source, const included_file& include,
                    const std::vector<std::string>& paths) {
    std::vector<fs::path> folders;
    if (include.quoted) folders.push_back(fs::path(source.path).parent_path());
    const std::string own = plugin_folder_of(source);
    if (!own.empty()) folders.emplace_back(own);
    for (const char* folder : {"abi/include", "runtime/include", "runtime", "abi/checker",
                               "backends", "plugins", "tests"})
        folders.emplace_back(folder);
    for (const fs::path& folder : folders) {
        const std::string path = (folder / include.name).lexically_normal().generic_string();
        if (std::binary_search(paths.begin(), paths.end(), path)) return path;
    }
    return "";
}

// Headers of devices, servers and kernel libraries.
bool is_heavy(const std::string& name) {
    static const std::regex heavy(
        "^(dnnl|oneapi/dnnl|mkl|openblas|cblas|cuda|cublas|cudnn|nccl|nvrtc|cutlass|hip/|rocblas|"
        "vulkan/|vk_|CL/|hiredis|sw/redis|curl/|httplib|omp\\.h|immintrin|tbb/)");
    return std::regex_search(name, heavy);
}

bool is_standard_c(const std::string& name) {
    return name == "stdint.h" || name == "stddef.h" || name == "stdbool.h";
}

bool is_standard_cpp(const std::string& name) { return name.find_first_of("./") == name.npos; }

// What a file may include of the tree, as folder prefixes; empty for no restriction.
std::vector<std::string> allowed_folders(const source_file& source) {
    if (source.in("abi/include/sluice/abi")) return {"abi/include/sluice/abi/"};
    if (source.in("abi/include")) return {"abi/include/"};
    if (source.in("runtime/include")) return {"runtime/include/", "abi/include/sluice/abi/"};
    if (source.in("runtime")) return {"runtime/", "abi/include/"};
    if (source.in(
            "backends")) // the plain kernels are a part of every backend that falls back to them
        return {"abi/include/", plugin_folder_of(source) + "/", "backends/plain/"};
    if (source.in("plugins")) { // what plugins of one kind share is a part of each of them
        const std::string folder = plugin_folder_of(source);
        const std::string kind = folder.substr(0, folder.rfind('/'));
        return {"abi/include/", folder + "/", kind + "/common/"};
    }
    return {};
}

std::string forbidden_include(const source_file& source, const included_file& include,
                              const std::string& resolved) {
    const bool contract_c = source.in("abi/include/sluice/abi")
                            || (source.in("runtime/include") && source.extension() == "h");
    const bool contract_cpp = source.in("abi/include") || source.in("runtime/include");
    if (resolved.empty()) {
        if (contract_c && !is_standard_c(include.name))
            return "expected <stdint.h>, <stddef.h>, <stdbool.h> or another header of the contract";
        if (contract_cpp && !contract_c && !is_standard_cpp(include.name)
            && !is_standard_c(include.name))
            return "expected the standard library or another public header";
        if ((source.in("runtime") || source.in("abi")) && is_heavy(include.name))
            return "a device's or library's header belongs in a plugin";
        return "";
    }
    const std::vector<std::string> allowed = allowed_folders(source);
    if (allowed.empty()) return "";
    for (const std::string& folder : allowed)
        if (starts_with(resolved, folder)) return "";
    return "it is " + resolved + ", which this folder may not know";
}

// Whether the word at `at` is called as a free function: not a member, and not of a namespace other
// than std and the global one.
bool is_free_call(std::string_view code, size_t at, size_t end) {
    while (end < code.size() && code[end] == ' ') ++end;
    if (end >= code.size() || code[end] != '(') return false;
    size_t before = at;
    while (before > 0 && code[before - 1] == ' ') --before;
    if (before == 0) return true;
    if (code[before - 1] == '.' || code[before - 1] == '>') return false;
    if (code[before - 1] != ':') return true;
    if (before < 3) return true;
    const char scope_end = code[before - 3];
    const bool named = std::isalnum(static_cast<unsigned char>(scope_end)) || scope_end == '_';
    return !named || (before >= 5 && code.substr(before - 5, 5) == "std::");
}

} // namespace

complaints check_lines(const source_file& source, const length_limits& limits) {
    complaints found;
    int number = 0;
    for (const std::string_view line : lines_of(source.text)) {
        ++number;
        if (line.size() > static_cast<size_t>(limits.columns))
            found.push_back(complaint(source, number,
                                      std::to_string(line.size()) + " columns; expected at most "
                                          + std::to_string(limits.columns)));
        if (line.find('\t') != line.npos)
            found.push_back(complaint(source, number, "a tab; expected spaces"));
        if (!line.empty() && line.back() == ' ')
            found.push_back(complaint(source, number, "a space at the end of the line"));
        const auto foreign = [](char c) { return static_cast<unsigned char>(c) > 0x7e; };
        if (std::any_of(line.begin(), line.end(), foreign))
            found.push_back(
                complaint(source, number, "a byte outside ASCII; write it as an escape"));
    }
    if (!source.text.empty() && source.text.back() != '\n')
        found.push_back(complaint(source, number, "no line break at the end of the file"));
    return found;
}

complaints check_lengths(const source_file& source, const length_limits& limits,
                         const std::vector<std::string>& long_functions,
                         const std::vector<std::string>& long_files) {
    complaints found;
    const int lines = static_cast<int>(lines_of(source.text).size());
    if (lines > limits.file_lines && !contains(long_files, source.path))
        found.push_back(complaint(source, lines,
                                  std::to_string(lines) + " lines; expected at most "
                                      + std::to_string(limits.file_lines) + " in a file"));
    const function_list list = functions_of(source.text);
    if (!list.balanced)
        found.push_back(complaint(source, 1, "braces that do not pair up outside of #if"));
    if (contains(long_functions, source.path)) return found;
    for (const function_extent& function : list.functions)
        if (function.lines() > limits.function_lines)
            found.push_back(complaint(source, function.first_line,
                                      std::to_string(function.lines()) + " lines; expected at most "
                                          + std::to_string(limits.function_lines)
                                          + " in a function: " + function.head.substr(0, 60)));
    return found;
}

complaints check_guard(const source_file& source) {
    if (source.extension() == "hpp") {
        if (source.text.find("#pragma once\n") == source.text.npos)
            return {complaint(source, 1, "expected #pragma once")};
    } else if (source.extension() == "h") {
        static const std::regex guard(
            R"(#ifndef (SLUICE_[A-Z0-9_]*_H)\n#define (SLUICE_[A-Z0-9_]*_H)\n)");
        std::smatch match;
        if (!std::regex_search(source.text, match, guard) || match[1] != match[2])
            return {complaint(source, 1, "expected #ifndef and #define of SLUICE_..._H")};
    }
    return {};
}

complaints check_library_manners(const source_file& source) {
    const bool library = source.in("abi/include") || source.in("backends") || source.in("plugins")
                         || (source.in("runtime") && !source.in("runtime/command"));
    if (!library) return {};
    static constexpr std::string_view calls[] = {
        "abort", "exit", "_exit", "_Exit", "quick_exit", "printf", "vprintf", "puts", "putchar"};
    static constexpr std::string_view names[] = {"cout", "stdout", "STDOUT_FILENO"};
    complaints found;
    const std::string code = code_of(source.text);
    const auto is_word = [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
    };
    for (size_t at = 0; at < code.size();) {
        if (!is_word(code[at])) {
            ++at;
            continue;
        }
        size_t end = at;
        while (end < code.size() && is_word(code[end])) ++end;
        const std::string_view word = std::string_view(code).substr(at, end - at);
        const bool called = std::find(std::begin(calls), std::end(calls), word) != std::end(calls)
                            && is_free_call(code, at, end);
        const bool named = std::find(std::begin(names), std::end(names), word) != std::end(names);
        if (called || named)
            found.push_back(
                complaint(source, line_at(code, at),
                          std::string(word)
                              + "; a library neither ends the process nor writes to its "
                                "output"));
        at = end;
    }
    return found;
}

complaints check_includes(const source_file& source, const std::vector<std::string>& paths) {
    complaints found;
    for (const included_file& include : includes_of(source.text)) {
        const std::string resolved = resolve(source, include, paths);
        if (include.quoted && resolved.empty() && !source.in("tests")) {
            found.push_back(complaint(source, include.line,
                                      "\"" + include.name + "\" is no file of this tree; expected <"
                                          + include.name + ">"));
            continue;
        }
        const std::string reason = forbidden_include(source, include, resolved);
        if (!reason.empty())
            found.push_back(
                complaint(source, include.line, "includes " + include.name + "; " + reason));
    }
    return found;
}

} // namespace sluice::tidy
