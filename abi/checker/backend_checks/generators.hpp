// Random cases of every operation: one small program each, with its inputs.
#pragma once

#include "runner.hpp"

#include "program/builder.hpp"

#include <functional>
#include <random>

namespace sluice::checker {

// What one case is drawn with.
struct draw {
    std::mt19937_64& random;
    sluice_element_type type; // of activations
    sluice_weight_format format;
    uint32_t number; // of the case: 0 has no rows where that is legal, 1 has one

    int64_t between(int64_t least, int64_t most) {
        return least + static_cast<int64_t>(random() % static_cast<uint64_t>(most - least + 1));
    }
    bool coin() { return (random() >> 20 & 1) != 0; }
    // Rows of the step, and rows that it is bound to.
    uint32_t rows() { return number < 2 ? number : static_cast<uint32_t>(between(2, 19)); }
};

struct generator {
    uint32_t kind;           // SLUICE_OP_*, the operation under test
    std::string_view name;   // "linear"
    bool uses_weight_format; // worth running with every format
    bool uses_type;          // worth running with every type of activations
    std::function<operation_case(draw&)> make;
    // Of caches that not every backend has: SLUICE_I8.
    sluice_element_type cache_type = SLUICE_ELEMENT_UNKNOWN;
};

std::vector<generator> dense_generators();
std::vector<generator> attention_generators();
std::vector<generator> expert_generators();
std::vector<generator> movement_generators();
std::vector<generator> elementwise_generators();
std::vector<generator> axis_generators();
std::vector<generator> all_generators();

// Builds a case: a program builder with the inputs given as they are declared.
class case_builder {
  public:
    // `rows` present ones; bound to a few more where `padded`.
    case_builder(draw& with, uint32_t rows, bool padded = true);

    program_builder& program() { return builder_; }
    draw& with() { return draw_; }
    uint32_t rows() const { return rows_; }       // present
    int64_t bound_rows() const { return bound_; } // bound

    // Random normal numbers.
    value_number floats(value_shape shape, sluice_element_type type = SLUICE_ELEMENT_UNKNOWN);
    value_number tensor(value_shape shape, host_tensor given);
    // i32 with these numbers; from `rows()` on (rows of width `width`) -1.
    value_number row_integers(value_shape shape, std::vector<int32_t> present);
    value_number weight(std::vector<int64_t> shape, float scale);
    // Vectors, as weights or as float tensors: backends take either.
    value_number vector(int64_t size, float offset = 0);
    value_number vector(std::vector<float> values);
    value_number vectors(int64_t count, int64_t size); // [count, size]

    // The shape's sizes as bound.
    std::vector<int64_t> sizes(const value_shape& shape) const;
    batch_step& step() { return step_; }

    operation_case finish(std::initializer_list<value_number> outputs);

  private:
    value_number add_weight(std::vector<int64_t> shape, const weight_case& weight);
    value_number add_vectors(const std::vector<int64_t>& shape, std::vector<float> values);

    draw& draw_;
    uint32_t rows_;
    int64_t bound_;
    program_builder builder_;
    batch_step step_;
    std::map<value_number, weight_case> weights_;
    uint32_t names_ = 0;
};

inline dimension tokens(uint32_t factor = 1) { return size::tokens(factor); }
inline dimension fixed(int64_t count) { return size::fixed(count); }

} // namespace sluice::checker
