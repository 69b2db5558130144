// Chooses the next token from a row of logits.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace sluice {

struct sampling_parameters {
    double temperature = 0.0; // 0: greedy, the largest logit
    uint32_t top_k = 0;       // keep the k most probable tokens; 0: all
    double top_p = 1.0;       // keep the fewest most probable tokens whose sum reaches p; 1: all
    double min_p = 0.0;       // keep tokens with at least min_p times the largest probability
    double repetition_penalty = 1.0; // divides positive and multiplies negative logits of tokens
                                     // that occurred (Keskar et al. 2019); 1: none
    uint64_t seed = 0;

    bool operator==(const sampling_parameters&) const = default;
};

// Whether the largest logit alone decides, so that no other is needed.
bool is_greedy(const sampling_parameters& parameters);

// Fails with SLUICE_INVALID naming the parameter that is out of range.
void check_sampling_parameters(const sampling_parameters& parameters);

struct sampled_token {
    int32_t token = -1;
    // Natural logarithm of the token's probability under the model's own distribution: the softmax
    // of the logits as they came, before penalty, temperature and filters.
    float log_probability = 0;
};

// The tokens that occurred in a sequence, for the repetition penalty.
class token_set {
  public:
    explicit token_set(uint32_t vocabulary_size = 0) : present_(vocabulary_size, false) {}
    void add(int32_t token);
    void add(std::span<const int32_t> tokens);
    std::span<const int32_t> tokens() const { return tokens_; } // each once, as first seen

  private:
    std::vector<bool> present_;
    std::vector<int32_t> tokens_;
};

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): the counter
// and key wholly determine the four words, so that a draw depends on nothing that ran before it.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Uniform in [0, 1) with 53 bits, for the token that will stand at `position` of its sequence.
double uniform_at(uint64_t seed, uint64_t position);

// Filters act in the order penalty, temperature, top-k, top-p, min-p, each on what the one before
// left. Ties in probability go to the lower token everywhere. A sampler keeps scratch memory: one a
// thread.
class sampler {
  public:
    // logits: [vocabulary]; NaN counts as minus infinity. `position` is that of the token to come,
    // so the same seed gives the same text whatever else runs. Fails with SLUICE_INTERNAL when no
    // logit is finite.
    sampled_token sample(std::span<const float> logits, const sampling_parameters& parameters,
                         const token_set& occurred, uint64_t position);

    // The distribution that `sample` draws from: [vocabulary] probabilities, 0 where filtered out.
    std::vector<double> distribution(std::span<const float> logits,
                                     const sampling_parameters& parameters,
                                     const token_set& occurred);

  private:
    struct candidate {
        float logit;
        int32_t token;
        double probability;
    };
    void penalise(std::span<const float> logits, const sampling_parameters& parameters,
                  const token_set& occurred);
    void collect(const sampling_parameters& parameters);
    void keep_top_p(double top_p);
    int32_t draw(double uniform) const;

    std::vector<float> scores_;         // [vocabulary]
    std::vector<candidate> candidates_; // what the filters left
    double total_ = 0;                  // sum of their probabilities
};

} // namespace sluice
