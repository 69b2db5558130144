// Rounding a run of weights that shares one scale.
#pragma once

#include <cstdint>
#include <span>

namespace sluice::quantizers {

struct rounding {
    uint32_t bits; // 4 or 8
    bool symmetric;
    bool scale_search; // try smaller scales too, and keep the one with the least squared error
};

struct group_result {
    float scale; // a binary16 value over 0
    uint8_t zero;
    double error_squared;  // sum of (w - w')^2
    double weight_squared; // sum of w^2
};

// What a group's codes stand for: w' = (code - zero) * scale.
struct group_grid {
    float scale; // a binary16 value over 0
    uint8_t zero;
};
// weights have been checked. importance: factors of the squared errors in the search, as many as
// there are weights; empty: all count alike.
group_grid find_grid(std::span<const float> weights, const rounding& how,
                     std::span<const float> importance = {});
// The nearest code.
uint8_t code_on(const group_grid& grid, float weight, const rounding& how);
inline float value_of(const group_grid& grid, uint8_t code) {
    return static_cast<float>(int{code} - int{grid.zero}) * grid.scale;
}

// Whether a run of weights can be said with a binary16 scale.
enum class group_check { good, not_finite, too_large };
group_check check_group(std::span<const float> weights, const rounding& how);

// weights and codes have the same size; the weights have been checked.
group_result round_group(std::span<const float> weights, std::span<uint8_t> codes,
                         const rounding& how);

} // namespace sluice::quantizers
