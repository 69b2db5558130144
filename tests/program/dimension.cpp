// Sizes that depend on extents.
#include "program/dimension.hpp"
#include "../base/error_check.hpp"

namespace sluice {

namespace {

const extent_sizes extents = {0, 7, 3, 2, 5};

} // namespace

TEST_CASE("a size is its factor times the extent plus the offset") {
    CHECK(evaluate(size::fixed(12), extents) == 12);
    CHECK(evaluate(size::tokens(4, 1), extents) == 29);
    CHECK(evaluate(size::blocks(16, -2), extents) == 78);
    const value_shape shape = {size::sequences(), size::blocks(16), size::fixed(64)};
    CHECK(evaluate(shape, extents) == std::vector<int64_t>{3, 80, 64});
    CHECK(dimensions_text(shape) == "[S, 16*B, 64]");
    CHECK(dimension_text(size::tokens(2, -1)) == "2*T-1");
    test::check_error([] { evaluate(size::tokens(1, -8), extents); }, SLUICE_INVALID, {"T-8"});
}

TEST_CASE("sums and products of sizes stay sizes") {
    CHECK(same(multiply(size::tokens(2, 1), 3), size::tokens(6, 3)));
    CHECK(same(add(size::tokens(2, 1), size::fixed(4)), size::tokens(2, 5)));
    CHECK(same(add(size::tokens(), size::tokens(2)), size::tokens(3)));
    test::check_error([] { add(size::tokens(), size::blocks()); }, SLUICE_INVALID, {"T", "B"});
    test::check_error([] { multiply(size::tokens(1u << 31), 2); }, SLUICE_INVALID, {});
}

TEST_CASE("shapes of the same element count are found whatever the extents") {
    const value_shape heads = {size::tokens(), size::fixed(4), size::fixed(32)};
    const value_shape flat = {size::tokens(), size::fixed(128)};
    const value_shape joined = {size::tokens(128)};
    const value_shape other = {size::sequences(), size::fixed(128)};
    CHECK(same_element_count(heads, flat));
    CHECK(same_element_count(heads, joined));
    CHECK_FALSE(same_element_count(heads, other));
    // (T + 1) * 2 is 2 T + 2, and not 2 T.
    const value_shape one_more = {size::tokens(1, 1), size::fixed(2)};
    const value_shape two_more = {size::tokens(2, 2)};
    const value_shape none_more = {size::tokens(2)};
    CHECK(same_element_count(one_more, two_more));
    CHECK_FALSE(same_element_count(one_more, none_more));
}

TEST_CASE("shapes broadcast from their ends") {
    value_shape result;
    const value_shape column = {size::tokens(), size::fixed(1)};
    const value_shape row = {size::blocks(16)};
    REQUIRE(broadcast(column, row, result));
    CHECK(dimensions_text(result) == "[T, 16*B]");
    const value_shape wide = {size::fixed(3)};
    CHECK_FALSE(broadcast(row, wide, result));
}

} // namespace sluice
