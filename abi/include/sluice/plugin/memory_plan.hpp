// Where the values of a step lie: the tensor view that kernels get, and the plan of one arena for
// the intermediate values. For backends in host memory and on devices alike.
#pragma once

#include <sluice/plugin/program.hpp>

#include <algorithm>
#include <cstddef>

namespace sluice::plugin {

// A value during one step: where its elements are, and its present shape.
struct tensor {
    std::byte* data = nullptr;
    sluice_element_type type = 0;
    uint32_t rank = 0;
    std::array<int64_t, SLUICE_RANK_MAX> shape{};

    template <typename Element>
    Element* as() const {
        return reinterpret_cast<Element*>(data);
    }
    int64_t element_count() const {
        int64_t count = 1;
        for (uint32_t axis = 0; axis < rank; ++axis) count *= shape[axis];
        return count;
    }
    // Size of the last axis, and the number of rows of that size.
    int64_t width() const { return rank == 0 ? 1 : shape[rank - 1]; }
    int64_t row_count() const {
        int64_t count = 1;
        for (uint32_t axis = 0; axis + 1 < rank; ++axis) count *= shape[axis];
        return count;
    }
};

// Operations in the order in which they run; those of one group run together, so that what one of
// them reads must last, and what one of them writes must be free, from the first to the last.
using schedule = std::vector<std::vector<uint32_t>>;

inline schedule in_program_order(const program& p) {
    schedule result;
    for (const auto& o : p.operations) result.push_back({o.number});
    return result;
}

// Offsets for RESULT values in one arena: values whose lives do not overlap share memory. Reshapes
// share their operand's memory, except for outputs, which may be bound to buffers of their own.
struct memory_plan {
    std::vector<uint64_t> offset; // [value_count]; meaningful where `planned`
    std::vector<bool> planned;
    std::vector<uint32_t> alias; // value that the memory belongs to, itself for most
    uint64_t size_bytes = 0;

    memory_plan(const program& p, const extents& sizes)
        : memory_plan(p, sizes, in_program_order(p)) {}

    memory_plan(const program& p, const extents& sizes, const schedule& order)
        : offset(p.values.size()), planned(p.values.size()), alias(p.values.size()) {
        struct life {
            uint32_t value;
            size_t begin, end;
            uint64_t size;
        };
        share_memory_of_reshapes(p);
        std::vector<life> lives;
        std::vector<size_t> index(p.values.size(), SIZE_MAX);
        for (size_t step = 0; step < order.size(); ++step) {
            for (const uint32_t operation : order[step])
                for (const uint32_t number : p.operations[operation].outputs) {
                    if (number == SLUICE_VALUE_NONE || p.values[number].kind != SLUICE_VALUE_RESULT
                        || alias[number] != number)
                        continue;
                    index[number] = lives.size();
                    lives.push_back({number, step, step, storage_bytes(p.values[number], sizes)});
                }
            for (const uint32_t operation : order[step])
                for (const uint32_t number : p.operations[operation].inputs)
                    if (number != SLUICE_VALUE_NONE && index[alias[number]] != SIZE_MAX)
                        lives[index[alias[number]]].end = step;
        }
        for (const uint32_t output : p.outputs)
            if (index[alias[output]] != SIZE_MAX)
                lives[index[alias[output]]].end = order.size();
        place(lives);
        for (uint32_t i = 0; i < alias.size(); ++i)
            if (alias[i] != i && planned[alias[i]]) {
                offset[i] = offset[alias[i]];
                planned[i] = true;
            }
    }

  private:
    void share_memory_of_reshapes(const program& p) {
        for (uint32_t i = 0; i < alias.size(); ++i) alias[i] = i;
        const auto is_output = [&](uint32_t number) {
            return std::find(p.outputs.begin(), p.outputs.end(), number) != p.outputs.end();
        };
        for (const auto& o : p.operations)
            if (o.kind == SLUICE_OP_RESHAPE && !is_output(o.outputs[0])
                && p.values[alias[o.inputs[0]]].kind != SLUICE_VALUE_WEIGHT)
                alias[o.outputs[0]] = alias[o.inputs[0]];
    }
    static uint64_t storage_bytes(const value& v, const extents& sizes) {
        // A multiple of the cache line, with a line to spare for kernels that write whole vectors.
        return (bytes_of(v.type, v.element_count(sizes)) + 127) / 64 * 64;
    }
    template <typename Life>
    void place(const std::vector<Life>& lives) {
        std::vector<const Life*> placed; // by offset
        for (const auto& l : lives) {
            uint64_t at = 0;
            auto where = placed.begin();
            for (; where != placed.end(); ++where) {
                const auto& other = **where;
                if (other.end < l.begin || other.begin > l.end) continue;
                if (offset[other.value] >= at + l.size) break;
                at = std::max(at, offset[other.value] + other.size);
            }
            offset[l.value] = at;
            planned[l.value] = true;
            size_bytes = std::max(size_bytes, at + l.size);
            placed.insert(std::upper_bound(placed.begin(), placed.end(), &l,
                                           [&](const Life* a, const Life* b) {
                                               return offset[a->value] < offset[b->value];
                                           }),
                          &l);
        }
    }
};

} // namespace sluice::plugin
