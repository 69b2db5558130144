#include "measure.hpp"

#include "measure_loops.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace sluice::kernels {
namespace {

using measure_clock = std::chrono::steady_clock;

double seconds_since(measure_clock::time_point start) {
    return std::chrono::duration<double>(measure_clock::now() - start).count();
}

// Independent sums, which a compiler keeps in whatever vectors the target always has.
std::int64_t float32_loop_plain(std::int64_t rounds) {
    constexpr int lanes = 32;
    float sum[lanes] = {};
    float x = 0.5f;
    for (std::int64_t round = 0; round < rounds; ++round) {
        __asm__ volatile("" : "+m"(x));
        const float value = x;
        for (float& lane : sum) lane = value * value + lane;
    }
    __asm__ volatile("" : : "r"(sum) : "memory");
    return rounds * lanes * 2;
}

measure_loop loop_of(operation_kind kind, instruction_set limit) {
#if defined(SLUICE_KERNELS_X86)
    const cpu_features features = detect_cpu_features();
    const bool avx512 = features.avx512 && limit >= instruction_set::avx512;
    const bool avx2 = features.avx2 && limit >= instruction_set::avx2;
    switch (kind) {
    case operation_kind::float32:
        if (avx512) return float32_loop_avx512;
        if (avx2) return float32_loop_avx2;
        break;
    case operation_kind::bfloat16_dot:
        if (features.avx512_bf16 && limit >= instruction_set::avx512_bf16) {
            return bfloat16_loop_avx512;
        }
        break;
    case operation_kind::int8_dot:
        if (avx512 && features.avx512_vnni) return int8_loop_avx512;
        if (avx2) return int8_loop_avx2;
        break;
    }
#else
    (void)limit;
#endif
    return kind == operation_kind::float32 ? float32_loop_plain : nullptr;
}

} // namespace

double peak_operations_per_second(operation_kind kind, instruction_set limit, double seconds) {
    const measure_loop loop = loop_of(kind, limit);
    if (loop == nullptr) return 0.0;
    // Wide vectors need some microseconds to get their power; rounds grow until a run is long
    // enough for the clock.
    constexpr int runs = 8;
    std::int64_t rounds = 1000;
    double best = 0.0;
    const auto start = measure_clock::now();
    for (int run = 0; run < runs || seconds_since(start) < seconds;) {
        const auto run_start = measure_clock::now();
        const std::int64_t operations = loop(rounds);
        const double run_seconds = seconds_since(run_start);
        if (run_seconds < seconds / (2 * runs)) {
            rounds *= 2;
            continue;
        }
        best = std::max(best, static_cast<double>(operations) / run_seconds);
        ++run;
    }
    return best;
}

double peak_bfloat16_matrix_operations_per_second(instruction_set limit, double seconds) {
    return std::max(peak_operations_per_second(operation_kind::float32, limit, seconds / 2),
                    peak_operations_per_second(operation_kind::bfloat16_dot, limit, seconds / 2));
}

instruction_set preferred_bfloat16_set(instruction_set limit) {
    const instruction_set highest = highest_instruction_set(detect_cpu_features(), limit);
    if (highest != instruction_set::avx512_bf16) return highest;
    // Processors are near 0.5 or near 2; the wide margin keeps a noisy neighbour from deciding.
    constexpr double margin = 1.25;
    const double dot = peak_operations_per_second(operation_kind::bfloat16_dot, highest, 0.005);
    const double float32 = peak_operations_per_second(operation_kind::float32, highest, 0.005);
    return dot > margin * float32 ? highest : instruction_set::avx512;
}

double read_bandwidth_bytes_per_second(const std::byte* data, std::int64_t bytes) {
    constexpr std::int64_t line = 64;
    constexpr std::int64_t distance = 2048; // ahead of the reads, as the kernels do
    const auto start = measure_clock::now();
    std::uint64_t sum[8] = {};
    for (std::int64_t at = 0; at + line <= bytes; at += line) {
        __builtin_prefetch(data + at + distance);
        std::uint64_t words[8];
        std::memcpy(words, data + at, sizeof words);
        for (int i = 0; i < 8; ++i) sum[i] ^= words[i];
    }
    __asm__ volatile("" : : "r"(sum) : "memory");
    return static_cast<double>(bytes / line * line) / seconds_since(start);
}

} // namespace sluice::kernels
