#include "engine/row_statistics.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

namespace sluice {

namespace {

constexpr size_t lanes = 16;
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
constexpr float absent = -100.0f; // whose exponential counts as 0

// False for NaN too. Without a branch, unlike std::isfinite.
bool is_finite(float value) {
    return value <= std::numeric_limits<float>::max()
           && value >= std::numeric_limits<float>::lowest();
}

// e^x for x <= 0, relative error under 3e-7; 0 from -87 down. 2^t = 2^n 2^f with |f| <= 1/2, and
// 2^f by its Taylor series.
float exponential(float x) {
    const float t = std::max(x, -87.0f) * 1.44269504f;
    constexpr float round_to_whole = 12582912.0f; // 1.5 * 2^23: its last place is 1
    const float n = (t + round_to_whole) - round_to_whole;
    const float u = (t - n) * 0.693147181f;
    const float power =
        1
        + u
              * (1
                 + u
                       * (0.5f
                          + u
                                * (0.166666667f
                                   + u
                                         * (0.0416666667f
                                            + u * (0.00833333333f + u * 0.00138888889f)))));
    const auto exponent = static_cast<int32_t>(n) * (1 << 23);
    const float value = std::bit_cast<float>(std::bit_cast<int32_t>(power) + exponent);
    return x < -87.0f ? 0.0f : value;
}

} // namespace

largest_logit find_largest(std::span<const float> logits) {
    float best[lanes];
    std::fill(best, best + lanes, minus_infinity);
    const size_t whole = logits.size() / lanes * lanes;
    for (size_t i = 0; i < whole; i += lanes)
        for (size_t lane = 0; lane < lanes; ++lane) {
            const float value = logits[i + lane];
            const float finite = is_finite(value) ? value : minus_infinity;
            best[lane] = finite > best[lane] ? finite : best[lane];
        }
    largest_logit found{*std::max_element(best, best + lanes), 0};
    for (size_t i = whole; i < logits.size(); ++i)
        if (is_finite(logits[i])) found.value = std::max(found.value, logits[i]);
    const auto first = std::find(logits.begin(), logits.end(), found.value);
    found.token = first == logits.end() ? 0 : size_t(first - logits.begin());
    return found;
}

double sum_of_exponentials(std::span<const float> logits, float largest) {
    constexpr size_t run = 256 * lanes; // so long float sums stay exact enough
    double total = 0;
    for (size_t begin = 0; begin < logits.size(); begin += run) {
        const size_t end = std::min(begin + run, logits.size());
        const size_t whole = begin + (end - begin) / lanes * lanes;
        float sum[lanes] = {};
        for (size_t i = begin; i < whole; i += lanes)
            for (size_t lane = 0; lane < lanes; ++lane) {
                const float value = logits[i + lane];
                sum[lane] += exponential(is_finite(value) ? value - largest : absent);
            }
        for (const float each : sum) total += double(each);
        for (size_t i = whole; i < end; ++i)
            if (is_finite(logits[i])) total += double(exponential(logits[i] - largest));
    }
    return total;
}

} // namespace sluice
