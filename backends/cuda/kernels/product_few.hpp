// Products for few rows, bound by reading the weights: each weight travels from memory to the
// matrix units once for eight rows or fewer, straight through registers, without a copy in shared
// memory.
#pragma once

#include "product.hpp"
#include "route.hpp"

#include <vector>

namespace sluice::cuda {

// An rms_norm over whole rows that makes x: u = residual + addend,
//   x = u / sqrt(mean(u^2) + epsilon) * (weight + weight_offset), rounded to x_type.
// Every block reads residual and addend while others write sum, normed and y: none of these may lie
// where those do.
struct few_norm {
    const void* residual = nullptr; // [places, columns]; NULL: there is no norm, and x is given
    uint32_t residual_type = 0;
    const void* addend = nullptr; // [places, columns], or NULL
    uint32_t addend_type = 0;
    const float* weight = nullptr; // [columns]
    float epsilon = 0;
    float weight_offset = 0;
    void* sum = nullptr; // [places, columns]: u, or NULL
    uint32_t sum_type = 0;
    void* normed = nullptr; // [places, columns] of x_type: x, for others that want it, or NULL
};
inline constexpr int few_norm_rows = 8;
inline constexpr int64_t few_norm_columns = 8192; // half as many where gate and up are two streams

// One more product of the same x: its weight is of the same form and has as many columns.
struct few_part {
    weight_view weight;
    const float* bias = nullptr; // [rows of weight], or NULL
    void* y = nullptr;           // [places, rows of weight]
    uint32_t y_type = 0;
};
inline constexpr int few_parts_more = 2;

// Which rows a matrix multiplies:
//   dense      product.offset and index are NULL: one matrix, places 0 to places - 1.
//   by choice  index is given: place c is a choice. It multiplies row c / choice_count of x by the
//              matrix that map[index[c]] names (or index[c]); a choice without a matrix writes
//              nothing. Nothing need be sorted, but a matrix is read for each of its choices.
//   by place   product.offset (and row) are given: as product.hpp says. Places that no matrix owns
//              are not written.
struct few_call {
    product_call product;
    few_norm norm;                 // dense, up to few_norm_rows rows
    few_part more[few_parts_more]; // behind a norm, without gating
    int32_t more_count = 0;
    const int32_t* index = nullptr; // [places]
    int32_t choice_count = 1;
    const int32_t* map = nullptr; // [map_size], or NULL
    int32_t map_size = 0;
    int32_t multiprocessor_count = 0;
    int32_t shared_bytes_max = 0; // that a block may have; 0: what every card has
    int32_t warps = 0; // of a block, which share the columns; 0: as many as get four units of 64
    // Start while the kernel before still runs: weights are asked for before its results are there.
    // From compute capability 9.0 on.
    bool programmatic = false;
    // programmatic: what it reads was there before the kernel before started, whose end only the
    // kernels behind this one need (dense).
    bool reads_earlier = false;
    bool clusters = false; // blocks may form clusters: compute capability 9.0 and its code
};

// x of a half type (y of any float type); weights of the same type, or int4 tiles with scales of a
// half type, or int8 tiles; columns a multiple of 64, rows of 16.
bool fits_product_few(const few_call& call);
void launch_product_few(const few_call& call, cudaStream_t stream);
// Numbers of warps that make a difference; the first is that of `warps` = 0.
std::vector<int32_t> few_warp_counts(const few_call& call);

// The router's product and the routing in one launch: the block that ends last routes. few.product
// is dense, of float weights of up to few_norm_columns columns, without gating, with y float32: the
// logits, which route.logits names. Experts are spread over many blocks, and all that a warp reads
// of its expert's row is on the way before x is there.
// `ticket`: one number that is 0 before the first launch, and again after each.
bool fits_router_few(const few_call& few, const route_call& route);
void launch_router_few(const few_call& few, const route_call& route, int32_t* ticket,
                       cudaStream_t stream);

// The second product of experts with its sum, by choice:
//   y[t] = sum over j in rising order of weight[t, j] * (W[m] x[t * choice_count + j] + bias[m])
//          + addend[t] + shared shared_x[t]
// with m as above; choices without a matrix add nothing, or with identity_from > 0 and an index of
// at least that, weight[t, j] * identity_x[t].
struct few_combine_call {
    const void* x = nullptr;        // [rows * choice_count, columns]
    uint32_t x_type = 0;            // BF16 or F16
    const int32_t* index = nullptr; // [rows, choice_count]
    const float* weight = nullptr;  // [rows, choice_count]; NULL: all 1
    int32_t rows = 0;
    int32_t choice_count = 0;
    const int32_t* map = nullptr;
    int32_t map_size = 0;
    weight_view matrix;
    const float* bias = nullptr; // [matrices, rows of matrix]
    int32_t identity_from = 0;
    const float* identity_weight = nullptr; // [rows, choice_count]
    const void* identity_x = nullptr;       // [rows, rows of matrix]
    uint32_t identity_type = 0;
    const void* addend = nullptr; // [rows, rows of matrix], or NULL
    uint32_t addend_type = 0;
    // One matrix of the same form and with as many rows, read for each row; without data there is
    // none.
    weight_view shared;
    const void* shared_x = nullptr; // [rows, columns of shared] of x_type
    void* y = nullptr;              // [rows, rows of matrix]
    uint32_t y_type = 0;
    int32_t parts = 0; // that a choice's columns are cut into, one for a warp; 0: by rule
    // As above; then index must have been there before the kernel that writes x started.
    bool programmatic = false;
};
bool fits_product_few_combine(const few_combine_call& call);
void launch_product_few_combine(const few_combine_call& call, cudaStream_t stream);
// Values of `parts` that make a difference; the first is the rule's.
std::vector<int32_t> few_combine_part_counts(const few_combine_call& call);

} // namespace sluice::cuda
