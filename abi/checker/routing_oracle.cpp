#include "routing_oracle.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace sluice::checker {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// The numbers of the largest `count`, in falling order, ties to the lower.
std::vector<int32_t> largest(const std::vector<float>& of, size_t count) {
    std::vector<int32_t> order(of.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return of[static_cast<size_t>(a)] > of[static_cast<size_t>(b)];
    });
    order.resize(count);
    return order;
}

class router {
  public:
    router(const sluice_routing_specification& routing, const routing_inputs& inputs)
        : routing_(routing), inputs_(inputs), experts_(routing.expert_count),
          choices_(routing.choice_count), rows_(inputs.logits.size() / experts_) {}

    routing_outputs run() {
        outputs_.index.assign(rows_ * choices_, -1);
        outputs_.weight.assign(rows_ * choices_, 0);
        outputs_.count.assign(experts_, 0);
        for (size_t row = 0; row < rows_; ++row) score_and_choose(row);
        const bool reroutes = routing_.capacity_policy == SLUICE_CAPACITY_REROUTE;
        if (!reroutes || routing_.capacity_factor <= 0) weigh_all();
        if (routing_.capacity_factor > 0) {
            limit(reroutes);
            if (reroutes) weigh_all();
        }
        for (const int32_t expert : outputs_.index)
            if (expert >= 0) ++outputs_.count[static_cast<size_t>(expert)];
        return std::move(outputs_);
    }

  private:
    bool is_padding(size_t row) const {
        return !inputs_.position.empty() && inputs_.position[row] < 0;
    }

    // Applies the score to numbers that belong together (softmax looks at all of them).
    void score(std::vector<float>& of) const {
        switch (routing_.score) {
        case SLUICE_SCORE_SOFTMAX: {
            const float most = *std::max_element(of.begin(), of.end());
            double sum = 0;
            for (float& x : of) {
                x = std::exp(x - most);
                sum += x;
            }
            for (float& x : of) x = static_cast<float>(x / sum);
            return;
        }
        case SLUICE_SCORE_SIGMOID:
            for (float& x : of) x = 1 / (1 + std::exp(-x));
            return;
        case SLUICE_SCORE_SQRT_SOFTPLUS:
            for (float& x : of) x = std::sqrt(std::log1p(std::exp(x)));
            return;
        default:
            return;
        }
    }

    // Steps 1 to 5.
    void score_and_choose(size_t row) {
        std::vector<float> scores(
            inputs_.logits.begin() + static_cast<std::ptrdiff_t>(row * experts_),
            inputs_.logits.begin() + static_cast<std::ptrdiff_t>((row + 1) * experts_));
        if (const float c = routing_.logit_softcap; c > 0)
            for (float& x : scores) x = c * std::tanh(x / c);
        if (routing_.score_stage == SLUICE_SCORE_BEFORE_CHOICE) score(scores);
        std::vector<float> choice = scores;
        const bool is_hashed = !inputs_.table.empty();
        if (!is_hashed && !inputs_.choice_bias.empty())
            for (size_t e = 0; e < experts_; ++e) choice[e] += inputs_.choice_bias[e];
        if (!is_hashed && routing_.group_count > 1) mask_groups(choice);
        if (!is_padding(row)) {
            const auto chosen = is_hashed ? hashed(row) : largest(choice, choices_);
            std::copy(chosen.begin(), chosen.end(),
                      outputs_.index.begin() + static_cast<std::ptrdiff_t>(row * choices_));
        }
        scores_.push_back(std::move(scores));
        choice_.push_back(std::move(choice));
    }

    // The entries of the row's token; -1 where id or entry are out of range.
    std::vector<int32_t> hashed(size_t row) const {
        std::vector<int32_t> chosen(choices_, -1);
        const int32_t id = inputs_.token_ids[row];
        if (id < 0 || static_cast<size_t>(id) >= inputs_.table.size() / choices_) return chosen;
        for (size_t j = 0; j < choices_; ++j) {
            const int32_t entry = inputs_.table[static_cast<size_t>(id) * choices_ + j];
            if (entry >= 0 && static_cast<size_t>(entry) < experts_) chosen[j] = entry;
        }
        return chosen;
    }

    // Step 4.
    void mask_groups(std::vector<float>& choice) const {
        const size_t width = experts_ / routing_.group_count;
        std::vector<float> worth;
        for (size_t group = 0; group < routing_.group_count; ++group) {
            std::vector<float> members(choice.begin() + static_cast<std::ptrdiff_t>(group * width),
                                       choice.begin()
                                           + static_cast<std::ptrdiff_t>((group + 1) * width));
            std::sort(members.begin(), members.end(), std::greater<>());
            const bool sums = routing_.group_score == SLUICE_GROUP_SCORE_TOPK_SUM;
            float sum = members[0];
            for (size_t i = 1; sums && i < routing_.group_score_count; ++i) sum += members[i];
            worth.push_back(sum);
        }
        const auto kept = largest(worth, routing_.group_choice_count);
        const float mask = routing_.mask_value == SLUICE_MASK_ZERO ? 0 : minus_infinity;
        for (size_t e = 0; e < experts_; ++e)
            if (std::find(kept.begin(), kept.end(), static_cast<int32_t>(e / width)) == kept.end())
                choice[e] = mask;
    }

    void weigh_all() {
        for (size_t row = 0; row < rows_; ++row)
            if (!is_padding(row)) weigh(row);
    }

    // Steps 6 to 8, over the choices of a row that were not dropped.
    void weigh(size_t row) {
        const bool from_score = routing_.weight_source == SLUICE_WEIGHT_FROM_SCORE;
        std::vector<float> weights;
        std::vector<size_t> places;
        for (size_t place = row * choices_; place < (row + 1) * choices_; ++place) {
            if (outputs_.index[place] < 0) continue;
            const auto expert = static_cast<size_t>(outputs_.index[place]);
            weights.push_back(from_score ? scores_[row][expert] : choice_[row][expert]);
            places.push_back(place);
        }
        if (weights.empty()) return;
        if (routing_.score_stage == SLUICE_SCORE_AFTER_CHOICE) score(weights);
        const bool renormalizes = routing_.renormalize != SLUICE_RENORMALIZE_NONE;
        if (renormalizes) {
            float sum = std::accumulate(weights.begin(), weights.end(), 0.0F);
            const float epsilon = routing_.renormalize_epsilon;
            sum = routing_.renormalize == SLUICE_RENORMALIZE_ADD ? sum + epsilon
                                                                 : std::max(sum, epsilon);
            for (float& w : weights) w /= sum;
        }
        const bool scales =
            !renormalizes || routing_.scale_condition != SLUICE_SCALE_NOT_RENORMALIZED;
        for (size_t i = 0; i < weights.size(); ++i) {
            float w = weights[i] * (scales ? routing_.scale : 1.0F);
            if (!inputs_.per_expert_scale.empty())
                w *= inputs_.per_expert_scale[static_cast<size_t>(outputs_.index[places[i]])];
            outputs_.weight[places[i]] = w;
        }
    }

    // Step 9.
    void limit(bool reroutes) {
        size_t valid = 0;
        for (size_t row = 0; row < rows_; ++row) valid += is_padding(row) ? 0 : 1;
        const double room =
            std::ceil(double{routing_.capacity_factor} * static_cast<double>(valid * choices_)
                      / static_cast<double>(experts_));
        std::vector<double> load(experts_);
        for (size_t rank = 0; rank < choices_; ++rank)
            for (size_t row = 0; row < rows_; ++row) {
                if (is_padding(row)) continue;
                int32_t& expert = outputs_.index[row * choices_ + rank];
                if (expert < 0) continue;
                if (load[static_cast<size_t>(expert)] >= room)
                    expert = reroutes ? other_expert(row, load, room) : -1;
                if (expert >= 0) {
                    ++load[static_cast<size_t>(expert)];
                    continue;
                }
                ++outputs_.dropped;
                outputs_.weight[row * choices_ + rank] = 0;
            }
    }

    // The best expert with room that the row does not have; experts masked away are none.
    int32_t other_expert(size_t row, const std::vector<double>& load, double room) const {
        const auto begin = outputs_.index.begin() + static_cast<std::ptrdiff_t>(row * choices_);
        const auto end = begin + static_cast<std::ptrdiff_t>(choices_);
        for (const int32_t expert : largest(choice_[row], experts_)) {
            const bool masked = choice_[row][static_cast<size_t>(expert)] == minus_infinity;
            if (masked || load[static_cast<size_t>(expert)] >= room) continue;
            if (std::find(begin, end, expert) == end) return expert;
        }
        return -1;
    }

    const sluice_routing_specification& routing_;
    const routing_inputs& inputs_;
    size_t experts_;
    size_t choices_;
    size_t rows_;
    std::vector<std::vector<float>> scores_; // [rows][experts]
    std::vector<std::vector<float>> choice_; // [rows][experts]
    routing_outputs outputs_;
};

} // namespace

routing_outputs route_directly(const sluice_routing_specification& routing,
                               const routing_inputs& inputs) {
    return router(routing, inputs).run();
}

} // namespace sluice::checker
