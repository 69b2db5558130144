// Compiled and bound programs of the oneDNN backend: one step an operation, all in one team entry.
#pragma once

#include "kernel_choice.hpp"
#include "weights.hpp"

#include <sluice/plugin/host_backend.hpp>

namespace sluice::onednn {

class executable final : public sluice_executable {
  public:
    executable(plugin::host host, const kernel_choice& kernels, bool takes_profile,
               const sluice_program& program, std::span<sluice_weight* const> weights);

    std::unique_ptr<sluice_bound> bind(const plugin::extents& sizes, sluice_cache* cache,
                                       std::span<const sluice_binding> bindings) override;

    const plugin::program& program() const { return program_; }
    const packed_weight& weight(uint32_t number) const { return *weights_[number]; }
    std::span<const plain::float_weight* const> decoded() const { return decoded_; }
    const kernel_choice& kernels() const { return kernels_; }
    bool takes_profile() const { return takes_profile_; }

  private:
    plugin::host host_;
    kernel_choice kernels_;
    bool takes_profile_;
    plugin::program program_;
    std::vector<const packed_weight*> weights_;       // [value_count]
    std::vector<const plain::float_weight*> decoded_; // [value_count]
};

class step;

// Angles of rope for every position that the cache can hold: cosine and sine [positions, half].
struct rope_table {
    std::vector<double> frequencies;
    double magnitude = 1;
    int64_t half = 0;
    int64_t position_count = 0;
    plugin::memory cosine;
    plugin::memory sine;
};

class bound final : public plugin::host_bound {
  public:
    bound(const plugin::host& host, const executable& compiled, const plugin::extents& sizes,
          sluice_cache* cache, std::span<const sluice_binding> bindings);
    ~bound() override;

    void profile(std::span<double> seconds) const override;

    // For the steps.
    using host_bound::at;
    using host_bound::cache;
    using host_bound::optional;
    using host_bound::owner;
    using host_bound::query_start;
    using host_bound::sizes_present;
    using host_bound::source;
    const executable& compiled() const { return compiled_; }
    const kernel_choice& kernels() const { return compiled_.kernels(); }
    // Memory that one step uses while it runs; the next step overwrites it. Aligned to 64 bytes.
    std::byte* shared_scratch() const { return shared_scratch_.as(); }
    std::byte* own_scratch(const plugin::worker& self) const {
        return own_scratch_.as() + static_cast<int64_t>(self.index) * own_scratch_bytes_;
    }
    // The most tokens that a sequence can have in the cache.
    int64_t context_max() const;
    // Tables are shared by all steps that turn alike. Called while steps are made.
    const rope_table& rope(const sluice_rope_attributes& attributes, std::span<const double> table);

  private:
    void planned(const sluice_batch& batch) override;
    void run(const plugin::worker& self) override;

    const executable& compiled_;
    std::vector<std::unique_ptr<step>> steps_;
    std::vector<std::unique_ptr<rope_table>> rope_tables_;
    plugin::memory shared_scratch_;
    plugin::memory own_scratch_;
    int64_t own_scratch_bytes_ = 0;
    std::vector<double> seconds_;
};

} // namespace sluice::onednn
