#pragma once

#include "engine/scheduler.hpp"

#include <doctest/doctest.h>

#include <set>

namespace sluice::test {

// What every plan must hold, whatever it plans.
inline void check_plan(const step_plan& plan, const scheduler_limits& limits,
                       uint32_t tokens_per_block) {
    const sluice_batch batch = plan.batch();
    REQUIRE(batch.token_count <= limits.tokens_per_step_max);
    REQUIRE(batch.sequence_count <= limits.sequences_max);
    REQUIRE(batch.query_start[0] == 0);
    REQUIRE(batch.query_start[batch.sequence_count] == int32_t(batch.token_count));
    std::set<int32_t> slots;
    for (uint32_t s = 0; s < batch.sequence_count; ++s) {
        const int32_t rows = batch.query_start[s + 1] - batch.query_start[s];
        REQUIRE(rows >= 1);
        REQUIRE((s >= batch.decode_sequence_count || rows == 1));
        for (int32_t row = batch.query_start[s]; row < batch.query_start[s + 1]; ++row) {
            REQUIRE(batch.sequence_of_row[row] == int32_t(s));
            const int32_t from_end = batch.query_start[s + 1] - row;
            REQUIRE(batch.position[row] == batch.kv_length[s] - from_end);
            const auto column = uint32_t(batch.position[row]) / tokens_per_block;
            REQUIRE(column < batch.block_table_columns);
            const int32_t block = batch.block_table[0][s * batch.block_table_columns + column];
            REQUIRE(block >= 0);
            REQUIRE(batch.slot[0][row]
                    == block * int32_t(tokens_per_block)
                           + batch.position[row] % int32_t(tokens_per_block));
            REQUIRE(slots.insert(batch.slot[0][row]).second);
        }
    }
}

} // namespace sluice::test
