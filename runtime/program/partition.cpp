#include "program/partition.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "program/rules.hpp"

#include <algorithm>
#include <numeric>

namespace sluice {

namespace {

constexpr uint32_t nobody = UINT32_MAX;

// The operations that must run before each operation: writers of what it reads, and, as caches are
// changed in place, for a write to one all that used the cache before.
std::vector<std::vector<uint32_t>> dependences_of(const program& whole) {
    std::vector<std::vector<uint32_t>> before(whole.operations().size());
    std::vector<uint32_t> writer(whole.values().size(), nobody);
    std::vector<std::vector<uint32_t>> users(whole.states().size());
    for (uint32_t i = 0; i < whole.operations().size(); ++i) {
        const program_operation& operation = whole.operations()[i];
        for (const value_number input : operation.inputs) {
            if (input != value_none && writer[input] != nobody) before[i].push_back(writer[input]);
        }
        for (const value_number output : operation.outputs) {
            if (output == value_none) continue;
            writer[output] = i;
            const program_value& value = whole.value(output);
            if (value.kind != SLUICE_VALUE_STATE) continue;
            before[i].insert(before[i].end(), users[value.state].begin(), users[value.state].end());
        }
        for (const value_number input : operation.inputs) {
            if (input == value_none || whole.value(input).kind != SLUICE_VALUE_STATE) continue;
            users[whole.value(input).state].push_back(i);
        }
    }
    return before;
}

// The segments' operations: of the present placement everything that can run, in the program's
// order, then the placement of the first operation that is left and can.
std::vector<std::vector<uint32_t>> cut(const program& whole) {
    const std::vector<std::vector<uint32_t>> before = dependences_of(whole);
    std::vector<uint32_t> left(whole.operations().size());
    std::iota(left.begin(), left.end(), 0);
    std::vector<bool> done(whole.operations().size(), false);
    std::vector<std::vector<uint32_t>> segments;
    while (!left.empty()) {
        // The first one left can always run: all before it are done.
        const uint32_t placement = whole.operations()[left.front()].placement;
        std::vector<uint32_t>& segment = segments.emplace_back();
        std::vector<uint32_t> later;
        for (const uint32_t i : left) {
            const bool can_run = whole.operations()[i].placement == placement
                                 && std::all_of(before[i].begin(), before[i].end(),
                                                [&](uint32_t other) { return done[other]; });
            if (can_run) {
                segment.push_back(i);
                done[i] = true;
            } else {
                later.push_back(i);
            }
        }
        left = std::move(later);
    }
    return segments;
}

class segment_builder {
  public:
    segment_builder(const program& whole, const std::vector<std::vector<uint32_t>>& segments)
        : whole_(whole), writer_(whole.values().size(), nobody), readers_(whole.values().size()),
          outputs_(whole.values().size(), false) {
        for (uint32_t s = 0; s < segments.size(); ++s) note(s, segments[s]);
        for (const value_number output : whole.outputs()) outputs_[output] = true;
    }

    std::vector<passed_value> passed() const {
        std::vector<passed_value> result;
        for (value_number i = 0; i < readers_.size(); ++i) {
            if (whole_.value(i).kind != SLUICE_VALUE_RESULT || readers_[i].empty()) continue;
            result.push_back({i, writer_[i], readers_[i]});
        }
        return result;
    }

    program_segment build(uint32_t segment, const std::vector<uint32_t>& operations) {
        program_contents contents;
        contents.name = fmt::format("{}/{}", whole_.name(), segment);
        number_.assign(whole_.values().size(), value_none);
        std::vector<value_number> values = used_values(operations);
        const uint32_t placement = whole_.operations()[operations.front()].placement;
        add_states(contents, placement, values);
        for (const value_number value : values) add_value(contents, segment, value);
        for (const uint32_t i : operations) {
            contents.operations.push_back(renumbered(whole_.operations()[i]));
        }
        return {placement, program(std::move(contents)), operations, std::move(values)};
    }

  private:
    void note(uint32_t segment, const std::vector<uint32_t>& operations) {
        for (const uint32_t i : operations) {
            for (const value_number output : whole_.operations()[i].outputs) {
                if (output != value_none) writer_[output] = segment;
            }
            for (const value_number input : whole_.operations()[i].inputs) {
                if (input == value_none) continue;
                const bool foreign = writer_[input] != nobody && writer_[input] != segment;
                std::vector<uint32_t>& readers = readers_[input];
                if (foreign && (readers.empty() || readers.back() != segment)) {
                    readers.push_back(segment);
                }
            }
        }
    }

    std::vector<value_number> used_values(const std::vector<uint32_t>& operations) const {
        std::vector<bool> used(whole_.values().size(), false);
        for (const uint32_t i : operations) {
            const program_operation& operation = whole_.operations()[i];
            for (const auto* numbers : {&operation.inputs, &operation.outputs}) {
                for (const value_number number : *numbers) {
                    if (number != value_none) used[number] = true;
                }
            }
        }
        std::vector<value_number> values;
        for (value_number i = 0; i < used.size(); ++i) {
            if (used[i]) values.push_back(i);
        }
        return values;
    }

    // All states of the placement, where the segment uses any.
    void add_states(program_contents& contents, uint32_t placement,
                    const std::vector<value_number>& values) {
        const bool uses_any = std::any_of(values.begin(), values.end(), [&](value_number value) {
            return whole_.value(value).kind == SLUICE_VALUE_STATE;
        });
        if (!uses_any) return;
        const std::vector<uint32_t> owners = state_placements();
        state_number_.assign(owners.size(), 0);
        for (uint32_t state = 0; state < owners.size(); ++state) {
            if (owners[state] != placement) continue;
            state_number_[state] = uint32_t(contents.states.size());
            contents.states.push_back(whole_.states()[state]);
        }
    }

    std::vector<uint32_t> state_placements() const {
        std::vector<uint32_t> owners(whole_.states().size(), nobody);
        for (const program_operation& operation : whole_.operations()) {
            for (const value_number input : operation.inputs) {
                if (input == value_none || whole_.value(input).kind != SLUICE_VALUE_STATE) continue;
                uint32_t& owner = owners[whole_.value(input).state];
                if (owner == nobody) owner = operation.placement;
                if (owner == operation.placement) continue;
                fail(SLUICE_INVALID,
                     "program {}: {} uses {} at placement {}, others use it at {}; all operations "
                     "on a state must have one placement",
                     quote(whole_.name()), quote(operation.name), quote(whole_.value(input).name),
                     operation.placement, owner);
            }
        }
        return owners;
    }

    void add_value(program_contents& contents, uint32_t segment, value_number number) {
        program_value value = whole_.value(number);
        const bool is_result = value.kind == SLUICE_VALUE_RESULT;
        const auto part_number = value_number(contents.values.size());
        if (is_result && writer_[number] != segment) {
            value.kind = SLUICE_VALUE_INPUT;
            value.input = SLUICE_INPUT_CUSTOM;
        } else if (is_result && (!readers_[number].empty() || outputs_[number])) {
            contents.outputs.push_back(part_number);
        } else if (value.kind == SLUICE_VALUE_STATE) {
            value.state = state_number_[value.state];
        }
        number_[number] = part_number;
        contents.values.push_back(std::move(value));
    }

    program_operation renumbered(program_operation operation) const {
        for (auto* numbers : {&operation.inputs, &operation.outputs}) {
            for (value_number& number : *numbers) {
                if (number != value_none) number = number_[number];
            }
        }
        return operation;
    }

    const program& whole_;
    std::vector<uint32_t> writer_;               // segment of each value; nobody: it is given
    std::vector<std::vector<uint32_t>> readers_; // foreign segments
    std::vector<bool> outputs_;
    std::vector<value_number> number_;
    std::vector<uint32_t> state_number_;
};

template <typename Number>
std::vector<Number> counted(size_t count) {
    std::vector<Number> numbers(count);
    std::iota(numbers.begin(), numbers.end(), Number(0));
    return numbers;
}

} // namespace

value_number program_segment::find(value_number whole) const {
    const auto found = std::lower_bound(values.begin(), values.end(), whole);
    return found == values.end() || *found != whole ? value_none
                                                    : value_number(found - values.begin());
}

program_partition partition_program(const program& whole) {
    const auto& operations = whole.operations();
    const bool one = std::all_of(operations.begin(), operations.end(), [&](const auto& each) {
        return each.placement == operations.front().placement;
    });
    program_partition result;
    if (one) {
        const uint32_t placement = operations.empty() ? 0 : operations.front().placement;
        result.segments.push_back({placement, whole, counted<uint32_t>(operations.size()),
                                   counted<value_number>(whole.values().size())});
        return result;
    }
    const std::vector<std::vector<uint32_t>> segments = cut(whole);
    segment_builder builder(whole, segments);
    for (uint32_t s = 0; s < segments.size(); ++s) {
        result.segments.push_back(builder.build(s, segments[s]));
    }
    result.passed = builder.passed();
    return result;
}

} // namespace sluice
