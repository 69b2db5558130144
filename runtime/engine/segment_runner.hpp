// Runs the segments of a model's step in their order: for each backend a queue and a cache, between
// them the copies that are needed. A model on one backend is one segment, and nothing is copied.
#pragma once

#include "engine/segment_buffers.hpp"

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <vector>

namespace sluice {

// When a step went to the backends, and when all of it had ended.
struct step_times {
    std::chrono::steady_clock::time_point submitted;
    std::chrono::steady_clock::time_point ended;
};

// Not for several threads at once.
class segment_runner {
  public:
    // The bound executables of all segments, for one set of extents.
    using bound_segments = std::vector<sluice_bound*>;

    // A buffer of the caller's for an output of the whole program; of the backend that writes it.
    struct output_buffer {
        value_number value = value_none;
        sluice_buffer* buffer = nullptr;
        uint64_t offset_bytes = 0;
    };

    // The model outlives it. block_counts: of each cache group; none for a model without caches.
    segment_runner(const loaded_model& model, const std::vector<uint32_t>& block_counts);
    ~segment_runner();
    segment_runner(const segment_runner&) = delete;
    segment_runner& operator=(const segment_runner&) = delete;

    bound_segments bind(const extent_sizes& extents, std::span<const output_buffer> outputs);
    void release(const bound_segments& bound) noexcept;

    // Before the next run, on every backend that has states.
    void copy_blocks(uint32_t group, std::span<const int32_t> from, std::span<const int32_t> to);
    // Runs the batch to its end. Fails with the error of the first segment that failed; then
    // nothing runs any more either. Calls `meanwhile`, if given, when the last segment is queued.
    void run(const bound_segments& bound, const sluice_batch& batch,
             const std::function<void()>& meanwhile = {});

    // Of the last run.
    const step_times& times() const { return times_; }

    // Seconds in each operation of the whole program, in the last run; empty where a backend was
    // not configured to measure them.
    std::vector<double> profile(const bound_segments& bound) const;

    // Whose backend writes an output of the whole program.
    uint32_t placement_of(value_number output) const;

  private:
    struct device {
        sluice_queue* queue = nullptr;
        sluice_cache* cache = nullptr; // nullptr: no states there
    };

    void make_device(uint32_t placement, const std::vector<uint32_t>& block_counts);
    void make_cache(const plugin_instance& backend, const program& part,
                    const std::vector<uint32_t>& block_counts, sluice_cache*& made) const;
    sluice_bound* bind_segment(uint32_t segment, const extent_sizes& extents,
                               std::span<const output_buffer> outputs);
    void submit(uint32_t segment, sluice_bound* bound);
    void wait(uint32_t segment);
    void wait_all(std::exception_ptr& failure);
    void destroy() noexcept;
    const plugin_instance& backend_of(uint32_t segment) const;

    const loaded_model& model_;
    segment_buffers buffers_;
    std::vector<device> devices_;       // by placement
    std::vector<sluice_event*> events_; // by segment
    std::vector<bool> running_;         // likewise: submitted and not waited for
    step_times times_;
};

} // namespace sluice
