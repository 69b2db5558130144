// What the processor could do at best, measured: the ground that a benchmark's shares stand on.
//
// Every function measures the calling thread alone. For a machine's figure all workers call it at
// the same moment (behind a barrier) and the results are added; cores share clock and memory.
#pragma once

#include "cpu_features.hpp"

#include <cstddef>
#include <cstdint>

namespace sluice::kernels {

enum class operation_kind {
    float32,      // multiply-add of float32 vectors
    bfloat16_dot, // vdpbf16ps
    int8_dot,     // vpdpbusd, or vpmaddubsw and its two companions without VNNI
};

// Operations per second (a multiply-add counts as two) of a loop that stays in registers: the best
// of several runs that together take about `seconds`. 0 where the processor, or `limit`, has no
// such instruction; without any vector set float32 is measured in portable code and int8_dot is 0.
double peak_operations_per_second(operation_kind kind, instruction_set limit,
                                  double seconds = 0.02);

// The larger of float32 and bfloat16_dot: bfloat16 weights can be multiplied either way, exactly
// after widening, and some processors run vdpbf16ps at a quarter of the rate of float32's
// multiply-add (half the operations per second).
double peak_bfloat16_matrix_operations_per_second(instruction_set limit, double seconds = 0.04);

// For products with bfloat16 weights: avx512_bf16 when it is there, allowed by `limit` and clearly
// faster than float32 here, otherwise the highest set below it. Takes about ten milliseconds.
instruction_set preferred_bfloat16_set(instruction_set limit);

// Bytes per second of reading data[0, bytes) once in order; data is aligned to 64 bytes. Measures
// memory only when all workers' slabs together are several times the last cache level.
double read_bandwidth_bytes_per_second(const std::byte* data, std::int64_t bytes);

} // namespace sluice::kernels
