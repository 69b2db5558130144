#include "executable.hpp"

#include "steps/step.hpp"

#include "plain/step.hpp"

#include <chrono>
#include <cmath>

namespace sluice::onednn {

executable::executable(plugin::host host, const kernel_choice& kernels, bool takes_profile,
                       const sluice_program& program, std::span<sluice_weight* const> weights)
    : host_(host), kernels_(kernels), takes_profile_(takes_profile), program_(&program) {
    for (const auto& value : program_.values) {
        const bool is_weight = value.kind == SLUICE_VALUE_WEIGHT;
        if (is_weight && weights[value.number] == nullptr)
            plugin::fail(SLUICE_INVALID, "weight '", value.name, "' was not given");
        weights_.push_back(is_weight ? static_cast<const packed_weight*>(weights[value.number])
                                     : nullptr);
        decoded_.push_back(is_weight ? weights_.back()->decoded.get() : nullptr);
    }
    for (const auto& operation : program_.operations) claim(program, operation);
}

std::unique_ptr<sluice_bound> executable::bind(const plugin::extents& sizes, sluice_cache* cache,
                                               std::span<const sluice_binding> bindings) {
    return std::make_unique<bound>(host_, *this, sizes, cache, bindings);
}

bound::bound(const plugin::host& host, const executable& compiled, const plugin::extents& sizes,
             sluice_cache* cache, std::span<const sluice_binding> bindings)
    : host_bound(host, compiled.program(), sizes, cache, bindings), compiled_(compiled),
      seconds_(compiled.program().operations.size()) {
    scratch_size most;
    for (const auto& operation : source().operations) {
        steps_.push_back(make_step(*this, operation));
        const auto need = steps_.back()->scratch();
        most.shared_bytes = std::max(most.shared_bytes, need.shared_bytes);
        most.worker_bytes = std::max(most.worker_bytes, need.worker_bytes);
    }
    own_scratch_bytes_ = aligned(most.worker_bytes);
    shared_scratch_ = plugin::memory(host, static_cast<uint64_t>(most.shared_bytes));
    own_scratch_ =
        plugin::memory(host, static_cast<uint64_t>(own_scratch_bytes_ * host.worker_count()));
}

bound::~bound() = default;

int64_t bound::context_max() const {
    int64_t tokens = 0;
    for (const auto& state : source().states)
        tokens = std::max<int64_t>(tokens, state.tokens_per_block);
    return tokens * sizes_max()[SLUICE_EXTENT_BLOCKS];
}

const rope_table& bound::rope(const sluice_rope_attributes& attributes,
                              std::span<const double> given) {
    auto frequencies = plain::rope_frequencies(attributes, given);
    const double magnitude = attributes.magnitude == 0.0f ? 1.0 : attributes.magnitude;
    for (const auto& known : rope_tables_)
        if (known->frequencies == frequencies && known->magnitude == magnitude) return *known;
    auto made = std::make_unique<rope_table>();
    made->frequencies = std::move(frequencies);
    made->magnitude = magnitude;
    made->half = static_cast<int64_t>(made->frequencies.size());
    made->position_count = std::max<int64_t>(context_max(), 1);
    const auto bytes = static_cast<uint64_t>(made->half * made->position_count) * sizeof(float);
    made->cosine = plugin::memory(owner(), bytes);
    made->sine = plugin::memory(owner(), bytes);
    for (int64_t position = 0; position < made->position_count; ++position)
        for (int64_t i = 0; i < made->half; ++i) {
            const double angle =
                static_cast<double>(position) * made->frequencies[static_cast<size_t>(i)];
            const int64_t at = position * made->half + i;
            made->cosine.as<float>()[at] = static_cast<float>(std::cos(angle) * magnitude);
            made->sine.as<float>()[at] = static_cast<float>(std::sin(angle) * magnitude);
        }
    rope_tables_.push_back(std::move(made));
    return *rope_tables_.back();
}

void bound::planned(const sluice_batch&) {
    for (const auto& each : steps_) each->planned();
}

void bound::run(const plugin::worker& self) {
    const bool timed = compiled_.takes_profile() && self.index == 0;
    if (steps_.empty()) return;
    if (self.index == 0) steps_.front()->begin();
    self.meet.wait();
    for (size_t i = 0; i < steps_.size(); ++i) {
        const auto start =
            timed ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
        steps_[i]->run(self);
        if (self.index == 0 && i + 1 < steps_.size()) steps_[i + 1]->begin();
        self.meet.wait();
        if (failed()) return;
        if (timed)
            seconds_[i] =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
}

void bound::profile(std::span<double> seconds) const {
    if (!compiled_.takes_profile())
        plugin::fail(SLUICE_UNSUPPORTED,
                     "no profile was taken; set profile = true in [settings.onednn]");
    std::copy_n(seconds_.begin(), std::min(seconds.size(), seconds_.size()), seconds.begin());
}

} // namespace sluice::onednn
