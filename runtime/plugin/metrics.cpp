#include "plugin/metrics.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cmath>

namespace {

// Doubles have no fetch_add that every compiler here offers, so the sum goes by exchange.
void add(std::atomic<double>& sum, double value) noexcept {
    double old = sum.load(std::memory_order_relaxed);
    while (!sum.compare_exchange_weak(old, old + value, std::memory_order_relaxed)) {
    }
}

bool is_metric_name(std::string_view name) {
    if (name.empty() || name.size() > 128) return false;
    if (name[0] >= '0' && name[0] <= '9') return false;
    return std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    });
}

constexpr size_t metric_count_max = 4096;
constexpr size_t bucket_count_max = 256;

} // namespace

void sluice_metric::record(double observation) noexcept {
    if (std::isnan(observation)) return;
    switch (type) {
    case SLUICE_METRIC_COUNTER:
        // A counter never falls: whoever sums it up later relies on that.
        if (observation > 0) add(value, observation);
        break;
    case SLUICE_METRIC_GAUGE:
        value.store(observation, std::memory_order_relaxed);
        break;
    default: {
        const auto bound = std::lower_bound(buckets.begin(), buckets.end(), observation);
        bucket_counts[bound - buckets.begin()].fetch_add(1, std::memory_order_relaxed);
        count.fetch_add(1, std::memory_order_relaxed);
        add(value, observation);
    }
    }
}

namespace sluice {

sluice_metric* metric_registry::add(uint32_t type, std::string_view name, std::string_view help,
                                    std::vector<double> buckets) {
    if (!is_metric_name(name)) {
        fail(SLUICE_INVALID, "metric name {}: expected [a-z_][a-z0-9_]* of at most 128 characters",
             quote(name));
    }
    if (type < SLUICE_METRIC_COUNTER || type > SLUICE_METRIC_HISTOGRAM) {
        fail(SLUICE_INVALID, "metric {}: type {} is unknown; expected SLUICE_METRIC_*", name, type);
    }
    if (type != SLUICE_METRIC_HISTOGRAM && !buckets.empty()) {
        fail(SLUICE_INVALID, "metric {}: buckets are given, but it is not a histogram", name);
    }
    if (buckets.size() > bucket_count_max) {
        fail(SLUICE_INVALID, "metric {}: {} buckets; expected at most {}", name, buckets.size(),
             bucket_count_max);
    }
    for (size_t i = 0; i < buckets.size(); ++i) {
        if (!std::isfinite(buckets[i]) || (i > 0 && buckets[i] <= buckets[i - 1])) {
            fail(SLUICE_INVALID,
                 "metric {}: bucket bounds must be finite and rising; bound {} is {}", name, i,
                 buckets[i]);
        }
    }
    std::lock_guard lock(mutex_);
    for (sluice_metric& metric : metrics_) {
        if (metric.name != name) continue;
        if (metric.type != type || metric.buckets != buckets) {
            fail(SLUICE_INVALID, "metric {} was registered before with another type or buckets",
                 name);
        }
        return &metric;
    }
    if (metrics_.size() >= metric_count_max) {
        fail(SLUICE_EXHAUSTED, "metric {}: there are {} metrics already, which is the limit", name,
             metrics_.size());
    }
    sluice_metric& metric = metrics_.emplace_back();
    metric.name = name;
    metric.help = help;
    metric.type = type;
    metric.buckets = std::move(buckets);
    metric.bucket_counts = std::make_unique<std::atomic<uint64_t>[]>(metric.buckets.size() + 1);
    return &metric;
}

std::vector<metric_snapshot> metric_registry::snapshot() const {
    std::vector<metric_snapshot> result;
    {
        std::lock_guard lock(mutex_);
        for (const sluice_metric& metric : metrics_) {
            metric_snapshot& one = result.emplace_back();
            one.name = metric.name;
            one.help = metric.help;
            one.type = metric.type;
            one.value = metric.value.load(std::memory_order_relaxed);
            one.buckets = metric.buckets;
            if (metric.type != SLUICE_METRIC_HISTOGRAM) continue;
            // The count is taken from the buckets, so that a snapshot agrees with itself.
            for (size_t i = 0; i <= metric.buckets.size(); ++i) {
                one.bucket_counts.push_back(
                    metric.bucket_counts[i].load(std::memory_order_relaxed));
                one.count += one.bucket_counts.back();
            }
        }
    }
    std::sort(result.begin(), result.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return result;
}

// https://prometheus.io/docs/instrumenting/exposition_formats/
std::string prometheus_text(const std::vector<metric_snapshot>& metrics) {
    constexpr std::string_view type_names[] = {"untyped", "counter", "gauge", "histogram"};
    std::string text;
    for (const metric_snapshot& metric : metrics) {
        std::string help;
        for (char c : metric.help) {
            if (c == '\\')
                help += "\\\\";
            else if (c == '\n')
                help += "\\n";
            else
                help += c;
        }
        if (!help.empty()) text += fmt::format("# HELP {} {}\n", metric.name, help);
        text += fmt::format("# TYPE {} {}\n", metric.name, type_names[metric.type & 3]);
        if (metric.type != SLUICE_METRIC_HISTOGRAM) {
            text += fmt::format("{} {}\n", metric.name, metric.value);
            continue;
        }
        uint64_t below = 0;
        for (size_t i = 0; i < metric.buckets.size(); ++i) {
            below += metric.bucket_counts[i];
            text +=
                fmt::format("{}_bucket{{le=\"{}\"}} {}\n", metric.name, metric.buckets[i], below);
        }
        text += fmt::format("{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n",
                            metric.name, metric.count, metric.value);
    }
    return text;
}

} // namespace sluice
