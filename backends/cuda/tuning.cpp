#include "tuning.hpp"

#include "kernels/measure.hpp"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <numeric>

namespace sluice::cuda {

namespace {

// Of all kernels that are chosen among: raised when one of them becomes faster or slower, or when a
// variant comes to mean something else, so that older choices are made again.
constexpr int kernels_version = 2;

constexpr int repetitions = 9;
constexpr int repetitions_of_long = 3;
constexpr double long_us = 3000;
// Measurements of the same thing differ by so much.
constexpr double doubt = 0.03;
constexpr size_t remark_length = 200; // a claim has room for little more
constexpr auto report_interval = std::chrono::seconds(2);

std::string version_text(int version) { return joined(version / 1000, ".", version % 1000 / 10); }

tuning_identity identity_of(const device& card, std::string_view instructions,
                            uint64_t library_version) {
    int driver = 0;
    check(cudaDriverGetVersion(&driver), "asking for the driver's version");
    const auto& properties = card.properties();
    return {{"device", properties.name},
            {"capability", joined("sm", properties.compute_capability)},
            {"driver", joined("cuda", version_text(driver))},
            {"instructions", std::string(instructions)},
            {"kernels", joined("v", kernels_version)},
            {"library", joined("cublaslt", library_version)},
            {"multiprocessors", std::to_string(properties.multiprocessor_count)}};
}

double median(std::vector<double>& values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

std::string microseconds(double us) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f us", us);
    return text;
}

// The time that a stream takes from one point to another.
class stopwatch {
  public:
    stopwatch() {
        check(cudaEventCreate(&begin_), "measuring kernels");
        check(cudaEventCreate(&end_), "measuring kernels");
    }
    ~stopwatch() {
        cudaEventDestroy(begin_);
        cudaEventDestroy(end_);
    }
    stopwatch(const stopwatch&) = delete;
    stopwatch& operator=(const stopwatch&) = delete;
    void start(cudaStream_t stream) { check(cudaEventRecord(begin_, stream), "measuring kernels"); }
    // In microseconds.
    double stop(cudaStream_t stream) {
        float elapsed_ms = 0;
        check(cudaEventRecord(end_, stream), "measuring kernels");
        check(cudaEventSynchronize(end_), "measuring kernels");
        check(cudaEventElapsedTime(&elapsed_ms, begin_, end_), "measuring kernels");
        return static_cast<double>(elapsed_ms) * 1000.0;
    }

  private:
    cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

} // namespace

tuning_mode tuning_mode_named(std::string_view name) {
    if (name == "off") return tuning_mode::off;
    return name == "cached" ? tuning_mode::cached : tuning_mode::measure;
}

std::string shape_text(int64_t matrices, int64_t rows, int64_t columns) {
    return joined("[", matrices, " x ", rows, " x ", columns, "]");
}

// ---- Operands ----

std::byte* tuning_room::take(uint64_t size_bytes) {
    pieces_.emplace_back(card_, std::max<uint64_t>(size_bytes, 16), "a measurement of kernels");
    return pieces_.back().as();
}

std::byte* tuning_room::noise(sluice_element_type type, int64_t count) {
    constexpr uint64_t part_bytes = uint64_t{1} << 16; // made on the host, then repeated
    const uint64_t size = plugin::bytes_of(type, count);
    std::byte* data = take(size);
    const cudaStream_t stream = card_.setup_stream();
    uint64_t filled = std::min(size, part_bytes);
    // Halves of either sign from 0.5 to 2, or as float16 from 1.75 to 2; two of them are a float
    // of that size as well.
    std::vector<uint16_t> part(part_bytes / 2);
    uint32_t state = 1;
    for (auto& half : part) {
        state = state * 1664525u + 1013904223u;
        half = static_cast<uint16_t>((state >> 16 & 0x80ffu) | 0x3f00u);
    }
    check(cudaMemcpyAsync(data, part.data(), filled, cudaMemcpyHostToDevice, stream),
          "measuring kernels");
    check(cudaStreamSynchronize(stream), "measuring kernels");
    for (; filled < size; filled *= 2)
        check(cudaMemcpyAsync(data + filled, data, std::min(filled, size - filled),
                              cudaMemcpyDeviceToDevice, stream),
              "measuring kernels");
    return data;
}

const int32_t* tuning_room::copy(const std::vector<int32_t>& numbers) {
    const uint64_t size = numbers.size() * sizeof(int32_t);
    std::byte* data = take(size);
    check(cudaMemcpyAsync(data, numbers.data(), size, cudaMemcpyHostToDevice, card_.setup_stream()),
          "measuring kernels");
    check(cudaStreamSynchronize(card_.setup_stream()), "measuring kernels");
    return reinterpret_cast<const int32_t*>(data);
}

// ---- Choices ----

tuner::tuner(const device& card, plugin::host host, tuning_mode mode, std::filesystem::path folder,
             std::string_view instructions, uint64_t library_version)
    : card_(card), host_(host), mode_(mode),
      cache_(mode == tuning_mode::off ? std::filesystem::path() : std::move(folder),
             identity_of(card, instructions, library_version),
             [host](const std::string& message) { host.log(SLUICE_LOG_WARNING, message); }) {}

size_t tuner::choose(const tuning_key& key, const std::vector<std::string>& variants,
                     const std::function<rehearsal(tuning_room&)>& prepare) {
    if (mode_ == tuning_mode::off || variants.size() < 2) return 0;
    const std::lock_guard lock(mutex_);
    if (const tuned_choice* known = cache_.find(key)) {
        const auto found = std::find(variants.begin(), variants.end(), known->variant);
        if (found != variants.end()) return static_cast<size_t>(found - variants.begin());
    }
    if (mode_ != tuning_mode::measure || has_given_up_) return 0;
    if (measured_count_ == 0) began_ = reported_ = std::chrono::steady_clock::now();
    std::vector<double> us;
    try {
        // Nobody may wait for the whole card while another binding captures, which releasing
        // memory does.
        const std::lock_guard capture_lock(card_.capture_mutex());
        card_.use();
        tuning_room room(card_);
        const rehearsal run = prepare(room);
        if (!run.launch) return 0;
        us = measure(variants.size(), run);
    } catch (const plugin::failure& caught) {
        if (caught.status() != SLUICE_EXHAUSTED) throw;
        has_given_up_ = true; // for this binding: the next may find room
        host_.log(SLUICE_LOG_WARNING,
                  joined("kernels are chosen by rule, not measured: ", caught.what()));
        return 0;
    }
    const auto fastest = std::min_element(us.begin(), us.end());
    size_t chosen = static_cast<size_t>(fastest - us.begin());
    if (*fastest > us[0] * (1 - doubt)) chosen = 0;
    cache_.remember(key, {variants[chosen], us[chosen], us[0]});
    ++measured_count_;
    host_.log(SLUICE_LOG_DEBUG, joined(key.family, ", ", key.operands, ", ", key.rows, " rows: ",
                                       variants[chosen], " takes ", microseconds(us[chosen]), ", ",
                                       variants[0], " ", microseconds(us[0])));
    report_progress();
    return chosen;
}

// The median of several launches of each, in microseconds. Variants take turns, so that a clock
// that changes meanwhile does so for all.
std::vector<double> tuner::measure(size_t variant_count, const rehearsal& run) {
    const auto& properties = card_.properties();
    if (!displaced_) {
        const auto size = static_cast<uint64_t>(properties.l2_bytes) * 2 / 4096 * 4096;
        displaced_ = device_memory(card_, std::max<uint64_t>(size, 4096), "measuring kernels");
    }
    const cudaStream_t stream = card_.setup_stream();
    stopwatch watch;
    const auto once = [&](size_t variant) {
        auto* sink = displaced_.as<float>();
        launch_read_kept(displaced_.as(), static_cast<int64_t>(displaced_.size()),
                         properties.multiprocessor_count, sink, stream);
        launch_read_kept(run.recent, static_cast<int64_t>(run.recent_bytes / 16 * 16),
                         properties.multiprocessor_count, sink, stream);
        watch.start(stream);
        run.launch(variant, stream);
        check(cudaGetLastError(), "measuring kernels");
        return watch.stop(stream);
    };
    // A variant that a library offers and then refuses is out; the rule's must run.
    std::vector<bool> is_out(variant_count);
    double longest_us = 0;
    for (size_t variant = 0; variant < variant_count; ++variant) {
        try {
            once(variant); // loads the kernel
            longest_us = std::max(longest_us, once(variant));
        } catch (const plugin::failure& caught) {
            if (variant == 0 || caught.status() != SLUICE_UNSUPPORTED) throw;
            is_out[variant] = true;
        }
    }
    std::vector<std::vector<double>> taken(variant_count);
    const int count = longest_us > long_us ? repetitions_of_long : repetitions;
    for (int i = 0; i < count; ++i)
        for (size_t variant = 0; variant < variant_count; ++variant)
            taken[variant].push_back(is_out[variant] ? std::numeric_limits<double>::infinity()
                                                     : once(variant));
    std::vector<double> medians;
    for (auto& times : taken) medians.push_back(median(times));
    return medians;
}

void tuner::report_progress() {
    const auto now = std::chrono::steady_clock::now();
    if (now - reported_ < report_interval) return;
    reported_ = now;
    host_.log(SLUICE_LOG_INFO, joined("measuring kernels: ", measured_count_, " choices so far"));
}

void tuner::finish() noexcept {
    const std::lock_guard lock(mutex_);
    has_given_up_ = false;
    if (measured_count_ == 0) return;
    {
        const std::lock_guard capture_lock(card_.capture_mutex()); // as in choose
        displaced_ = {};
    }
    cache_.save();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - began_;
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.2f s", elapsed.count());
    host_.log(SLUICE_LOG_INFO,
              joined("kernels measured: ", measured_count_, " choices in ", seconds, ", ",
                     cache_.path().empty() ? "not kept" : "kept in ", cache_.path().string()));
    measured_count_ = 0;
}

// "cached: 8-32 rows few rows, 6 warps; 64-128 rows ..., 3 more". Neighbouring buckets of the same
// choice are told together.
std::string tuner::remark(const std::vector<std::string>& shapes) const {
    const std::lock_guard lock(mutex_);
    struct run {
        const tuning_key* first;
        const tuning_key* last;
        const tuned_choice* choice;
    };
    std::vector<run> runs[2]; // measured by this process, and before
    for (const auto& shape : shapes)
        for (const auto& [key, choice] : cache_.choices()) {
            if (key.operands.find(shape) == std::string::npos) continue;
            auto& told = runs[choice.from_file ? 1 : 0];
            if (!told.empty() && told.back().last->family == key.family
                && told.back().last->operands == key.operands
                && told.back().choice->variant == choice.variant)
                told.back().last = &key;
            else
                told.push_back({&key, &key, &choice});
        }
    std::string text;
    size_t left_out = 0;
    for (size_t kind = 0; kind < 2; ++kind) {
        const char* before = kind == 0 ? "measured: " : "cached: ";
        for (const auto& each : runs[kind]) {
            const auto rows = each.first == each.last
                                  ? joined(each.first->rows)
                                  : joined(each.first->rows, "-", each.last->rows);
            const auto item = joined(before, rows, " rows ", each.choice->variant);
            if (text.size() + item.size() > remark_length) {
                ++left_out;
                continue;
            }
            text += (text.empty() ? "" : "; ") + item;
            before = "";
        }
    }
    return left_out == 0 ? text : joined(text, "; ", left_out, " more");
}

} // namespace sluice::cuda
