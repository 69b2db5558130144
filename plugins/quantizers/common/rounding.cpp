#include "rounding.hpp"

#include "half.hpp"

#include <algorithm>
#include <cmath>

namespace sluice::quantizers {
namespace {

// Scales tried by the search: the one that reaches the largest weight, shrunk in steps of 2%.
// Below about half, clipping has cost more than finer steps gain for any distribution of weights.
constexpr int search_steps = 26;
constexpr float search_step = 0.02F;

// Adding and subtracting 1.5 * 2^23 rounds a float below 2^22 to the nearest even whole number;
// unlike nearbyint this is two plain additions in every instruction set.
constexpr float rounder = 12582912.0F;
float round_even(float x) { return (x + rounder) - rounder; }

struct scale_and_zero {
    float scale;
    float zero;
};

struct bounds {
    float least;
    float most;
};

bounds bounds_of(std::span<const float> weights) {
    bounds found{0.0F, 0.0F};
    for (const float w : weights) {
        found.least = std::min(found.least, w);
        found.most = std::max(found.most, w);
    }
    return found;
}

float code_max(const rounding& how) { return how.bits == 4 ? 15.0F : 255.0F; }
float middle(const rounding& how) { return how.bits == 4 ? 8.0F : 128.0F; }

// The scale that reaches every weight. Symmetric codes are taken to be -7..7 (or -127..127), so
// that both ends are reached.
float full_scale(const bounds& range, const rounding& how) {
    if (how.symmetric) return std::max(-range.least, range.most) / (middle(how) - 1);
    return range.most / code_max(how) - range.least / code_max(how);
}

// The scale is rounded to its stored type first: codes must fit the scale that the reader will see.
scale_and_zero grid(const bounds& range, float scale, const rounding& how) {
    const float stored = std::max(round_to_half(std::min(scale, half_max)), half_least);
    if (how.symmetric) return {stored, middle(how)};
    return {stored, std::clamp(round_even(-range.least / stored), 0.0F, code_max(how))};
}

float code_of(float weight, float inverse, float zero, float most) {
    // Clamped first: what is beyond 2^22 could not be rounded. The bounds are whole numbers, so the
    // order of clamping and rounding makes no difference.
    return round_even(std::clamp(weight * inverse, -zero, most - zero));
}

float error_of(std::span<const float> weights, std::span<const float> importance,
               const scale_and_zero& trial, float most) {
    const float inverse = 1.0F / trial.scale;
    float sum = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
        const float difference =
            weights[i] - code_of(weights[i], inverse, trial.zero, most) * trial.scale;
        sum += difference * difference * (importance.empty() ? 1.0F : importance[i]);
    }
    return sum;
}

} // namespace

group_check check_group(std::span<const float> weights, const rounding& how) {
    for (const float w : weights)
        if (!std::isfinite(w)) return group_check::not_finite;
    return full_scale(bounds_of(weights), how) > half_max ? group_check::too_large
                                                          : group_check::good;
}

group_grid find_grid(std::span<const float> weights, const rounding& how,
                     std::span<const float> importance) {
    const float most = code_max(how);
    const bounds range = bounds_of(weights);
    const float full = full_scale(range, how);
    // Any scale says zero; 1 keeps readers that divide by it out of trouble.
    if (full == 0) return {1.0F, static_cast<uint8_t>(how.symmetric ? middle(how) : 0.0F)};
    scale_and_zero best = grid(range, full, how);
    if (how.scale_search) {
        float best_error = error_of(weights, importance, best, most);
        for (int i = 1; i < search_steps && best_error > 0; ++i) {
            const float shrink = 1.0F - search_step * static_cast<float>(i);
            const scale_and_zero trial =
                grid({range.least * shrink, range.most * shrink}, full * shrink, how);
            const float error = error_of(weights, importance, trial, most);
            if (error < best_error) {
                best_error = error;
                best = trial;
            }
        }
    }
    return {best.scale, static_cast<uint8_t>(best.zero)};
}

uint8_t code_on(const group_grid& grid, float weight, const rounding& how) {
    const auto zero = static_cast<float>(grid.zero);
    return static_cast<uint8_t>(code_of(weight, 1.0F / grid.scale, zero, code_max(how)) + zero);
}

group_result round_group(std::span<const float> weights, std::span<uint8_t> codes,
                         const rounding& how) {
    const group_grid grid = find_grid(weights, how);
    group_result result{grid.scale, grid.zero, 0.0, 0.0};
    for (size_t i = 0; i < weights.size(); ++i) {
        codes[i] = code_on(grid, weights[i], how);
        const double weight = weights[i];
        const double difference = weight - double(int{codes[i]} - int{grid.zero}) * grid.scale;
        result.error_squared += difference * difference;
        result.weight_squared += weight * weight;
    }
    return result;
}

} // namespace sluice::quantizers
