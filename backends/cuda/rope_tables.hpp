// Tables of cosines and sines, shared by all steps that turn by the same frequencies.
#pragma once

#include "device.hpp"
#include "kernels/rope.hpp"

namespace sluice::cuda {

class rope_table {
  public:
    rope_table(const device& owner, std::vector<double> frequencies, double magnitude,
               int64_t positions);

    bool serves(std::span<const double> frequencies, double magnitude, int64_t positions) const;
    // For kernels, which must not outlive this.
    rope_view view(bool interleaved, bool inverse) const;

  private:
    std::vector<double> frequencies_;
    double magnitude_;
    int64_t positions_;
    device_memory on_device_; // frequencies
    device_memory turns_;
};

// Those that are in use. Thread-safe.
class rope_tables {
  public:
    explicit rope_tables(const device& owner) : owner_(owner) {}
    // A table of at least `positions` positions, or of as many as are worth keeping. Waits for the
    // device where there is none yet.
    std::shared_ptr<const rope_table> share(const sluice_rope_attributes& rope,
                                            std::span<const double> table, int64_t positions);

  private:
    const device& owner_;
    std::mutex mutex_;
    std::vector<std::weak_ptr<const rope_table>> known_;
};

} // namespace sluice::cuda
