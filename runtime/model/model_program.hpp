// From a model's configuration to its program and the weights the program wants.
//
// Inputs are the batch's; outputs "logits" f32 [L, V], what greedy sampling makes of them
// ("sample.token" i32 [L], "sample.log_probability" f32 [L]), and for each sparse layer N
// "layers.N.route.count" i32 [E] (and ".dropped" i32 [1] where capacity is limited). The residual
// stream is f32; norm outputs, projections and activations have the compute type.
#pragma once

#include "model/model_config.hpp"
#include "program/program.hpp"
#include "program/route_inline.hpp"

#include <functional>
#include <string>
#include <vector>

namespace sluice {

// Rows of one stored matrix that become rows of a weight.
struct weight_slice_request {
    std::string tensor;         // "model.layers.0.self_attn.q_proj.weight"
    uint32_t matrix = 0;        // which matrix, where the tensor is a stack [E, N, K]
    int64_t stored_rows = 0;    // what the tensor (one matrix of it) must hold
    int64_t stored_columns = 0; // 0: a vector
    int64_t row_begin = 0;
    int64_t row_count = 0;
    int64_t row_step = 1;
    int64_t column_begin = 0;
    bool stored_transposed = false; // the tensor holds [K, N]
    uint32_t stack_size = 0;        // matrices in the tensor; 0: it is a plain matrix or vector
};

// What a weight value of the program is made of: `matrix_count` matrices [row_count, column_count],
// each of slices.size() / matrix_count slices one below the other.
struct weight_request {
    value_number value = value_none; // in the program as built, and after decompose()
    std::string name;                // of the value; transformations keep it
    uint32_t matrix_count = 1;
    int64_t row_count = 0;
    int64_t column_count = 1; // 1 for a vector
    bool stacked = false;     // the value has a leading axis of matrices
    // Of a part of a stack: matrices of the whole one in the checkpoint; 0: it is whole.
    uint32_t stored_matrix_count = 0;
    std::vector<weight_slice_request> slices;
};

// The format a tensor is stored in. Asked once for each weight value, with its first tensor.
using weight_format_function = std::function<sluice_weight_format(const std::string& tensor)>;
// Answers for a layer's router. Not set: the model's own specification.
using router_function = std::function<router_answer(const sluice_router_request& request)>;

struct model_program_options {
    sluice_element_type compute_type = SLUICE_F32; // or BF16
    sluice_element_type cache_type = SLUICE_F32;   // or BF16, F16, I8
    uint32_t tokens_per_block = 16;
    uint32_t mla_form = SLUICE_MLA_FORM_ANY;
    // Layers with a sliding window get a cache group of their own (number 1, PAGED_WINDOW), so that
    // the pool can drop their old blocks; else everything is in group 0 and the window only masks.
    bool separate_window_group = false;
    weight_format_function weight_format; // not set: row-major elements of the configuration's type
    router_function router;
};

struct routed_layer {
    uint32_t layer = 0;
    value_number count = value_none;
    value_number dropped = value_none; // value_none where capacity is unlimited
};

// Greedy sampling of all rows of the logits; value_none where that is left to the host.
struct sampled_values {
    value_number token = value_none;           // i32 [L], -1 where no logit is finite
    value_number log_probability = value_none; // f32 [L]
};

struct model_program {
    program step;
    std::vector<weight_request> weights; // one for each weight value, by rising value number
    value_number logits = value_none;
    sampled_values sampled;
    std::vector<routed_layer> routed_layers;
    uint32_t cache_group_count = 1;
};

model_program build_model_program(const model_config& config, const model_program_options& options);

// The program whose tokens the host samples: without the last operation, `sample`, and its results.
// The other values keep their numbers.
program without_sampling(const program& step);

// ---- Accounting, for `sluice inspect` ----

struct type_bytes {
    std::string type; // "bf16", "u4 in groups of 64"
    uint64_t parameter_count = 0;
    uint64_t size_bytes = 0; // with scales and zero points
};

struct parameter_account {
    uint64_t parameter_count = 0;
    uint64_t active_parameter_count = 0; // that one token uses: k of E experts, one embedding row
    uint64_t size_bytes = 0;
    uint64_t bytes_per_token = 0;       // weights read to decode one token of one sequence
    uint64_t cache_bytes_per_token = 0; // a token's place in all caches
    std::vector<type_bytes> types;
};

parameter_account account_parameters(const model_config& config, const model_program& model);

// Weights that a step of `rows` tokens of different sequences reads, on average where every expert
// is chosen equally often.
double step_bytes(const model_config& config, const model_program& model, uint32_t rows);

// Bytes of a matrix [rows, columns] in a format, scales and zero points included.
uint64_t weight_bytes(const sluice_weight_format& format, int64_t rows, int64_t columns);

} // namespace sluice
