#include "engine/loaded_model.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace sluice;

TEST_CASE("a size is padded to the next one of its ladder") {
    for (uint32_t size_max = 1; size_max <= 300; ++size_max) {
        const std::vector<uint32_t> sizes = size_ladder(size_max);
        CHECK(std::is_sorted(sizes.begin(), sizes.end()));
        for (uint32_t size = 0; size <= size_max; ++size) {
            const auto expected = std::lower_bound(sizes.begin(), sizes.end(), size);
            if (size_on_ladder(size, size_max) == *expected) continue;
            CAPTURE(size);
            CAPTURE(size_max);
            CHECK(size_on_ladder(size, size_max) == *expected);
        }
    }
    CHECK(size_on_ladder(33, 4096) == 48);
    CHECK(size_on_ladder(70000, 65536) == 65536);
}

TEST_CASE("columns of block tables come in few sizes") {
    CHECK(column_ladder(1) == std::vector<uint32_t>{1});
    CHECK(column_ladder(64) == std::vector<uint32_t>{64});
    CHECK(column_ladder(2560) == std::vector<uint32_t>{64, 256, 1024, 2560});
    for (const uint32_t count_max : {1u, 16u, 64u, 65u, 2560u}) {
        const std::vector<uint32_t> counts = column_ladder(count_max);
        for (uint32_t count = 0; count <= count_max; ++count) {
            const auto expected = std::lower_bound(counts.begin(), counts.end(), count);
            if (columns_on_ladder(count, count_max) == *expected) continue;
            CAPTURE(count);
            CHECK(columns_on_ladder(count, count_max) == *expected);
        }
    }
}
