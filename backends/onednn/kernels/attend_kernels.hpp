// Kernels of attention over cached vectors: one query row along them, their placing as weights of
// matrix products, and scores that become weights. Compiled once for each instruction set from
// attend_kernels_template.hpp; sums are added in a fixed order.
#pragma once

#include "cpu_features.hpp"
#include "packed_matrix.hpp"

#include <cstddef>
#include <cstdint>

namespace sluice::kernels {

enum class cached_type { float32, bfloat16 };
inline constexpr int cached_type_count = 2;

// Vectors in memory, borrowed. Vector j lies at data + index[j] * stride_bytes, or at
// data + j * stride_bytes where index is null. Alignment is not needed beyond the element's own.
struct cached_vectors {
    const std::byte* data = nullptr;
    cached_type type = cached_type::float32;
    std::int64_t stride_bytes = 0;
    const std::int32_t* index = nullptr;
};

// The running maximum of scores and the sum of their exponentials relative to it.
struct score_sum {
    float maximum;
    float sum;
};

struct attend_kernels {
    // scores[j] = dot of q and vector j. q [width], scores [count]
    void (*dot_each)(const float* q, const cached_vectors& vectors, std::int64_t count,
                     std::int64_t width, float* scores);
    // sum += weights[j] * vector j, in rising j. weights [count], sum [width]
    void (*add_each)(const float* weights, const cached_vectors& vectors, std::int64_t count,
                     std::int64_t width, float* sum);
    // Vectors become rows of a weight W [N, K] (packed_matrix.hpp, float32 or bfloat16): vector j
    // elements first to first + width - 1 of row j. `first` is even, and so is the width unless the
    // last element is K's last; K's padding is then written too. Rows after the last vector up to
    // the end of its block get no defined values.
    void (*pack_keys)(const cached_vectors& vectors, std::int64_t count, std::int64_t width,
                      const packed_layout& layout, std::int64_t first, std::byte* weights);
    // Vectors become columns of a weight W [N, K], N being their width and K at least their count:
    // vector j is column j. Columns from the count to the padded K become zero.
    void (*pack_values)(const cached_vectors& vectors, std::int64_t count, std::int64_t width,
                        const packed_layout& layout, std::byte* weights);
    // Scores [count] of a row become exp(scale * score - maximum) from `begin` to end - 1 and zero
    // elsewhere, after `so_far` has taken them in. Returns what sums of earlier weights are to be
    // multiplied by, as the maximum may have risen.
    float (*soften)(float* scores, std::int64_t begin, std::int64_t end, std::int64_t count,
                    float scale, score_sum& so_far);
};

// The kernels of the highest set that is not above `set` and that this build has.
const attend_kernels& attend_kernels_of(instruction_set set);

} // namespace sluice::kernels
