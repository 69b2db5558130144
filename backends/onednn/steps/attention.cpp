// attention: grouped-query attention over the paged cache. Few query rows stream their keys and
// values as they lie; more rows pack them for the matrix kernels, a run of places at a time.
#include "attend_jobs.hpp"
#include "vector_operand.hpp"

#include <array>
#include <span>

namespace sluice::onednn {

namespace {

// Up to so many rows of a key head, packing costs more than it saves.
constexpr int64_t streamed_rows_max = 4;
// Places that all heads of a unit read before the next ones.
constexpr int64_t streamed_places = 8;
// Up to so many rows a unit packs several key heads before it attends, likewise, as long as their
// runs stay in a second-level cache.
constexpr int64_t joint_rows_max = 16;
constexpr int64_t joint_heads_max = 8;
constexpr int64_t joint_bytes_max = 512 * 1024;

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
        const auto storage = storage_for(state_, q.type, key_width_ % 2 == 0);
        tile_ = tile_attention(choice_, choice_.of(q.type), storage, key_width_, value_width_);
        joint_heads_ = std::clamp<int64_t>(joint_bytes_max / tile_.run_bytes(), 1,
                                           std::min(joint_heads_max, kv_heads_));
        partial_ = partial_rows(value_width_);
    }

    scratch_size scratch() const override {
        const int64_t streamed =
            (streamed_rows_max * kv_heads_ + 1) * streamed_row::floats(*this) * 4;
        const int64_t tiled =
            std::max(tile_bytes(tile_rows_max(), 1), tile_bytes(joint_rows_max, joint_heads_));
        return {
            partial_.bytes(attention_jobs::partial_rows_max(std::max(
                {tile_rows_max(), streamed_rows_max * kv_heads_, joint_rows_max * joint_heads_}))),
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
        clear_padding_rows(self, owner_.query_start(), out());
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
    // The vectors of one key head. Of whole numbers each is one group.
    kernels::cached_vectors cached(uint32_t part, int64_t kv_head, const int32_t* slots) const {
        const std::byte* first = owner_.cache().part(state_number_, part);
        const int64_t width = part == 0 ? key_width_ : value_width_;
        const auto bytes = static_cast<int64_t>(plugin::element_bits(state_.part_type[part]) / 8);
        return {first + kv_head * width * bytes, cached_type_of(state_.part_type[part]),
                static_cast<int64_t>(plugin::host_cache::token_bytes(state_, part)), slots,
                first + kv_heads_ * width * bytes + kv_head * 4};
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
        jobs.cut(kv_heads_, group_, [&](int64_t rows) {
            return rows <= streamed_rows_max ? kv_heads_
                   : rows <= joint_rows_max  ? joint_heads_
                                             : 1;
        });
    }

    void run_unit(const plugin::worker& self, const attention_job& job, int64_t number,
                  const partial_rows& partial) const {
        const int64_t groups = (kv_heads_ + job.heads_per_unit - 1) / job.heads_per_unit;
        const int64_t part = (number - job.unit_begin) / groups;
        const int64_t head_begin = (number - job.unit_begin) % groups * job.heads_per_unit;
        const int64_t head_end = std::min(head_begin + job.heads_per_unit, kv_heads_);
        const int64_t rows = (job.row_end - job.row_begin) * group_;
        if (rows <= streamed_rows_max)
            run_streamed(self, job, head_begin, head_end, part, partial);
        else
            run_tiled(self, job, head_begin, head_end, part, partial);
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

    // What a unit keeps for a row of one head that streams.
    struct streamed_row {
        float* query;  // [key_width], arranged
        float* sum;    // [value_width], arranged
        float* scores; // [places_per_run]
        kernels::score_sum* seen;

        static int64_t padded(int64_t floats) { return (floats + 15) / 16 * 16; }
        static int64_t floats(const attention_step& step) {
            return padded(step.key_width_) + padded(step.value_width_) + places_per_run + 16;
        }
        streamed_row(const attention_step& step, float* memory, int64_t number)
            : query(memory + number * floats(step)), sum(query + padded(step.key_width_)),
              scores(sum + padded(step.value_width_)),
              seen(reinterpret_cast<kernels::score_sum*>(scores + places_per_run)) {}
    };

    // The heads of a few places lie together in the cache, so all heads read those before the next
    // few: memory is read nearly in order.
    void run_streamed(const plugin::worker& self, const attention_job& job, int64_t head_begin,
                      int64_t head_end, int64_t part, const partial_rows& partial) const {
        int32_t* slots = slots_of(self);
        auto* room = reinterpret_cast<float*>(slots + places_per_run);
        float* memory = room + streamed_row::padded(std::max(key_width_, value_width_));
        const int64_t rows = (job.row_end - job.row_begin) * group_;
        const int64_t all_rows = (head_end - head_begin) * rows;
        for (int64_t i = 0; i < all_rows; ++i) {
            const streamed_row r(*this, memory, i);
            const float* query = read_floats(
                choice_.rows, owner_.at(operation_.inputs[0]),
                output_row(job, head_begin + i / rows, i % rows) * key_width_, key_width_, room);
            choice_.attend.arrange(cached_type_of(state_.part_type[0]), query, key_width_, r.query);
            std::fill_n(r.sum, value_width_, 0.0f);
            *r.seen = nothing_seen;
        }
        const auto s = sequence(job.sequence);
        const auto range = job.part(part);
        for (int64_t first = range.begin; first < range.end; first += places_per_run) {
            const int64_t count = std::min(places_per_run, range.end - first);
            s.slots(first, count, slots);
            // All heads' vectors of a part, of a few places after another.
            const auto stream = [&](uint32_t of, auto&& take) {
                for (int64_t j = 0; j < count; j += streamed_places)
                    for (int64_t i = 0; i < all_rows; ++i) {
                        const int64_t head = head_begin + i / rows;
                        if (i % rows == 0)
                            fetch(of, head, slots, j + streamed_places,
                                  std::min(j + 2 * streamed_places, count));
                        take(streamed_row(*this, memory, i), cached(of, head, slots + j), j,
                             std::min(streamed_places, count - j));
                    }
            };
            stream(0, [&](const streamed_row& r, const kernels::cached_vectors& keys, int64_t j,
                          int64_t few) {
                choice_.attend.dot_each(r.query, keys, few, key_width_, r.scores + j);
            });
            for (int64_t i = 0; i < all_rows; ++i) {
                const streamed_row r(*this, memory, i);
                const auto seen =
                    seen_of(job.row_begin + i % rows / group_, s).within(first, count);
                soften(choice_, mask_, r.scores, seen, count, *r.seen, r.sum, value_width_);
            }
            stream(1, [&](const streamed_row& r, const kernels::cached_vectors& values, int64_t j,
                          int64_t few) {
                choice_.attend.add_each(r.scores + j, values, few, value_width_, r.sum);
            });
        }
        for (int64_t i = 0; i < all_rows; ++i) {
            const streamed_row r(*this, memory, i);
            choice_.attend.restore(cached_type_of(state_.part_type[1]), r.sum, value_width_, room);
            finish(job, head_begin + i / rows, part, i % rows, *r.seen, room, partial);
        }
    }

    // Whole numbers are packed as they are, which is exact; their scales [count] are for scores and
    // weights.
    static void take_scales(const kernels::cached_vectors& v, int64_t count, float* to) {
        if (v.type != kernels::cached_type::int8) return;
        for (int64_t j = 0; j < count; ++j)
            std::memcpy(to + j, v.scales + v.index[j] * v.stride_bytes, sizeof(float));
    }
    static kernels::cached_vectors without_scales(kernels::cached_vectors v) {
        v.scales = nullptr;
        return v;
    }

    // Memory of a unit's tiles, for each head: slots of rows, scales, a run, and what a tile needs.
    int64_t head_bytes(int64_t rows) const {
        return aligned((rows + 2 * places_per_run) * 4) + aligned(tile_.run_bytes())
               + tile_.scratch_bytes(rows);
    }
    int64_t tile_bytes(int64_t rows, int64_t heads) const {
        return aligned(places_per_run * 4) + heads * head_bytes(rows);
    }
    struct tiled_head {
        int64_t number = 0;
        float* scales = nullptr; // of keys, then of values: [2, places_per_run]
        std::byte* run = nullptr;
        tile_attention tile;
    };

    void run_tiled(const plugin::worker& self, const attention_job& job, int64_t head_begin,
                   int64_t head_end, int64_t part, const partial_rows& partial) const {
        int32_t* slots = slots_of(self);
        int32_t* slots_next = slots + places_per_run;
        auto* memory = reinterpret_cast<std::byte*>(slots_next) + aligned(places_per_run * 4);
        const int64_t rows = (job.row_end - job.row_begin) * group_;
        std::array<tiled_head, joint_heads_max> heads;
        const auto used = std::span(heads).first(static_cast<size_t>(head_end - head_begin));
        for (size_t i = 0; i < used.size(); ++i)
            begin(used[i], job, head_begin + static_cast<int64_t>(i),
                  memory + static_cast<int64_t>(i) * head_bytes(rows));
        const auto s = sequence(job.sequence);
        const auto range = job.part(part);
        const auto count_at = [&](int64_t first) {
            return std::clamp<int64_t>(range.end - first, 0, places_per_run);
        };
        s.slots(range.begin, count_at(range.begin), slots);
        for (int64_t first = range.begin; first < range.end; first += places_per_run) {
            const int64_t count = count_at(first);
            const int64_t count_next = count_at(first + places_per_run);
            s.slots(first + places_per_run, count_next, slots_next);
            pack(used, slots, count);
            for (auto& head : used) {
                const auto seen = [&](int64_t row) {
                    for (const uint32_t of : {0u, 1u})
                        fetch(of, head.number, slots_next, row * count_next / rows,
                              (row + 1) * count_next / rows);
                    return seen_of(job.row_begin + row / group_, s).within(first, count);
                };
                head.tile.attend(head.run, count, mask_, seen,
                                 state_.part_type[0] == SLUICE_I8 ? head.scales : nullptr,
                                 state_.part_type[1] == SLUICE_I8 ? head.scales + places_per_run
                                                                  : nullptr);
            }
            std::swap(slots, slots_next);
        }
        for (const auto& head : used)
            for (int64_t row = 0; row < rows; ++row)
                finish(job, head.number, part, row, head.tile.seen(row), head.tile.sum(row),
                       partial);
    }

    void begin(tiled_head& head, const attention_job& job, int64_t number,
               std::byte* memory) const {
        const int64_t rows = (job.row_end - job.row_begin) * group_;
        auto* index = reinterpret_cast<int32_t*>(memory);
        for (int64_t row = 0; row < rows; ++row)
            index[row] = static_cast<int32_t>(output_row(job, number, row));
        head.number = number;
        head.scales = reinterpret_cast<float*>(index + rows);
        head.run = memory + aligned((rows + 2 * places_per_run) * 4);
        head.tile = tile_;
        const auto& q = owner_.at(operation_.inputs[0]);
        head.tile.begin(head.run + aligned(tile_.run_bytes()),
                        {q.data, float_type_of(q.type), key_width_, index}, rows);
    }

    // The heads of a few places before the next ones: see run_streamed.
    void pack(std::span<const tiled_head> heads, const int32_t* slots, int64_t count) const {
        for (int64_t place = 0; place < count; place += places_per_pack)
            for (const auto& head : heads) {
                const int64_t packed = std::min(places_per_pack, count - place);
                const auto keys = cached(0, head.number, slots + place);
                take_scales(keys, packed, head.scales + place);
                head.tile.pack_keys(without_scales(keys), place, packed, 0, key_width_, head.run);
            }
        for (int64_t place = 0; place < count; place += places_per_pack)
            for (const auto& head : heads) {
                const int64_t packed = std::min(places_per_pack, count - place);
                const auto values = cached(1, head.number, slots + place);
                take_scales(values, packed, head.scales + places_per_run + place);
                head.tile.pack_values(without_scales(values), place, packed, count, 0, value_width_,
                                      head.run);
            }
    }

    // Asks for a head's keys and values of the slots: they lie far apart, so that the processor
    // foresees nothing.
    void fetch(uint32_t part, int64_t head, const int32_t* slots, int64_t begin,
               int64_t end) const {
        const auto vectors = cached(part, head, slots);
        const auto bytes = (part == 0 ? key_width_ : value_width_)
                           * static_cast<int64_t>(plugin::element_bits(state_.part_type[part]) / 8);
        for (int64_t j = begin; j < end; ++j)
            for (int64_t at = 0; at < bytes; at += 64)
                __builtin_prefetch(vectors.data + slots[j] * vectors.stride_bytes + at, 0, 2);
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
    int64_t joint_heads_ = 1;
    mask mask_;
    tile_attention tile_;
    partial_rows partial_;
    work_counter counter_;
};

// Throws where no kernel reads such a cache.
void check_cached_part(const plugin::operation& operation, const sluice_state& state,
                       uint32_t part) {
    if (is_fast_type(state.part_type[part])) return;
    if (state.part_type[part] != SLUICE_I8)
        plugin::fail(SLUICE_UNSUPPORTED, "caches must be kept in float32, bfloat16 or int8");
    const uint32_t group = state.part_group[part];
    const uint32_t width = state.part_width[part];
    if (operation.kind == SLUICE_OP_MLA_ATTENTION) {
        if (group % kernels::block_width != 0 && group != width)
            plugin::fail(SLUICE_UNSUPPORTED, "groups of a latent must be of a multiple of ",
                         kernels::block_width, " elements, or the whole of it; found ", group);
        return;
    }
    const uint32_t heads = operation.as<sluice_attention_attributes>().kv_heads;
    if (group * heads != width)
        plugin::fail(SLUICE_UNSUPPORTED, "each of ", heads, " heads must be one group; found ",
                     width, " elements in groups of ", group);
}

} // namespace

bool claims_attention(const plugin::operation& operation, const value_reader& values,
                      const state_reader& states, claimed& verdict) {
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
    const auto state = states(values(operation.inputs[is_mla ? 2 : 1]).state);
    for (uint32_t part = 0; part < state.part_count; ++part)
        check_cached_part(operation, state, part);
    verdict.kernel = is_mla ? "mla_attention, absorbed for few rows, expanded for many"
                            : "attention, streamed for few rows, in packed tiles for more";
    return true;
}

std::unique_ptr<step> make_attention(bound& owner, const plugin::operation& operation) {
    if (operation.kind == SLUICE_OP_MLA_ATTENTION) return make_mla_attention(owner, operation);
    return std::make_unique<attention_step>(owner, operation);
}

} // namespace sluice::onednn
