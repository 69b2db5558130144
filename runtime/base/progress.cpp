#include "base/progress.hpp"

#include "base/text.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace sluice {
namespace {

constexpr std::chrono::milliseconds redraw_interval{100};

progress::output_function terminal_output() {
    if (!::isatty(STDERR_FILENO)) return {};
    return [](std::string_view text) {
        std::fwrite(text.data(), 1, text.size(), stderr);
        std::fflush(stderr);
    };
}

std::string amount_text(uint64_t amount, progress_unit unit) {
    return unit == progress_unit::bytes ? bytes_text(amount) : fmt::format("{}", amount);
}

std::string rate_text(double rate, progress_unit unit) {
    if (unit == progress_unit::bytes) return bytes_text(uint64_t(rate)) + "/s";
    return rate < 100 ? fmt::format("{:.1f}/s", rate) : fmt::format("{:.0f}/s", rate);
}

} // namespace

std::string progress_line(std::string_view label, uint64_t done, uint64_t total, progress_unit unit,
                          double elapsed_s) {
    std::string line(label);
    if (total > 0) {
        line +=
            fmt::format("  {:3.0f}% ({} of {})", std::min(1.0, double(done) / double(total)) * 100,
                        amount_text(done, unit), amount_text(total, unit));
    } else {
        line += fmt::format("  {}", amount_text(done, unit));
    }
    if (elapsed_s <= 0 || done == 0) return line;
    double rate = double(done) / elapsed_s;
    line += "  " + rate_text(rate, unit);
    if (total > done) line += "  " + duration_text(double(total - done) / rate) + " left";
    if (total > 0 && done >= total) line += "  in " + duration_text(elapsed_s);
    return line;
}

progress::progress(std::string label, uint64_t total, progress_unit unit)
    : progress(std::move(label), total, unit, terminal_output()) {}

progress::progress(std::string label, uint64_t total, progress_unit unit, output_function output)
    : label_(std::move(label)), total_(total), unit_(unit), output_(std::move(output)) {}

progress::~progress() {
    try {
        finish();
    } catch (...) { // an output that throws must not end the process from a destructor
    }
}

void progress::advance(uint64_t count) {
    std::lock_guard lock(mutex_);
    done_ += count;
    if (!output_ || finished_) return;
    clock::time_point now = clock::now();
    if (now - drawn_at_ >= redraw_interval) draw(now);
}

void progress::finish() {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
    if (!output_ || done_ == 0) return;
    draw(clock::now());
    output_("\n");
}

void progress::draw(clock::time_point now) {
    double elapsed_s = std::chrono::duration<double>(now - start_).count();
    std::string line = progress_line(label_, done_, total_, unit_, elapsed_s);
    size_t width = line.size();
    if (width < drawn_width_) line.append(drawn_width_ - width, ' ');
    output_("\r" + line);
    drawn_width_ = width;
    drawn_at_ = now;
}

} // namespace sluice
