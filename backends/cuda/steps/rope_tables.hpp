// Tables of cosines and sines, shared by all steps that turn by the same frequencies.
#pragma once

#include "../device.hpp"
#include "kernels/rows.hpp"

namespace sluice::cuda {

class rope_table {
  public:
    rope_table(const device& owner, std::vector<double> frequencies, double magnitude,
               int64_t positions);

    bool serves(const device& owner, std::span<const double> frequencies, double magnitude,
                int64_t positions) const;
    // For kernels, which must not outlive this.
    rope_view view(bool interleaved, bool inverse) const;

  private:
    const device& owner_;
    std::vector<double> frequencies_;
    double magnitude_;
    int64_t positions_;
    device_memory on_device_; // frequencies
    device_memory turns_;
};

// A table of at least `positions` positions, or of as many as are worth keeping. Waits for the
// device where no step has one yet.
std::shared_ptr<const rope_table> share_rope_table(const device& owner,
                                                   const sluice_rope_attributes& rope,
                                                   std::span<const double> table,
                                                   int64_t positions);

} // namespace sluice::cuda
