// route: the whole of abi/router.h in float32, rows shared among the workers; capacity, which
// depends on the rows before, on one.
#include "vector_operand.hpp"

#include <cmath>
#include <limits>

namespace sluice::onednn {

namespace {

constexpr int64_t groups_max = 256; // claims refuse more
constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

float score_of(uint32_t function, float x) {
    switch (function) {
    case SLUICE_SCORE_SIGMOID:
        return 1.0f / (1.0f + std::exp(-x));
    case SLUICE_SCORE_SQRT_SOFTPLUS:
        return std::sqrt(std::max(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))));
    default:
        return x;
    }
}

// In place; softmax over the whole run.
void score_all(uint32_t function, float* values, int64_t count) {
    if (function != SLUICE_SCORE_SOFTMAX) {
        for (int64_t i = 0; i < count; ++i) values[i] = score_of(function, values[i]);
        return;
    }
    float maximum = minus_infinity;
    for (int64_t i = 0; i < count; ++i) maximum = std::max(maximum, values[i]);
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
        values[i] = std::exp(values[i] - maximum);
        sum += values[i];
    }
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(values[i] / sum);
}

// The place of the largest value, the first of equals; -1 when all are NaN or taken.
int64_t largest(const float* values, int64_t count, const uint8_t* taken) {
    int64_t best = -1;
    for (int64_t i = 0; i < count; ++i)
        if (taken[i] == 0 && (best < 0 || values[i] > values[best])) best = i;
    return best;
}

class route_step final : public step {
  public:
    route_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation), spec_(operation.as<sluice_routing_specification>()),
          experts_(spec_.expert_count), choices_(spec_.choice_count),
          choice_bias_(owner, operation, 1), per_expert_scale_(owner, operation, 2) {}

    scratch_size scratch() const override {
        const int64_t row = room_floats() * 4;
        // With capacity the scores and choices of all rows stay until the rows before are placed.
        const int64_t rows = owner_.at(operation_.inputs[0]).shape[0];
        return {spec_.capacity_factor > 0
                    ? aligned(rows * experts_ * 8) + aligned(experts_ * 4) + aligned(rows * 4)
                    : 0,
                aligned(row)};
    }

    void run(const plugin::worker& self) override {
        choice_bias_.read(self);
        per_expert_scale_.read(self);
        const auto& logits = owner_.at(operation_.inputs[0]);
        const int64_t rows = logits.shape[0];
        const auto range = self.share(rows);
        const bool limited = spec_.capacity_factor > 0;
        for (int64_t t = range.begin; t < range.end; ++t) {
            float* scores = limited ? kept(t) : own(self);
            float* choice = scores + experts_;
            auto* taken = reinterpret_cast<uint8_t*>(own(self) + 2 * experts_);
            if (is_padding(t)) {
                empty_row(t);
                continue;
            }
            score_row(t, scores, choice, taken);
            choose(t, choice, taken);
            if (!limited) weigh(t, scores, choice);
        }
        self.meet.wait();
        if (self.index != 0) return;
        const int32_t dropped = limited ? place(rows) : 0;
        count(rows, dropped);
    }

  private:
    int64_t room_floats() const { return 2 * experts_ + (experts_ + 3) / 4; }
    float* own(const plugin::worker& self) const {
        return reinterpret_cast<float*>(owner_.own_scratch(self));
    }
    float* kept(int64_t t) const {
        return reinterpret_cast<float*>(owner_.shared_scratch()) + t * experts_ * 2;
    }
    bool is_hashed() const { return operation_.has_input(5); }
    int32_t* index(int64_t t) const {
        return owner_.at(operation_.outputs[0]).as<int32_t>() + t * choices_;
    }
    float* weight(int64_t t) const {
        return owner_.at(operation_.outputs[1]).as<float>() + t * choices_;
    }
    bool is_padding(int64_t t) const {
        return operation_.has_input(3) && owner_.at(operation_.inputs[3]).as<int32_t>()[t] < 0;
    }
    void empty_row(int64_t t) const {
        std::fill_n(index(t), choices_, -1);
        std::fill_n(weight(t), choices_, 0.0f);
    }

    // Steps 1 to 4 of abi/router.h, or 1 and 2 with a hash table. taken: [experts], cleared.
    void score_row(int64_t t, float* scores, float* choice, uint8_t* taken) const {
        const float* logits = owner_.at(operation_.inputs[0]).as<float>() + t * experts_;
        const float cap = spec_.logit_softcap;
        for (int64_t e = 0; e < experts_; ++e)
            scores[e] = cap > 0 ? cap * std::tanh(logits[e] / cap) : logits[e];
        if (spec_.score_stage == SLUICE_SCORE_BEFORE_CHOICE)
            score_all(spec_.score, scores, experts_);
        std::copy(scores, scores + experts_, choice);
        std::fill_n(taken, experts_, uint8_t{0});
        if (is_hashed()) return;
        if (const float* bias = choice_bias_.values(); bias != nullptr)
            for (int64_t e = 0; e < experts_; ++e) choice[e] += bias[e];
        if (spec_.group_count > 1) limit_groups(choice, taken);
    }

    void limit_groups(float* choice, uint8_t* taken) const {
        const int64_t groups = spec_.group_count;
        const int64_t size = experts_ / groups;
        float values[groups_max];
        for (int64_t g = 0; g < groups; ++g)
            values[g] = group_score(choice + g * size, size, taken);
        std::fill_n(taken, experts_, uint8_t{0});
        for (uint32_t kept_groups = 0; kept_groups < spec_.group_choice_count; ++kept_groups)
            taken[largest(values, groups, taken)] = 1;
        const float masked = spec_.mask_value == SLUICE_MASK_ZERO ? 0.0f : minus_infinity;
        for (int64_t g = groups - 1; g >= 0; --g)
            if (taken[g] == 0) std::fill_n(choice + g * size, size, masked);
        std::fill_n(taken, experts_, uint8_t{0});
    }

    float group_score(const float* choice, int64_t size, uint8_t* taken) const {
        std::fill_n(taken, size, uint8_t{0});
        const int64_t terms =
            spec_.group_score == SLUICE_GROUP_SCORE_MAX ? 1 : spec_.group_score_count;
        float sum = 0;
        for (int64_t i = 0; i < terms; ++i) {
            const int64_t best = largest(choice, size, taken);
            taken[best] = 1;
            sum += choice[best];
        }
        return sum;
    }

    // Step 5, or the hash table.
    void choose(int64_t t, const float* choice, uint8_t* taken) const {
        if (is_hashed()) return look_up(t);
        for (int64_t j = 0; j < choices_; ++j) {
            const int64_t best = largest(choice, experts_, taken);
            taken[best] = 1;
            index(t)[j] = static_cast<int32_t>(best);
        }
    }

    // An id or an entry out of range chooses no expert.
    void look_up(int64_t t) const {
        const auto& table = owner_.at(operation_.inputs[5]);
        const int64_t id = owner_.at(operation_.inputs[4]).as<int32_t>()[t];
        const bool is_known = id >= 0 && id < table.shape[0];
        for (int64_t j = 0; j < choices_; ++j) {
            const int32_t entry = is_known ? table.as<int32_t>()[id * choices_ + j] : -1;
            index(t)[j] = entry >= 0 && entry < experts_ ? entry : -1;
        }
    }

    // Steps 6 to 8 for the experts that a row has.
    void weigh(int64_t t, const float* scores, const float* choice) const {
        const float* from = spec_.weight_source == SLUICE_WEIGHT_FROM_CHOICE ? choice : scores;
        int32_t* chosen = index(t);
        float* weights = weight(t);
        for (int64_t j = 0; j < choices_; ++j)
            weights[j] = chosen[j] >= 0 ? from[chosen[j]] : minus_infinity;
        if (spec_.score_stage == SLUICE_SCORE_AFTER_CHOICE)
            score_all(spec_.score, weights, choices_);
        float sum = 0;
        for (int64_t j = 0; j < choices_; ++j) {
            if (chosen[j] < 0) weights[j] = 0;
            sum += weights[j];
        }
        const bool renormalizes = spec_.renormalize != SLUICE_RENORMALIZE_NONE;
        const float divisor = spec_.renormalize == SLUICE_RENORMALIZE_ADD
                                  ? sum + spec_.renormalize_epsilon
                                  : std::max(sum, spec_.renormalize_epsilon);
        const bool scales = spec_.scale_condition == SLUICE_SCALE_ALWAYS || !renormalizes;
        const float* expert_scale = per_expert_scale_.values();
        for (int64_t j = 0; j < choices_; ++j) {
            if (renormalizes && divisor != 0) weights[j] /= divisor;
            if (scales) weights[j] *= spec_.scale;
            if (expert_scale != nullptr && chosen[j] >= 0) weights[j] *= expert_scale[chosen[j]];
        }
    }

    // Step 9, on one worker. Returns how many assignments were dropped.
    int32_t place(int64_t rows) const {
        auto* load =
            reinterpret_cast<int32_t*>(owner_.shared_scratch() + aligned(rows * experts_ * 8));
        std::fill_n(load, experts_, 0);
        int64_t valid = 0;
        for (int64_t t = 0; t < rows; ++t) valid += is_padding(t) ? 0 : 1;
        const double room =
            std::ceil(static_cast<double>(spec_.capacity_factor)
                      * static_cast<double>(valid * choices_) / static_cast<double>(experts_));
        const bool reroutes = spec_.capacity_policy == SLUICE_CAPACITY_REROUTE;
        // Dropped weights are taken away after they were computed, so that renormalisation is not
        // repeated; rerouted ones are weighed on their final experts.
        if (!reroutes) weigh_all(rows);
        int32_t dropped = 0;
        for (int64_t j = 0; j < choices_; ++j)
            for (int64_t t = 0; t < rows; ++t) {
                int32_t& expert = index(t)[j];
                if (expert < 0) continue;
                if (load[expert] >= room && reroutes)
                    expert = other_expert(t, j, load, room);
                else if (load[expert] >= room)
                    expert = -1;
                if (expert >= 0) {
                    ++load[expert];
                } else {
                    ++dropped;
                    weight(t)[j] = 0;
                }
            }
        if (reroutes) weigh_all(rows);
        return dropped;
    }

    void weigh_all(int64_t rows) const {
        for (int64_t t = 0; t < rows; ++t)
            if (!is_padding(t)) weigh(t, kept(t), kept(t) + experts_);
    }

    int32_t other_expert(int64_t t, int64_t j, const int32_t* load, double room) const {
        const float* choice = kept(t) + experts_;
        int32_t best = -1;
        for (int32_t e = 0; e < experts_; ++e) {
            if (load[e] >= room || choice[e] == minus_infinity) continue;
            bool is_taken = false;
            for (int64_t i = 0; i < choices_; ++i) is_taken |= i != j && index(t)[i] == e;
            if (!is_taken && (best < 0 || choice[e] > choice[best])) best = e;
        }
        return best;
    }

    void count(int64_t rows, int32_t dropped) const {
        if (operation_.has_output(2)) {
            auto* counts = owner_.at(operation_.outputs[2]).as<int32_t>();
            std::fill_n(counts, experts_, 0);
            for (int64_t i = 0; i < rows * choices_; ++i)
                if (const int32_t e = index(0)[i]; e >= 0 && e < experts_) ++counts[e];
        }
        if (operation_.has_output(3)) owner_.at(operation_.outputs[3]).as<int32_t>()[0] = dropped;
    }

    bound& owner_;
    const plugin::operation& operation_;
    sluice_routing_specification spec_;
    int64_t experts_;
    int64_t choices_;
    vector_operand choice_bias_;
    vector_operand per_expert_scale_;
};

} // namespace

std::unique_ptr<step> make_route(bound& owner, const plugin::operation& operation) {
    return std::make_unique<route_step>(owner, operation);
}

} // namespace sluice::onednn
