// Attention of a tile of query rows to a run of places after another. Scores and sums are matrix
// products; a row keeps the maximum of its scores and the sum of their exponentials so far, so that
// no more than a run's scores exist at a time (Rabe and Staats, arXiv:2112.05682; Dao et al.,
// arXiv:2205.14135).
#pragma once

#include "../kernels/attend_kernels.hpp"
#include "step.hpp"

#include <cmath>
#include <limits>
#include <span>

namespace sluice::onednn {

// A run's keys, values and scores stay in a second-level cache together with a tile's rows.
inline constexpr int64_t places_per_run = 128;
inline constexpr int64_t rows_per_tile = 128;
// Places that are packed together.
inline constexpr int64_t places_per_pack = 16;

// Which places of a sequence are seen from where, and how scores become weights.
struct mask {
    float scale = 1;
    float softcap = 0;
    int64_t window = 0; // 0: none

    int64_t begin(int64_t position) const {
        return window == 0 ? 0 : std::max<int64_t>(position + 1 - window, 0);
    }
};

struct place_range {
    int64_t begin = 0;
    int64_t end = 0;

    // What of it lies in a run of `count` places from `first` on, counted from there.
    place_range within(int64_t first, int64_t count) const {
        return {std::clamp<int64_t>(begin - first, 0, count),
                std::clamp<int64_t>(end - first, 0, count)};
    }
};

// The places of one sequence in the cache.
struct cached_sequence {
    const int32_t* blocks = nullptr; // its row of the block table
    int64_t tokens_per_block = 1;
    int64_t length = 0;

    // Slots of places first to first + count - 1.
    void slots(int64_t first, int64_t count, int32_t* to) const {
        int64_t block = first / tokens_per_block;
        int64_t within = first % tokens_per_block;
        for (int64_t i = 0; i < count; ++i) {
            to[i] = static_cast<int32_t>(blocks[block] * tokens_per_block + within);
            if (++within < tokens_per_block) continue;
            within = 0;
            ++block;
        }
    }
};

// The worker's share of the rows that belong to no sequence, which lie behind the last one's.
// out: [rows, heads, width]
inline void clear_padding_rows(const plugin::worker& self, std::span<const int32_t> query_start,
                               const plugin::tensor& out) {
    const int64_t last = query_start.empty() ? 0 : query_start.back();
    const auto range = self.share(std::max<int64_t>(out.shape[0] - last, 0));
    const int64_t bytes =
        out.shape[1] * out.shape[2] * static_cast<int64_t>(plugin::element_bits(out.type) / 8);
    std::memset(out.data + (last + range.begin) * bytes, 0,
                static_cast<size_t>((range.end - range.begin) * bytes));
}

inline kernels::cached_type cached_type_of(sluice_element_type type) {
    if (type == SLUICE_I8) return kernels::cached_type::int8;
    return type == SLUICE_BF16 ? kernels::cached_type::bfloat16 : kernels::cached_type::float32;
}

// What keys and values of a state are multiplied in. bfloat16 takes even widths of keys.
inline kernels::weight_storage storage_for(const sluice_state& state,
                                           sluice_element_type activations, bool is_even) {
    bool is_wide = !is_even;
    for (uint32_t part = 0; part < state.part_count; ++part)
        is_wide |= (state.part_type[part] == SLUICE_I8 ? activations : state.part_type[part])
                   == SLUICE_F32;
    return is_wide ? kernels::weight_storage::float32 : kernels::weight_storage::bfloat16;
}

inline constexpr kernels::score_sum nothing_seen{-std::numeric_limits<float>::infinity(), 0};

// What the sum of weighted values is to be multiplied by in the end. `sink` may be NULL; a row that
// saw no place has zero.
inline float final_share(const kernels::score_sum& seen, const float* sink) {
    if (seen.maximum == nothing_seen.maximum) return 0;
    if (sink == nullptr) return 1.0f / seen.sum;
    const float maximum = std::max(seen.maximum, *sink);
    const float share = std::exp(seen.maximum - maximum);
    return share / (seen.sum * share + std::exp(*sink - maximum));
}

// Takes a run's scores into a row: they become weights, and `sum` [width] fits them afterwards.
inline void soften(const kernel_choice& choice, const mask& m, float* scores,
                   const place_range& seen, int64_t count, kernels::score_sum& so_far, float* sum,
                   int64_t width) {
    float scale = m.scale;
    if (m.softcap > 0) {
        for (int64_t i = seen.begin; i < seen.end; ++i)
            scores[i] = m.softcap * std::tanh(scores[i] * m.scale / m.softcap);
        scale = 1;
    }
    const float factor = choice.attend.soften(scores, seen.begin, seen.end, count, scale, so_far);
    if (factor != 1) choice.rows.scale(factor, width, sum);
}

// Takes in what another unit found of the same row.
inline void merge(const kernel_choice& choice, const kernels::score_sum& other,
                  const float* other_sum, kernels::score_sum& so_far, float* sum, int64_t width) {
    if (other.maximum == nothing_seen.maximum) return;
    const float maximum = std::max(so_far.maximum, other.maximum);
    const float kept = std::exp(so_far.maximum - maximum);
    const float taken = std::exp(other.maximum - maximum);
    choice.rows.scale(kept, width, sum);
    choice.rows.add_scaled(taken, other_sum, width, sum);
    so_far = {maximum, so_far.sum * kept + other.sum * taken};
}

// A tile of rows of one head, or of several that read the same keys and values.
class tile_attention {
  public:
    tile_attention() = default;
    // Keys and values are multiplied in `storage`, float32 or bfloat16; the latter takes an even
    // key width.
    tile_attention(const kernel_choice& choice, const kernels::kernel_set& set,
                   kernels::weight_storage storage, int64_t key_width, int64_t value_width)
        : choice_(&choice), set_(&set), storage_(storage), key_width_(key_width),
          value_width_(value_width),
          keys_(kernels::make_packed_layout(storage, places_per_run, key_width)) {}

    // Packed keys and values of a run.
    int64_t run_bytes() const { return key_bytes() + value_layout(places_per_run).total_bytes; }
    // Of a tile of up to so many rows.
    int64_t scratch_bytes(int64_t rows) const {
        return aligned(set_->rows_layout(storage_, rows, key_width_).total_bytes + 64)
               + aligned(rows * places_per_run * 4)
               + aligned(set_->rows_layout(storage_, rows, places_per_run).total_bytes + 64)
               + aligned(rows * value_width_ * 4)
               + aligned(rows * static_cast<int64_t>(sizeof(kernels::score_sum))) + kernel_bytes();
    }

    // Starts a tile whose query rows are float32 or bfloat16 [rows, key_width].
    void begin(std::byte* scratch, const kernels::row_source& queries, int64_t rows) {
        rows_ = rows;
        const auto take = [&](int64_t bytes) {
            std::byte* taken = scratch;
            scratch += aligned(bytes);
            return taken;
        };
        query_layout_ = set_->rows_layout(storage_, rows, key_width_);
        queries_ = take(query_layout_.total_bytes + 64);
        scores_ = reinterpret_cast<float*>(take(rows * places_per_run * 4));
        weights_ = take(set_->rows_layout(storage_, rows, places_per_run).total_bytes + 64);
        sums_ = reinterpret_cast<float*>(take(rows * value_width_ * 4));
        seen_ = reinterpret_cast<kernels::score_sum*>(
            take(rows * static_cast<int64_t>(sizeof(kernels::score_sum))));
        kernel_scratch_ = scratch;
        set_->pack_rows(query_layout_, queries, 0, query_layout_.tile_count, queries_);
        std::fill_n(sums_, rows * value_width_, 0.0f);
        std::fill_n(seen_, rows, nothing_seen);
    }

    // Elements [first, first + width) of the keys or the values of a run's places from `place`, a
    // multiple of places_per_pack, into run [run_bytes()].
    void pack_keys(const kernels::cached_vectors& keys, int64_t place, int64_t count, int64_t first,
                   int64_t width, std::byte* run) const {
        choice_->attend.pack_keys(keys, place, count, width, keys_, first, run);
    }
    // run_count: of the whole run.
    void pack_values(const kernels::cached_vectors& values, int64_t place, int64_t count,
                     int64_t run_count, int64_t first, int64_t width, std::byte* run) const {
        choice_->attend.pack_values(values, place, count, width, value_layout(run_count), first,
                                    run + key_bytes());
    }

    // Attends to `count` places; seen(row) is the place_range of the run that a row sees. Where
    // keys and values were packed as whole numbers, their scales [count] are given.
    template <typename Seen>
    void attend(const std::byte* run, int64_t count, const mask& m, Seen&& seen,
                const float* key_scales = nullptr, const float* value_scales = nullptr) {
        const int64_t blocks = (count + kernels::block_width - 1) / kernels::block_width;
        set_->multiply({keys_, run}, {query_layout_, queries_}, 0, blocks, scores_, places_per_run,
                       false, kernel_scratch_);
        const auto values = value_layout(count);
        for (int64_t row = 0; row < rows_; ++row) {
            float* scores = scores_ + row * places_per_run;
            if (key_scales != nullptr) choice_->attend.multiply(key_scales, count, scores);
            soften(*choice_, m, scores, seen(row), values.k, seen_[row], sum(row), value_width_);
            if (value_scales != nullptr) choice_->attend.multiply(value_scales, count, scores);
        }
        const auto layout = set_->rows_layout(storage_, rows_, values.k);
        set_->pack_rows(layout, {scores_, kernels::float_type::float32, places_per_run, nullptr}, 0,
                        layout.tile_count, weights_);
        set_->multiply({values, run + key_bytes()}, {layout, weights_}, 0, values.block_count,
                       sums_, value_width_, true, kernel_scratch_);
    }

    const kernels::score_sum& seen(int64_t row) const { return seen_[row]; }
    float* sum(int64_t row) const { return sums_ + row * value_width_; } // [value_width]

  private:
    kernels::packed_layout value_layout(int64_t count) const {
        const int64_t k = (count + places_per_pack - 1) / places_per_pack * places_per_pack;
        return kernels::make_packed_layout(storage_, value_width_, k);
    }
    int64_t key_bytes() const { return aligned(keys_.total_bytes); }
    int64_t kernel_bytes() const {
        return aligned(std::max(set_->scratch_bytes(keys_),
                                set_->scratch_bytes(value_layout(places_per_run))));
    }

    const kernel_choice* choice_ = nullptr;
    const kernels::kernel_set* set_ = nullptr;
    kernels::weight_storage storage_ = kernels::weight_storage::float32;
    int64_t key_width_ = 0;
    int64_t value_width_ = 0;
    kernels::packed_layout keys_;
    int64_t rows_ = 0;
    kernels::packed_rows_layout query_layout_;
    std::byte* queries_ = nullptr;
    float* scores_ = nullptr;
    std::byte* weights_ = nullptr;
    float* sums_ = nullptr;
    kernels::score_sum* seen_ = nullptr;
    std::byte* kernel_scratch_ = nullptr;
};

} // namespace sluice::onednn
