// The block allocator behind the KV cache: which block belongs to which sequence, which blocks hold
// a prefix that a later request can reuse, and which one goes when there is no room.
//
// The pool only counts; the bytes are the backend's. Blocks come in groups (layers of one group
// share block tables), and a sequence has one table for each group. A block is
//   free       in no table and without content,
//   in use     in the tables of `reference_count` sequences,
//   cached     in no table, but full and published under its key: reused or, oldest first, evicted.
// Keys form a hash chain, key = SHA-256(parent key | tokens of the block), from a root that stands
// for everything else the content depends on.
#pragma once

#include <sluice/abi/cache.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sluice {

struct kv_group {
    uint32_t block_count = 0;
    uint32_t window = 0; // tokens that attention looks back on, the own included; 0: all
};

struct kv_pool_options {
    uint32_t tokens_per_block = 16;
    std::vector<kv_group> groups;
    bool prefix_reuse = true;
};

// What a cached vector depends on besides the tokens. Two sequences share blocks only if all agree.
struct kv_identity {
    std::string_view model;   // fingerprint of configuration and weights
    std::string_view format;  // element types of the cache
    std::string_view layout;  // backend and version: the bytes mean nothing to another one
    std::string_view adapter; // empty: none
    std::string_view tenant;  // tenants never see each other's prefixes, not even by timing
};

sluice_block_key block_key_root(const kv_identity& identity, uint32_t tokens_per_block);
sluice_block_key block_key_next(const sluice_block_key& parent, std::span<const int32_t> tokens);

// A whole block to be copied before the next step writes.
struct kv_block_copy {
    uint32_t group;
    int32_t from;
    int32_t to;
};

// One sequence's place in the pool. Made by open() or fork(), given back by close(); owned by the
// caller, and only the pool changes it.
struct kv_sequence {
    std::vector<std::vector<int32_t>> tables; // [group][block]; -1: behind the window, given back
    uint32_t length = 0;                      // tokens whose vectors are written
    std::vector<int32_t> tail;                // tokens of the last, partial block
    sluice_block_key chain{};                 // key of the last full block, or the root
    bool open = false;
};

// Counters since the pool was made.
struct kv_pool_statistics {
    uint64_t prefix_tokens_looked_up = 0;
    uint64_t prefix_tokens_reused = 0;
    uint64_t blocks_published = 0;
    uint64_t blocks_evicted = 0;
    uint64_t blocks_copied = 0;
};

// Not for several threads at once.
class kv_pool {
  public:
    // Fails with SLUICE_INVALID for no groups, no blocks or tokens_per_block 0.
    explicit kv_pool(kv_pool_options options);

    // Begins a sequence with the longest published prefix of `tokens`, in whole blocks and always
    // short of the last token, whose logits have to be computed.
    kv_sequence open(std::span<const int32_t> tokens, const sluice_block_key& root,
                     bool reuse = true);
    // A second sequence with the same content. Blocks are shared until one of the two writes.
    kv_sequence fork(const kv_sequence& source);
    // Gives the blocks back. Published ones stay cached. A closed sequence is ignored.
    void close(kv_sequence& sequence);

    // Makes room for `count` tokens after `length`. A partial block that another sequence shares is
    // replaced by a new one and its copy appended to `copies`. Returns false, and changes nothing,
    // when there are not enough blocks.
    bool reserve(kv_sequence& sequence, uint32_t count, std::vector<kv_block_copy>& copies);
    // Tells that the vectors of these tokens, which follow `length`, are written. Full blocks are
    // published, and blocks that the window has passed are given back.
    void commit(kv_sequence& sequence, std::span<const int32_t> tokens);
    // Gives back the blocks that were reserved past `length`, and with them whatever was written
    // there without a commit.
    void trim(kv_sequence& sequence);

    // Slot number (block * tokens_per_block + place) of a reserved position.
    int32_t slot(const kv_sequence& sequence, uint32_t group, uint32_t position) const;

    uint32_t tokens_per_block() const { return options_.tokens_per_block; }
    uint32_t group_count() const { return static_cast<uint32_t>(groups_.size()); }
    uint32_t block_count(uint32_t group) const { return options_.groups[group].block_count; }
    // Blocks that reserve() can hand out: free and cached ones.
    uint32_t available_count(uint32_t group) const;
    uint32_t cached_count(uint32_t group) const { return groups_[group].cached_count; }
    // The longest sequence that fits into an empty pool.
    uint64_t tokens_max() const;
    const kv_pool_statistics& statistics() const { return statistics_; }

    // Called with each block before its content is given up, for a store behind the pool.
    std::function<void(uint32_t group, int32_t block, const sluice_block_key& key)> on_evict;

    // Forgets all cached content that no sequence uses.
    void clear_cached();

    // Checks every invariant against the open sequences, which must be all there are; throws
    // SLUICE_INTERNAL with the first that is broken. For tests.
    void check(std::span<const kv_sequence* const> sequences) const;

  private:
    struct block_record {
        uint32_t reference_count = 0;
        bool published = false;
        int32_t previous = -1; // in the list of cached blocks
        int32_t next = -1;
        sluice_block_key key{};
    };
    struct key_hash {
        size_t operator()(const sluice_block_key& key) const {
            size_t value; // the key is a digest: any of its bits are as good as any others
            std::memcpy(&value, key.bytes, sizeof(value));
            return value;
        }
    };
    struct key_equal {
        bool operator()(const sluice_block_key& left, const sluice_block_key& right) const {
            return std::memcmp(left.bytes, right.bytes, SLUICE_BLOCK_KEY_BYTES) == 0;
        }
    };
    struct group_record {
        std::vector<block_record> blocks;
        std::vector<int32_t> free; // a stack
        int32_t oldest = -1;       // cached blocks by time of last use
        int32_t newest = -1;
        uint32_t cached_count = 0;
        std::unordered_map<sluice_block_key, int32_t, key_hash, key_equal> published;
    };

    std::optional<int32_t> find(uint32_t group, const sluice_block_key& key) const;
    uint32_t matched_blocks(std::span<const sluice_block_key> keys) const;
    uint32_t first_needed_block(uint32_t group, uint32_t length) const;
    int32_t take(uint32_t group);
    void acquire(uint32_t group, int32_t block);
    void release(uint32_t group, int32_t block);
    void evict(uint32_t group, int32_t block);
    void link_newest(group_record& group, int32_t block);
    void unlink(group_record& group, int32_t block);
    void publish(kv_sequence& sequence, uint32_t block_index);
    void check_group(uint32_t group, std::span<const kv_sequence* const> sequences) const;

    kv_pool_options options_;
    std::vector<group_record> groups_;
    kv_pool_statistics statistics_;
};

} // namespace sluice
