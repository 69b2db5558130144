// A model's program as calibration goes through it: cut into units, which are what leads to the
// first layer, each layer, and the head; and where in it each stored matrix is used.
#pragma once

#include "model/model_program.hpp"
#include "quantization/module_list.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sluice {

// Operations between two cuts. Values that pass a cut have a row for each token.
struct model_unit {
    uint32_t operation_begin = 0;
    uint32_t operation_end = 0;
    std::vector<std::string> inputs;  // results of earlier units that this or a later one reads
    std::vector<std::string> outputs; // those of the next unit; empty: it is the last
};

// The units in their order. Fails with SLUICE_UNSUPPORTED where layers do not follow one another,
// or a value that passes a cut has no rows.
std::vector<model_unit> cut_into_units(const program& step);

// What a stored matrix multiplies.
struct module_use {
    uint32_t operation = 0;         // number in the step
    value_number rows = value_none; // [T, K], or the input of the feed-forward layer
    // A down projection: it multiplies what gate, up and the activation make of the rows.
    bool is_down = false;
    std::optional<uint32_t> expert; // only the rows that are routed to it
};

// By module; nothing for those that calibration has no statistics for (embeddings).
std::vector<std::optional<module_use>> find_module_uses(const model_program& model,
                                                        const module_list& list);

} // namespace sluice
