// Drafts in the scheduler: rows that are guesses, and what becomes of them.
#include "base/error.hpp"
#include "engine/plan_check.hpp"
#include "engine/scheduler.hpp"

#include <doctest/doctest.h>

#include <numeric>

using namespace sluice;
using namespace sluice::test;

namespace {

using tokens = std::vector<int32_t>;

const sluice_block_key root = block_key_root({"m", "f", "l", "", ""}, 4);

scheduled_request prompt(size_t count, uint32_t tokens_max, int32_t first = 0) {
    scheduled_request request;
    request.tokens.resize(count);
    std::iota(request.tokens.begin(), request.tokens.end(), first);
    request.tokens_max = tokens_max;
    request.root = root;
    return request;
}

kv_pool make_pool(uint32_t blocks) { return kv_pool({4, {{blocks, 0}}, true}); }

// A sequence of six known tokens, 0 to 4 and 9, whose last one is to be computed.
struct decoding {
    kv_pool pool;
    scheduler planner;
    explicit decoding(uint32_t blocks = 16, scheduler_limits limits = {16, 4},
                      uint32_t tokens_max = 40)
        : pool(make_pool(blocks)), planner(limits, pool) {
        planner.add(1, prompt(5, tokens_max));
        planner.plan();
        planner.complete();
        planner.append(1, 9);
    }
};

// How many leading tokens a new sequence of these tokens would find in the pool.
uint32_t reused(kv_pool& pool, tokens text) {
    text.push_back(-1); // the last token is never looked up
    kv_sequence found = pool.open(text, root);
    const uint32_t length = found.length;
    pool.close(found);
    return length;
}

} // namespace

TEST_CASE("a draft is rows behind the newest token, each with logits") {
    decoding with;
    std::vector<decoding_sequence> found;
    with.planner.find_decoding(found);
    REQUIRE(found.size() == 1);
    CHECK(found[0].sequence == 1);
    CHECK(tokens(found[0].tokens.begin(), found[0].tokens.end()) == tokens{0, 1, 2, 3, 4, 9});
    with.planner.draft(1, tokens{10, 11, 12});
    const step_plan& plan = with.planner.plan();
    check_plan(plan, {16, 4}, 4);
    CHECK(plan.token_ids == tokens{9, 10, 11, 12});
    CHECK(plan.position == tokens{5, 6, 7, 8});
    CHECK(plan.logit_rows == tokens{0, 1, 2, 3});
    CHECK(plan.decode_sequence_count == 0);
    REQUIRE(plan.parts.size() == 1);
    CHECK(plan.parts[0].draft_count == 3);
    CHECK(plan.parts[0].logit_count == 4);
    CHECK(plan.parts[0].reaches_end);
    with.planner.complete();
    with.planner.check();
}

TEST_CASE("what was guessed right is computed, the rest is forgotten") {
    decoding with;
    with.planner.draft(1, tokens{10, 11, 12});
    with.planner.plan();
    with.planner.complete();
    CHECK(with.planner.append(1, 10));
    CHECK(with.planner.append(1, 11));
    CHECK_FALSE(with.planner.append(1, 77)); // instead of 12
    with.planner.check();
    const step_plan& next = with.planner.plan();
    CHECK(next.token_ids == tokens{77});
    CHECK(next.position == tokens{8});
    CHECK(next.decode_sequence_count == 1);
    with.planner.complete();

    // All of it right: the token after it is the next to compute.
    CHECK_FALSE(with.planner.append(1, 20));
    with.planner.draft(1, tokens{21, 22});
    with.planner.plan();
    with.planner.complete();
    CHECK(with.planner.append(1, 21));
    CHECK(with.planner.append(1, 22));
    CHECK_FALSE(with.planner.append(1, 23));
    CHECK(with.planner.plan().token_ids == tokens{23});
    with.planner.complete();
    with.planner.check();
}

TEST_CASE("no block with a wrong guess is ever found again, and those behind it come back") {
    decoding with;
    const uint32_t before = with.pool.available_count(0);
    with.planner.draft(1, tokens{10, 11, 12, 13, 14, 15, 16});
    with.planner.plan();
    CHECK(with.pool.available_count(0) == before - 2); // for places 8 to 12
    with.planner.complete();
    // Written, but not known to be right: nothing past the six tokens counts.
    CHECK(reused(with.pool, {0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15}) == 4);
    CHECK(with.planner.append(1, 10));
    CHECK_FALSE(with.planner.append(1, 99));
    CHECK(with.pool.available_count(0) == before);
    with.planner.plan();
    with.planner.complete();
    with.planner.append(1, 98);
    CHECK(reused(with.pool, {0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15}) == 4);
    CHECK(reused(with.pool, {0, 1, 2, 3, 4, 9, 10, 99}) == 8);
    with.planner.check();
    with.planner.remove(1);
    CHECK(with.pool.available_count(0) == 16);
    with.pool.check({});
}

TEST_CASE("a draft is no longer than of use: one token less than may come") {
    for (const uint32_t left : {1u, 2u, 3u, 5u}) {
        decoding with(16, {16, 4}, 6 + left);
        std::vector<decoding_sequence> found;
        with.planner.find_decoding(found);
        CHECK(found[0].draft_tokens_max == left - 1);
        with.planner.draft(1, tokens{10, 11, 12, 13});
        const step_plan& plan = with.planner.plan();
        CHECK(plan.parts[0].draft_count == std::min(left - 1, 4u));
        with.planner.complete();
    }
}

TEST_CASE("certain rows come before guesses") {
    decoding with(64, {8, 4});
    with.planner.add(2, prompt(5, 30, 100));
    with.planner.draft(1, tokens{10, 11, 12, 13});
    const step_plan& plan = with.planner.plan();
    check_plan(plan, {8, 4}, 4);
    REQUIRE(plan.parts.size() == 2);
    // Eight rows: one, five of the prompt, and two that are left.
    CHECK(plan.parts[0].draft_count + plan.parts[1].draft_count == 2);
    CHECK(plan.token_ids.size() == 8);
    with.planner.complete();
    CHECK(with.planner.append(1, 10));
    CHECK(with.planner.append(1, 11));
    CHECK_FALSE(with.planner.append(1, 12)); // was guessed right, but not computed
    CHECK_FALSE(with.planner.append(2, 50));
    CHECK(with.planner.plan().token_ids == tokens{12, 50});
    with.planner.complete();
    with.planner.check();
}

TEST_CASE("guesses take no block that is not there, and nobody makes room for them") {
    decoding with(4, {16, 4}, 16); // of which 6 are known
    with.planner.add(2, prompt(4, 8, 100));
    with.planner.plan();
    with.planner.complete();
    with.planner.append(1, 20);
    with.planner.append(2, 50);
    // Blocks: two of the first, one and a new one of the second.
    with.planner.draft(1, tokens{21, 22, 23, 24, 25});
    const step_plan& plan = with.planner.plan();
    check_plan(plan, {16, 4}, 4);
    REQUIRE(plan.parts.size() == 2);
    CHECK(plan.parts[1].sequence == 1);
    CHECK(plan.parts[1].draft_count == 1); // place 7 is the last of its blocks
    CHECK(with.planner.statistics().preemptions == 0);
    with.planner.complete();
    with.planner.check();
}

TEST_CASE("a draft is for the tokens that it was made for") {
    decoding with;
    with.planner.draft(1, tokens{10, 11});
    with.planner.plan();
    with.planner.complete();
    CHECK_FALSE(with.planner.append(1, 50));
    CHECK(with.planner.plan().token_ids == tokens{50}); // the old one is gone
    with.planner.complete();
    with.planner.append(1, 51);
    with.planner.draft(1, tokens{60});
    with.planner.draft(1, tokens{61, 62}); // in place of the one before
    CHECK(with.planner.plan().token_ids == tokens{51, 61, 62});
    with.planner.complete();
    with.planner.check();
    // Taken out before anyone said what was right.
    with.planner.remove(1);
    CHECK(with.pool.available_count(0) == 16);
    with.pool.check({});
}

TEST_CASE("a failed step with a draft leaves no trace of it") {
    decoding with;
    const uint32_t before = with.pool.available_count(0);
    with.planner.draft(1, tokens{10, 11, 12, 13});
    with.planner.plan();
    with.planner.abandon();
    with.planner.check();
    CHECK(with.pool.available_count(0) == before);
    CHECK(with.planner.plan().token_ids == tokens{9});
    with.planner.abandon();
}

TEST_CASE("behind a window, blocks go only when tokens have come") {
    kv_pool pool({4, {{16, 0}, {16, 5}}, true});
    scheduler planner({16, 4}, pool);
    planner.add(1, prompt(11, 40));
    planner.plan();
    planner.complete();
    for (int32_t round = 0; round < 4; ++round) {
        planner.append(1, 100 + round);
        planner.draft(1, tokens{200, 201, 202, 203, 204});
        check_plan(planner.plan(), {16, 4}, 4);
        planner.complete();
        CHECK(planner.append(1, 200));
        CHECK(planner.append(1, 201));
        CHECK_FALSE(planner.append(1, 300));
        planner.check();
        planner.plan();
        planner.complete();
        planner.check();
    }
    planner.remove(1);
    CHECK(pool.available_count(0) == 16);
    CHECK(pool.available_count(1) == 16);
    pool.check({});
}
