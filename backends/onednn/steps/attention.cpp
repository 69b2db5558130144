// attention: grouped-query attention over the paged cache. Few query rows stream their keys and
// values as they lie; more rows pack them for the matrix kernels, a run of places at a time.
#include "attend_jobs.hpp"
#include "vector_operand.hpp"

namespace sluice::onednn {

namespace {

// Up to so many rows of a key head, packing costs more than it saves.
constexpr int64_t streamed_rows_max = 4;

class attention_step final : public step {
  public:
    attention_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation), choice_(owner.kernels()),
          attributes_(operation.as<sluice_attention_attributes>()),
          state_number_(owner.source().values[operation.inputs[1]].state),
          state_(owner.source().states[state_number_]), sinks_(owner, operation, 6) {
        const auto& q = owner.at(operation.inputs[0]);
        heads_ = q.shape[1];
        key_width_ = q.shape[2];
        value_width_ = out().shape[2];
        kv_heads_ = attributes_.kv_heads;
        group_ = heads_ / kv_heads_;
        mask_ = {attributes_.scale, attributes_.softcap, attributes_.window};
        rows_per_job_ = std::max<int64_t>(rows_per_tile / group_, 1);
        jobs_max_ = q.shape[0] / rows_per_job_ + owner.at(operation.inputs[4]).shape[0] + 1;
        const bool is_wide = state_.part_type[0] == SLUICE_F32 || state_.part_type[1] == SLUICE_F32
                             || key_width_ % 2 != 0;
        tile_ = tile_attention(choice_, choice_.of(q.type),
                               is_wide ? kernels::weight_storage::float32
                                       : kernels::weight_storage::bfloat16,
                               key_width_, value_width_);
        partial_ = partial_rows(value_width_);
    }

    scratch_size scratch() const override {
        const int64_t streamed = aligned((key_width_ + value_width_ + places_per_run + 64) * 4);
        const int64_t tiled = aligned(tile_rows_max() * 4) + aligned(tile_.run_bytes())
                              + tile_.scratch_bytes(tile_rows_max());
        return {partial_.bytes(attention_jobs::partial_rows_max(tile_rows_max())),
                attention_jobs::bytes(jobs_max_) + aligned(places_per_run * 4)
                    + std::max(streamed, tiled)};
    }

    void run(const plugin::worker& self) override {
        sinks_.read(self);
        attention_jobs jobs;
        jobs.clear(owner_.own_scratch(self));
        list(jobs);
        partial_rows partial = partial_;
        partial.begin(owner_.shared_scratch());
        for (int64_t i = counter_.take(); i < jobs.unit_count(); i = counter_.take())
            run_unit(self, jobs.of_unit(i), i, partial);
        clear_padding_rows(self);
        self.meet.wait();
        if (self.index == 0) counter_.reset();
        merge_parts(self, jobs, partial);
    }

  private:
    int64_t tile_rows_max() const { return rows_per_job_ * group_; }
    const plugin::tensor& out() const { return owner_.at(operation_.outputs[0]); }

    cached_sequence sequence(int64_t number) const {
        const auto& table = owner_.at(operation_.inputs[5]);
        return {table.as<int32_t>() + number * table.shape[1], state_.tokens_per_block,
                owner_.at(operation_.inputs[4]).as<int32_t>()[number]};
    }
    // NULL where there is none.
    const float* sink_of(int64_t head) const {
        return sinks_.values() == nullptr ? nullptr : sinks_.values() + head;
    }
    place_range seen_of(int64_t row, const cached_sequence& s) const {
        const int64_t position = owner_.at(operation_.inputs[2]).as<int32_t>()[row];
        const int64_t end = std::max<int64_t>(std::min(position + 1, s.length), 0);
        return {std::min(mask_.begin(position), end), end};
    }
    // The vectors of one key head.
    kernels::cached_vectors cached(uint32_t part, int64_t kv_head, const int32_t* slots) const {
        const auto bytes = static_cast<int64_t>(plugin::element_bits(state_.part_type[part]) / 8);
        const int64_t width = part == 0 ? key_width_ : value_width_;
        return {owner_.cache().part(state_number_, part) + kv_head * width * bytes,
                cached_type_of(state_.part_type[part]), kv_heads_ * width * bytes, slots};
    }

    // The jobs of a sequence that see the most come first.
    void list(attention_jobs& jobs) const {
        const auto starts = owner_.query_start();
        for (size_t s = 0; s + 1 < starts.size(); ++s) {
            const auto number = static_cast<int64_t>(s);
            const auto places = sequence(number);
            for (int64_t end = starts[s + 1]; end > starts[s];) {
                const int64_t begin = std::max<int64_t>(end - rows_per_job_, starts[s]);
                jobs.add({number,
                          begin,
                          end,
                          {seen_of(begin, places).begin, seen_of(end - 1, places).end}});
                end = begin;
            }
        }
        jobs.cut(kv_heads_, group_);
    }

    void run_unit(const plugin::worker& self, const attention_job& job, int64_t number,
                  const partial_rows& partial) const {
        const int64_t kv_head = (number - job.unit_begin) % kv_heads_;
        const int64_t part = (number - job.unit_begin) / kv_heads_;
        const int64_t rows = (job.row_end - job.row_begin) * group_;
        if (rows <= streamed_rows_max)
            run_streamed(self, job, kv_head, part, partial);
        else
            run_tiled(self, job, kv_head, part, partial);
    }

    // A row of a tile, counted from the job's first: by row of the batch, then by head of the
    // group.
    int64_t output_row(const attention_job& job, int64_t kv_head, int64_t row) const {
        return (job.row_begin + row / group_) * heads_ + kv_head * group_ + row % group_;
    }
    int64_t partial_row(const attention_job& job, int64_t kv_head, int64_t part,
                        int64_t row) const {
        const int64_t rows = (job.row_end - job.row_begin) * group_;
        return job.partial_begin + (part * kv_heads_ + kv_head) * rows + row;
    }
    // Takes over `sum` [value_width].
    void finish(const attention_job& job, int64_t kv_head, int64_t part, int64_t row,
                const kernels::score_sum& seen, float* sum, const partial_rows& partial) const {
        if (job.part_count > 1)
            partial.put(partial_row(job, kv_head, part, row), seen, sum);
        else
            write(job, kv_head, row, seen, sum);
    }
    void write(const attention_job& job, int64_t kv_head, int64_t row,
               const kernels::score_sum& seen, float* sum) const {
        choice_.rows.scale(final_share(seen, sink_of(kv_head * group_ + row % group_)),
                           value_width_, sum);
        write_floats(choice_.rows, sum, value_width_, out(),
                     output_row(job, kv_head, row) * value_width_);
    }

    // Memory of a unit's own, behind the jobs.
    int32_t* slots_of(const plugin::worker& self) const {
        return reinterpret_cast<int32_t*>(owner_.own_scratch(self)
                                          + attention_jobs::bytes(jobs_max_));
    }

    void run_streamed(const plugin::worker& self, const attention_job& job, int64_t kv_head,
                      int64_t part, const partial_rows& partial) const {
        int32_t* slots = slots_of(self);
        auto* query = reinterpret_cast<float*>(slots + places_per_run);
        float* scores = query + (key_width_ + 15) / 16 * 16;
        float* sum = scores + places_per_run;
        const auto s = sequence(job.sequence);
        const auto keys = cached(0, kv_head, slots);
        const auto values = cached(1, kv_head, slots);
        const auto range = job.part(part);
        const auto& q = owner_.at(operation_.inputs[0]);
        for (int64_t row = 0; row < (job.row_end - job.row_begin) * group_; ++row) {
            const auto seen = seen_of(job.row_begin + row / group_, s);
            const float* x = read_floats(
                choice_.rows, q, output_row(job, kv_head, row) * key_width_, key_width_, query);
            kernels::score_sum so_far = nothing_seen;
            std::fill_n(sum, value_width_, 0.0f);
            for (int64_t first = range.begin; first < range.end; first += places_per_run) {
                const int64_t count = std::min(places_per_run, range.end - first);
                s.slots(first, count, slots);
                choice_.attend.dot_each(x, keys, count, key_width_, scores);
                soften(choice_, mask_, scores, seen.within(first, count), count, so_far, sum,
                       value_width_);
                choice_.attend.add_each(scores, values, count, value_width_, sum);
            }
            finish(job, kv_head, part, row, so_far, sum, partial);
        }
    }

    void run_tiled(const plugin::worker& self, const attention_job& job, int64_t kv_head,
                   int64_t part, const partial_rows& partial) const {
        int32_t* slots = slots_of(self);
        int32_t* index = slots + places_per_run;
        auto* run = reinterpret_cast<std::byte*>(index) + aligned(tile_rows_max() * 4);
        const int64_t rows = (job.row_end - job.row_begin) * group_;
        for (int64_t row = 0; row < rows; ++row)
            index[row] = static_cast<int32_t>(output_row(job, kv_head, row));
        const auto& q = owner_.at(operation_.inputs[0]);
        tile_attention tile = tile_;
        tile.begin(run + aligned(tile_.run_bytes()),
                   {q.data, float_type_of(q.type), key_width_, index}, rows);
        const auto s = sequence(job.sequence);
        const auto keys = cached(0, kv_head, slots);
        const auto values = cached(1, kv_head, slots);
        const auto range = job.part(part);
        for (int64_t first = range.begin; first < range.end; first += places_per_run) {
            const int64_t count = std::min(places_per_run, range.end - first);
            s.slots(first, count, slots);
            tile.pack_keys(keys, count, 0, key_width_, run);
            tile.pack_values(values, count, run);
            tile.attend(run, count, mask_, [&](int64_t row) {
                return seen_of(job.row_begin + row / group_, s).within(first, count);
            });
        }
        for (int64_t row = 0; row < rows; ++row)
            finish(job, kv_head, part, row, tile.seen(row), tile.sum(row), partial);
    }

    void merge_parts(const plugin::worker& self, const attention_jobs& jobs,
                     const partial_rows& partial) const {
        auto* sum = reinterpret_cast<float*>(slots_of(self));
        for (int64_t i = 0; i < jobs.count(); ++i) {
            const auto& job = jobs[i];
            if (job.part_count == 1) continue;
            const int64_t rows = (job.row_end - job.row_begin) * group_;
            const auto range = self.share(rows * kv_heads_);
            for (int64_t at = range.begin; at < range.end; ++at) {
                const int64_t kv_head = at / rows;
                const int64_t row = at % rows;
                const auto seen = partial.merge(choice_, partial_row(job, kv_head, 0, row),
                                                rows * kv_heads_, job.part_count, sum);
                write(job, kv_head, row, seen, sum);
            }
        }
    }

    // Rows that belong to no sequence lie behind the last one's.
    void clear_padding_rows(const plugin::worker& self) const {
        const auto starts = owner_.query_start();
        const int64_t last = starts.empty() ? 0 : starts.back();
        const auto range = self.share(std::max<int64_t>(out().shape[0] - last, 0));
        const int64_t bytes =
            heads_ * value_width_ * static_cast<int64_t>(plugin::element_bits(out().type) / 8);
        std::memset(out().data + (last + range.begin) * bytes, 0,
                    static_cast<size_t>((range.end - range.begin) * bytes));
    }

    bound& owner_;
    const plugin::operation& operation_;
    const kernel_choice& choice_;
    sluice_attention_attributes attributes_;
    uint32_t state_number_;
    const sluice_state& state_;
    vector_operand sinks_;
    int64_t heads_ = 0;
    int64_t kv_heads_ = 1;
    int64_t group_ = 1; // query heads of a key head
    int64_t key_width_ = 0;
    int64_t value_width_ = 0;
    int64_t rows_per_job_ = 1;
    int64_t jobs_max_ = 0;
    mask mask_;
    tile_attention tile_;
    partial_rows partial_;
    work_counter counter_;
};

} // namespace

bool claims_attention(const plugin::operation& operation, const value_reader& values,
                      claimed& verdict) {
    if (operation.kind != SLUICE_OP_ATTENTION && operation.kind != SLUICE_OP_MLA_ATTENTION)
        return false;
    const bool is_mla = operation.kind == SLUICE_OP_MLA_ATTENTION;
    for (const uint32_t number :
         {operation.inputs[0], operation.inputs[is_mla ? 1 : 0], operation.outputs[0]})
        if (!is_fast_type(values(number).type))
            plugin::fail(SLUICE_UNSUPPORTED, "activations must be float32 or bfloat16");
    // The work is cut by the batch's sequences, so the operands must be the batch's own.
    const size_t first = is_mla ? 5 : 2;
    const uint32_t expected[] = {SLUICE_INPUT_POSITION, SLUICE_INPUT_SEQUENCE_OF_ROW,
                                 SLUICE_INPUT_KV_LENGTH, SLUICE_INPUT_BLOCK_TABLE};
    for (size_t i = 0; i < 4; ++i) {
        const auto v = values(operation.inputs[first + i]);
        if (v.kind != SLUICE_VALUE_INPUT || v.input != expected[i])
            plugin::fail(SLUICE_UNSUPPORTED, "operand ", first + i,
                         " must be the batch's own input");
    }
    verdict.kernel = is_mla ? "mla_attention, absorbed for few rows, expanded for many"
                            : "attention, streamed for few rows, in packed tiles for more";
    return true;
}

std::unique_ptr<step> make_attention(bound& owner, const plugin::operation& operation) {
    if (operation.kind == SLUICE_OP_MLA_ATTENTION) return make_mla_attention(owner, operation);
    return std::make_unique<attention_step>(owner, operation);
}

} // namespace sluice::onednn
