// Kernels of attention over cached vectors: one query row along them, their placing as weights of
// matrix products, and scores that become weights. Compiled once for each instruction set from
// attend_kernels_template.hpp; sums are added in a fixed order.
#pragma once

#include "cpu_features.hpp"
#include "packed_matrix.hpp"

#include <cstddef>
#include <cstdint>

namespace sluice::kernels {

enum class cached_type { float32, bfloat16, int8 };

// Vectors in memory, borrowed. Vector j lies at data + index[j] * stride_bytes, or at
// data + j * stride_bytes where index is null. An int8 vector's numbers are multiples of its scale,
// a float32 that lies likewise from `scales` on; where that is null, they are read as whole
// numbers. Nothing needs to be aligned.
struct cached_vectors {
    const std::byte* data = nullptr;
    cached_type type = cached_type::float32;
    std::int64_t stride_bytes = 0;
    const std::int32_t* index = nullptr;
    const std::byte* scales = nullptr;
};

// The running maximum of scores and the sum of their exponentials relative to it.
struct score_sum {
    float maximum;
    float sum;
};

struct attend_kernels {
    // Numbers in the order in which dot_each and add_each read vectors of a type, and back. Both
    // [width], and different memory.
    void (*arrange)(cached_type type, const float* x, std::int64_t width, float* arranged);
    void (*restore)(cached_type type, const float* arranged, std::int64_t width, float* x);
    // scores[j] = dot of q and vector j. q [width], arranged; scores [count]
    void (*dot_each)(const float* q, const cached_vectors& vectors, std::int64_t count,
                     std::int64_t width, float* scores);
    // sum += weights[j] * vector j, in rising j. weights [count]; sum [width], arranged
    void (*add_each)(const float* weights, const cached_vectors& vectors, std::int64_t count,
                     std::int64_t width, float* sum);
    // Vectors as float32, `stride` elements apart. to [count, width]
    void (*read)(const cached_vectors& vectors, std::int64_t count, std::int64_t width, float* to,
                 std::int64_t stride);
    // Vectors become rows of a weight W [N, K] (packed_matrix.hpp, float32 or bfloat16): vector j
    // elements first to first + width - 1 of row place + j. `place` is a multiple of 16. `first` is
    // even, and so is the width unless the last element is K's last; K's padding is then written
    // too. Rows after the last vector up to a multiple of 16 get no defined values.
    void (*pack_keys)(const cached_vectors& vectors, std::int64_t place, std::int64_t count,
                      std::int64_t width, const packed_layout& layout, std::int64_t first,
                      std::byte* weights);
    // Vectors become columns of a weight W [N, K]: vector j rows first to first + width - 1 of
    // column place + j. `place` is a multiple of 16. `first` is a multiple of 32, and so is the
    // width unless the last element is N's last; the padding of N is then written too. Columns
    // after the last vector up to a multiple of 16 become zero.
    void (*pack_values)(const cached_vectors& vectors, std::int64_t place, std::int64_t count,
                        std::int64_t width, const packed_layout& layout, std::int64_t first,
                        std::byte* weights);
    // Whole numbers by the rule of kv_write (abi/operations.h); returns the scale. x, codes [count]
    float (*quantize)(const float* x, std::int64_t count, std::int8_t* codes);
    // Scores [count] of a row become exp(score * factor - maximum) from `begin` to end - 1 and zero
    // elsewhere, after `so_far` has taken them in. Returns what sums of earlier weights are to be
    // multiplied by, as the maximum may have risen.
    float (*soften)(float* scores, std::int64_t begin, std::int64_t end, std::int64_t count,
                    float factor, score_sum& so_far);
    // x *= y; both [count].
    void (*multiply)(const float* y, std::int64_t count, float* x);
};

// The kernels of the highest set that is not above `set` and that this build has.
const attend_kernels& attend_kernels_of(instruction_set set);

} // namespace sluice::kernels
