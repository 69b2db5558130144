// Launch variants of kernels chosen by measuring them on the card, once for each shape.
#pragma once

#include "device.hpp"
#include "tuning_cache.hpp"

#include <sluice/plugin/host.hpp>

#include <chrono>
#include <sstream>
#include <vector>

namespace sluice::cuda {

enum class tuning_mode {
    off,    // what the rules of thumb say
    cached, // what was measured before
    measure // what was measured before, and else now
};
// Of the setting `tuning`.
tuning_mode tuning_mode_named(std::string_view name);

// Device memory for the operands of a measurement, released with it.
class tuning_room {
  public:
    explicit tuning_room(const device& card) : card_(card) {}

    std::byte* take(uint64_t size_bytes);
    // `count` elements of a float type, of either sign, none of them tiny: products of zeros draw
    // less power and run faster than those of data.
    std::byte* noise(sluice_element_type type, int64_t count);
    const int32_t* copy(const std::vector<int32_t>& numbers);

  private:
    const device& card_;
    std::vector<device_memory> pieces_;
};

// How to run a call for its time.
struct rehearsal {
    // One of the variants; nothing: this call cannot be measured.
    std::function<void(size_t variant, cudaStream_t)> launch;
    // What the step before has just written, and the L2 cache still holds; all else, the weights
    // above all, comes from memory.
    const void* recent = nullptr;
    uint64_t recent_bytes = 0;
};

// Of one card. Thread-safe; one measurement at a time.
class tuner {
  public:
    // `instructions`: what kernels may use of the card, "sm_90a". `library_version`: cuBLASLt's.
    // An empty folder: choices are not kept.
    tuner(const device& card, plugin::host host, tuning_mode mode, std::filesystem::path folder,
          std::string_view instructions, uint64_t library_version);

    // The number of the variant to launch. The first is the rule of thumb's: it stands where there
    // is no choice, where nothing may be measured, and where no other is faster by more than what
    // measurements differ by. Waits for the card; not during a capture.
    size_t choose(const tuning_key& key, const std::vector<std::string>& variants,
                  const std::function<rehearsal(tuning_room&)>& prepare);
    // At the end of a binding: keeps what was measured, and gives its memory back.
    void finish() noexcept;

    // For `explain`: what is known of operands whose description has one of `shapes` in it; ""
    // where nothing is.
    std::string remark(const std::vector<std::string>& shapes) const;

  private:
    std::vector<double> measure(size_t variant_count, const rehearsal& run);
    void report_progress();

    const device& card_;
    plugin::host host_;
    tuning_mode mode_;
    mutable std::mutex mutex_;
    tuning_cache cache_;
    // Of the binding in progress:
    device_memory displaced_; // larger than the L2 cache: reading it leaves nothing else there
    bool has_given_up_ = false;
    size_t measured_count_ = 0;
    std::chrono::steady_clock::time_point began_;
    std::chrono::steady_clock::time_point reported_;
};

// Ends the measurements of a binding, however that ends.
class tuning_guard {
  public:
    explicit tuning_guard(tuner& owner) : owner_(owner) {}
    ~tuning_guard() { owner_.finish(); }
    tuning_guard(const tuning_guard&) = delete;
    tuning_guard& operator=(const tuning_guard&) = delete;

  private:
    tuner& owner_;
};

// Shapes up to this number of rows share their choices with others.
inline int64_t tuning_bucket(int64_t rows) {
    int64_t bucket = 1;
    while (bucket < rows) bucket *= 2;
    return bucket;
}

// The parts written one after another.
template <typename... Parts>
std::string joined(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    return text.str();
}

// "[128 x 1536 x 2048]": matrices, rows and columns of a weight.
std::string shape_text(int64_t matrices, int64_t rows, int64_t columns);

} // namespace sluice::cuda
