// Which of the three forms of a product a step launches.
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

// Whether kernels may start while the one before still runs.
inline bool overlaps_kernels(const bound& owner) {
    return owner.card().properties().compute_capability >= 90;
}

// The product of operation `linear`, without its bias.
product_call linear_call(const bound& owner, const plugin::operation& operation);

// The routing of operation `route`, without scratch memory.
route_call route_call_of(const bound& owner, const plugin::operation& operation);

inline few_call few_call_of(const bound& owner, const product_call& product) {
    few_call few;
    few.product = product;
    few.multiprocessor_count = owner.card().properties().multiprocessor_count;
    few.shared_bytes_max = owner.card().properties().shared_bytes_per_block;
    return few;
}

// `follows_kernel`: what comes before in the stream is a kernel, whose end need not be awaited to
// start.
inline void multiply(const bound& owner, const product_call& call, bool follows_kernel,
                     cudaStream_t stream) {
    few_call few = few_call_of(owner, call);
    few.programmatic = follows_kernel && overlaps_kernels(owner);
    const int64_t few_places =
        call.offset == nullptr ? few_rows : int64_t{few_rows_of_expert} * call.weight.matrices;
    if (call.places <= few_places && fits_product_few(few)) {
        launch_product_few(few, stream);
    } else if (fits_product_many(call)) {
        launch_product_many(call, owner.card().is_hopper(), few.multiprocessor_count, stream);
    } else {
        launch_product_plain(call, stream);
    }
    check(cudaGetLastError(), "multiplying by a weight");
}

} // namespace sluice::cuda
