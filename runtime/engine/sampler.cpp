#include "engine/sampler.hpp"

#include "base/error.hpp"
#include "engine/row_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sluice {

namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

bool within(double value, double min, double max) { return value >= min && value <= max; }

} // namespace

void check_sampling_parameters(const sampling_parameters& parameters) {
    const auto demand = [](bool holds, const char* name, double value, const char* expected) {
        if (!holds) {
            fail(SLUICE_INVALID, "sampling parameter {}: expected {}, found {}", name, expected,
                 value);
        }
    };
    demand(within(parameters.temperature, 0, 100), "temperature", parameters.temperature,
           "0 (greedy) to 100");
    demand(parameters.top_p > 0 && parameters.top_p <= 1, "top_p", parameters.top_p,
           "a number over 0 and at most 1");
    demand(within(parameters.min_p, 0, 1), "min_p", parameters.min_p, "0 to 1");
    demand(parameters.repetition_penalty > 0 && parameters.repetition_penalty <= 100,
           "repetition_penalty", parameters.repetition_penalty, "a number over 0, at most 100");
}

bool is_greedy(const sampling_parameters& parameters) {
    return parameters.temperature == 0 && parameters.repetition_penalty == 1.0;
}

void token_set::add(int32_t token) {
    if (token < 0 || size_t(token) >= present_.size() || present_[size_t(token)]) return;
    present_[size_t(token)] = true;
    tokens_.push_back(token);
}

void token_set::add(std::span<const int32_t> tokens) {
    for (const int32_t token : tokens) add(token);
}

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t first = uint64_t(0xD2511F53u) * counter[0];
        const uint64_t second = uint64_t(0xCD9E8D57u) * counter[2];
        counter = {uint32_t(second >> 32) ^ counter[1] ^ key[0], uint32_t(second),
                   uint32_t(first >> 32) ^ counter[3] ^ key[1], uint32_t(first)};
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return counter;
}

double uniform_at(uint64_t seed, uint64_t position) {
    const auto words = philox4x32({uint32_t(position), uint32_t(position >> 32), 0, 0},
                                  {uint32_t(seed), uint32_t(seed >> 32)});
    const uint64_t bits = (uint64_t(words[0]) << 32 | words[1]) >> 11;
    return double(bits) * 0x1p-53;
}

void sampler::penalise(std::span<const float> logits, const sampling_parameters& parameters,
                       const token_set& occurred) {
    scores_.resize(logits.size());
    bool any = false;
    for (size_t i = 0; i < logits.size(); ++i) {
        // NaN and plus infinity are a defect of the model; they must not win.
        scores_[i] = std::isfinite(logits[i]) ? logits[i] : minus_infinity;
        any = any || std::isfinite(logits[i]);
    }
    if (!any) {
        fail(SLUICE_INTERNAL,
             "none of the {} logits of a row is a finite number; the weights or "
             "the backend are broken: try backend = \"reference\"",
             logits.size());
    }
    if (parameters.repetition_penalty == 1.0) return;
    const float penalty = float(parameters.repetition_penalty);
    for (const int32_t token : occurred.tokens()) {
        if (size_t(token) >= scores_.size()) continue;
        float& score = scores_[size_t(token)];
        score = score > 0 ? score / penalty : score * penalty;
    }
}

// From scores_ to candidates_ with unnormalised probabilities and total_.
void sampler::collect(const sampling_parameters& parameters) {
    candidates_.clear();
    for (size_t i = 0; i < scores_.size(); ++i) {
        if (scores_[i] != minus_infinity) candidates_.push_back({scores_[i], int32_t(i), 0});
    }
    const auto better = [](const candidate& left, const candidate& right) {
        return left.logit != right.logit ? left.logit > right.logit : left.token < right.token;
    };
    const auto by_token = [](const candidate& left, const candidate& right) {
        return left.token < right.token;
    };
    if (parameters.top_k > 0 && parameters.top_k < candidates_.size()) {
        std::nth_element(candidates_.begin(), candidates_.begin() + parameters.top_k - 1,
                         candidates_.end(), better);
        candidates_.resize(parameters.top_k);
        std::sort(candidates_.begin(), candidates_.end(), by_token);
    }
    float largest = minus_infinity;
    for (const candidate& each : candidates_) largest = std::max(largest, each.logit);
    total_ = 0;
    for (candidate& each : candidates_) {
        each.probability =
            std::exp((double(each.logit) - double(largest)) / parameters.temperature);
        total_ += each.probability;
    }
    if (parameters.top_p < 1.0) keep_top_p(parameters.top_p);
    if (parameters.min_p > 0) {
        // The largest unnormalised probability is 1.
        std::erase_if(candidates_,
                      [&](const candidate& each) { return each.probability < parameters.min_p; });
    }
    total_ = 0;
    for (const candidate& each : candidates_) total_ += each.probability;
}

// Keeps the shortest run of candidates in falling order whose sum reaches top_p of the total. Sorts
// in growing steps, since the run is nearly always far shorter than the vocabulary.
void sampler::keep_top_p(double top_p) {
    const auto better = [](const candidate& left, const candidate& right) {
        return left.logit != right.logit ? left.logit > right.logit : left.token < right.token;
    };
    const double wanted = top_p * total_;
    double sum = 0;
    size_t kept = 0;
    size_t sorted = 0;
    while (kept < candidates_.size() && sum < wanted) {
        if (kept == sorted) {
            sorted = std::min(candidates_.size(), std::max<size_t>(64, sorted * 4));
            std::partial_sort(candidates_.begin() + ptrdiff_t(kept),
                              candidates_.begin() + ptrdiff_t(sorted), candidates_.end(), better);
        }
        sum += candidates_[kept++].probability;
    }
    candidates_.resize(std::max<size_t>(1, kept));
    std::sort(
        candidates_.begin(), candidates_.end(),
        [](const candidate& left, const candidate& right) { return left.token < right.token; });
}

// Candidates stand in the order of their tokens, so the draw depends on the distribution alone.
int32_t sampler::draw(double uniform) const {
    const double target = uniform * total_;
    double sum = 0;
    int32_t last = candidates_.front().token;
    for (const candidate& each : candidates_) {
        if (each.probability <= 0) continue;
        last = each.token;
        sum += each.probability;
        if (sum > target) break;
    }
    return last; // rounding may leave the sum just short of the target: then the last one
}

sampled_token sampler::sample(std::span<const float> logits, const sampling_parameters& parameters,
                              const token_set& occurred, uint64_t position) {
    const largest_logit largest = find_largest(logits);
    sampled_token chosen;
    if (is_greedy(parameters) && largest.value != minus_infinity) {
        chosen.token = int32_t(largest.token);
    } else {
        penalise(logits, parameters, occurred);
        if (parameters.temperature == 0) {
            chosen.token = int32_t(find_largest(scores_).token);
        } else {
            collect(parameters);
            chosen.token = draw(uniform_at(parameters.seed, position));
        }
    }
    chosen.log_probability = float(double(logits[size_t(chosen.token)]) - double(largest.value)
                                   - std::log(sum_of_exponentials(logits, largest.value)));
    return chosen;
}

std::vector<double> sampler::distribution(std::span<const float> logits,
                                          const sampling_parameters& parameters,
                                          const token_set& occurred) {
    std::vector<double> probabilities(logits.size(), 0.0);
    penalise(logits, parameters, occurred);
    if (parameters.temperature == 0) {
        const auto largest = std::max_element(scores_.begin(), scores_.end());
        probabilities[size_t(largest - scores_.begin())] = 1.0;
        return probabilities;
    }
    collect(parameters);
    for (const candidate& each : candidates_) {
        probabilities[size_t(each.token)] = each.probability / total_;
    }
    return probabilities;
}

} // namespace sluice
