// What a quantization has done so far, in a folder of its target, so that an interrupted run goes
// on where it was.
#pragma once

#include "quantization/module_quantizer.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace sluice {

class partial_results {
  public:
    // Whether the folder has nothing but results of an interrupted run in it.
    static bool is_all_of(const std::filesystem::path& target);

    // Goes on with what is in `target`, or begins. `key` stands for everything that the results
    // depend on; fails with INVALID where results of another key are there, unless `overwrite`.
    partial_results(const std::filesystem::path& target, std::string key, bool overwrite);

    bool has(uint32_t unit) const;
    // The unit appears whole or not at all.
    void save(uint32_t unit, const module_list& list, const std::vector<module_plan>& plans,
              const std::vector<size_t>& modules, const std::vector<quantized_module>& results);
    // In the order in which they were saved. Fails with INVALID for a file that save() did not
    // write.
    std::vector<quantized_module> load(uint32_t unit, const std::vector<size_t>& modules) const;
    // The whole folder goes.
    void remove();

  private:
    std::filesystem::path file_of(uint32_t unit) const;

    std::filesystem::path folder_;
};

} // namespace sluice
