// Run-time detection of the vector instructions that the matrix kernels use.
#pragma once

#include <optional>
#include <string_view>

namespace sluice::kernels {

// In rising order: each set implies all before it.
enum class instruction_set {
    plain,       // portable C++, always there
    avx2,        // AVX2, FMA and F16C
    avx512,      // AVX-512 F, BW, VL and DQ
    avx512_bf16, // avx512 with vdpbf16ps: products of bfloat16 pairs, bfloat16 activations
};

struct cpu_features {
    bool avx2 = false; // with FMA and F16C
    bool avx512 = false;
    bool avx512_bf16 = false;
    bool avx512_vnni = false;
};

// What the processor has and the operating system saves on a context switch. Thread-safe.
cpu_features detect_cpu_features();

// The highest set that the features allow, and not above `limit` when it is given. Note that
// avx512_bf16 is not always faster than avx512: see preferred_bfloat16_set in measure.hpp.
instruction_set highest_instruction_set(const cpu_features& features,
                                        std::optional<instruction_set> limit = std::nullopt);

std::string_view name_of(instruction_set set);

// The set of that name, or nothing.
std::optional<instruction_set> instruction_set_named(std::string_view name);

} // namespace sluice::kernels
