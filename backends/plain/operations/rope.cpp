#include "operations.hpp"

#include <numbers>

namespace sluice::plain {

namespace {

double llama3(double frequency, const sluice_rope_attributes& a) {
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    if (wavelength > a.original_length / a.low_frequency_factor) return frequency / a.factor;
    if (wavelength < a.original_length / a.high_frequency_factor) return frequency;
    const double share = (a.original_length / wavelength - a.low_frequency_factor)
                         / (a.high_frequency_factor - a.low_frequency_factor);
    return (1.0 - share) * frequency / a.factor + share * frequency;
}

// The pair that turns `rotations` times within the original length.
double yarn_bound(double rotations, const sluice_rope_attributes& a) {
    return a.dimension * std::log(a.original_length / (rotations * 2.0 * std::numbers::pi))
           / (2.0 * std::log(a.base));
}

void yarn(std::vector<double>& frequencies, const sluice_rope_attributes& a) {
    double low = yarn_bound(a.beta_fast, a);
    double high = yarn_bound(a.beta_slow, a);
    if (a.truncate_bounds != 2) {
        low = std::floor(low);
        high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, a.dimension - 1.0);
    if (high == low) high += 0.001;
    for (size_t i = 0; i < frequencies.size(); ++i) {
        const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        frequencies[i] = frequencies[i] / a.factor * ramp + frequencies[i] * (1.0 - ramp);
    }
}

} // namespace

std::vector<double> rope_frequencies(const sluice_rope_attributes& a,
                                     std::span<const double> table) {
    if (a.scaling == SLUICE_ROPE_TABLE) return {table.begin(), table.end()};
    std::vector<double> frequencies(a.dimension / 2);
    for (size_t i = 0; i < frequencies.size(); ++i) {
        frequencies[i] = std::pow(a.base, -2.0 * static_cast<double>(i) / a.dimension);
        if (a.scaling == SLUICE_ROPE_LINEAR) frequencies[i] /= a.factor;
        if (a.scaling == SLUICE_ROPE_LLAMA3) frequencies[i] = llama3(frequencies[i], a);
    }
    if (a.scaling == SLUICE_ROPE_YARN) yarn(frequencies, a);
    return frequencies;
}

} // namespace sluice::plain
