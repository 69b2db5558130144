#include "report.hpp"

#include "context.hpp"

#include <nlohmann/json.hpp>

#include <chrono>
#include <csignal>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

namespace sluice::checker {

std::string_view verdict_name(verdict of) {
    switch (of) {
    case verdict::pass:
        return "PASS";
    case verdict::fail:
        return "FAIL";
    default:
        return "SKIP";
    }
}

check_result run_here(const check& which, context& with) {
    const auto start = std::chrono::steady_clock::now();
    check_result result{which.name, verdict::pass, {}, 0};
    try {
        result.detail = which.run(with);
    } catch (const check_skipped& skipped) {
        result.outcome = verdict::skip;
        result.detail = skipped.what();
    } catch (const std::exception& thrown) {
        // What the runtime itself refuses (sluice::error) is the plugin's failure just as well.
        result.outcome = verdict::fail;
        result.detail = thrown.what();
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    result.seconds = elapsed.count();
    return result;
}

namespace {

std::string read_all(int descriptor) {
    std::string text;
    char buffer[4096];
    for (;;) {
        const ssize_t count = read(descriptor, buffer, sizeof buffer);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return text;
        text.append(buffer, static_cast<size_t>(count));
    }
}

void write_all(int descriptor, std::string_view text) {
    while (!text.empty()) {
        const ssize_t count = write(descriptor, text.data(), text.size());
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return;
        text.remove_prefix(static_cast<size_t>(count));
    }
}

std::string death_of(int status, uint32_t timeout_s) {
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        return fmt::format("did not end within {} s", timeout_s);
    if (WIFSIGNALED(status))
        return fmt::format("crashed with signal {} ({})", WTERMSIG(status),
                           strsignal(WTERMSIG(status)));
    return fmt::format("ended the process with exit status {}", WEXITSTATUS(status));
}

} // namespace

std::optional<std::string> ask_isolated(const std::function<std::string()>& function,
                                        uint32_t timeout_s, std::string* how_it_died) {
    int ends[2];
    if (pipe(ends) != 0) throw std::runtime_error("there is no pipe to be had");
    const pid_t child = fork();
    if (child < 0) throw std::runtime_error("there is no further process to be had");
    if (child == 0) {
        close(ends[0]);
        // The caller's handlers (a test framework's, say) would take a crash for their own.
        for (const int crash : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT})
            std::signal(crash, SIG_DFL);
        alarm(timeout_s);
        std::string answer;
        try {
            answer = "+" + function();
        } catch (const std::exception& thrown) {
            answer = std::string("-") + thrown.what();
        }
        write_all(ends[1], answer);
        // Not exit: handlers that the plugin's libraries registered have no business here.
        _exit(0);
    }
    close(ends[1]);
    const std::string answer = read_all(ends[0]);
    close(ends[0]);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (answer.empty()) {
        if (how_it_died != nullptr) *how_it_died = death_of(status, timeout_s);
        return std::nullopt;
    }
    if (answer[0] == '-') throw check_failure(answer.substr(1));
    return answer.substr(1);
}

check_result run_isolated(const check& which, const std::function<context()>& make_context,
                          uint32_t timeout_s) {
    std::string death;
    const auto answer = ask_isolated(
        [&] {
            context with = make_context();
            const check_result result = run_here(which, with);
            return nlohmann::json{{"outcome", static_cast<int>(result.outcome)},
                                  {"detail", result.detail},
                                  {"seconds", result.seconds}}
                .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
        },
        timeout_s, &death);
    if (!answer) return {which.name, verdict::fail, death, 0};
    const auto parsed = nlohmann::json::parse(*answer);
    return {which.name, static_cast<verdict>(parsed["outcome"].get<int>()),
            parsed["detail"].get<std::string>(), parsed["seconds"].get<double>()};
}

std::string result_line(const check_result& result, bool color) {
    const std::string_view name = verdict_name(result.outcome);
    constexpr const char* colors[] = {"\033[32m", "\033[31m", "\033[33m"};
    const std::string shown =
        color ? fmt::format("{}{}\033[0m", colors[static_cast<int>(result.outcome)], name)
              : std::string(name);
    return fmt::format("{}  {}{}{}", shown, result.name, result.detail.empty() ? "" : ": ",
                       result.detail);
}

std::string results_json(std::string_view path, const std::vector<check_result>& results) {
    nlohmann::ordered_json document;
    document["plugin"] = path;
    size_t counts[3] = {0, 0, 0};
    for (const auto& each : results) ++counts[static_cast<size_t>(each.outcome)];
    document["passed"] = counts[0];
    document["failed"] = counts[1];
    document["skipped"] = counts[2];
    document["checks"] = nlohmann::ordered_json::array();
    for (const auto& each : results)
        document["checks"].push_back({{"name", each.name},
                                      {"verdict", verdict_name(each.outcome)},
                                      {"detail", each.detail},
                                      {"seconds", each.seconds}});
    return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

} // namespace sluice::checker
