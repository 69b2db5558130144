// From the patterns of [placement] to a placement number for each operation of a program.
//
// Patterns apply in the order of the file, so that the last one that matches an operation counts.
// One without brackets places whole operations; one with brackets places experts of moe_ffn
// operations and leaves the others where they were. Naming the main backend takes operations out
// of what an earlier pattern said. Sampling is always where the logits are, and a router's host
// function always on the host, whatever patterns match it.
#pragma once

#include "config/configuration.hpp"
#include "program/program.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace sluice {

struct placement_plan {
    struct placed_backend {
        std::string id;
        std::string key; // of the configuration: the first line that names it
    };
    // By placement number: 0 is the main backend, the others in the order of the table.
    std::vector<placed_backend> backends;
    // Placement number of each operation; of host functions backends.size().
    std::vector<uint32_t> operations;
    // Of moe_ffn operations whose experts are in several places: the placement of each expert. The
    // operation's own number is then that of the operation that reads the result.
    std::map<uint32_t, std::vector<uint32_t>> experts;
    std::vector<std::string> warnings; // of patterns that others override wholly
};

// Fails with SLUICE_INVALID and file:line for a pattern that matches nothing (with the nearest
// names), for experts that are not there, and for a cache whose operations would be on several
// backends.
placement_plan plan_placement(const configuration& configuration, const std::string& main_backend,
                              const program& placed);

// The program with the plan's numbers on its operations.
program with_placements(const program& source, const placement_plan& plan);

} // namespace sluice
