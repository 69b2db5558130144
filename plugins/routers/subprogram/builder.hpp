// Builds a sluice_program and owns everything it points to.
#pragma once

#include <sluice/abi/operations.h>

#include <cstddef>
#include <deque>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::routers {

// A size: a plain number, or `factor` times the step's token rows.
struct size {
    uint32_t factor = 0;
    int64_t fixed = 0;

    static size of(int64_t fixed) { return {0, fixed}; }
    static size tokens(uint32_t factor = 1) { return {factor, 0}; }
};

class program_builder {
  public:
    using value = uint32_t;

    explicit program_builder(std::string name);
    program_builder(const program_builder&) = delete;
    program_builder& operator=(const program_builder&) = delete;

    value input(std::string_view name, sluice_element_type type, std::vector<size> shape);

    // One operation with one output of that type and shape; `Attributes` is copied.
    value operation(uint32_t kind, std::string_view name, std::vector<value> inputs,
                    sluice_element_type type, std::vector<size> shape);
    template <typename Attributes>
    value operation(uint32_t kind, std::string_view name, std::vector<value> inputs,
                    sluice_element_type type, std::vector<size> shape,
                    const Attributes& attributes) {
        const value made = operation(kind, name, std::move(inputs), type, std::move(shape));
        operations_.back().attributes = keep(attributes);
        return made;
    }

    // A further output of the operation added last.
    value further_output(std::string_view name, sluice_element_type type, std::vector<size> shape);

    void output(value of) { outputs_.push_back(of); }

    // Ends the building; the program is valid as long as the builder is.
    const sluice_program& finish();

  private:
    value add_value(uint32_t kind, std::string_view name, sluice_element_type type,
                    const std::vector<size>& shape);
    sluice_text keep_text(std::string_view text);
    template <typename Attributes>
    const void* keep(const Attributes& attributes) {
        auto kept = std::make_shared<Attributes>(attributes);
        attributes_.push_back(kept);
        return kept.get();
    }

    std::deque<std::string> texts_;
    std::deque<sluice_value> values_;
    std::deque<sluice_operation> operations_;
    std::deque<std::vector<uint32_t>> operand_inputs_;
    std::deque<std::vector<uint32_t>> operand_outputs_;
    std::vector<std::shared_ptr<const void>> attributes_;
    std::vector<uint32_t> outputs_;
    std::vector<const sluice_value*> value_pointers_;
    std::vector<const sluice_operation*> operation_pointers_;
    sluice_program program_ = SLUICE_INIT(sluice_program);
};

} // namespace sluice::routers
