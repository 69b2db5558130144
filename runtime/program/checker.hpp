// What the rule functions of the single operations are written with.
#pragma once

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "program/rules.hpp"

namespace sluice {

// Looks at one operation and words the messages.
class operation_checker {
  public:
    operation_checker(const program_contents& contents, const program_operation& operation,
                      const std::string& label)
        : contents_(contents), operation_(operation), label_(label) {}

    const program_operation& operation() const { return operation_; }
    template <typename Attributes>
    const Attributes& attributes() const {
        return std::get<Attributes>(operation_.attributes);
    }

    size_t input_count() const { return operation_.inputs.size(); }
    bool has(size_t index) const {
        return index < operation_.inputs.size() && operation_.inputs[index] != value_none;
    }
    bool has_output(size_t index) const {
        return index < operation_.outputs.size() && operation_.outputs[index] != value_none;
    }
    // A needed operand.
    const program_value& in(size_t index) const;
    const program_value& out(size_t index) const;
    const program_state& state(size_t index) const;

    // `in` that is a tensor of the rank (-1: any) and one of the kinds of types.
    const program_value& floats(size_t index, int rank = -1) const;
    const program_value& integers(size_t index, int rank = -1) const; // i32
    const program_value& any(size_t index, int rank = -1) const;
    // A weight of this shape; where the operand is a vector, a float tensor will do.
    const program_value& weight(size_t index, std::span<const dimension> expected) const;
    const program_value& weight(size_t index, int rank) const;

    void shape_in(size_t index, std::span<const dimension> expected) const;
    void result(size_t index, sluice_element_type type, std::span<const dimension> expected) const;
    void float_result(size_t index, std::span<const dimension> expected) const;
    void same_result(size_t index, const program_value& as) const; // type and shape

    void require(bool condition, const std::string& what) const {
        if (!condition) fail(SLUICE_INVALID, "{}: {}", label_, what);
    }
    // Of an enumerator attribute.
    void known(uint32_t value, uint32_t count, std::string_view name) const {
        if (value >= count) {
            fail(SLUICE_UNSUPPORTED, "{}: {} {} is not known; the known ones are 0 to {}", label_,
                 name, value, count - 1);
        }
    }
    // The size of a fixed axis.
    int64_t fixed(const program_value& value, size_t axis) const;

  private:
    std::string operand_name(size_t index) const;
    [[noreturn]] void wrong(const std::string& operand, const std::string& expected,
                            const program_value& found) const;
    void check_rank(size_t index, int rank, std::string_view type) const;

    const program_contents& contents_;
    const program_operation& operation_;
    const std::string& label_;
};

// The rules, grouped as in operations.h; each looks at operations of its group only.
void check_dense(const operation_checker& check);
void check_attention(const operation_checker& check);
void check_experts(const operation_checker& check);
void check_movement(const operation_checker& check);
void check_elementwise(const operation_checker& check);
void check_last_axis(const operation_checker& check);

} // namespace sluice
