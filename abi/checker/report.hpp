// The checks of one plugin: how they are named, run and reported.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::checker {

class context;

// Thrown by a check that found the plugin wrong; the message says what was expected and found.
class check_failure : public std::runtime_error {
    using runtime_error::runtime_error;
};
// Thrown by a check that does not apply; the message says why.
class check_skipped : public std::runtime_error {
    using runtime_error::runtime_error;
};

template <typename... Arguments>
[[noreturn]] void fail_check(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    throw check_failure(fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <typename... Arguments>
[[noreturn]] void skip_check(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    throw check_skipped(fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <typename... Arguments>
void require(bool holds, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    if (!holds) fail_check(format, std::forward<Arguments>(arguments)...);
}

struct check {
    std::string name; // "library: exported symbols"
    // Returns a remark for the report ("37 shapes"), or throws.
    std::function<std::string(context&)> run;
};

enum class verdict { pass, fail, skip };
std::string_view verdict_name(verdict of);

struct check_result {
    std::string name;
    verdict outcome = verdict::pass;
    std::string detail; // the remark, or why it failed or was skipped
    double seconds = 0;
};

// Runs one check here.
check_result run_here(const check& which, context& with);

// Runs one check in a process of its own, so that a crash or an endless loop of the plugin is a
// failure of that check alone. The calling process must not have started threads.
check_result run_isolated(const check& which, const std::function<context()>& make_context,
                          uint32_t timeout_s);

// Runs a function in a process of its own and returns the text it answers; nothing where it died.
std::optional<std::string> ask_isolated(const std::function<std::string()>& function,
                                        uint32_t timeout_s, std::string* how_it_died = nullptr);

// One line; with color where standard output is a terminal.
std::string result_line(const check_result& result, bool color);
std::string results_json(std::string_view path, const std::vector<check_result>& results);

} // namespace sluice::checker
