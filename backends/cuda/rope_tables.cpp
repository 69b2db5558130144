#include "rope_tables.hpp"

#include "plain/operations/operations.hpp"

#include <bit>

namespace sluice::cuda {

namespace {

// Kernels compute what is beyond. With heads of 128 such a table has 64 MiB.
constexpr int64_t positions_max = 1 << 17;
constexpr int64_t positions_min = 64;

} // namespace

rope_table::rope_table(const device& owner, std::vector<double> frequencies, double magnitude,
                       int64_t positions)
    : frequencies_(std::move(frequencies)), magnitude_(magnitude), positions_(positions),
      on_device_(owner, frequencies_.size() * sizeof(double), "frequencies of rope"),
      turns_(owner, frequencies_.size() * static_cast<uint64_t>(positions) * 2 * sizeof(float),
             "a table of rope") {
    owner.use();
    const cudaStream_t stream = owner.setup_stream();
    check(cudaMemcpyAsync(on_device_.as(), frequencies_.data(), on_device_.size(),
                          cudaMemcpyHostToDevice, stream),
          "copying frequencies of rope");
    launch_rope_table(view(false, false), turns_.as<float>(), stream);
    check(cudaStreamSynchronize(stream), "making a table of rope");
}

bool rope_table::serves(std::span<const double> frequencies, double magnitude,
                        int64_t positions) const {
    return magnitude == magnitude_ && positions <= positions_
           && std::equal(frequencies.begin(), frequencies.end(), frequencies_.begin(),
                         frequencies_.end());
}

rope_view rope_table::view(bool interleaved, bool inverse) const {
    rope_view made;
    made.table = turns_.as<float>();
    made.positions = positions_;
    made.frequencies = on_device_.as<double>();
    made.magnitude = magnitude_;
    made.dimension = static_cast<int32_t>(2 * frequencies_.size());
    made.interleaved = interleaved;
    made.inverse = inverse;
    return made;
}

std::shared_ptr<const rope_table> rope_tables::share(const sluice_rope_attributes& rope,
                                                     std::span<const double> table,
                                                     int64_t positions) {
    const double magnitude = rope.magnitude == 0.0f ? 1.0 : static_cast<double>(rope.magnitude);
    auto frequencies = plain::rope_frequencies(rope, table);
    // Powers of two, so that buckets of contexts of about one length share theirs.
    const auto wanted = static_cast<int64_t>(
        std::bit_ceil(static_cast<uint64_t>(std::clamp(positions, positions_min, positions_max))));
    const std::lock_guard lock(mutex_);
    std::erase_if(known_, [](const auto& each) { return each.expired(); });
    for (const auto& each : known_)
        if (auto found = each.lock();
            found != nullptr && found->serves(frequencies, magnitude, wanted))
            return found;
    auto made = std::make_shared<rope_table>(owner_, std::move(frequencies), magnitude, wanted);
    known_.push_back(made);
    return made;
}

} // namespace sluice::cuda
