// Sizes of a program's values: factor * extent + offset.
#pragma once

#include <sluice/abi/program.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sluice {

using dimension = sluice_dimension;
using value_shape = std::vector<dimension>;

// A size of an extent for each SLUICE_EXTENT_*; [0] is unused.
using extent_sizes = std::array<uint32_t, SLUICE_EXTENT_COUNT>;

namespace size {
constexpr dimension fixed(int64_t count) { return {SLUICE_EXTENT_NONE, 0, count}; }
constexpr dimension tokens(uint32_t factor = 1, int64_t offset = 0) {
    return {SLUICE_EXTENT_TOKENS, factor, offset};
}
constexpr dimension sequences(uint32_t factor = 1, int64_t offset = 0) {
    return {SLUICE_EXTENT_SEQUENCES, factor, offset};
}
constexpr dimension logits(uint32_t factor = 1, int64_t offset = 0) {
    return {SLUICE_EXTENT_LOGITS, factor, offset};
}
constexpr dimension blocks(uint32_t factor = 1, int64_t offset = 0) {
    return {SLUICE_EXTENT_BLOCKS, factor, offset};
}
} // namespace size

bool same(const dimension& left, const dimension& right);
bool same(std::span<const dimension> left, std::span<const dimension> right);
bool is_fixed(const dimension& size);
bool is_fixed(const dimension& size, int64_t value);

// The size under given extents. Fails when it is negative or over 2^48.
int64_t evaluate(const dimension& size, const extent_sizes& extents);
std::vector<int64_t> evaluate(std::span<const dimension> sizes, const extent_sizes& extents);

// size * factor and left + right. `add` fails with SLUICE_INVALID for two different extents.
dimension multiply(const dimension& size, int64_t factor);
dimension add(const dimension& left, const dimension& right);

// Whether two shapes hold the same number of elements under all extents.
bool same_element_count(std::span<const dimension> left, std::span<const dimension> right);

// NumPy's rule: axes aligned at the end, equal or one of them 1. Returns false when they do not
// fit.
bool broadcast(std::span<const dimension> left, std::span<const dimension> right,
               value_shape& result);

// "[T, 128]", "[16*B+1]".
std::string dimension_text(const dimension& size);
std::string dimensions_text(std::span<const dimension> sizes);

} // namespace sluice
