#include "program/program.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "program/rules.hpp"

#include <unordered_map>
#include <unordered_set>

namespace sluice {

uint64_t program_state::bytes_per_token() const {
    uint64_t bytes = 0;
    for (size_t part = 0; part < part_width.size(); ++part) {
        bytes += uint64_t(part_width[part]) * element_bits(part_type[part]) / 8;
        if (group_of(part) != 0) bytes += part_width[part] / group_of(part) * sizeof(float);
    }
    return bytes;
}

namespace {

// Checks that each value is written before it is read, once, and that caches are used in one order.
class order_checker {
  public:
    explicit order_checker(const program_contents& contents)
        : contents_(contents), written_(contents.values.size(), false),
          current_(contents.states.size(), value_none) {
        for (size_t i = 0; i < contents.values.size(); ++i) {
            const uint32_t kind = contents.values[i].kind;
            written_[i] = kind == SLUICE_VALUE_INPUT || kind == SLUICE_VALUE_WEIGHT;
        }
        for (const program_operation& operation : contents.operations) {
            for (const value_number output : operation.outputs) {
                if (output < contents.values.size()) results_.insert(output);
            }
        }
    }

    void check_reads(const program_operation& operation, const std::string& label) {
        for (const value_number input : operation.inputs) {
            if (input == value_none) continue;
            check_range(input, label);
            const program_value& value = contents_.values[input];
            if (value.kind == SLUICE_VALUE_STATE) {
                check_state_read(input, value, label);
            } else if (!written_[input]) {
                fail(SLUICE_INVALID, "{}: reads {} before it is written", label, name_of(input));
            }
        }
    }

    void check_writes(const program_operation& operation, const std::string& label) {
        for (const value_number output : operation.outputs) {
            if (output == value_none) continue;
            check_range(output, label);
            const program_value& value = contents_.values[output];
            if (value.kind != SLUICE_VALUE_RESULT && value.kind != SLUICE_VALUE_STATE) {
                fail(SLUICE_INVALID, "{}: writes {}, which is an input or a weight", label,
                     name_of(output));
            }
            if (written_[output]) {
                fail(SLUICE_INVALID, "{}: writes {}, which is written already", label,
                     name_of(output));
            }
            if (value.kind == SLUICE_VALUE_STATE && operation.kind != SLUICE_OP_KV_WRITE) {
                fail(SLUICE_INVALID, "{}: only kv_write gives a state", label);
            }
            written_[output] = true;
            if (value.kind == SLUICE_VALUE_STATE) current_[value.state] = output;
        }
    }

    void check_end() const {
        for (size_t i = 0; i < contents_.values.size(); ++i) {
            if (contents_.values[i].kind == SLUICE_VALUE_RESULT && !written_[i]) {
                fail(SLUICE_INVALID, "no operation writes {}", name_of(uint32_t(i)));
            }
        }
        for (const value_number output : contents_.outputs) {
            check_range(output, "the program's outputs");
            const uint32_t kind = contents_.values[output].kind;
            if (kind != SLUICE_VALUE_RESULT && kind != SLUICE_VALUE_INPUT) {
                fail(SLUICE_INVALID, "the program's output {} is a weight or a state",
                     name_of(output));
            }
        }
    }

  private:
    void check_range(value_number number, const std::string& label) const {
        if (number < contents_.values.size()) return;
        fail(SLUICE_INVALID, "{}: names value {}, the program has {}", label, number,
             contents_.values.size());
    }

    // A cache is changed in place, so that after a write only the state that follows it can be
    // used.
    void check_state_read(value_number number, const program_value& value,
                          const std::string& label) {
        value_number& current = current_[value.state];
        if (current == value_none && !results_.contains(number)) current = number;
        if (current != number) {
            fail(SLUICE_INVALID, "{}: reads {}, which is not the cache's state at that place",
                 label, name_of(number));
        }
    }

    std::string name_of(value_number number) const {
        const std::string& name = contents_.values[number].name;
        return name.empty() ? fmt::format("value {}", number) : quote(name);
    }

    const program_contents& contents_;
    std::vector<bool> written_;
    std::vector<value_number> current_;
    std::unordered_set<value_number> results_;
};

void check_counts(const program_contents& contents) {
    const auto at_most = [](size_t count, size_t limit, const char* what) {
        if (count > limit)
            fail(SLUICE_INVALID, "{} {}, at most {} are allowed", count, what, limit);
    };
    at_most(contents.values.size(), program_limits::values, "values");
    at_most(contents.operations.size(), program_limits::operations, "operations");
    at_most(contents.states.size(), program_limits::states, "states");
    at_most(contents.outputs.size(), program_limits::values, "outputs");
}

void check_names(const program_contents& contents) {
    std::unordered_set<std::string_view> names;
    for (const program_value& value : contents.values) {
        if (!value.name.empty() && !names.insert(value.name).second) {
            fail(SLUICE_INVALID, "two values are named {}", quote(value.name));
        }
    }
}

void check_contents(const program_contents& contents) {
    check_counts(contents);
    for (uint32_t i = 0; i < contents.states.size(); ++i) check_state(contents, i);
    for (value_number i = 0; i < contents.values.size(); ++i) check_value(contents, i);
    check_names(contents);
    order_checker order(contents);
    for (size_t i = 0; i < contents.operations.size(); ++i) {
        const program_operation& operation = contents.operations[i];
        const std::string label = operation_label(i, operation);
        if (operation.name.size() > program_limits::name_bytes || !is_utf8(operation.name)) {
            fail(SLUICE_INVALID, "operation {}: the name must be UTF-8 of at most {} bytes", i,
                 program_limits::name_bytes);
        }
        order.check_reads(operation, label);
        order.check_writes(operation, label);
        check_operation(contents, operation, label);
    }
    order.check_end();
}

// What follows from the rest: roles of weights, flags, canonical dimensions.
void complete(program_contents& contents) {
    for (program_value& value : contents.values) {
        value.weight_role = 0;
        for (dimension& size : value.dimensions) {
            if (size.extent == SLUICE_EXTENT_NONE) size.factor = 0;
        }
        if (value.kind == SLUICE_VALUE_WEIGHT) {
            value.weight_format.struct_size = sizeof(sluice_weight_format);
        }
    }
    for (program_operation& operation : contents.operations) {
        if (operation.kind == SLUICE_OP_ROUTE || operation.kind == SLUICE_OP_ACCUMULATE_GRAM
            || operation.kind == SLUICE_OP_ACCUMULATE_ABS_MAX) {
            operation.flags |= SLUICE_OPERATION_ONCE;
        }
        for (size_t i = 0; i < operation.inputs.size(); ++i) {
            const value_number input = operation.inputs[i];
            if (input >= contents.values.size()) continue;
            program_value& value = contents.values[input];
            if (value.kind != SLUICE_VALUE_WEIGHT) continue;
            value.weight_role |= weight_role_of_operand(operation.kind, i);
        }
        std::visit(
            [](auto& attributes) {
                if constexpr (!std::is_same_v<std::decay_t<decltype(attributes)>, std::monostate>) {
                    attributes.struct_size = sizeof(attributes);
                }
            },
            operation.attributes);
    }
}

sluice_text text_of(const std::string& text) { return {text.data(), text.size()}; }

} // namespace

// The ABI's structs over the contents: arrays first, then arrays of pointers to them.
struct program::program_view {
    explicit program_view(const program_contents& contents);

    std::vector<sluice_value> values;
    std::vector<sluice_operation> operations;
    std::vector<sluice_state> states;
    std::vector<const sluice_value*> value_pointers;
    std::vector<const sluice_operation*> operation_pointers;
    std::vector<const sluice_state*> state_pointers;
    sluice_program whole = SLUICE_INIT(sluice_program);

  private:
    static sluice_value view_of(const program_value& value);
    static sluice_state view_of(const program_state& state);
    static sluice_operation view_of(const program_operation& operation);
};

sluice_value program::program_view::view_of(const program_value& value) {
    sluice_value view = SLUICE_INIT(sluice_value);
    view.kind = value.kind;
    view.element_type = value.element_type;
    view.rank = static_cast<uint32_t>(value.dimensions.size());
    std::copy(value.dimensions.begin(), value.dimensions.end(), view.shape);
    view.input = value.input;
    view.group = value.group;
    view.state = value.state;
    view.weight_role = value.weight_role;
    view.weight_format = value.kind == SLUICE_VALUE_WEIGHT ? &value.weight_format : nullptr;
    view.name = text_of(value.name);
    return view;
}

sluice_state program::program_view::view_of(const program_state& state) {
    sluice_state view = SLUICE_INIT(sluice_state);
    view.kind = state.kind;
    view.group = state.group;
    view.window = state.window;
    view.tokens_per_block = state.tokens_per_block;
    view.part_count = static_cast<uint32_t>(state.part_width.size());
    std::copy(state.part_width.begin(), state.part_width.end(), view.part_width);
    std::copy(state.part_type.begin(), state.part_type.end(), view.part_type);
    std::copy(state.part_group.begin(), state.part_group.end(), view.part_group);
    view.name = text_of(state.name);
    return view;
}

sluice_operation program::program_view::view_of(const program_operation& operation) {
    sluice_operation view = SLUICE_INIT(sluice_operation);
    view.kind = operation.kind;
    view.attributes = std::visit(
        [](const auto& attributes) -> const void* {
            if constexpr (std::is_same_v<std::decay_t<decltype(attributes)>, std::monostate>) {
                return nullptr;
            } else {
                return &attributes;
            }
        },
        operation.attributes);
    view.inputs = operation.inputs.data();
    view.outputs = operation.outputs.data();
    view.input_count = static_cast<uint32_t>(operation.inputs.size());
    view.output_count = static_cast<uint32_t>(operation.outputs.size());
    view.placement = operation.placement;
    view.flags = operation.flags;
    view.name = text_of(operation.name);
    return view;
}

program::program_view::program_view(const program_contents& contents) {
    for (const program_value& value : contents.values) values.push_back(view_of(value));
    for (const program_state& state : contents.states) states.push_back(view_of(state));
    for (const program_operation& operation : contents.operations) {
        operations.push_back(view_of(operation));
    }
    for (const sluice_value& value : values) value_pointers.push_back(&value);
    for (const sluice_operation& operation : operations) operation_pointers.push_back(&operation);
    for (const sluice_state& state : states) state_pointers.push_back(&state);
    whole.value_count = static_cast<uint32_t>(values.size());
    whole.values = value_pointers.data();
    whole.operations = operation_pointers.data();
    whole.states = state_pointers.data();
    whole.outputs = contents.outputs.data();
    whole.operation_count = static_cast<uint32_t>(operations.size());
    whole.state_count = static_cast<uint32_t>(states.size());
    whole.output_count = static_cast<uint32_t>(contents.outputs.size());
    whole.name = text_of(contents.name);
}

program::program(program_contents contents) {
    try {
        complete(contents);
        check_contents(contents);
    } catch (const error& failure) {
        throw error(failure.status(),
                    fmt::format("program {}: {}", quote(contents.name), failure.what()));
    }
    contents_ = std::make_shared<const program_contents>(std::move(contents));
    view_ = std::make_shared<const program_view>(*contents_);
}

const program_value& program::value(value_number number) const {
    if (number >= values().size()) {
        fail(SLUICE_INVALID, "program {}: there is no value {}, the program has {}", quote(name()),
             number, values().size());
    }
    return values()[number];
}

std::optional<value_number> program::find(std::string_view name) const {
    if (name.empty()) return std::nullopt;
    for (value_number i = 0; i < values().size(); ++i) {
        if (values()[i].name == name) return i;
    }
    return std::nullopt;
}

value_number program::at(std::string_view name) const {
    if (const auto found = find(name)) return *found;
    std::vector<std::string> names;
    for (const program_value& value : values()) names.push_back(value.name);
    fail(SLUICE_INVALID, "program {}: no value is named {}{}", quote(this->name()), quote(name),
         did_you_mean(name, names));
}

const sluice_program* program::view() const { return &view_->whole; }

} // namespace sluice
