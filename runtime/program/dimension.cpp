#include "program/dimension.hpp"

#include "base/error.hpp"

#include <map>

namespace sluice {

namespace {

constexpr int64_t size_max = int64_t(1) << 48;

// Wide enough for products of sizes; an extension of the compilers that this builds with.
__extension__ using wide = __int128;
__extension__ using wide_unsigned = unsigned __int128;

// A polynomial in the extents: for each monomial (its exponents) the coefficient. A shape's element
// count is one, so that [T, 2, 64] and [2*T, 64] are seen to be equal. 128-bit coefficients hold
// the product of six sizes only in part, so they are kept modulo 2^128, which is enough for
// equality of sane shapes.
using monomial = std::array<uint8_t, SLUICE_EXTENT_COUNT>;
using polynomial = std::map<monomial, wide_unsigned>;

polynomial element_polynomial(std::span<const dimension> sizes) {
    polynomial product{{monomial{}, 1}};
    for (const dimension& size : sizes) {
        polynomial next;
        for (const auto& [exponents, coefficient] : product) {
            next[exponents] += coefficient * static_cast<wide_unsigned>(size.offset);
            if (size.extent == SLUICE_EXTENT_NONE) continue;
            monomial raised = exponents;
            ++raised.at(size.extent);
            next[raised] += coefficient * size.factor;
        }
        product = std::move(next);
    }
    std::erase_if(product, [](const auto& term) { return term.second == 0; });
    return product;
}

const char* extent_letter(uint32_t extent) {
    constexpr const char* letters[SLUICE_EXTENT_COUNT] = {"", "T", "S", "L", "B"};
    return extent < SLUICE_EXTENT_COUNT ? letters[extent] : "?";
}

} // namespace

bool same(const dimension& left, const dimension& right) {
    return left.extent == right.extent && left.offset == right.offset
           && (left.extent == SLUICE_EXTENT_NONE || left.factor == right.factor);
}

bool same(std::span<const dimension> left, std::span<const dimension> right) {
    if (left.size() != right.size()) return false;
    for (size_t axis = 0; axis < left.size(); ++axis) {
        if (!same(left[axis], right[axis])) return false;
    }
    return true;
}

bool is_fixed(const dimension& size) { return size.extent == SLUICE_EXTENT_NONE; }

bool is_fixed(const dimension& size, int64_t value) {
    return is_fixed(size) && size.offset == value;
}

int64_t evaluate(const dimension& size, const extent_sizes& extents) {
    if (size.extent >= SLUICE_EXTENT_COUNT) {
        fail(SLUICE_INVALID, "a size names extent {}; there are {}", size.extent,
             SLUICE_EXTENT_COUNT - 1);
    }
    wide value = size.offset;
    if (size.extent != SLUICE_EXTENT_NONE) {
        value += static_cast<wide>(size.factor) * extents[size.extent];
    }
    if (value < 0 || value > size_max) {
        fail(SLUICE_INVALID, "the size {} is out of range where {} is {}", dimension_text(size),
             extent_letter(size.extent), extents[size.extent]);
    }
    return static_cast<int64_t>(value);
}

std::vector<int64_t> evaluate(std::span<const dimension> sizes, const extent_sizes& extents) {
    std::vector<int64_t> values;
    values.reserve(sizes.size());
    for (const dimension& size : sizes) values.push_back(evaluate(size, extents));
    return values;
}

dimension multiply(const dimension& size, int64_t factor) {
    const wide offset = static_cast<wide>(size.offset) * factor;
    const wide scaled = static_cast<wide>(size.factor) * factor;
    const bool extent_fits = size.extent == SLUICE_EXTENT_NONE || scaled <= UINT32_MAX;
    if (factor < 1 || offset > size_max || offset < -size_max || !extent_fits) {
        fail(SLUICE_INVALID, "the size {} times {} is out of range", dimension_text(size), factor);
    }
    const bool is_constant = size.extent == SLUICE_EXTENT_NONE;
    return {size.extent, is_constant ? 0 : static_cast<uint32_t>(scaled),
            static_cast<int64_t>(offset)};
}

dimension add(const dimension& left, const dimension& right) {
    if (left.extent != SLUICE_EXTENT_NONE && right.extent != SLUICE_EXTENT_NONE
        && left.extent != right.extent) {
        fail(SLUICE_INVALID, "the sum of the sizes {} and {} is no size", dimension_text(left),
             dimension_text(right));
    }
    const uint64_t left_factor = left.extent == SLUICE_EXTENT_NONE ? 0 : left.factor;
    const uint64_t right_factor = right.extent == SLUICE_EXTENT_NONE ? 0 : right.factor;
    const wide offset = static_cast<wide>(left.offset) + right.offset;
    if (left_factor + right_factor > UINT32_MAX || offset > size_max || offset < -size_max) {
        fail(SLUICE_INVALID, "the sum of the sizes {} and {} is out of range", dimension_text(left),
             dimension_text(right));
    }
    return {left.extent != SLUICE_EXTENT_NONE ? left.extent : right.extent,
            static_cast<uint32_t>(left_factor + right_factor), static_cast<int64_t>(offset)};
}

bool same_element_count(std::span<const dimension> left, std::span<const dimension> right) {
    return element_polynomial(left) == element_polynomial(right);
}

bool broadcast(std::span<const dimension> left, std::span<const dimension> right,
               value_shape& result) {
    const size_t rank = std::max(left.size(), right.size());
    result.assign(rank, size::fixed(1));
    for (size_t back = 1; back <= rank; ++back) {
        const dimension a = back <= left.size() ? left[left.size() - back] : size::fixed(1);
        const dimension b = back <= right.size() ? right[right.size() - back] : size::fixed(1);
        if (!same(a, b) && !is_fixed(a, 1) && !is_fixed(b, 1)) return false;
        result[rank - back] = is_fixed(a, 1) ? b : a;
    }
    return true;
}

std::string dimension_text(const dimension& size) {
    if (size.extent == SLUICE_EXTENT_NONE) return fmt::format("{}", size.offset);
    std::string text = size.factor == 1
                           ? extent_letter(size.extent)
                           : fmt::format("{}*{}", size.factor, extent_letter(size.extent));
    if (size.offset > 0) text += fmt::format("+{}", size.offset);
    if (size.offset < 0) text += fmt::format("{}", size.offset);
    return text;
}

std::string dimensions_text(std::span<const dimension> sizes) {
    std::string text = "[";
    for (size_t axis = 0; axis < sizes.size(); ++axis) {
        if (axis != 0) text += ", ";
        text += dimension_text(sizes[axis]);
    }
    return text + "]";
}

} // namespace sluice
