#include "operations.hpp"

namespace sluice::plain {

namespace {

// The cached vectors of one part as a tensor of [slots, part_width].
plugin::tensor part_tensor(const call& c, uint32_t part) {
    const auto& state = c.state(0);
    plugin::tensor t;
    t.data = c.cache().part(c.state_number(0), part);
    t.type = state.part_type[part];
    t.rank = 2;
    t.shape[0] = static_cast<int64_t>(c.cache().block_count(state.group)) * state.tokens_per_block;
    t.shape[1] = state.part_width[part];
    return t;
}

void kv_write(const call& c, int64_t begin, int64_t end) {
    const auto& state = c.state(0);
    for (uint32_t part = 0; part < state.part_count; ++part) {
        const auto target = part_tensor(c, part);
        const int64_t width = target.shape[1];
        for (int64_t t = begin; t < end; ++t) {
            const int32_t slot = c.in(1).as<int32_t>()[t];
            if (slot < 0 || slot >= target.shape[0]) continue;
            for (int64_t d = 0; d < width; ++d)
                put(target, slot * width + d, get(c.in(2 + part), t * width + d));
        }
    }
}

void kv_gather(const call& c, int64_t begin, int64_t end) {
    const auto source = part_tensor(c, c.attributes<sluice_kv_gather_attributes>().part);
    const int64_t width = source.shape[1];
    const int64_t tokens = c.state(0).tokens_per_block;
    const int64_t columns = c.in(1).shape[1];
    for (int64_t i = begin; i < end; ++i) { // i is sequence * (columns * tokens) + place
        const int64_t sequence = i / (columns * tokens);
        const int64_t place = i % (columns * tokens);
        const int32_t block = c.in(1).as<int32_t>()[sequence * columns + place / tokens];
        const int64_t slot = block * tokens + place % tokens;
        for (int64_t d = 0; d < width; ++d)
            put(c.out(0), i * width + d,
                block < 0 || slot >= source.shape[0] ? 0.0f : get(source, slot * width + d));
    }
}

} // namespace

kernel find_cache_kernel(uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_KV_WRITE:
        return {[](const call& c) { return c.in(1).shape[0]; }, kv_write};
    case SLUICE_OP_KV_GATHER:
        return {[](const call& c) { return c.out(0).row_count(); }, kv_gather};
    default:
        return {};
    }
}

} // namespace sluice::plain
