// A progress line on the terminal's standard error; silent in a pipe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

namespace sluice {

enum class progress_unit { items, bytes };

// One long operation. On a terminal it redraws one line, at most ten times a second:
//   quantizing  42% (120 of 288)  31.5 / s  5 s left
// Elsewhere it writes nothing, so logs and pipes stay clean. Safe to advance from several threads.
class progress {
  public:
    using output_function = std::function<void(std::string_view)>;

    // `total` 0: not known; the line then shows count and rate. Draws on standard error when that
    // is a terminal.
    progress(std::string label, uint64_t total, progress_unit unit = progress_unit::items);
    // Draws through `output`, terminal or not: for front ends of their own, and for tests.
    progress(std::string label, uint64_t total, progress_unit unit, output_function output);
    progress(const progress&) = delete;
    progress& operator=(const progress&) = delete;
    ~progress(); // as finish()

    void advance(uint64_t count = 1);
    void finish(); // draws the last state and ends the line; what follows is ignored

  private:
    using clock = std::chrono::steady_clock;

    void draw(clock::time_point now);

    std::mutex mutex_;
    std::string label_;
    uint64_t total_;
    progress_unit unit_;
    output_function output_; // empty: quiet
    uint64_t done_ = 0;
    size_t drawn_width_ = 0; // columns of the line drawn last, to be blanked
    clock::time_point start_ = clock::now();
    clock::time_point drawn_at_{};
    bool finished_ = false;
};

// The line itself, without carriage return: pure, so that its wording is testable.
std::string progress_line(std::string_view label, uint64_t done, uint64_t total, progress_unit unit,
                          double elapsed_s);

} // namespace sluice
