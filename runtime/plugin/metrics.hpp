// Metrics: counters, gauges and histograms, registered by name and recorded without a lock.
#pragma once

#include <sluice/abi/host.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

// What the ABI's opaque metric is.
struct sluice_metric {
    std::string name;
    std::string help;
    uint32_t type = 0; // SLUICE_METRIC_*
    std::vector<double> buckets;
    std::atomic<double> value{0};   // of a counter or gauge; the sum of a histogram
    std::atomic<uint64_t> count{0}; // observations of a histogram
    std::unique_ptr<std::atomic<uint64_t>[]> bucket_counts; // [buckets + 1], the last is over all

    void record(double observation) noexcept;
};

namespace sluice {

struct metric_snapshot {
    std::string name;
    std::string help;
    uint32_t type = 0;
    double value = 0; // of a counter or gauge; the sum of a histogram
    uint64_t count = 0;
    std::vector<double> buckets;         // upper bounds
    std::vector<uint64_t> bucket_counts; // [buckets + 1], not cumulative
};

class metric_registry {
  public:
    // Returns the handle; the same name gives the same handle. Throws SLUICE_INVALID for a
    // malformed description or a name that has another type already. Handles live as long as the
    // registry.
    sluice_metric* add(uint32_t type, std::string_view name, std::string_view help,
                       std::vector<double> buckets = {});
    // All metrics, in the order of their names.
    std::vector<metric_snapshot> snapshot() const;

  private:
    mutable std::mutex mutex_;
    std::deque<sluice_metric> metrics_;
};

// The text exposition format of Prometheus 0.0.4.
std::string prometheus_text(const std::vector<metric_snapshot>& metrics);

} // namespace sluice
