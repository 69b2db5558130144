// Attention of a tile of query rows to keys and values that were packed for the matrix kernels.
#pragma once

#include "product.hpp"

#include <cmath>

namespace sluice::onednn {

// Which places of a sequence are seen from where, and how scores become weights.
struct mask {
    float scale = 1;
    float softcap = 0;
    int64_t window = 0; // 0: none

    int64_t begin(int64_t position) const {
        return window == 0 ? 0 : std::max<int64_t>(position + 1 - window, 0);
    }
};

// The places of one sequence in the cache.
struct cached_sequence {
    const int32_t* blocks = nullptr; // its row of the block table
    int64_t tokens_per_block = 1;
    int64_t length = 0;

    int64_t slot(int64_t place) const {
        return blocks[place / tokens_per_block] * tokens_per_block + place % tokens_per_block;
    }
};

// Turns scores in place into weights that sum to one (less the sink's share); zero outside
// [begin, end). [width]
inline void weigh(const kernels::row_kernels& rows, const mask& m, float* scores, int64_t begin,
                  int64_t end, int64_t width, const float* sink) {
    std::fill(scores, scores + begin, 0.0f);
    std::fill(scores + std::max(begin, end), scores + width, 0.0f);
    if (begin >= end) return;
    float* seen = scores + begin;
    const int64_t count = end - begin;
    rows.scale(m.scale, count, seen);
    if (m.softcap > 0)
        for (int64_t i = 0; i < count; ++i) seen[i] = m.softcap * std::tanh(seen[i] / m.softcap);
    float maximum = rows.maximum(seen, count);
    if (sink != nullptr) maximum = std::max(maximum, *sink);
    float sum = rows.exp_in_place(seen, maximum, count);
    if (sink != nullptr) sum += std::exp(*sink - maximum);
    rows.scale(1.0f / sum, count, seen);
}

// Keys and values of one head over places [0, length), packed as weights of two products:
// scores = q K^T with K [length, key_width], and output = weights V with V^T [value_width, length].
class packed_head {
  public:
    packed_head() = default;
    packed_head(const kernels::kernel_set& set, int64_t key_width, int64_t value_width)
        : set_(&set), key_width_(key_width), value_width_(value_width) {}

    // Scratch for places and query rows up to these.
    int64_t scratch_bytes(int64_t length_max, int64_t rows_max) const {
        return key_bytes(length_max) + value_bytes(length_max)
               + aligned(score_stride(length_max) * rows_max * 4)
               + packed_rows_bytes(length_max, rows_max) + aligned(rows_max * value_width_ * 4)
               + kernel_bytes(length_max);
    }

    // Takes scratch; keys and values are then to be put.
    void begin(std::byte* scratch, int64_t length, int64_t rows_max) {
        length_ = length;
        keys_ = reinterpret_cast<float*>(scratch);
        scratch += key_bytes(length);
        values_ = reinterpret_cast<float*>(scratch);
        scratch += value_bytes(length);
        scores_ = reinterpret_cast<float*>(scratch);
        scratch += aligned(score_stride(length) * rows_max * 4);
        rows_ = scratch;
        scratch += packed_rows_bytes(length, rows_max);
        output_ = reinterpret_cast<float*>(scratch);
        scratch += aligned(rows_max * value_width_ * 4);
        kernel_scratch_ = scratch;
        clear_padding();
    }

    // Elements [first, first + count) of the key of a place.
    void put_key(int64_t place, int64_t first, const float* key, int64_t count) const {
        const auto layout = key_layout(length_);
        float* block = keys_ + place / kernels::block_width * (layout.block_bytes / 4);
        float* target = block + place % kernels::block_width;
        for (int64_t d = 0; d < count; ++d) target[(first + d) * kernels::block_width] = key[d];
    }
    void put_value(int64_t place, const float* value) const {
        const int64_t block_floats = value_layout(length_).block_bytes / 4;
        for (int64_t b = 0; b * kernels::block_width < value_width_; ++b) {
            const int64_t first = b * kernels::block_width;
            float* target = values_ + b * block_floats + place * kernels::block_width;
            std::copy_n(value + first, std::min(kernels::block_width, value_width_ - first),
                        target);
        }
    }

    // Scores [count, stride()] of query rows.
    void score(const kernels::row_source& queries, int64_t count) const {
        const product p(*set_, key_layout(length_), count);
        const auto layout = p.rows_layout(count);
        p.pack(layout, queries, 0, layout.tile_count, rows_, kernel_scratch_);
        p.multiply({p.weights(), reinterpret_cast<std::byte*>(keys_)}, layout, rows_, 0,
                   p.block_count(), scores_, stride(), kernel_scratch_);
    }
    // Output rows [count, value_width] for the weights that the scores have become.
    const float* combine(int64_t count) const {
        const product p(*set_, value_layout(length_), count);
        const auto layout = p.rows_layout(count);
        p.pack(layout, {scores_, kernels::float_type::float32, stride(), nullptr}, 0,
               layout.tile_count, rows_, kernel_scratch_);
        p.multiply({p.weights(), reinterpret_cast<std::byte*>(values_)}, layout, rows_, 0,
                   p.block_count(), output_, value_width_, kernel_scratch_);
        return output_;
    }
    float* scores(int64_t row) const { return scores_ + row * stride(); }
    int64_t length() const { return length_; }

  private:
    kernels::packed_layout key_layout(int64_t length) const {
        return kernels::make_packed_layout(kernels::weight_storage::float32, length, key_width_);
    }
    kernels::packed_layout value_layout(int64_t length) const {
        return kernels::make_packed_layout(kernels::weight_storage::float32, value_width_, length);
    }
    int64_t key_bytes(int64_t length) const { return aligned(key_layout(length).total_bytes); }
    int64_t value_bytes(int64_t length) const { return aligned(value_layout(length).total_bytes); }
    static int64_t score_stride(int64_t length) { return (length + 15) / 16 * 16; }
    int64_t stride() const { return score_stride(length_); }
    int64_t packed_rows_bytes(int64_t length, int64_t rows) const {
        return std::max(product(*set_, key_layout(length), rows).packed_bytes(),
                        product(*set_, value_layout(length), rows).packed_bytes());
    }
    int64_t kernel_bytes(int64_t length) const {
        return std::max(product(*set_, key_layout(length), 1).kernel_scratch_bytes(),
                        product(*set_, value_layout(length), 1).kernel_scratch_bytes());
    }
    // Columns past the end are multiplied too; they must be finite.
    void clear_padding() const {
        const auto keys = key_layout(length_);
        const int64_t floats = keys.block_bytes / 4;
        if (keys.k_padded != keys.k)
            std::fill_n(keys_, keys.total_bytes / 4, 0.0f);
        else if (length_ % kernels::block_width != 0)
            std::fill_n(keys_ + (keys.block_count - 1) * floats, floats, 0.0f);
        const auto values = value_layout(length_);
        if (values.k_padded != values.k || value_width_ % kernels::block_width != 0)
            std::fill_n(values_, values.total_bytes / 4, 0.0f);
    }

    const kernels::kernel_set* set_ = nullptr;
    int64_t key_width_ = 0;
    int64_t value_width_ = 0;
    int64_t length_ = 0;
    float* keys_ = nullptr;
    float* values_ = nullptr;
    float* scores_ = nullptr;
    std::byte* rows_ = nullptr;
    float* output_ = nullptr;
    std::byte* kernel_scratch_ = nullptr;
};

} // namespace sluice::onednn
