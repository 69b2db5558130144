// Which form of a product a step launches.
#pragma once

#include "step.hpp"

#include "../kernels/product_few.hpp"

namespace sluice::cuda {

// Rows of a dense product up to which reading the weights is what takes time.
inline constexpr int32_t few_rows = 64;
// Of experts, the mean number of rows of one.
inline constexpr int32_t few_rows_of_expert = 16;
// Choices up to which experts are read for each choice, without sorting: few choose the same.
inline constexpr int64_t few_choices = 64;

// Whether kernels may start while the one before still runs: their code for 9.0 knows of it.
inline bool overlaps_kernels(const bound& owner) {
    return owner.card().properties().code_capability >= 90;
}

// Whether the step that is being made may start while what comes before it still runs.
inline bool may_start_early(const bound& owner) {
    return owner.follows_kernel() && overlaps_kernels(owner);
}

// The product of operation `linear`, without its bias.
product_call linear_call(const bound& owner, const plugin::operation& operation);

// The routing of operation `route`, without scratch memory.
route_call route_call_of(const bound& owner, const plugin::operation& operation);

// The norm of operation `norm`, over whole rows.
few_norm few_norm_of(const bound& owner, const plugin::operation& norm);
// Whether the norm, the first product and the routing are one launch.
bool runs_in_one_launch(const bound& owner, const normed_product& found);

inline few_call few_call_of(const bound& owner, const product_call& product) {
    few_call few;
    few.product = product;
    few.multiprocessor_count = owner.card().properties().multiprocessor_count;
    few.shared_bytes_max = owner.card().properties().shared_bytes_per_block;
    return few;
}

// How a product is launched, settled when its step is made.
struct product_choice {
    enum class product_form { few, many, plain, library } form = product_form::plain;
    int32_t warps = 0;                                 // few: of a block
    operand_copies copies = operand_copies::automatic; // many
    int32_t algorithm = 0; // library: of the shape's, which matmul_library counts
};

// Where the rows of x lie: as they are multiplied, or sorted by expert, or gathered by expert from
// where each stands once for all of its choices.
enum class row_order { dense, sorted, gathered };

// The fastest way as measured, or by rule where nothing is (tuning.hpp). choice_count: experts of
// a row, where rows have experts; `offset` and `row` need not be there yet. `may_use_library`:
// cuBLASLt may be chosen, for which multiply() is no way to launch it.
product_choice choose_product(const bound& owner, const product_call& call,
                              row_order order = row_order::dense, int32_t choice_count = 1,
                              bool may_use_library = false);
// Warps of a block for a call that fits_product_few.
int32_t choose_few_warps(const bound& owner, const few_call& call);
// Parts of a choice for a call that fits_product_few_combine.
int32_t choose_few_combine_parts(const bound& owner, const few_combine_call& call);

// `follows_kernel`: what comes before in the stream is a kernel, whose end need not be awaited to
// start.
inline void multiply(const bound& owner, const product_call& call, const product_choice& choice,
                     bool follows_kernel, cudaStream_t stream) {
    using form = product_choice::product_form;
    if (choice.form == form::few) {
        few_call few = few_call_of(owner, call);
        few.programmatic = follows_kernel && overlaps_kernels(owner);
        few.warps = choice.warps;
        launch_product_few(few, stream);
    } else if (choice.form == form::many) {
        product_call many = call;
        many.copies = choice.copies;
        launch_product_many(many, owner.card().is_hopper(),
                            owner.card().properties().multiprocessor_count, stream);
    } else {
        launch_product_plain(call, stream);
    }
    check(cudaGetLastError(), "multiplying by a weight");
}

} // namespace sluice::cuda
