// A model for tests of everything around it: its "cached vector" of a place is a hash of all tokens
// up to there, read and written through block tables and slots as a backend would, and its logits
// follow from that hash. A wrong slot, table, copy or reuse changes the text.
#pragma once

#include "base/error.hpp"
#include "engine/model_runner.hpp"
#include "engine/sampler.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <thread>
#include <vector>

namespace sluice::test {

inline uint64_t mix(uint64_t hash, int32_t token) {
    uint64_t z = (hash ^ uint64_t(uint32_t(token))) + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

class fake_executor final : public step_executor {
  public:
    static constexpr uint64_t seed = 17;

    fake_executor(uint32_t vocabulary_size, kv_pool_options pool)
        : vocabulary_size_(vocabulary_size), tokens_per_block_(pool.tokens_per_block),
          memory_(size_t(pool.groups.at(0).block_count) * pool.tokens_per_block) {}

    uint32_t vocabulary_size() const override { return vocabulary_size_; }

    void run(const step_plan& plan, const std::function<void()>& meanwhile) override {
        if (before_step) before_step(plan);
        if (meanwhile) meanwhile();
        const size_t size = tokens_per_block_;
        for (const kv_block_copy& copy : plan.copies) {
            for (size_t i = 0; i < size; ++i) {
                memory_[size_t(copy.to) * size + i] = memory_[size_t(copy.from) * size + i];
            }
        }
        const sluice_batch batch = plan.batch();
        std::vector<uint64_t> hashes(batch.token_count);
        for (uint32_t row = 0; row < batch.token_count; ++row) {
            const auto s = uint32_t(batch.sequence_of_row[row]);
            const auto position = size_t(batch.position[row]);
            uint64_t before = seed;
            if (position > 0) {
                const int32_t* table = batch.block_table[0] + s * batch.block_table_columns;
                const size_t block = size_t(table[(position - 1) / size]);
                before = memory_[block * size + (position - 1) % size];
            }
            hashes[row] = mix(before, batch.token_ids[row]);
            memory_[size_t(batch.slot[0][row])] = hashes[row];
        }
        logits_.clear();
        for (uint32_t i = 0; i < batch.logit_count; ++i) {
            const auto row = logits_of(hashes[size_t(batch.logit_rows[i])], vocabulary_size_);
            logits_.insert(logits_.end(), row.begin(), row.end());
        }
        steps.fetch_add(1);
        // A clock of its own: a millisecond between steps, and three for each.
        times_.submitted = times_.ended + std::chrono::milliseconds(1);
        times_.ended = times_.submitted + std::chrono::milliseconds(3);
    }

    step_times times() const override { return times_; }

    std::span<const float> logits() override {
        logits_read.fetch_add(1);
        return logits_;
    }

    std::span<const sampled_token> greedy() override {
        greedy_.clear();
        if (!samples) return greedy_;
        for (size_t begin = 0; begin < logits_.size(); begin += vocabulary_size_) {
            const auto row = std::span(logits_).subspan(begin, vocabulary_size_);
            greedy_.push_back(sampler().sample(row, {}, token_set(), 0));
        }
        return greedy_;
    }

    static std::vector<float> logits_of(uint64_t hash, uint32_t vocabulary_size) {
        std::vector<float> logits(vocabulary_size);
        for (uint32_t i = 0; i < vocabulary_size; ++i) {
            logits[i] = float(mix(hash, int32_t(i)) >> 40) * 0x1p-22f; // 0 to 4
        }
        return logits;
    }

    // What the model says alone, straight from the definition.
    static std::vector<int32_t> expected(const std::vector<int32_t>& prompt, uint32_t count,
                                         uint32_t vocabulary_size,
                                         const sampling_parameters& parameters = {}) {
        uint64_t hash = seed;
        token_set occurred(vocabulary_size);
        for (const int32_t token : prompt) hash = mix(hash, token);
        occurred.add(prompt);
        sampler chooser;
        std::vector<int32_t> tokens;
        while (tokens.size() < count) {
            tokens.push_back(chooser
                                 .sample(logits_of(hash, vocabulary_size), parameters, occurred,
                                         prompt.size() + tokens.size())
                                 .token);
            occurred.add(tokens.back());
            hash = mix(hash, tokens.back());
        }
        return tokens;
    }

    std::function<void(const step_plan&)> before_step; // may throw, or take its time
    std::atomic<uint64_t> steps{0};
    std::atomic<uint64_t> logits_read{0}; // times that they were asked for
    bool samples = false;                 // as a backend would

  private:
    uint32_t vocabulary_size_;
    uint32_t tokens_per_block_;
    std::vector<uint64_t> memory_;
    std::vector<float> logits_;
    std::vector<sampled_token> greedy_;
    step_times times_;
};

} // namespace sluice::test
