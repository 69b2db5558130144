// Builds programs operation by operation. Each method checks its operands, computes the shapes of
// its results and returns their numbers; it fails with SLUICE_INVALID and names the operation.
//
// The first argument names the operation and its first result ("layers.3.attention"); a name that
// is taken gets "#2", "#3" ... appended. Results that a method returns in a struct are named with a
// suffix (".sum", ".index", ...).
#pragma once

#include "program/program.hpp"

#include <span>
#include <string>
#include <unordered_map>

namespace sluice {

struct norm_results {
    value_number normed;
    value_number sum; // value_none when it was not asked for
};

struct route_operands {
    value_number logits;
    value_number choice_bias = value_none;
    value_number per_expert_scale = value_none;
    value_number position = value_none;
    value_number token_ids = value_none;
    value_number table = value_none;
};

struct route_results {
    value_number index;
    value_number weight;
    value_number count;
    value_number dropped;
};

struct moe_operands {
    value_number x;
    value_number index;
    value_number weight;
    value_number expert_map = value_none;
    value_number gate;
    value_number up = value_none;
    value_number down;
    value_number gate_bias = value_none;
    value_number up_bias = value_none;
    value_number down_bias = value_none;
};

struct attention_operands {
    value_number q;
    value_number state;
    value_number sinks = value_none;
};

struct group_results {
    value_number row;
    value_number choice;
    value_number place;
    value_number offset;
};

struct topk_results {
    value_number value;
    value_number index;
};

struct sample_results {
    value_number token;
    value_number log_probability;
};

class program_builder {
  public:
    explicit program_builder(std::string name);
    // Goes on from a program: its values keep their numbers and there are no operations yet; append
    // the old ones with append(). For transformations.
    explicit program_builder(const program& base);

    // ---- Values ----
    // A batch input (SLUICE_INPUT_TOKEN_IDS ...) of the group; the same call gives the same value.
    value_number batch_input(uint32_t input, uint32_t group = 0);
    value_number custom_input(const std::string& name, sluice_element_type type,
                              value_shape dimensions);
    // The same name gives the same value; shape and format must then agree.
    value_number weight(const std::string& name, std::span<const int64_t> dimensions,
                        const sluice_weight_format& format);
    value_number state(program_state description); // the state before any write

    // ---- Dense layers ----
    value_number embed(const std::string& name, value_number ids, value_number weight,
                       sluice_element_type type, float scale = 1.0f);
    // Without an addend there is no sum. The sum has the type of x.
    norm_results rms_norm(const std::string& name, value_number x, value_number weight,
                          value_number addend, sluice_rms_norm_attributes attributes,
                          sluice_element_type type, bool wants_sum = true);
    value_number layer_norm(const std::string& name, value_number x, value_number weight,
                            value_number bias, float epsilon, sluice_element_type type);
    value_number linear(const std::string& name, value_number x, value_number weight,
                        value_number bias, sluice_element_type type);
    value_number rope(const std::string& name, value_number x, value_number position,
                      sluice_rope_attributes attributes,
                      std::shared_ptr<const std::vector<double>> table = nullptr);
    value_number activation(const std::string& name, value_number x,
                            sluice_activation_attributes attributes);
    value_number gated_activation(const std::string& name, value_number gate, value_number up,
                                  sluice_activation_attributes attributes);
    value_number gated_mlp(const std::string& name, value_number x, value_number gate,
                           value_number up, value_number down,
                           sluice_activation_attributes attributes, sluice_element_type type);

    // ---- Caches and attention; the batch inputs of the state's group are added by themselves ----
    value_number kv_write(const std::string& name, value_number state,
                          std::span<const value_number> parts);
    value_number kv_gather(const std::string& name, value_number state, value_number block_table,
                           uint32_t part, sluice_element_type type);
    value_number attention(const std::string& name, const attention_operands& operands,
                           sluice_attention_attributes attributes, sluice_element_type type);
    value_number mla_attention(const std::string& name, value_number q_nope, value_number q_pe,
                               value_number state, value_number key_up, value_number value_up,
                               sluice_mla_attention_attributes attributes,
                               sluice_element_type type);

    // ---- Experts ----
    // flags: SLUICE_OPERATION_HOST_FUNCTION or 0. A host function always counts what it drops.
    route_results route(const std::string& name, const route_operands& operands,
                        const sluice_routing_specification& specification, uint32_t flags = 0);
    value_number moe_ffn(const std::string& name, const moe_operands& operands,
                         sluice_moe_ffn_attributes attributes, sluice_element_type type);
    group_results group_rows(const std::string& name, value_number index, value_number expert_map,
                             uint32_t local_expert_count);
    value_number grouped_linear(const std::string& name, value_number x, value_number offset,
                                value_number weight, value_number bias, sluice_element_type type);
    value_number combine_rows(const std::string& name, value_number y, value_number place,
                              value_number weight, sluice_element_type type);

    // ---- Data movement ----
    value_number gather_rows(const std::string& name, value_number x, value_number rows);
    value_number gather(const std::string& name, value_number x, value_number index);
    value_number scatter_add(const std::string& name, value_number base, value_number rows,
                             value_number x);
    value_number reshape(const std::string& name, value_number x, value_shape dimensions);
    value_number transpose(const std::string& name, value_number x,
                           std::span<const uint32_t> order);
    value_number slice(const std::string& name, value_number x, uint32_t axis, int64_t begin,
                       dimension size);
    value_number concat(const std::string& name, std::span<const value_number> parts,
                        uint32_t axis);
    value_number cast(const std::string& name, value_number x, sluice_element_type type);
    value_number copy(const std::string& name, value_number x);
    value_number dequantize(const std::string& name, value_number weight,
                            sluice_element_type type = SLUICE_F32);

    // ---- Elementwise ----
    value_number unary(const std::string& name, uint32_t function, value_number x, float a = 0,
                       float b = 0);
    value_number binary(const std::string& name, uint32_t function, value_number x, value_number y);
    value_number select(const std::string& name, value_number condition, value_number x,
                        value_number y);
    value_number fill(const std::string& name, sluice_element_type type, value_shape dimensions,
                      float value);
    value_number iota(const std::string& name, value_shape dimensions);

    // ---- Along the last axis ----
    value_number softmax(const std::string& name, value_number x);
    value_number reduce(const std::string& name, uint32_t function, value_number x);
    topk_results topk(const std::string& name, value_number x, int64_t count);
    value_number cumsum(const std::string& name, value_number x);
    value_number matmul(const std::string& name, value_number x, value_number y,
                        sluice_element_type type = SLUICE_F32);

    // ---- The next token of each row of logits ----
    sample_results sample(const std::string& name, value_number logits,
                          uint32_t method = SLUICE_SAMPLE_GREEDY);

    // ---- Statistics: return the new sum (or maximum) and rows ----
    struct accumulate_results {
        value_number sum;
        value_number rows;
    };
    accumulate_results accumulate_gram(const std::string& name, value_number x, value_number index,
                                       value_number sum, value_number rows, uint32_t expert);
    accumulate_results accumulate_abs_max(const std::string& name, value_number x,
                                          value_number index, value_number maximum,
                                          value_number rows, uint32_t expert);

    // ---- The whole ----
    void output(value_number value); // appends to the program's outputs
    // The placement of what the methods above add from now on; append() keeps the operation's own.
    void place(uint32_t placement) { placement_ = placement; }
    const program_value& value(value_number number) const;
    const value_shape& dimensions(value_number number) const { return value(number).dimensions; }
    // A result that an operation given to append() will write.
    value_number result(const std::string& name, sluice_element_type type, value_shape dimensions);
    // The state after a write that append() will add.
    value_number state_after(value_number before, const std::string& name);
    // An operation over values that are there, as it is.
    void append(program_operation operation);
    // `from`, the result of an operation added here, is written to the base's value `to` instead.
    // That is how an expansion writes the values that the expanded operation wrote. A value that
    // is no result of the expansion, or stands for another one already, is copied.
    void redirect(value_number from, value_number to);
    size_t operation_count() const { return contents_.operations.size(); }
    program finish();

  private:
    value_number new_value(program_value value);
    void add(uint32_t kind, const std::string& name, operation_attributes attributes,
             std::vector<value_number> inputs, std::vector<value_number> outputs,
             uint32_t flags = 0);
    std::vector<value_number> batch_operands(value_number state);
    accumulate_results accumulate(uint32_t kind, const std::string& name,
                                  std::vector<value_number> inputs, uint32_t expert);
    std::string unique_name(const std::string& name) const;

    program_contents contents_;
    uint32_t placement_ = 0;
    size_t base_count_ = 0; // values of the base program; later ones may be dropped by finish()
    std::unordered_map<std::string, value_number> names_;
    std::vector<value_number> stand_in_; // of each value that redirect() replaced; else none
};

} // namespace sluice
