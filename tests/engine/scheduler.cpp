#include "engine/scheduler.hpp"

#include "base/error.hpp"
#include "engine/plan_check.hpp"

#include <doctest/doctest.h>

#include <map>
#include <numeric>
#include <random>

using namespace sluice;
using namespace sluice::test;

namespace {

scheduled_request prompt(size_t count, uint32_t tokens_max, int32_t first = 0) {
    scheduled_request request;
    request.tokens.resize(count);
    std::iota(request.tokens.begin(), request.tokens.end(), first);
    request.tokens_max = tokens_max;
    request.root = block_key_root({"m", "f", "l", "", ""}, 4);
    return request;
}

kv_pool make_pool(uint32_t blocks) { return kv_pool({4, {{blocks, 0}}, true}); }

} // namespace

TEST_CASE("a prompt is cut into chunks and only its end gives logits") {
    kv_pool pool = make_pool(32);
    scheduler planner({8, 4}, pool);
    planner.add(1, prompt(20, 30));
    for (const uint32_t expected : {8u, 8u, 4u}) {
        const step_plan& plan = planner.plan();
        check_plan(plan, {8, 4}, 4);
        REQUIRE(plan.parts.size() == 1);
        CHECK(plan.parts[0].row_count == expected);
        CHECK(plan.parts[0].reaches_end == (expected == 4));
        CHECK(plan.parts[0].logit_count == (expected == 4 ? 1 : 0));
        planner.complete();
        planner.check();
    }
    CHECK(planner.plan().empty()); // waits for the token
    planner.append(1, 99);
    const step_plan& decode = planner.plan();
    CHECK(decode.token_ids == std::vector<int32_t>{99});
    CHECK(decode.position == std::vector<int32_t>{20});
    CHECK(decode.decode_sequence_count == 1);
    CHECK(decode.logit_rows == std::vector<int32_t>{0});
    planner.complete();
    planner.remove(1);
    CHECK(planner.idle());
    pool.check({});
}

TEST_CASE("decodes come first and prompts fill the rest, in the order of arrival") {
    kv_pool pool = make_pool(64);
    scheduler planner({8, 4}, pool);
    planner.add(1, prompt(3, 30));
    planner.plan();
    planner.complete();
    planner.append(1, 7);
    planner.add(2, prompt(5, 30, 100));
    planner.add(3, prompt(9, 30, 200));
    const step_plan& plan = planner.plan();
    check_plan(plan, {8, 4}, 4);
    REQUIRE(plan.parts.size() == 3);
    CHECK(plan.parts[0].sequence == 1);
    CHECK(plan.decode_sequence_count == 1);
    CHECK(plan.parts[1].sequence == 2);
    CHECK(plan.parts[1].row_count == 5);
    CHECK(plan.parts[2].sequence == 3);
    CHECK(plan.parts[2].row_count == 2);
    CHECK(plan.logit_rows == std::vector<int32_t>{0, 5});
    CHECK(plan.kv_length == std::vector<int32_t>{4, 5, 2});
    planner.complete();
}

TEST_CASE("no more sequences run than allowed, and the next ones follow in order") {
    kv_pool pool = make_pool(64);
    scheduler planner({64, 2}, pool);
    for (sequence_id id = 1; id <= 4; ++id) planner.add(id, prompt(3, 10, int32_t(id) * 10));
    CHECK(planner.plan().parts.size() == 2);
    planner.complete();
    CHECK(planner.waiting_count() == 2);
    planner.remove(1);
    planner.append(2, 5);
    const step_plan& plan = planner.plan();
    REQUIRE(plan.parts.size() == 2);
    CHECK(plan.parts[0].sequence == 2);
    CHECK(plan.parts[1].sequence == 3);
    planner.complete();
}

TEST_CASE("a second request with the same beginning reuses its blocks") {
    kv_pool pool = make_pool(64);
    scheduler planner({64, 4}, pool);
    planner.add(1, prompt(17, 30));
    planner.plan();
    planner.complete();
    planner.add(2, prompt(18, 30));
    const step_plan& plan = planner.plan();
    REQUIRE(plan.parts.size() == 1);
    CHECK(plan.parts[0].position == 16);
    CHECK(plan.parts[0].row_count == 2);
    CHECK(planner.reused_tokens(2) == 16);
    CHECK(planner.reused_tokens(1) == 0);
    planner.complete();
    scheduled_request without = prompt(18, 30);
    without.prefix_reuse = false;
    planner.add(3, without);
    CHECK(planner.plan().parts[0].position == 0);
    planner.complete();
    planner.check();
}

TEST_CASE("all logits, and one row a step") {
    kv_pool pool = make_pool(64);
    scheduler planner({16, 4}, pool);
    scheduled_request all = prompt(6, 6);
    all.logits = logits_wanted::all;
    scheduled_request single = prompt(3, 3, 50);
    single.logits = logits_wanted::all;
    single.chunk_tokens_max = 1;
    scheduled_request silent = prompt(4, 4, 90);
    silent.logits = logits_wanted::none;
    planner.add(1, all);
    planner.add(2, single);
    planner.add(3, silent);
    const step_plan& plan = planner.plan();
    check_plan(plan, {16, 4}, 4);
    REQUIRE(plan.parts.size() == 3);
    CHECK(plan.parts[0].sequence == 2); // a single row stands with the decodes
    CHECK(plan.decode_sequence_count == 1);
    CHECK(plan.parts[1].logit_count == 6);
    CHECK(plan.parts[1].logit_begin == 1);
    CHECK(plan.parts[2].logit_count == 0);
    planner.complete();
    CHECK(planner.plan().position == std::vector<int32_t>{1});
    planner.complete();
}

TEST_CASE("out of blocks, the youngest gives way and comes back") {
    kv_pool pool = make_pool(6); // 24 tokens
    scheduler planner({64, 4}, pool);
    planner.add(1, prompt(8, 24));
    planner.add(2, prompt(8, 24, 50));
    REQUIRE(planner.plan().parts.size() == 2);
    planner.complete();
    uint32_t preempted_at = 0;
    for (int32_t i = 0; i < 16; ++i) {
        planner.append(1, 1000 + i);
        if (planner.running_count() == 2) planner.append(2, 2000 + i);
        const step_plan& plan = planner.plan();
        check_plan(plan, {64, 4}, 4);
        REQUIRE(plan.parts[0].sequence == 1); // the older one never waits
        if (planner.running_count() == 1 && preempted_at == 0) preempted_at = uint32_t(i);
        planner.complete();
        planner.check();
    }
    CHECK(planner.statistics().preemptions == 1);
    CHECK(preempted_at == 4); // 8 + 4 tokens each fill the six blocks
    CHECK(planner.waiting_count() == 1);
    planner.remove(1);
    const step_plan& plan = planner.plan();
    REQUIRE(plan.parts.size() == 1);
    CHECK(plan.parts[0].sequence == 2);
    CHECK(plan.token_ids.back() == 2004); // everything it had said is computed again
    CHECK(plan.parts[0].reaches_end);
    planner.complete();
    planner.check();
}

TEST_CASE("a long prompt at the front is not overtaken") {
    kv_pool pool = make_pool(8);
    scheduler planner({64, 4}, pool);
    planner.add(1, prompt(16, 20));
    planner.plan();
    planner.complete();
    planner.add(2, prompt(20, 24, 50)); // five blocks; four are left
    planner.add(3, prompt(2, 4, 90));
    planner.append(1, 5);
    CHECK(planner.plan().parts.size() == 1);
    planner.complete();
    planner.remove(1);
    CHECK(planner.plan().parts.size() == 2);
    planner.complete();
}

TEST_CASE("what can never run is refused at once") {
    kv_pool pool = make_pool(4);
    scheduler planner({8, 4}, pool);
    CHECK_THROWS_AS(planner.add(1, prompt(0, 4)), error);
    CHECK_THROWS_AS(planner.add(1, prompt(5, 4)), error);
    CHECK_THROWS_AS(planner.add(1, prompt(5, 17)), error);
    CHECK_THROWS_AS(scheduler({0, 4}, pool), error);
    CHECK_THROWS_AS(scheduler({4, 0}, pool), error);
    planner.remove(77);
    CHECK(planner.plan().empty());
}

TEST_CASE("a step that failed leaves no trace") {
    kv_pool pool = make_pool(16);
    scheduler planner({8, 4}, pool);
    planner.add(1, prompt(6, 10));
    planner.plan();
    planner.abandon();
    planner.check();
    const step_plan& again = planner.plan();
    CHECK(again.parts[0].position == 0);
    CHECK(again.parts[0].row_count == 6);
    planner.abandon();
    planner.remove(1);
    CHECK(pool.available_count(0) == 16);
    CHECK(pool.cached_count(0) == 0);
}

// A model whose next token is a hash of the whole sequence, computed from a memory that only steps
// write. Every text must come out as if it had run alone.
TEST_CASE("random load: every sequence gets its own text, whatever it shares steps with") {
    uint64_t preemptions = 0, reused = 0;
    for (uint32_t seed = 0; seed < 30; ++seed) {
        std::mt19937 random(seed);
        kv_pool pool({4, {{12, 0}}, true}); // 48 tokens
        const scheduler_limits limits{uint32_t(4 + random() % 12), uint32_t(1 + random() % 5)};
        scheduler planner(limits, pool);
        std::vector<uint64_t> memory(48, 0);
        const auto mix = [](uint64_t hash, int32_t token) {
            return (hash ^ uint64_t(token + 1)) * 0x100000001b3u;
        };
        struct expected_text {
            std::vector<int32_t> tokens;
            size_t tokens_max;
        };
        std::map<sequence_id, expected_text> live;
        sequence_id next_id = 1;
        size_t finished = 0;
        for (int step = 0; step < 3000 && finished < 60; ++step) {
            if (live.size() < 8 && random() % 2 == 0) {
                scheduled_request request;
                for (size_t i = 1 + random() % 20; i-- > 0;) {
                    request.tokens.push_back(int32_t(random() % 9 == 0));
                }
                request.tokens_max = uint32_t(request.tokens.size() + 1 + random() % 24);
                request.root = block_key_root({"m", "f", "l", "", ""}, 4);
                live[next_id] = {request.tokens, request.tokens_max};
                planner.add(next_id++, std::move(request));
            }
            if (!live.empty() && random() % 40 == 0) {
                const sequence_id victim = live.begin()->first;
                planner.remove(victim);
                live.erase(victim);
            }
            const step_plan& plan = planner.plan();
            planner.check();
            if (plan.empty()) {
                REQUIRE(live.empty()); // otherwise nothing would ever go on
                continue;
            }
            check_plan(plan, limits, 4);
            if (random() % 20 == 0) {
                planner.abandon();
                continue;
            }
            const sluice_batch batch = plan.batch();
            for (uint32_t row = 0; row < batch.token_count; ++row) {
                const auto s = uint32_t(batch.sequence_of_row[row]);
                const int32_t position = batch.position[row];
                uint64_t before = 17;
                if (position > 0) {
                    const int32_t* table = batch.block_table[0] + s * batch.block_table_columns;
                    const int32_t slot = table[(position - 1) / 4] * 4 + (position - 1) % 4;
                    before = memory[size_t(slot)];
                }
                memory[size_t(batch.slot[0][row])] = mix(before, batch.token_ids[row]);
            }
            std::map<sequence_id, int32_t> sampled;
            for (const step_part& part : plan.parts) {
                if (!part.reaches_end) continue;
                const int32_t row = plan.logit_rows[part.logit_begin];
                const uint64_t hash = memory[size_t(batch.slot[0][row])];
                sampled[part.sequence] = int32_t((hash >> 20) % 5);
            }
            planner.complete();
            for (const auto& [id, token] : sampled) {
                expected_text& text = live.at(id);
                uint64_t hash = 17;
                for (const int32_t each : text.tokens) hash = mix(hash, each);
                REQUIRE(token == int32_t((hash >> 20) % 5));
                text.tokens.push_back(token);
                if (text.tokens.size() < text.tokens_max) {
                    planner.append(id, token);
                } else {
                    planner.remove(id);
                    live.erase(id);
                    ++finished;
                }
            }
        }
        REQUIRE(finished >= 60);
        preemptions += planner.statistics().preemptions;
        reused += pool.statistics().prefix_tokens_reused;
    }
    CHECK(preemptions > 50);
    CHECK(reused > 500);
}
