// What the tests of the matrix kernels share.
#pragma once

#include "cpu_features.hpp"
#include "packed_matrix.hpp"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace sluice::kernels::test {

struct aligned_free {
    void operator()(std::byte* p) const { std::free(p); }
};
using buffer = std::unique_ptr<std::byte[], aligned_free>;

// Filled with ones, which are NaN in every float type, so that a read of what nobody wrote shows.
inline buffer make_buffer(std::int64_t bytes) {
    const auto size = static_cast<std::size_t>((bytes + 63) / 64 * 64 + 64);
    buffer result(static_cast<std::byte*>(std::aligned_alloc(64, size)));
    std::memset(result.get(), 0xff, size);
    return result;
}

// All sets up to `limit` that the processor has.
inline std::vector<instruction_set> sets_here(instruction_set limit) {
    std::vector<instruction_set> sets;
    const auto highest = highest_instruction_set(detect_cpu_features(), limit);
    for (const auto set : {instruction_set::plain, instruction_set::avx2, instruction_set::avx512,
                           instruction_set::avx512_bf16})
        if (set <= highest) sets.push_back(set);
    return sets;
}

struct weights {
    packed_layout layout;
    buffer packed;
    std::vector<float> values; // [N, K], exactly what is packed

    packed_matrix_view view() const { return {layout, packed.get()}; }
};

} // namespace sluice::kernels::test
