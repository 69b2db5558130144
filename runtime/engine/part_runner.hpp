// Runs a part of a model's program on one backend: inputs and outputs are values by name, and the
// cache is its own. For calibration, where a model runs layer by layer.
#pragma once

#include "engine/device_buffer.hpp"
#include "engine/scheduler.hpp"
#include "engine/weight_store.hpp"
#include "model/checkpoint.hpp"
#include "model/model_program.hpp"
#include "plugin/plugin_host.hpp"
#include "program/partition.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace sluice {

// The whole of `tokens` as one step of one sequence, with logits of every row.
step_plan plan_of_one_sequence(std::span<const int32_t> tokens, uint32_t tokens_per_block);

// Not for several threads at once.
class part_runner {
  public:
    // `part` runs on placement 0; `requests` have the names of its weights (others are ignored),
    // which are read from `weights` in the types that they have there. Composites that the backend
    // does not claim are expanded. rows_max: of a step. Fails with SLUICE_UNSUPPORTED naming the
    // operation for what the backend does not run.
    part_runner(std::shared_ptr<plugin_instance> backend, std::shared_ptr<const checkpoint> weights,
                const program& part, std::span<const weight_request> requests, uint32_t rows_max);
    ~part_runner();
    part_runner(const part_runner&) = delete;
    part_runner& operator=(const part_runner&) = delete;

    // The bytes of a custom input, from its first row on. They stay until they are written again.
    void write(const std::string& input, std::span<const std::byte> bytes);
    void run(const step_plan& step);
    // Of the last step, from the first row on.
    void read(const std::string& output, std::span<std::byte> bytes) const;

    const program& part() const { return part_; }

  private:
    void create_executable(const extent_sizes& extents);
    void create_cache(uint32_t block_count);
    void bind(const extent_sizes& extents);
    void destroy() noexcept;
    const device_buffer& buffer_of(const std::string& value) const;

    std::shared_ptr<plugin_instance> backend_;
    std::shared_ptr<const checkpoint> files_;
    program part_;
    program_partition partition_;
    std::unique_ptr<weight_store> weights_;
    std::map<std::string, device_buffer> buffers_; // custom inputs and outputs
    sluice_executable* executable_ = nullptr;
    sluice_cache* cache_ = nullptr;
    sluice_queue* queue_ = nullptr;
    sluice_event* event_ = nullptr;
    sluice_bound* bound_ = nullptr;
};

} // namespace sluice
