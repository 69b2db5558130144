// A program that owns all it holds: the runtime's form of sluice_program.
#pragma once

#include "program/dimension.hpp"

#include <sluice/abi/operations.h>
#include <sluice/abi/router.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sluice {

// The number of a value in its program.
using value_number = uint32_t;
inline constexpr value_number value_none = SLUICE_VALUE_NONE;

struct program_value {
    uint32_t kind = SLUICE_VALUE_RESULT;
    sluice_element_type element_type = SLUICE_ELEMENT_UNKNOWN; // of a weight and a state: unknown
    value_shape dimensions;                                    // empty for a state and a scalar
    uint32_t input = SLUICE_INPUT_CUSTOM;
    uint32_t group = 0;
    uint32_t state = 0;
    uint32_t weight_role = 0; // SLUICE_ROLE_* of all uses; 0: the weight is not used at all
    sluice_weight_format weight_format{};
    std::string name;
};

struct program_state {
    uint32_t kind = SLUICE_STATE_PAGED;
    uint32_t group = 0;
    uint32_t window = 0; // tokens; 0: all
    uint32_t tokens_per_block = 0;
    std::vector<uint32_t> part_width; // elements a token
    std::vector<sluice_element_type> part_type;
    std::vector<uint32_t> part_group; // of parts of type I8; empty where there are none
    std::string name;

    // 0 where elements share no scale.
    uint32_t group_of(size_t part) const { return part < part_group.size() ? part_group[part] : 0; }
    uint64_t bytes_per_token() const; // scales included, as backends keep them at least
};

// The attribute struct of an operation; monostate for kinds that have none.
using operation_attributes =
    std::variant<std::monostate, sluice_embed_attributes, sluice_rms_norm_attributes,
                 sluice_layer_norm_attributes, sluice_rope_attributes, sluice_activation_attributes,
                 sluice_kv_gather_attributes, sluice_attention_attributes,
                 sluice_mla_attention_attributes, sluice_routing_specification,
                 sluice_moe_ffn_attributes, sluice_transpose_attributes, sluice_axis_attributes,
                 sluice_unary_attributes, sluice_binary_attributes, sluice_fill_attributes,
                 sluice_reduce_attributes, sluice_accumulate_attributes, sluice_sample_attributes>;

struct program_operation {
    uint32_t kind = 0;
    operation_attributes attributes;
    std::vector<value_number> inputs;  // value_none for an absent operand
    std::vector<value_number> outputs; // value_none for an output that nobody wants
    uint32_t placement = 0;
    uint32_t flags = 0;
    std::string name;
    // Keeps the array that sluice_rope_attributes::table points to.
    std::shared_ptr<const std::vector<double>> table;
};

struct program_contents {
    std::string name;
    std::vector<program_value> values;
    std::vector<program_operation> operations;
    std::vector<program_state> states;
    std::vector<value_number> outputs;
};

// Checked on construction, immutable afterwards; a copy shares the contents. Safe to read from any
// number of threads.
class program {
  public:
    // Checks the contents as import_program does, computes the roles of the weights from their
    // uses, and fails with SLUICE_INVALID naming the operation that is wrong.
    explicit program(program_contents contents);

    const std::string& name() const { return contents_->name; }
    const std::vector<program_value>& values() const { return contents_->values; }
    const std::vector<program_operation>& operations() const { return contents_->operations; }
    const std::vector<program_state>& states() const { return contents_->states; }
    const std::vector<value_number>& outputs() const { return contents_->outputs; }
    const program_contents& contents() const { return *contents_; }

    const program_value& value(value_number number) const; // fails when out of range
    std::optional<value_number> find(std::string_view name) const;
    value_number at(std::string_view name) const; // fails with the nearest names

    // The same program as the ABI's structs; valid as long as any copy of this program.
    const sluice_program* view() const;

  private:
    struct program_view;
    std::shared_ptr<const program_contents> contents_;
    std::shared_ptr<const program_view> view_;
};

// Takes in a program that somebody else wrote (a plugin's sub-program), copying everything. Checks
// pointers, counts, the zero-tail rule, single assignment, order, types and shapes; fails with
// SLUICE_INVALID, or SLUICE_UNSUPPORTED for operations or attributes that this runtime does not
// know. `origin` begins every message ("router plugin softmax_top2, layer 3").
program import_program(const sluice_program& foreign, std::string_view origin);

} // namespace sluice
