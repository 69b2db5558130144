// Compiled and bound programs: steps captured once into a graph, launched for each submission.
#pragma once

#include "cache.hpp"
#include "queue.hpp"
#include "schedule.hpp"
#include "weights.hpp"

#include <sluice/plugin/memory_plan.hpp>

namespace sluice::cuda {

class step;
class matmul_library;
class rope_tables;
class tuner;

// What all executables of one instance share.
struct execution_context {
    plugin::host host;
    const device* card = nullptr;
    matmul_library* library = nullptr;
    rope_tables* tables = nullptr;
    tuner* tuning = nullptr;
    bool uses_graphs = true;
    bool takes_profile = false;
    bool fuses = true;
};

class executable final : public sluice_executable {
  public:
    executable(const execution_context& context, const sluice_program& program,
               std::span<sluice_weight* const> weights);

    std::unique_ptr<sluice_bound> bind(const plugin::extents& sizes, sluice_cache* cache,
                                       std::span<const sluice_binding> bindings) override;

    const execution_context& context() const { return context_; }
    const plugin::program& program() const { return program_; }
    const fused_schedule& order() const { return order_; }
    const device_weight* weight(uint32_t number) const { return weights_[number]; }

  private:
    execution_context context_;
    plugin::program program_;
    fused_schedule order_;
    std::vector<const device_weight*> weights_; // [value_count], NULL for other values
};

// Where a batch input lies in the one block that is uploaded for each step.
struct input_place {
    uint32_t value = 0;
    uint64_t offset_bytes = 0;
};

class bound final : public sluice_bound {
  public:
    bound(const executable& compiled, const plugin::extents& sizes, sluice_cache* cache,
          std::span<const sluice_binding> bindings);
    ~bound() override;

    void plan(const sluice_batch& batch) override;
    void submit(sluice_queue& queue, std::span<sluice_event* const> waits,
                sluice_event* done) override;
    void profile(std::span<double> seconds) const override;

    // ---- For the steps ----

    const execution_context& context() const { return compiled_.context(); }
    const device& card() const { return *context().card; }
    const plugin::program& source() const { return compiled_.program(); }
    const plugin::extents& sizes() const { return sizes_; }
    // The value's memory and its shape at the bound sizes. A weight reads as its float32 `values`.
    tensor_view view(uint32_t number) const;
    // The same; a view without data for SLUICE_VALUE_NONE.
    tensor_view optional_view(uint32_t number) const {
        return number == SLUICE_VALUE_NONE ? tensor_view{} : view(number);
    }
    const device_weight& weight(uint32_t number) const { return *compiled_.weight(number); }
    bool is_weight(uint32_t number) const {
        return number != SLUICE_VALUE_NONE && compiled_.weight(number) != nullptr;
    }
    const device_cache& cache() const { return *cache_; }
    // The state that a STATE value threads.
    const sluice_state& state(uint32_t number) const {
        return source().states[source().values[number].state];
    }
    // Tokens that a sequence can have in the cache at these sizes: columns of the block table times
    // tokens a block.
    int64_t context_max() const;
    // i32 [SLUICE_EXTENT_COUNT] on the device: the extents of the planned step.
    const int32_t* present_extents() const { return present_; }
    // i32 [S + 1] on the device: first row of each sequence; beyond the planned sequences the
    // number of rows.
    const int32_t* query_start() const { return query_start_; }
    std::byte* scratch() const { return scratch_.as(); }
    // Of the step that is being made: whether what comes before it in the stream is a kernel.
    bool follows_kernel() const { return follows_kernel_; }

  private:
    void place_values(std::span<const sluice_binding> bindings);
    void bind_buffer(const sluice_binding& binding);
    void place_inputs();
    void make_steps();
    void capture();
    void launch_all(cudaStream_t stream);
    void mark(size_t step, cudaStream_t stream) const;
    void check_batch(const sluice_batch& batch) const;
    const int32_t* batch_input(const plugin::value& v, const sluice_batch& batch) const;
    void fill_input(const input_place& place, const sluice_batch& batch);

    const executable& compiled_;
    plugin::extents sizes_;
    plugin::memory_plan plan_;
    device_memory arena_;
    device_memory inputs_;
    pinned_memory staging_; // the inputs' image on the host
    std::vector<input_place> input_places_;
    std::vector<std::byte*> data_; // [value_count]
    std::vector<bool> bound_;      // [value_count]: to a buffer of the caller
    const device_cache* cache_ = nullptr;
    const int32_t* present_ = nullptr;
    const int32_t* query_start_ = nullptr;
    uint64_t query_start_offset_ = 0;
    std::vector<std::unique_ptr<step>> steps_;
    // [steps]: of its operations that to which a profile counts it, the last of most.
    std::vector<uint32_t> step_operation_;
    device_memory scratch_;
    cudaGraphExec_t graph_ = nullptr;
    cudaStream_t stream_ = nullptr;  // of the capture
    std::vector<cudaEvent_t> marks_; // [steps + 1], where a profile is taken
    bool follows_kernel_ = false;
    bool is_planned_ = false;
    cudaEvent_t ended_ = nullptr; // of the last submission
};

} // namespace sluice::cuda
