#include "engine/kv_pool.hpp"

#include "base/error.hpp"
#include "base/sha256.hpp"

#include <algorithm>
#include <array>

namespace sluice {

namespace {

uint64_t blocks_for(uint64_t tokens, uint32_t tokens_per_block) {
    return (tokens + tokens_per_block - 1) / tokens_per_block;
}

sluice_block_key to_key(const sha256_digest& digest) {
    static_assert(sizeof(digest) == SLUICE_BLOCK_KEY_BYTES);
    sluice_block_key key;
    std::memcpy(key.bytes, digest.data(), digest.size());
    return key;
}

// Each part is preceded by its length, so that no two lists of parts give the same bytes.
void update_part(sha256& hash, std::string_view part) {
    const std::array<uint64_t, 1> size{part.size()};
    hash.update(std::as_bytes(std::span(size)));
    hash.update(part);
}

} // namespace

sluice_block_key block_key_root(const kv_identity& identity, uint32_t tokens_per_block) {
    sha256 hash;
    update_part(hash, "sluice kv block 1");
    update_part(hash, identity.model);
    update_part(hash, identity.format);
    update_part(hash, identity.layout);
    update_part(hash, identity.adapter);
    update_part(hash, identity.tenant);
    update_part(hash, std::to_string(tokens_per_block));
    return to_key(hash.finish());
}

sluice_block_key block_key_next(const sluice_block_key& parent, std::span<const int32_t> tokens) {
    sha256 hash;
    hash.update(std::as_bytes(std::span(parent.bytes)));
    hash.update(std::as_bytes(tokens));
    return to_key(hash.finish());
}

kv_pool::kv_pool(kv_pool_options options) : options_(std::move(options)) {
    if (options_.tokens_per_block == 0) {
        fail(SLUICE_INVALID, "engine.tokens_per_block is 0; expected at least 1");
    }
    if (options_.groups.empty()) fail(SLUICE_INVALID, "a KV pool needs at least one block group");
    for (const kv_group& group : options_.groups) {
        if (group.block_count == 0 || group.block_count > uint32_t(INT32_MAX)) {
            fail(SLUICE_INVALID,
                 "a KV pool of {} blocks; expected 1 to {}: raise engine.cache_tokens to at least "
                 "engine.tokens_per_block ({})",
                 group.block_count, INT32_MAX, options_.tokens_per_block);
        }
        group_record record;
        record.blocks.resize(group.block_count);
        record.free.reserve(group.block_count);
        for (uint32_t i = group.block_count; i-- > 0;) record.free.push_back(int32_t(i));
        groups_.push_back(std::move(record));
    }
}

// ---- Single blocks ----

std::optional<int32_t> kv_pool::find(uint32_t group, const sluice_block_key& key) const {
    const auto found = groups_[group].published.find(key);
    if (found == groups_[group].published.end()) return std::nullopt;
    return found->second;
}

void kv_pool::link_newest(group_record& group, int32_t block) {
    block_record& record = group.blocks[size_t(block)];
    record.previous = group.newest;
    record.next = -1;
    if (group.newest >= 0) group.blocks[size_t(group.newest)].next = block;
    group.newest = block;
    if (group.oldest < 0) group.oldest = block;
    ++group.cached_count;
}

void kv_pool::unlink(group_record& group, int32_t block) {
    block_record& record = group.blocks[size_t(block)];
    (record.previous >= 0 ? group.blocks[size_t(record.previous)].next : group.oldest) =
        record.next;
    (record.next >= 0 ? group.blocks[size_t(record.next)].previous : group.newest) =
        record.previous;
    record.previous = record.next = -1;
    --group.cached_count;
}

// A cached block becomes free.
void kv_pool::evict(uint32_t group, int32_t block) {
    group_record& record = groups_[group];
    block_record& victim = record.blocks[size_t(block)];
    if (on_evict) on_evict(group, block, victim.key);
    unlink(record, block);
    record.published.erase(victim.key);
    victim.published = false;
    record.free.push_back(block);
    ++statistics_.blocks_evicted;
}

// A block for writing. The caller has seen that one is available.
int32_t kv_pool::take(uint32_t group) {
    group_record& record = groups_[group];
    if (record.free.empty()) evict(group, record.oldest);
    const int32_t block = record.free.back();
    record.free.pop_back();
    record.blocks[size_t(block)].reference_count = 1;
    return block;
}

void kv_pool::acquire(uint32_t group, int32_t block) {
    group_record& record = groups_[group];
    block_record& acquired = record.blocks[size_t(block)];
    if (acquired.reference_count == 0) unlink(record, block);
    ++acquired.reference_count;
}

void kv_pool::release(uint32_t group, int32_t block) {
    group_record& record = groups_[group];
    block_record& released = record.blocks[size_t(block)];
    if (--released.reference_count > 0) return;
    if (released.published) {
        link_newest(record, block);
    } else {
        record.free.push_back(block);
    }
}

// ---- Sequences ----

// The first block that a token at position `length` still attends to.
uint32_t kv_pool::first_needed_block(uint32_t group, uint32_t length) const {
    const uint32_t window = options_.groups[group].window;
    if (window == 0 || length < window) return 0;
    return (length - window + 1) / options_.tokens_per_block;
}

// How many leading blocks can be reused: in every group those that the next token attends to must
// be there.
uint32_t kv_pool::matched_blocks(std::span<const sluice_block_key> keys) const {
    uint32_t count = uint32_t(keys.size());
    for (uint32_t group = 0; group < group_count(); ++group) {
        if (options_.groups[group].window != 0) continue;
        uint32_t present = 0;
        while (present < count && find(group, keys[present])) ++present;
        count = present;
    }
    const auto windows_present = [&](uint32_t blocks) {
        for (uint32_t group = 0; group < group_count(); ++group) {
            if (options_.groups[group].window == 0) continue;
            uint32_t i = first_needed_block(group, blocks * options_.tokens_per_block);
            for (; i < blocks; ++i) {
                if (!find(group, keys[i])) return false;
            }
        }
        return true;
    };
    while (count > 0 && !windows_present(count)) --count;
    return count;
}

kv_sequence kv_pool::open(std::span<const int32_t> tokens, const sluice_block_key& root,
                          bool reuse) {
    kv_sequence sequence;
    sequence.tables.resize(group_count());
    sequence.chain = root;
    sequence.open = true;
    if (!reuse || !options_.prefix_reuse || tokens.empty()) return sequence;

    std::vector<sluice_block_key> keys;
    const uint32_t whole_blocks = uint32_t((tokens.size() - 1) / options_.tokens_per_block);
    sluice_block_key key = root;
    for (uint32_t i = 0; i < whole_blocks; ++i) {
        key = block_key_next(
            key, tokens.subspan(size_t(i) * options_.tokens_per_block, options_.tokens_per_block));
        // Without a window every earlier block is needed, so hashing past a gap finds nothing more.
        if (options_.groups[0].window == 0 && !find(0, key)) break;
        keys.push_back(key);
    }
    const uint32_t count = matched_blocks(keys);
    for (uint32_t group = 0; group < group_count(); ++group) {
        const uint32_t first = first_needed_block(group, count * options_.tokens_per_block);
        for (uint32_t i = 0; i < count; ++i) {
            const int32_t block = i < first ? -1 : *find(group, keys[i]);
            if (block >= 0) acquire(group, block);
            sequence.tables[group].push_back(block);
        }
    }
    sequence.length = count * options_.tokens_per_block;
    if (count > 0) sequence.chain = keys[count - 1];
    statistics_.prefix_tokens_looked_up += tokens.size();
    statistics_.prefix_tokens_reused += sequence.length;
    return sequence;
}

kv_sequence kv_pool::fork(const kv_sequence& source) {
    kv_sequence copy = source;
    for (uint32_t group = 0; group < group_count(); ++group) {
        // Blocks reserved past the end hold nothing yet and stay with the source.
        copy.tables[group].resize(blocks_for(source.length, options_.tokens_per_block));
        for (const int32_t block : copy.tables[group]) {
            if (block >= 0) acquire(group, block);
        }
    }
    return copy;
}

void kv_pool::close(kv_sequence& sequence) {
    if (!sequence.open) return;
    for (uint32_t group = 0; group < group_count(); ++group) {
        // Last block first: a prefix is worth more than what follows it, so it is evicted later.
        const std::vector<int32_t>& table = sequence.tables[group];
        for (size_t i = table.size(); i-- > 0;) {
            if (table[i] >= 0) release(group, table[i]);
        }
    }
    sequence = kv_sequence{};
}

bool kv_pool::reserve(kv_sequence& sequence, uint32_t count, std::vector<kv_block_copy>& copies) {
    const uint64_t wanted =
        blocks_for(uint64_t(sequence.length) + count, options_.tokens_per_block);
    const uint32_t partial = sequence.length / options_.tokens_per_block;
    const bool writes_partial = count > 0 && sequence.length % options_.tokens_per_block != 0;
    const auto shared = [&](uint32_t group) {
        const int32_t block = sequence.tables[group][partial];
        return groups_[group].blocks[size_t(block)].reference_count > 1;
    };
    for (uint32_t group = 0; group < group_count(); ++group) {
        const uint64_t held = sequence.tables[group].size();
        uint64_t needed = wanted > held ? wanted - held : 0;
        if (writes_partial && shared(group)) ++needed;
        if (needed > available_count(group)) return false;
    }
    for (uint32_t group = 0; group < group_count(); ++group) {
        std::vector<int32_t>& table = sequence.tables[group];
        if (writes_partial && shared(group)) {
            const int32_t replacement = take(group);
            copies.push_back({group, table[partial], replacement});
            release(group, table[partial]);
            table[partial] = replacement;
            ++statistics_.blocks_copied;
        }
        while (table.size() < wanted) table.push_back(take(group));
    }
    return true;
}

void kv_pool::publish(kv_sequence& sequence, uint32_t block_index) {
    for (uint32_t group = 0; group < group_count(); ++group) {
        const int32_t block = sequence.tables[group][block_index];
        if (block < 0) continue;
        // Two sequences may have computed the same block side by side; the first one stays.
        if (!groups_[group].published.emplace(sequence.chain, block).second) continue;
        groups_[group].blocks[size_t(block)].published = true;
        groups_[group].blocks[size_t(block)].key = sequence.chain;
        ++statistics_.blocks_published;
    }
}

void kv_pool::commit(kv_sequence& sequence, std::span<const int32_t> tokens) {
    if (sequence.length + tokens.size()
        > sequence.tables[0].size() * uint64_t(options_.tokens_per_block)) {
        fail(SLUICE_INTERNAL, "a KV sequence of {} tokens takes {} more, but has only {} blocks",
             sequence.length, tokens.size(), sequence.tables[0].size());
    }
    for (const int32_t token : tokens) {
        sequence.tail.push_back(token);
        ++sequence.length;
        if (sequence.tail.size() < options_.tokens_per_block) continue;
        sequence.chain = block_key_next(sequence.chain, sequence.tail);
        sequence.tail.clear();
        if (options_.prefix_reuse) {
            publish(sequence, sequence.length / options_.tokens_per_block - 1);
        }
    }
    for (uint32_t group = 0; group < group_count(); ++group) {
        const uint32_t first = first_needed_block(group, sequence.length);
        for (uint32_t i = first; i-- > 0 && sequence.tables[group][i] >= 0;) {
            release(group, sequence.tables[group][i]);
            sequence.tables[group][i] = -1;
        }
    }
}

void kv_pool::trim(kv_sequence& sequence) {
    const uint64_t kept = blocks_for(sequence.length, options_.tokens_per_block);
    for (uint32_t group = 0; group < group_count(); ++group) {
        std::vector<int32_t>& table = sequence.tables[group];
        for (; table.size() > kept; table.pop_back()) release(group, table.back());
    }
}

int32_t kv_pool::slot(const kv_sequence& sequence, uint32_t group, uint32_t position) const {
    const int32_t block = sequence.tables[group].at(position / options_.tokens_per_block);
    return block * int32_t(options_.tokens_per_block)
           + int32_t(position % options_.tokens_per_block);
}

uint32_t kv_pool::available_count(uint32_t group) const {
    return uint32_t(groups_[group].free.size()) + groups_[group].cached_count;
}

uint64_t kv_pool::tokens_max() const {
    uint64_t tokens = UINT64_MAX;
    for (const kv_group& group : options_.groups) {
        tokens = std::min(tokens, uint64_t(group.block_count) * options_.tokens_per_block);
    }
    return tokens;
}

void kv_pool::clear_cached() {
    for (uint32_t group = 0; group < group_count(); ++group) {
        while (groups_[group].oldest >= 0) evict(group, groups_[group].oldest);
    }
}

// ---- Invariants ----

void kv_pool::check(std::span<const kv_sequence* const> sequences) const {
    for (const kv_sequence* sequence : sequences) {
        if (!sequence->open) fail(SLUICE_INTERNAL, "a closed sequence is still in use");
        if (sequence->tail.size() != sequence->length % options_.tokens_per_block) {
            fail(SLUICE_INTERNAL, "a sequence of {} tokens has a tail of {}", sequence->length,
                 sequence->tail.size());
        }
    }
    for (uint32_t group = 0; group < group_count(); ++group) check_group(group, sequences);
}

void kv_pool::check_group(uint32_t group, std::span<const kv_sequence* const> sequences) const {
    const group_record& record = groups_[group];
    std::vector<uint32_t> references(record.blocks.size(), 0);
    for (const kv_sequence* sequence : sequences) {
        const std::vector<int32_t>& table = sequence->tables[group];
        if (table.size() < blocks_for(sequence->length, options_.tokens_per_block)) {
            fail(SLUICE_INTERNAL, "group {}: {} tokens in {} blocks", group, sequence->length,
                 table.size());
        }
        for (size_t i = first_needed_block(group, sequence->length); i < table.size(); ++i) {
            if (table[i] < 0) fail(SLUICE_INTERNAL, "group {}: needed block {} is gone", group, i);
        }
        for (const int32_t block : table) {
            if (block >= 0) ++references.at(size_t(block));
        }
    }
    std::vector<uint32_t> homes(record.blocks.size(), 0);
    for (const int32_t block : record.free) {
        ++homes.at(size_t(block));
        if (record.blocks[size_t(block)].published) {
            fail(SLUICE_INTERNAL, "group {}: free block {} is published", group, block);
        }
    }
    uint32_t cached = 0;
    int32_t previous = -1;
    for (int32_t block = record.oldest; block >= 0; block = record.blocks[size_t(block)].next) {
        ++homes.at(size_t(block));
        const block_record& listed = record.blocks[size_t(block)];
        if (!listed.published || listed.previous != previous || ++cached > record.cached_count) {
            fail(SLUICE_INTERNAL, "group {}: the list of cached blocks is broken at {}", group,
                 block);
        }
        previous = block;
    }
    if (cached != record.cached_count || previous != record.newest) {
        fail(SLUICE_INTERNAL, "group {}: {} cached blocks counted, {} listed", group,
             record.cached_count, cached);
    }
    size_t published = 0;
    for (size_t i = 0; i < record.blocks.size(); ++i) {
        const block_record& block = record.blocks[i];
        const bool in_use = references[i] > 0;
        if (block.reference_count != references[i] || homes[i] != (in_use ? 0u : 1u)) {
            fail(SLUICE_INTERNAL,
                 "group {}: block {} counts {} references, {} sequences hold it, and it is in {} "
                 "lists",
                 group, i, block.reference_count, references[i], homes[i]);
        }
        if (!block.published) continue;
        ++published;
        if (find(group, block.key) != int32_t(i)) {
            fail(SLUICE_INTERNAL, "group {}: block {} is not found by its key", group, i);
        }
    }
    if (published != record.published.size()) {
        fail(SLUICE_INTERNAL, "group {}: {} keys for {} published blocks", group,
             record.published.size(), published);
    }
}

} // namespace sluice
