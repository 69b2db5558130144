#include "engine/cache_size.hpp"

#include <doctest/doctest.h>

using namespace sluice;

TEST_CASE("a pool leaves memory for what else there is") {
    constexpr uint64_t mib = uint64_t(1) << 20;
    const auto budget = [](uint64_t free_mib, uint64_t total_mib, bool is_host = false) {
        return cache_budget_bytes({free_mib * mib, total_mib * mib, is_host}) / mib;
    };
    CHECK(budget(40000, 80000) == 32000); // a tenth of the device
    CHECK(budget(1500, 2000) == 988);     // 512 MiB of a small one
    CHECK(budget(500, 80000) == 0);
    CHECK(budget(0, 80000) == 0);
    CHECK(budget(9000, 16000, true) == 4500); // half of what the machine has left
}
