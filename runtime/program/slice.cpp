#include "program/slice.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "program/rules.hpp"

#include <unordered_set>

namespace sluice {

namespace {

// Marks what the wanted values depend on and copies that.
class slicer {
  public:
    slicer(const program& source, std::span<const std::string> cuts)
        : source_(source), needed_(source.values().size(), false),
          cut_(source.values().size(), false), kept_(source.operations().size(), false) {
        for (const std::string& name : cuts) {
            const value_number number = source.at(name);
            const program_value& value = source.value(number);
            if (value.kind != SLUICE_VALUE_RESULT) {
                fail(SLUICE_INVALID, "program {}: {} cannot be cut, it is no result",
                     quote(source.name()), quote(name));
            }
            cut_[number] = true;
        }
    }

    program slice(std::span<const std::string> outputs) {
        for (const std::string& name : outputs) need(source_.at(name));
        for (size_t i = source_.operations().size(); i-- > 0;) visit(i);
        return copy(outputs);
    }

  private:
    void need(value_number number) {
        if (number != value_none) needed_[number] = true;
    }

    // Operations come after all they read, so one pass from the end finds everything.
    void visit(size_t index) {
        const program_operation& operation = source_.operations()[index];
        bool wanted = false;
        for (const value_number output : operation.outputs) {
            if (output != value_none && needed_[output] && !cut_[output]) wanted = true;
        }
        if (!wanted) return;
        kept_[index] = true;
        for (const value_number input : operation.inputs) need(input);
    }

    program copy(std::span<const std::string> outputs) {
        program_contents contents;
        contents.name = source_.name();
        keep_results_of_kept();
        copy_values(contents);
        for (size_t i = 0; i < kept_.size(); ++i) {
            if (kept_[i]) contents.operations.push_back(renumbered(source_.operations()[i]));
        }
        for (const std::string& name : outputs) {
            contents.outputs.push_back(number_.at(source_.at(name)));
        }
        return program(std::move(contents));
    }

    // A kept operation may have results that nobody wants; they stay values, except that a cut one
    // becomes an absent result.
    void keep_results_of_kept() {
        for (size_t i = 0; i < kept_.size(); ++i) {
            if (!kept_[i]) continue;
            for (const value_number output : source_.operations()[i].outputs) {
                if (output == value_none) continue;
                if (cut_[output]) {
                    fail(SLUICE_INVALID,
                         "program {}: {} cannot be cut while another result of {} is wanted",
                         quote(source_.name()), quote(source_.value(output).name),
                         operation_label(i, source_.operations()[i]));
                }
                needed_[output] = true;
            }
        }
    }

    void copy_values(program_contents& contents) {
        std::vector<uint32_t> state_number(source_.states().size(), 0);
        std::vector<bool> state_kept(source_.states().size(), false);
        number_.assign(source_.values().size(), value_none);
        for (value_number i = 0; i < source_.values().size(); ++i) {
            if (!needed_[i]) continue;
            program_value value = source_.values()[i];
            if (cut_[i]) {
                value.kind = SLUICE_VALUE_INPUT;
                value.input = SLUICE_INPUT_CUSTOM;
            }
            if (value.kind == SLUICE_VALUE_STATE) {
                if (!state_kept[value.state]) {
                    state_kept[value.state] = true;
                    state_number[value.state] = static_cast<uint32_t>(contents.states.size());
                    contents.states.push_back(source_.states()[value.state]);
                }
                value.state = state_number[value.state];
            }
            number_[i] = static_cast<value_number>(contents.values.size());
            contents.values.push_back(std::move(value));
        }
    }

    program_operation renumbered(program_operation operation) const {
        for (auto* numbers : {&operation.inputs, &operation.outputs}) {
            for (value_number& number : *numbers) {
                if (number != value_none) number = number_[number];
            }
        }
        return operation;
    }

    const program& source_;
    std::vector<bool> needed_;
    std::vector<bool> cut_;
    std::vector<bool> kept_;
    std::vector<value_number> number_;
};

} // namespace

program slice_program(const program& source, std::span<const std::string> outputs,
                      std::span<const std::string> cuts) {
    if (outputs.empty()) {
        fail(SLUICE_INVALID, "program {}: a slice needs an output at least", quote(source.name()));
    }
    return slicer(source, cuts).slice(outputs);
}

program tap_program(const program& source, std::span<const std::string> values) {
    program_contents contents = source.contents();
    const std::unordered_set<value_number> present(contents.outputs.begin(),
                                                   contents.outputs.end());
    for (const std::string& name : values) {
        const value_number number = source.at(name);
        if (!present.contains(number)) contents.outputs.push_back(number);
    }
    return program(std::move(contents));
}

} // namespace sluice
