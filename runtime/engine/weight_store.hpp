// The weights of a model, prepared once on each backend that uses them.
#pragma once

#include "model/checkpoint.hpp"
#include "model/weight_binding.hpp"
#include "plugin/plugin_host.hpp"
#include "program/partition.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace sluice {

struct weight_report {
    std::string name;
    std::string plugin;   // the backend that prepared it
    std::string stored;   // "bf16", "u4 in groups of 64 (GPTQ)"
    std::string prepared; // in the backend's own words
    uint64_t stored_bytes = 0;
    uint64_t prepared_bytes = 0;
    bool source_kept = false; // the backend goes on reading the checkpoint's bytes
};

// As messages and reports name a format: "bf16", "u4 in groups of 64, scales f16".
std::string weight_format_text(const sluice_weight_format& format);

class weight_store {
  public:
    using progress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

    // backends: by placement number.
    weight_store(std::shared_ptr<const checkpoint> files,
                 std::vector<std::shared_ptr<plugin_instance>> backends);
    ~weight_store();
    weight_store(const weight_store&) = delete;
    weight_store& operator=(const weight_store&) = delete;

    // Prepares what the segments use, in the order of the requests, and reports each.
    std::vector<weight_report> prepare(const program& whole,
                                       std::span<const weight_request> requests,
                                       const program_partition& partition,
                                       const progress& on_progress);

    // [values of the segment's program], nullptr for what is no weight.
    std::vector<sluice_weight*> of(const program_segment& segment) const;

  private:
    // What one backend keeps.
    struct shelf {
        std::vector<uint32_t> roles;          // [values of the whole program]; 0: not used there
        std::vector<sluice_weight*> prepared; // likewise, owned
    };

    void check_room(const program& whole, std::span<const weight_request> requests) const;
    void note_roles(const program& whole, const program_partition& partition);
    weight_report prepare_on(size_t placement, const weight_request& request,
                             const program_value& value);

    std::shared_ptr<const checkpoint> files_;
    std::vector<std::shared_ptr<plugin_instance>> backends_;
    std::vector<shelf> shelves_; // by placement number
    std::vector<bound_weight> kept_sources_;
};

} // namespace sluice
