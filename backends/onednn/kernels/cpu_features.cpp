#include "cpu_features.hpp"

#include <algorithm>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace sluice::kernels {

#if defined(__x86_64__)
namespace {

bool bit(std::uint32_t value, int index) { return (value >> index & 1u) != 0; }

// XCR0: which register states the operating system saves. Call only where OSXSAVE is set.
std::uint64_t enabled_states() {
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return std::uint64_t{high} << 32 | low;
}

} // namespace

// Bits: Intel Software Developer's Manual, volume 2, CPUID leaves 1, 7.0 and 7.1.
cpu_features detect_cpu_features() {
    cpu_features features;
    std::uint32_t a = 0;
    std::uint32_t b = 0;
    std::uint32_t c = 0;
    std::uint32_t d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || !bit(c, 27)) return features;
    const bool fma = bit(c, 12) && bit(c, 29); // with conversions of float16
    const std::uint64_t states = enabled_states();
    const bool ymm_saved = (states & 0x06) == 0x06;
    const bool zmm_saved = (states & 0xe6) == 0xe6;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return features;
    const std::uint32_t subleaf_max = a;
    features.avx2 = ymm_saved && fma && bit(b, 5);
    features.avx512 = features.avx2 && zmm_saved && bit(b, 16) && bit(b, 17) && bit(b, 30)
                      && bit(b, 31); // F, DQ, BW, VL
    features.avx512_vnni = features.avx512 && bit(c, 11);
    if (subleaf_max >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) {
        features.avx512_bf16 = features.avx512 && bit(a, 5);
    }
    return features;
}
#else
cpu_features detect_cpu_features() { return {}; }
#endif

instruction_set highest_instruction_set(const cpu_features& features,
                                        std::optional<instruction_set> limit) {
    instruction_set highest = instruction_set::plain;
    if (features.avx2) highest = instruction_set::avx2;
    if (features.avx512) highest = instruction_set::avx512;
    if (features.avx512_bf16) highest = instruction_set::avx512_bf16;
    return limit ? std::min(highest, *limit) : highest;
}

std::string_view name_of(instruction_set set) {
    switch (set) {
    case instruction_set::plain:
        return "plain";
    case instruction_set::avx2:
        return "avx2";
    case instruction_set::avx512:
        return "avx512";
    case instruction_set::avx512_bf16:
        return "avx512_bf16";
    }
    return "unknown";
}

std::optional<instruction_set> instruction_set_named(std::string_view name) {
    for (auto set : {instruction_set::plain, instruction_set::avx2, instruction_set::avx512,
                     instruction_set::avx512_bf16}) {
        if (name_of(set) == name) return set;
    }
    return std::nullopt;
}

} // namespace sluice::kernels
