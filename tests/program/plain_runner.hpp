// Runs a program of primitives with the plain kernels, without a backend around them.
#pragma once

#include "program/program.hpp"

#include <plain/step.hpp>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace sluice::test {

using floats = std::vector<float>;
using integers = std::vector<int32_t>;

// A host with memory and a team of one worker, the caller.
sluice_host one_worker_host();

class plain_runner {
  public:
    // block_count: blocks of the cache, if the program has states.
    plain_runner(const program& source, const extent_sizes& extents, uint32_t block_count = 0);

    // Inputs by name; everything must be set before run().
    void set(const std::string& name, const floats& values);
    void set(const std::string& name, const integers& values);
    void set_weight(const std::string& name, const floats& values);

    // Each operation's work is cut among `worker_count` workers, who run one after the other.
    void run(uint32_t worker_count = 1);

    floats float_values(value_number number) const;
    integers integer_values(value_number number) const;

  private:
    size_t element_count(value_number number) const;
    void set_bytes(value_number number, const void* values, size_t count, sluice_element_type type);

    program source_;
    plugin::program parsed_;
    sluice_host host_table_{};
    plugin::host host_;
    std::vector<std::vector<std::byte>> memory_;
    std::vector<plugin::tensor> tensors_;
    std::map<value_number, std::unique_ptr<plain::float_weight>> weights_;
    std::unique_ptr<plugin::host_cache> cache_;
};

} // namespace sluice::test
