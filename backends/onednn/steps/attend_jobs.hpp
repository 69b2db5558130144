// How attention is cut into units of work: by tiles of rows, and by places where tiles are few.
#pragma once

#include "attend.hpp"

namespace sluice::onednn {

// Rows of one sequence that are one tile for each key head, and what they see together.
struct attention_job {
    int64_t sequence = 0;
    int64_t row_begin = 0;
    int64_t row_end = 0;
    place_range places;
    int64_t part_count = 1;
    int64_t places_per_part = 0;
    int64_t heads_per_unit = 1;
    int64_t unit_begin = 0;    // units of all jobs before
    int64_t partial_begin = 0; // partial rows of all jobs before

    place_range part(int64_t number) const {
        const int64_t begin = places.begin + number * places_per_part;
        return {begin, std::min(begin + places_per_part, places.end)};
    }
};

// So many units keep the workers of a machine busy. It is a constant, for results must not depend
// on how many workers there are.
inline constexpr int64_t units_wanted = 32;
// A short context is cut into so many parts, of so many places at least.
inline constexpr int64_t few_parts = 8;
inline constexpr int64_t places_per_few = 32;

// The jobs of a step. Every worker makes its own list, the same as everyone's.
class attention_jobs {
  public:
    static int64_t bytes(int64_t count_max) {
        return aligned(count_max * static_cast<int64_t>(sizeof(attention_job)));
    }
    // Results that cut jobs can leave, where a unit has up to `tile_rows` of them.
    static int64_t partial_rows_max(int64_t tile_rows) { return 2 * units_wanted * tile_rows; }

    void clear(std::byte* memory) {
        jobs_ = reinterpret_cast<attention_job*>(memory);
        count_ = 0;
    }
    void add(const attention_job& job) { jobs_[count_++] = job; }

    // Cuts the jobs where there are few, then numbers units and partial rows. A job has
    // `row_factor` tile rows for each row and key head; of so many rows a unit may have
    // heads_together(rows) key heads. Jobs are cut by places first, so that a unit reads those
    // heads of a place at once.
    template <typename HeadsTogether>
    void cut(int64_t heads, int64_t row_factor, HeadsTogether&& heads_together) {
        unit_count_ = 0;
        int64_t partial = 0;
        for (int64_t i = 0; i < count_; ++i) {
            auto& job = jobs_[i];
            const int64_t rows = (job.row_end - job.row_begin) * row_factor;
            const int64_t groups_least = groups_of(heads, heads_together(rows));
            const int64_t parts_wanted = wanted_for(count_ * groups_least);
            const int64_t places = std::max<int64_t>(job.places.end - job.places.begin, 1);
            job.places_per_part = part_of(places, parts_wanted);
            job.part_count = (places + job.places_per_part - 1) / job.places_per_part;
            // Not more than needed: heads of a place that are read together lie together.
            const int64_t groups =
                std::clamp(units_wanted / (count_ * job.part_count), groups_least, heads);
            job.heads_per_unit = groups_of(heads, groups);
            job.unit_begin = unit_count_;
            job.partial_begin = partial;
            unit_count_ += job.part_count * groups_of(heads, job.heads_per_unit);
            if (job.part_count > 1) partial += job.part_count * heads * rows;
        }
    }

    int64_t count() const { return count_; }
    int64_t unit_count() const { return unit_count_; }
    const attention_job& operator[](int64_t i) const { return jobs_[i]; }
    const attention_job& of_unit(int64_t unit) const {
        const auto* after = std::upper_bound(
            jobs_, jobs_ + count_, unit,
            [](int64_t number, const attention_job& job) { return number < job.unit_begin; });
        return after[-1];
    }

  private:
    // Parts are whole runs, unless few runs would keep few workers busy.
    static int64_t part_of(int64_t places, int64_t parts_wanted) {
        const int64_t of_few = groups_of(places, few_parts * places_per_few) * places_per_few;
        if (of_few < places_per_run && parts_wanted >= few_parts) return of_few;
        const int64_t runs = groups_of(places, places_per_run);
        return groups_of(runs, parts_wanted) * places_per_run;
    }
    static int64_t groups_of(int64_t count, int64_t each) { return (count + each - 1) / each; }
    // Into how many a thing is cut of which there are `count`.
    static int64_t wanted_for(int64_t count) { return (units_wanted + count - 1) / count; }

    attention_job* jobs_ = nullptr;
    int64_t count_ = 0;
    int64_t unit_count_ = 0;
};

// What the parts of cut jobs found for a row: [rows] of a score_sum and a sum [width].
class partial_rows {
  public:
    partial_rows() = default;
    explicit partial_rows(int64_t width) : width_(width) {}
    int64_t bytes(int64_t rows) const { return rows * stride() * 4; }
    void begin(std::byte* memory) { rows_ = reinterpret_cast<float*>(memory); }

    void put(int64_t row, const kernels::score_sum& seen, const float* sum) const {
        float* to = rows_ + row * stride();
        to[0] = seen.maximum;
        to[1] = seen.sum;
        std::copy_n(sum, width_, to + header);
    }
    // Rows first, first + step ... of `count` parts become one.
    kernels::score_sum merge(const kernel_choice& choice, int64_t first, int64_t step,
                             int64_t count, float* sum) const {
        kernels::score_sum seen = nothing_seen;
        std::fill_n(sum, width_, 0.0f);
        for (int64_t part = 0; part < count; ++part) {
            const float* from = rows_ + (first + part * step) * stride();
            onednn::merge(choice, {from[0], from[1]}, from + header, seen, sum, width_);
        }
        return seen;
    }

  private:
    static constexpr int64_t header = 16;
    int64_t stride() const { return (width_ + 15) / 16 * 16 + header; }
    int64_t width_ = 0;
    float* rows_ = nullptr;
};

} // namespace sluice::onednn
