// What one pass over a row of logits finds out. Written so that compilers use vectors: rows have
// 100,000 elements and more, one for each token that is generated.
#pragma once

#include <cstddef>
#include <span>

namespace sluice {

// NaN and infinities are a defect of the model and count as absent.
struct largest_logit {
    float value = 0;  // minus infinity where no logit is finite
    size_t token = 0; // the lowest of those that share the value
};
largest_logit find_largest(std::span<const float> logits);

// Sum of exp(logit - largest) over the finite logits, to about 1e-6 of it.
double sum_of_exponentials(std::span<const float> logits, float largest);

} // namespace sluice
