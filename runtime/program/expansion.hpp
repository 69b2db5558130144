// What the expansions of the single composites share.
#pragma once

#include "program/builder.hpp"

#include <cmath>
#include <limits>

namespace sluice {

// One composite on its way into primitives. Values are named after the operation:
// "layers.3.attention/scores".
class expansion {
  public:
    expansion(program_builder& builder, const program_operation& operation)
        : build(builder), operation_(operation) {}

    program_builder& build;

    template <typename Attributes>
    const Attributes& attributes() const {
        return std::get<Attributes>(operation_.attributes);
    }
    bool has(size_t index) const { return in(index) != value_none; }
    value_number in(size_t index) const {
        return index < operation_.inputs.size() ? operation_.inputs[index] : value_none;
    }
    bool wants(size_t index) const {
        return index < operation_.outputs.size() && operation_.outputs[index] != value_none;
    }
    sluice_element_type type_in(size_t index) const { return build.value(in(index)).element_type; }
    sluice_element_type type_out(size_t index) const {
        return build.value(operation_.outputs[index]).element_type;
    }
    const value_shape& shape_in(size_t index) const { return build.dimensions(in(index)); }
    const value_shape& shape_out(size_t index) const {
        return build.dimensions(operation_.outputs[index]);
    }
    std::string name(const char* part) const { return operation_.name + "/" + part; }

    // Operand `index` as a f32 tensor, be it a weight or of another float type.
    value_number f32(size_t index, const char* part) {
        if (build.value(in(index)).kind == SLUICE_VALUE_WEIGHT) {
            return build.dequantize(name(part), in(index));
        }
        return f32_of(in(index), part);
    }
    value_number f32_of(value_number x, const char* part) { return cast(x, SLUICE_F32, part); }
    // The value itself where it has the type already.
    value_number cast(value_number x, sluice_element_type type, const char* part) {
        return build.value(x).element_type == type ? x : build.cast(name(part), x, type);
    }
    // A f32 constant that broadcasts against everything of the rank.
    value_number constant(const char* part, size_t rank, float value) {
        return build.fill(name(part), SLUICE_F32, value_shape(rank, size::fixed(1)), value);
    }
    value_number integer(const char* part, size_t rank, float value) {
        return build.fill(name(part), SLUICE_I32, value_shape(rank, size::fixed(1)), value);
    }

  private:
    const program_operation& operation_;
};

// The values that stand for the operation's results, in their order; value_none for unwanted ones.
std::vector<value_number> expand_gated_mlp(expansion& composite);
std::vector<value_number> expand_attention(expansion& composite);
std::vector<value_number> expand_mla_attention(expansion& composite);
std::vector<value_number> expand_route(expansion& composite);
std::vector<value_number> expand_moe_ffn(expansion& composite);
std::vector<value_number> expand_sample(expansion& composite);

// The batch operands of the attentions, by their first operand's index.
struct attended_rows {
    value_number position;        // i32 [T]
    value_number sequence_of_row; // i32 [T]
    value_number kv_length;       // i32 [S]
    value_number block_table;     // i32 [S, B]
};
attended_rows attended_rows_of(const expansion& composite, size_t first);

// Whether row t may look at place j, as BOOL [T, P]; window 0: all.
value_number attended_places(expansion& composite, const attended_rows& rows,
                             const dimension& places, uint32_t window);

// How often each of `expert_count` experts is named in index i32 [T, k], as i32 [E].
value_number count_choices(program_builder& builder, const std::string& prefix, value_number index,
                           uint32_t expert_count);

} // namespace sluice
