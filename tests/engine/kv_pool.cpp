#include "engine/kv_pool.hpp"

#include "base/error.hpp"

#include <doctest/doctest.h>

#include <deque>
#include <map>
#include <numeric>
#include <random>

using namespace sluice;

namespace {

sluice_block_key root_of(std::string_view tenant) {
    return block_key_root({"model", "f32", "reference 1", "", tenant}, 4);
}

std::vector<int32_t> counting(int32_t first, size_t count) {
    std::vector<int32_t> tokens(count);
    std::iota(tokens.begin(), tokens.end(), first);
    return tokens;
}

kv_pool make_pool(uint32_t blocks, uint32_t tokens_per_block = 4, bool reuse = true) {
    return kv_pool({tokens_per_block, {{blocks, 0}}, reuse});
}

// Reserves, "runs" and commits, as the scheduler does.
bool extend(kv_pool& pool, kv_sequence& sequence, std::span<const int32_t> tokens) {
    std::vector<kv_block_copy> copies;
    if (!pool.reserve(sequence, uint32_t(tokens.size()), copies)) return false;
    pool.commit(sequence, tokens);
    return true;
}

} // namespace

TEST_CASE("keys depend on everything before them and on each part of the identity") {
    const kv_identity base{"m", "f", "l", "a", "t"};
    std::vector<sluice_block_key> roots{block_key_root(base, 16), block_key_root(base, 32)};
    for (auto part : {&kv_identity::model, &kv_identity::format, &kv_identity::layout,
                      &kv_identity::adapter, &kv_identity::tenant}) {
        kv_identity changed = base;
        changed.*part = "other";
        roots.push_back(block_key_root(changed, 16));
    }
    // The border between two parts counts, too.
    roots.push_back(block_key_root({"mf", "", "l", "a", "t"}, 16));
    roots.push_back(block_key_root({"", "mf", "l", "a", "t"}, 16));
    for (size_t i = 0; i < roots.size(); ++i) {
        for (size_t j = 0; j < i; ++j) {
            CHECK(std::memcmp(&roots[i], &roots[j], sizeof(roots[i])) != 0);
        }
    }
    const auto tokens = counting(0, 4);
    const auto first = block_key_next(roots[0], tokens);
    const auto second = block_key_next(first, tokens);
    CHECK(std::memcmp(&first, &second, sizeof(first)) != 0);
    const auto again = block_key_next(block_key_root(base, 16), tokens);
    CHECK(std::memcmp(&first, &again, sizeof(first)) == 0);
}

TEST_CASE("a prefix is reused in whole blocks, short of the last token") {
    kv_pool pool = make_pool(16);
    kv_sequence first = pool.open(counting(0, 10), root_of("a"));
    CHECK(first.length == 0);
    REQUIRE(extend(pool, first, counting(0, 10)));

    // While the first is still open.
    kv_sequence second = pool.open(counting(0, 10), root_of("a"));
    CHECK(second.length == 8);
    CHECK(second.tables[0][0] == first.tables[0][0]);
    CHECK(second.tables[0][1] == first.tables[0][1]);
    // Exactly two blocks of prompt: the last token has to be computed, so only one block counts.
    kv_sequence third = pool.open(counting(0, 8), root_of("a"));
    CHECK(third.length == 4);
    kv_sequence other_tenant = pool.open(counting(0, 10), root_of("b"));
    CHECK(other_tenant.length == 0);
    kv_sequence refused = pool.open(counting(0, 10), root_of("a"), false);
    CHECK(refused.length == 0);
    const kv_sequence* open[] = {&first, &second, &third, &other_tenant, &refused};
    pool.check(open);

    pool.close(first);
    pool.close(second);
    pool.close(third);
    pool.close(other_tenant);
    pool.close(refused);
    pool.check({});
    CHECK(pool.cached_count(0) == 2);
    CHECK(pool.available_count(0) == 16);
    kv_sequence fourth = pool.open(counting(0, 100), root_of("a"));
    CHECK(fourth.length == 8);
    CHECK(pool.cached_count(0) == 0);
    pool.close(fourth);
}

TEST_CASE("without prefix reuse nothing is published") {
    kv_pool pool = make_pool(8, 4, false);
    kv_sequence sequence = pool.open(counting(0, 9), root_of("a"));
    REQUIRE(extend(pool, sequence, counting(0, 9)));
    CHECK(pool.open(counting(0, 9), root_of("a")).length == 0);
    pool.close(sequence);
    CHECK(pool.cached_count(0) == 0);
    pool.check({});
}

TEST_CASE("a fork shares blocks until one of the two writes") {
    kv_pool pool = make_pool(8);
    kv_sequence source = pool.open(counting(0, 6), root_of("a"));
    REQUIRE(extend(pool, source, counting(0, 6)));
    kv_sequence copy = pool.fork(source);
    CHECK(copy.tables == source.tables);

    std::vector<kv_block_copy> copies;
    REQUIRE(pool.reserve(copy, 1, copies));
    REQUIRE(copies.size() == 1);
    CHECK(copies[0].from == source.tables[0][1]);
    CHECK(copies[0].to == copy.tables[0][1]);
    CHECK(copy.tables[0][0] == source.tables[0][0]);
    copies.clear();
    REQUIRE(pool.reserve(source, 1, copies)); // nobody else holds the partial block any more
    CHECK(copies.empty());
    pool.commit(source, counting(100, 1));
    pool.commit(copy, counting(200, 1));
    const kv_sequence* open[] = {&source, &copy};
    pool.check(open);
    pool.close(source);
    pool.close(copy);
    pool.check({});
}

TEST_CASE("the block that went unused longest is evicted first, and prefixes outlive their ends") {
    kv_pool pool = make_pool(4);
    std::vector<std::pair<int32_t, sluice_block_key>> evicted;
    pool.on_evict = [&](uint32_t, int32_t block, const sluice_block_key& key) {
        evicted.emplace_back(block, key);
    };
    kv_sequence old = pool.open(counting(0, 8), root_of("a"));
    REQUIRE(extend(pool, old, counting(0, 8)));
    const std::vector<int32_t> blocks = old.tables[0];
    pool.close(old);
    kv_sequence other = pool.open(counting(50, 12), root_of("a"));
    REQUIRE(extend(pool, other, counting(50, 12)));
    REQUIRE(evicted.size() == 1);
    CHECK(evicted[0].first == blocks[1]);
    pool.close(other);
    kv_sequence again = pool.open(counting(0, 8), root_of("a"));
    CHECK(again.length == 4);
    pool.close(again);
    pool.clear_cached();
    CHECK(pool.cached_count(0) == 0);
    CHECK(pool.available_count(0) == 4);
    pool.check({});
}

TEST_CASE("running out of blocks changes nothing") {
    kv_pool pool = make_pool(3);
    kv_sequence first = pool.open(counting(0, 8), root_of("a"));
    REQUIRE(extend(pool, first, counting(0, 8)));
    kv_sequence second = pool.open(counting(90, 5), root_of("a"));
    std::vector<kv_block_copy> copies;
    CHECK_FALSE(pool.reserve(second, 5, copies));
    CHECK(second.tables[0].empty());
    CHECK(pool.available_count(0) == 1);
    CHECK(pool.reserve(second, 4, copies));
    const kv_sequence* open[] = {&first, &second};
    pool.check(open);
    pool.close(first);
    pool.close(second);
}

TEST_CASE("bad pools are refused") {
    CHECK_THROWS_AS(kv_pool({0, {{4, 0}}, true}), error);
    CHECK_THROWS_AS(kv_pool({4, {}, true}), error);
    CHECK_THROWS_AS(kv_pool({4, {{0, 0}}, true}), error);
    kv_pool pool = make_pool(2);
    kv_sequence sequence = pool.open(counting(0, 4), root_of("a"));
    CHECK_THROWS_AS(pool.commit(sequence, counting(0, 1)), error);
}

// Random operations on a pool whose "vectors" are hashes of all tokens up to their place. Whatever
// is shared, copied, evicted and reused, each sequence must read its own prefix and nothing else.
namespace {

class modelled_pool {
  public:
    modelled_pool(uint32_t seed, std::vector<kv_group> groups, uint32_t tokens_per_block)
        : random_(seed), pool_({tokens_per_block, groups, true}), groups_(std::move(groups)) {
        for (const kv_group& group : groups_) {
            memory_.emplace_back(size_t(group.block_count) * tokens_per_block, 0);
        }
    }

    void run(int steps) {
        for (int i = 0; i < steps; ++i) {
            switch (pick(6)) {
            case 0:
                open();
                break;
            case 1:
            case 2:
            case 3:
                extend();
                break;
            case 4:
                fork();
                break;
            default:
                close();
                break;
            }
            check();
        }
        while (!live_.empty()) close();
        check();
        for (uint32_t group = 0; group < groups_.size(); ++group) {
            CHECK(pool_.available_count(group) == groups_[group].block_count);
        }
    }

    const kv_pool_statistics& statistics() const { return pool_.statistics(); }
    uint64_t refusals = 0;

  private:
    struct sequence {
        std::vector<int32_t> tokens;
        std::string tenant;
        kv_sequence cache;
    };

    uint32_t pick(uint32_t bound) { return uint32_t(random_() % bound); }

    uint64_t vector_at(const sequence& of, size_t position) const {
        uint64_t hash = std::hash<std::string>{}(of.tenant);
        for (size_t i = 0; i <= position; ++i) {
            hash = (hash ^ uint64_t(of.tokens[i])) * 0x100000001b3u;
        }
        return hash;
    }

    // Tokens come from a tiny alphabet, so that prefixes meet often.
    void open() {
        if (live_.size() >= 8) return;
        sequence added;
        added.tenant.assign(1, pick(5) == 0 ? 'b' : 'a');
        const uint32_t count = 1 + pick(20);
        for (uint32_t i = 0; i < count; ++i) added.tokens.push_back(int32_t(pick(8) == 0));
        added.cache = pool_.open(added.tokens, root_of(added.tenant), pick(8) != 0);
        CHECK(added.cache.length < added.tokens.size());
        const size_t begin = added.cache.length;
        live_.push_back(std::move(added));
        if (!write(live_.back(), begin)) {
            pool_.close(live_.back().cache);
            live_.pop_back();
        }
    }

    void extend() {
        if (live_.empty()) return;
        sequence& chosen = live_[pick(uint32_t(live_.size()))];
        const size_t begin = chosen.tokens.size();
        const uint32_t count = 1 + pick(6);
        for (uint32_t i = 0; i < count; ++i) chosen.tokens.push_back(int32_t(pick(3) == 0));
        if (!write(chosen, begin)) chosen.tokens.resize(begin);
    }

    bool write(sequence& chosen, size_t begin) {
        const auto count = uint32_t(chosen.tokens.size() - begin);
        std::vector<kv_block_copy> copies;
        if (!pool_.reserve(chosen.cache, count, copies)) {
            ++refusals;
            CHECK(copies.empty());
            return false;
        }
        const size_t size = pool_.tokens_per_block();
        for (const kv_block_copy& copy : copies) {
            for (size_t i = 0; i < size; ++i) {
                memory_[copy.group][size_t(copy.to) * size + i] =
                    memory_[copy.group][size_t(copy.from) * size + i];
            }
        }
        for (size_t position = begin; position < chosen.tokens.size(); ++position) {
            for (uint32_t group = 0; group < groups_.size(); ++group) {
                const int32_t slot = pool_.slot(chosen.cache, group, uint32_t(position));
                memory_[group][size_t(slot)] = vector_at(chosen, position);
            }
        }
        pool_.commit(chosen.cache, std::span(chosen.tokens).subspan(begin));
        return true;
    }

    void fork() {
        if (live_.empty() || live_.size() >= 8) return;
        const sequence& source = live_[pick(uint32_t(live_.size()))];
        sequence copy{source.tokens, source.tenant, pool_.fork(source.cache)};
        live_.push_back(std::move(copy));
    }

    void close() {
        if (live_.empty()) return;
        const uint32_t index = pick(uint32_t(live_.size()));
        pool_.close(live_[index].cache);
        live_.erase(live_.begin() + index);
    }

    void check() {
        std::vector<const kv_sequence*> open;
        for (const sequence& each : live_) open.push_back(&each.cache);
        REQUIRE_NOTHROW(pool_.check(open));
        for (const sequence& each : live_) {
            REQUIRE(each.cache.length == each.tokens.size());
            for (uint32_t group = 0; group < groups_.size(); ++group) {
                const uint32_t window = groups_[group].window;
                const size_t length = each.tokens.size();
                size_t first = window == 0 || length < window ? 0 : length - window + 1;
                for (; first < length; ++first) {
                    const int32_t slot = pool_.slot(each.cache, group, uint32_t(first));
                    REQUIRE(slot >= 0);
                    REQUIRE(memory_[group][size_t(slot)] == vector_at(each, first));
                }
            }
        }
    }

    std::mt19937 random_;
    kv_pool pool_;
    std::vector<kv_group> groups_;
    std::vector<std::vector<uint64_t>> memory_; // [group][slot]
    std::deque<sequence> live_;
};

} // namespace

TEST_CASE("random operations never show a sequence another one's vectors") {
    uint64_t reused = 0, evicted = 0, copied = 0, refused = 0;
    for (uint32_t seed = 0; seed < 40; ++seed) {
        modelled_pool pool(seed, {{24, 0}}, 1 + seed % 5);
        pool.run(400);
        reused += pool.statistics().prefix_tokens_reused;
        evicted += pool.statistics().blocks_evicted;
        copied += pool.statistics().blocks_copied;
        refused += pool.refusals;
    }
    // The runs must have been through every path.
    CHECK(reused > 1000);
    CHECK(evicted > 1000);
    CHECK(copied > 100);
    CHECK(refused > 100);
}

TEST_CASE("random operations on several groups, one of them with a window") {
    uint64_t reused = 0;
    for (uint32_t seed = 100; seed < 130; ++seed) {
        modelled_pool pool(seed, {{40, 0}, {20, 6}}, 2 + seed % 3);
        pool.run(400);
        reused += pool.statistics().prefix_tokens_reused;
    }
    CHECK(reused > 300);
    for (uint32_t seed = 200; seed < 210; ++seed) {
        modelled_pool pool(seed, {{16, 5}}, 3);
        pool.run(400);
    }
}
