#include "profile_report.hpp"

#include "base/error.hpp"
#include "engine/logits_runner.hpp"
#include "engine/model_runner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <random>
#include <tuple>
#include <utility>

namespace sluice::command {

namespace {

constexpr uint32_t decode_steps = 16;

// "layers.3.q" and "layers.4.q" are one kind.
std::string without_numbers(std::string_view name) {
    std::string result;
    for (size_t i = 0; i < name.size(); ++i) {
        if (name[i] < '0' || name[i] > '9') {
            result += name[i];
        } else if (i == 0 || name[i - 1] < '0' || name[i - 1] > '9') {
            result += 'N';
        }
    }
    return result;
}

nlohmann::ordered_json by_kind(const program& step, std::span<const double> seconds) {
    struct total {
        uint32_t count = 0;
        double seconds = 0;
    };
    std::map<std::string, total> totals;
    for (size_t i = 0; i < seconds.size(); ++i) {
        if (seconds[i] <= 0) continue; // counted at the last operation of its group
        auto& kind = totals[without_numbers(step.operations()[i].name)];
        ++kind.count;
        kind.seconds += seconds[i];
    }
    std::vector<std::pair<std::string, total>> sorted(totals.begin(), totals.end());
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
        return a.second.seconds > b.second.seconds;
    });
    auto list = nlohmann::ordered_json::array();
    for (const auto& [name, kind] : sorted)
        list.push_back({{"operation", name}, {"count", kind.count}, {"seconds", kind.seconds}});
    return list;
}

// Of each operation over the last steps.
std::vector<double> medians(const std::vector<std::vector<double>>& steps, size_t count) {
    const auto last = std::span(steps).last(std::min(count, steps.size()));
    std::vector<double> result(last.back().size());
    std::vector<double> one(last.size());
    for (size_t i = 0; i < result.size(); ++i) {
        for (size_t step = 0; step < last.size(); ++step) one[step] = last[step][i];
        const auto middle = one.begin() + static_cast<std::ptrdiff_t>(one.size() / 2);
        std::nth_element(one.begin(), middle, one.end());
        result[i] = *middle;
    }
    return result;
}

} // namespace

nlohmann::ordered_json profile_report(const std::shared_ptr<const loaded_model>& model,
                                      uint32_t prompt_tokens, uint32_t batch) {
    std::mt19937 random{1};
    std::uniform_int_distribution<int32_t> token(
        0, static_cast<int32_t>(model->config().vocabulary_size) - 1);
    std::vector<std::vector<int32_t>> prompts(batch, std::vector<int32_t>(prompt_tokens));
    for (auto& prompt : prompts)
        for (auto& each : prompt) each = token(random);
    logits_runner runner(model);
    nlohmann::ordered_json report;
    // A phase reports its last steps; the first token of a decode comes from the prompt's.
    for (const auto& [phase, sequences, tokens, reported] :
         {std::tuple("prefill", 1u, 1u, 1u),
          std::tuple("decode", batch, decode_steps + 1, decode_steps)}) {
        const auto used = std::span(std::as_const(prompts)).first(sequences);
        std::vector<std::vector<double>> steps;
        runner.greedy(used, std::min(tokens, 2u)); // binds what the next needs
        runner.greedy(used, tokens, [&] {
            const auto seconds = runner.runner()->profile();
            if (seconds.empty())
                fail(SLUICE_UNSUPPORTED, "backend \"{}\" takes no profile",
                     model->report().backend);
            steps.emplace_back(seconds.begin(), seconds.end());
        });
        report[phase] = by_kind(model->step_program(), medians(steps, reported));
    }
    return report;
}

void print_profile(const nlohmann::ordered_json& report) {
    for (const auto& [phase, list] : report.items()) {
        double total = 0;
        for (const auto& each : list) total += each["seconds"].get<double>();
        fmt::print("\none step of {}: {:.1f} us in operations\n", phase, total * 1e6);
        for (const auto& each : list) {
            const double seconds = each["seconds"].get<double>();
            fmt::print("  {:36} {:4} x {:9.2f} us {:10.1f} us {:5.1f}%\n",
                       each["operation"].get<std::string>(), each["count"].get<uint32_t>(),
                       seconds * 1e6 / each["count"].get<uint32_t>(), seconds * 1e6,
                       100 * seconds / total);
        }
    }
}

} // namespace sluice::command
