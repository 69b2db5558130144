#include "operations.hpp"

#include <cmath>

namespace sluice::plain {

namespace {

// The vectors of one part of a cache, in any of its types.
class cached_part {
  public:
    cached_part(const call& c, uint32_t part)
        : state_(c.state(0)), part_(part), data_(c.cache().part(c.state_number(0), part)),
          token_bytes_(static_cast<int64_t>(plugin::host_cache::token_bytes(state_, part))) {
        slots_ =
            static_cast<int64_t>(c.cache().block_count(state_.group)) * state_.tokens_per_block;
    }

    int64_t slots() const { return slots_; }
    int64_t width() const { return state_.part_width[part_]; }

    float get(int64_t slot, int64_t d) const {
        const auto vector = vector_at(slot);
        if (group() == 0) return plain::get(vector, d);
        return static_cast<float>(vector.as<int8_t>()[d]) * scale(slot, d / group());
    }
    // Elements begin to begin + width - 1 of x.
    void put(int64_t slot, const plugin::tensor& x, int64_t begin) const {
        const auto vector = vector_at(slot);
        if (group() == 0)
            for (int64_t d = 0; d < width(); ++d) plain::put(vector, d, plain::get(x, begin + d));
        else
            for (int64_t first = 0; first < width(); first += group())
                put_group(slot, first, x, begin + first);
    }

  private:
    int64_t group() const { return state_.part_group[part_]; }
    plugin::tensor vector_at(int64_t slot) const {
        plugin::tensor t;
        t.data = data_ + slot * token_bytes_;
        t.type = state_.part_type[part_];
        return t;
    }
    std::byte* scale_at(int64_t slot, int64_t number) const {
        return data_ + slot * token_bytes_ + width() + number * static_cast<int64_t>(sizeof(float));
    }
    float scale(int64_t slot, int64_t number) const {
        float value = 0;
        std::memcpy(&value, scale_at(slot, number), sizeof value);
        return value;
    }
    void put_group(int64_t slot, int64_t first, const plugin::tensor& x, int64_t begin) const {
        float greatest = 0;
        for (int64_t d = 0; d < group(); ++d)
            greatest = std::max(greatest, std::fabs(plain::get(x, begin + d)));
        const float scale = greatest / 127.0f;
        const float inverse = greatest > 0 ? 127.0f / greatest : 0.0f;
        auto* codes = vector_at(slot).as<int8_t>() + first;
        for (int64_t d = 0; d < group(); ++d) {
            const float code = std::nearbyint(plain::get(x, begin + d) * inverse);
            // What is no number becomes the least one.
            codes[d] = static_cast<int8_t>(code > -127.0f ? std::min(code, 127.0f) : -127.0f);
        }
        std::memcpy(scale_at(slot, first / group()), &scale, sizeof scale);
    }

    const sluice_state& state_;
    uint32_t part_;
    std::byte* data_;
    int64_t token_bytes_;
    int64_t slots_ = 0;
};

void kv_write(const call& c, int64_t begin, int64_t end) {
    for (uint32_t part = 0; part < c.state(0).part_count; ++part) {
        const cached_part target(c, part);
        for (int64_t t = begin; t < end; ++t) {
            const int32_t slot = c.in(1).as<int32_t>()[t];
            if (slot < 0 || slot >= target.slots()) continue;
            target.put(slot, c.in(2 + part), t * target.width());
        }
    }
}

void kv_gather(const call& c, int64_t begin, int64_t end) {
    const cached_part source(c, c.attributes<sluice_kv_gather_attributes>().part);
    const int64_t width = source.width();
    const int64_t tokens = c.state(0).tokens_per_block;
    const int64_t columns = c.in(1).shape[1];
    for (int64_t i = begin; i < end; ++i) { // i is sequence * (columns * tokens) + place
        const int64_t sequence = i / (columns * tokens);
        const int64_t place = i % (columns * tokens);
        const int32_t block = c.in(1).as<int32_t>()[sequence * columns + place / tokens];
        const int64_t slot = block * tokens + place % tokens;
        for (int64_t d = 0; d < width; ++d)
            put(c.out(0), i * width + d,
                block < 0 || slot >= source.slots() ? 0.0f : source.get(slot, d));
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
