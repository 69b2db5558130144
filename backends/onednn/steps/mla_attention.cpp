// mla_attention: absorbed where a sequence has few rows (all heads read the latent cache as it is,
// as the rows of one tile), expanded where it has many (a head's keys and values are computed once
// and packed).
#include "attend_jobs.hpp"
#include "product.hpp"

namespace sluice::onednn {

namespace {

// Rows of a slice have their absorbed queries in memory at once: so many with all their heads.
constexpr int64_t slice_rows_max = 4096;

class mla_attention_step final : public step {
  public:
    mla_attention_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation), choice_(owner.kernels()),
          attributes_(operation.as<sluice_mla_attention_attributes>()),
          up_key_(owner.compiled().weight(operation.inputs[3])),
          up_value_(owner.compiled().weight(operation.inputs[4])),
          state_number_(owner.source().values[operation.inputs[2]].state),
          state_(owner.source().states[state_number_]) {
        const auto& q_nope = owner.at(operation.inputs[0]);
        rows_max_ = q_nope.shape[0];
        heads_ = q_nope.shape[1];
        nope_ = q_nope.shape[2];
        rope_ = owner.at(operation.inputs[1]).shape[2];
        latent_ = state_.part_width[0];
        value_width_ = out().shape[2];
        mask_.scale = attributes_.scale;
        rows_per_job_ = std::max<int64_t>(rows_per_tile / heads_, 1);
        rows_per_slice_ =
            std::min(std::max(slice_rows_max / heads_ / rows_per_job_, int64_t{1}) * rows_per_job_,
                     rows_max_);
        sequences_max_ = owner.at(operation.inputs[7]).shape[0];
        jobs_max_ = rows_per_slice_ / rows_per_job_ + sequences_max_ + 1;
        make_products(q_nope.type);
        partial_ = partial_rows(latent_);
    }

    scratch_size scratch() const override {
        const int64_t slices = partial_bytes()
                               + aligned(rows_per_slice_ * heads_ * (latent_ + rope_) * 4)
                               + aligned(rows_per_slice_ * heads_ * latent_ * 4);
        return {std::max(slices, runs_max() * aligned(run_rows_bytes())),
                list_bytes() + kernel_bytes()
                    + std::max({expanded_bytes(), tiled_bytes(), product_bytes()})};
    }

    void run(const plugin::worker& self) override {
        const auto starts = owner_.query_start();
        const auto sequence_count = static_cast<int64_t>(starts.empty() ? 0 : starts.size() - 1);
        for (int64_t i = 0; i < sequence_count; ++i)
            if (!is_absorbed(i)) run_expanded(self, i);
        clear_padding_rows(self, starts, out());
        slice part;
        part.rows = reinterpret_cast<int32_t*>(owner_.own_scratch(self));
        part.partial = partial_;
        std::byte* shared = owner_.shared_scratch();
        part.partial.begin(shared);
        part.queries = reinterpret_cast<float*>(shared + partial_bytes());
        part.sums = part.queries + aligned(rows_per_slice_ * heads_ * (latent_ + rope_) * 4) / 4;
        for (int64_t sequence = 0, row = 0; list(sequence, row, part, self);) run_slice(self, part);
    }

  private:
    // Rows that are attended to in the absorbed form between two barriers. A worker has the lists
    // to itself; the memory of vectors is shared.
    struct slice {
        int32_t* rows = nullptr; // rows of the batch, [rows_per_slice]
        int64_t row_count = 0;
        attention_jobs jobs;      // their rows count within the slice
        float* queries = nullptr; // [rows, heads, latent + rope]
        float* sums = nullptr;    // [rows, heads, latent]
        partial_rows partial;
    };

    void make_products(sluice_element_type activations) {
        const bool is_even = latent_ % 2 == 0 && nope_ % 2 == 0 && rope_ % 2 == 0;
        const auto storage = storage_for(state_, activations, is_even);
        const auto& set = choice_.of(activations);
        expanded_ = tile_attention(choice_, set, storage, nope_ + rope_, value_width_);
        absorbed_ = tile_attention(choice_, set, storage, latent_ + rope_, latent_);
        const auto product_of = [&](const kernels::packed_layout& weights, int64_t rows,
                                    const kernels::kernel_set& of_floats) {
            return kernels::integer_kernel_set::takes(weights)
                       ? product(choice_, activations, weights, rows)
                       : product(of_floats, weights, rows);
        };
        // Latents are packed once for both.
        const auto& keys = up_key_.layout;
        const auto& values = up_value_.layout;
        const bool are_alike =
            keys.storage == values.storage && keys.group_size == values.group_size;
        const auto expand_of = [&](const kernels::packed_layout& weights) {
            return are_alike ? product_of(weights, places_per_run, set)
                             : product(choice_.exact, weights, places_per_run);
        };
        expand_key_ = expand_of(keys);
        expand_value_ = expand_of(values);
        absorb_ = product_of(up_key_.transposed_layout, rows_per_slice_, choice_.exact);
        release_ = product_of(up_value_.layout, rows_per_slice_, choice_.exact);
    }

    // ---- Sizes of scratch ----

    int64_t partial_bytes() const {
        return aligned(partial_.bytes(attention_jobs::partial_rows_max(rows_per_job_ * heads_)));
    }
    int64_t list_bytes() const {
        return aligned(rows_per_slice_ * 4) + attention_jobs::bytes(jobs_max_);
    }
    int64_t kernel_bytes() const {
        return std::max({expand_key_.kernel_scratch_bytes(), expand_value_.kernel_scratch_bytes(),
                         absorb_.kernel_scratch_bytes(), release_.kernel_scratch_bytes()});
    }
    int64_t run_rows_bytes() const { // of a run's latents, packed as rows
        return std::max(expand_key_.packed_bytes(), expand_value_.packed_bytes());
    }
    int64_t vectors_bytes() const { // of a run, in float32
        return aligned(places_per_run * std::max({nope_, value_width_, latent_}) * 4);
    }
    int64_t runs_max() const {
        return (owner_.context_max() + places_per_run - 1) / places_per_run;
    }
    int64_t expanded_bytes() const {
        return aligned(places_per_run * 4) + vectors_bytes()
               + aligned(rows_per_tile * (nope_ + rope_) * 4)
               + runs_max() * aligned(expanded_.run_bytes())
               + expanded_.scratch_bytes(rows_per_tile);
    }
    int64_t tiled_bytes() const {
        return aligned(places_per_run * 4) + aligned(absorbed_.run_bytes())
               + absorbed_.scratch_bytes(rows_per_job_ * heads_);
    }
    int64_t product_bytes() const {
        return absorb_.packed_bytes() + release_.packed_bytes() + aligned(rows_per_slice_ * 4)
               + aligned(rows_per_slice_ * std::max(nope_, value_width_) * 4)
               + aligned(latent_ * 4);
    }

    // ---- The batch ----

    const plugin::tensor& out() const { return owner_.at(operation_.outputs[0]); }
    cached_sequence sequence(int64_t number) const {
        const auto& table = owner_.at(operation_.inputs[8]);
        return {table.as<int32_t>() + number * table.shape[1], state_.tokens_per_block,
                owner_.at(operation_.inputs[7]).as<int32_t>()[number]};
    }
    place_range seen_of(int64_t row, const cached_sequence& s) const {
        const int64_t position = owner_.at(operation_.inputs[5]).as<int32_t>()[row];
        return {0, std::max<int64_t>(std::min(position + 1, s.length), 0)};
    }
    // A group of elements of a part: all where it has floats.
    struct cached_group {
        int64_t first = 0;
        int64_t width = 0;
        kernels::cached_vectors vectors;
    };
    template <typename Visit>
    void each_group(uint32_t part, const int32_t* slots, Visit&& visit) const {
        const std::byte* data = owner_.cache().part(state_number_, part);
        const auto type = cached_type_of(state_.part_type[part]);
        const auto bytes = static_cast<int64_t>(plugin::host_cache::token_bytes(state_, part));
        const int64_t width = state_.part_width[part];
        if (state_.part_type[part] != SLUICE_I8)
            return visit(cached_group{0, width, {data, type, bytes, slots, nullptr}});
        const int64_t group = state_.part_group[part];
        for (int64_t first = 0; first < width; first += group)
            visit(
                cached_group{first,
                             group,
                             {data + first, type, bytes, slots, data + width + first / group * 4}});
    }

    // For each row the absorbed form multiplies with more numbers at each place; the expanded one
    // computes each place's key and value first.
    bool is_absorbed(int64_t number) const {
        if (attributes_.form != SLUICE_MLA_FORM_ANY)
            return attributes_.form == SLUICE_MLA_FORM_ABSORBED;
        const auto starts = owner_.query_start();
        const auto s = static_cast<size_t>(number);
        const int64_t rows = starts[s + 1] - starts[s];
        const int64_t more_a_row = 2 * latent_ - nope_ - value_width_;
        const int64_t once = latent_ * (nope_ + value_width_);
        return rows * more_a_row <= once;
    }

    // ---- Absorbed ----

    // The next slice from a row of a sequence on, which both move; false where there is none.
    bool list(int64_t& sequence_number, int64_t& row, slice& to, const plugin::worker& self) const {
        const auto starts = owner_.query_start();
        to.jobs.clear(owner_.own_scratch(self) + aligned(rows_per_slice_ * 4));
        to.row_count = 0;
        for (; sequence_number + 1 < static_cast<int64_t>(starts.size()); ++sequence_number) {
            const int64_t end = starts[static_cast<size_t>(sequence_number) + 1];
            row = std::max<int64_t>(row, starts[static_cast<size_t>(sequence_number)]);
            if (!is_absorbed(sequence_number)) continue;
            const auto places = sequence(sequence_number);
            while (row < end) {
                const int64_t count = std::min(rows_per_job_, end - row);
                if (to.row_count + count > rows_per_slice_) {
                    to.jobs.cut(1, heads_, [](int64_t) { return int64_t{1}; });
                    return true;
                }
                to.jobs.add({sequence_number,
                             to.row_count,
                             to.row_count + count,
                             {0, seen_of(row + count - 1, places).end}});
                for (int64_t i = 0; i < count; ++i)
                    to.rows[to.row_count++] = static_cast<int32_t>(row++);
            }
        }
        to.jobs.cut(1, heads_, [](int64_t) { return int64_t{1}; });
        return to.row_count > 0;
    }

    void run_slice(const plugin::worker& self, const slice& part) {
        const auto heads = self.share(heads_);
        for (int64_t h = heads.begin; h < heads.end; ++h) absorb(self, part, h);
        if (self.index == 0) counter_.reset();
        self.meet.wait();
        for (int64_t i = counter_.take(); i < part.jobs.unit_count(); i = counter_.take())
            run_tiled(self, part, part.jobs.of_unit(i), i);
        self.meet.wait();
        for (int64_t h = heads.begin; h < heads.end; ++h) release(self, part, h);
        self.meet.wait();
    }

    std::byte* work_memory(const plugin::worker& self) const {
        return owner_.own_scratch(self) + list_bytes();
    }

    // q' = W_uk^T q_nope of one head, then q_pe. queries: [rows, heads, latent + rope]. Where W_uk
    // has scales of rows, those of each group of latents in turn are in q_nope.
    void absorb(const plugin::worker& self, const slice& part, int64_t head) const {
        std::byte* kernel_scratch = work_memory(self);
        std::byte* packed = kernel_scratch + kernel_bytes();
        auto* index = reinterpret_cast<int32_t*>(packed + absorb_.packed_bytes());
        for (int64_t m = 0; m < part.row_count; ++m)
            index[m] = static_cast<int32_t>(part.rows[m] * heads_ + head);
        const auto& q_nope = owner_.at(operation_.inputs[0]);
        const int64_t width = latent_ + rope_;
        float* queries = part.queries + head * width;
        auto* scaled = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(index)
                                                + aligned(rows_per_slice_ * 4));
        const auto layout = absorb_.rows_layout(part.row_count);
        const int64_t groups = up_key_.row_groups();
        for (int64_t g = 0; g < groups; ++g) {
            kernels::row_source rows{q_nope.data, float_type_of(q_nope.type), nope_, index};
            if (const float* scales = up_key_.row_scales(head, g)) {
                for (int64_t m = 0; m < part.row_count; ++m) {
                    float* row = scaled + m * nope_;
                    put_floats(choice_.rows, q_nope, index[m] * nope_, nope_, row);
                    choice_.attend.multiply(scales, nope_, row);
                }
                rows = {scaled, kernels::float_type::float32, nope_, nullptr};
            }
            absorb_.pack(layout, rows, 0, layout.tile_count, packed, kernel_scratch);
            const int64_t first = g * up_key_.row_group;
            const int64_t end = g + 1 == groups
                                    ? absorb_.block_count()
                                    : (first + up_key_.row_group) / kernels::block_width;
            absorb_.multiply(up_key_.transposed(head), layout, packed, first / kernels::block_width,
                             end, queries + first, heads_ * width, kernel_scratch);
        }
        for (int64_t m = 0; m < part.row_count; ++m)
            put_floats(choice_.rows, owner_.at(operation_.inputs[1]), index[m] * rope_, rope_,
                       queries + m * heads_ * width + latent_);
    }

    void run_tiled(const plugin::worker& self, const slice& part, const attention_job& job,
                   int64_t number) const {
        auto* slots = reinterpret_cast<int32_t*>(work_memory(self) + kernel_bytes());
        auto* run = reinterpret_cast<std::byte*>(slots) + aligned(places_per_run * 4);
        const int64_t width = latent_ + rope_;
        const int64_t rows = (job.row_end - job.row_begin) * heads_;
        tile_attention tile = absorbed_;
        tile.begin(run + aligned(tile.run_bytes()),
                   {part.queries + job.row_begin * heads_ * width, kernels::float_type::float32,
                    width, nullptr},
                   rows);
        const auto s = sequence(job.sequence);
        const int64_t part_number = number - job.unit_begin;
        const auto range = job.part(part_number);
        for (int64_t first = range.begin; first < range.end; first += places_per_run) {
            const int64_t count = std::min(places_per_run, range.end - first);
            s.slots(first, count, slots);
            each_group(0, slots, [&](const cached_group& g) {
                tile.pack_keys(g.vectors, 0, count, g.first, g.width, run);
                tile.pack_values(g.vectors, 0, count, count, g.first, g.width, run);
            });
            each_group(1, slots, [&](const cached_group& g) {
                tile.pack_keys(g.vectors, 0, count, latent_ + g.first, g.width, run);
            });
            tile.attend(run, count, mask_, [&](int64_t row) {
                return seen_of(part.rows[job.row_begin + row / heads_], s).within(first, count);
            });
        }
        for (int64_t row = 0; row < rows; ++row) {
            float* sum = tile.sum(row);
            if (job.part_count > 1) {
                part.partial.put(job.partial_begin + part_number * rows + row, tile.seen(row), sum);
                continue;
            }
            float* to = part.sums + (job.row_begin * heads_ + row) * latent_;
            choice_.rows.scale(final_share(tile.seen(row), nullptr), latent_, sum);
            std::copy_n(sum, latent_, to);
        }
    }

    // o = W_uv (sum of latents) of one head, after its parts have become one.
    void release(const plugin::worker& self, const slice& part, int64_t head) const {
        for (int64_t i = 0; i < part.jobs.count(); ++i) {
            const auto& job = part.jobs[i];
            const int64_t rows = (job.row_end - job.row_begin) * heads_;
            for (int64_t row = head; job.part_count > 1 && row < rows; row += heads_) {
                float* to = part.sums + (job.row_begin * heads_ + row) * latent_;
                const auto seen =
                    part.partial.merge(choice_, job.partial_begin + row, rows, job.part_count, to);
                choice_.rows.scale(final_share(seen, nullptr), latent_, to);
            }
        }
        std::byte* kernel_scratch = work_memory(self);
        std::byte* packed = kernel_scratch + kernel_bytes();
        auto* output = reinterpret_cast<float*>(packed + release_.packed_bytes());
        const auto layout = release_.rows_layout(part.row_count);
        release_.pack(
            layout,
            {part.sums + head * latent_, kernels::float_type::float32, heads_ * latent_, nullptr},
            0, layout.tile_count, packed, kernel_scratch);
        release_.multiply(up_value_.matrix(head), layout, packed, 0, release_.block_count(), output,
                          value_width_, kernel_scratch);
        for (int64_t m = 0; m < part.row_count; ++m)
            write_floats(choice_.rows, output + m * value_width_, value_width_, out(),
                         (part.rows[m] * heads_ + head) * value_width_);
    }

    // ---- Expanded ----

    // All rows of a sequence.
    void run_expanded(const plugin::worker& self, int64_t number) const {
        const auto starts = owner_.query_start();
        const int64_t row_begin = starts[static_cast<size_t>(number)];
        const int64_t row_end = starts[static_cast<size_t>(number) + 1];
        const auto s = sequence(number);
        const int64_t length = row_begin < row_end ? seen_of(row_end - 1, s).end : 0;
        const auto runs = self.share((length + places_per_run - 1) / places_per_run);
        for (int64_t run = runs.begin; run < runs.end; ++run) pack_latents(self, s, length, run);
        self.meet.wait();
        const auto heads = self.share(heads_);
        for (int64_t head = heads.begin; head < heads.end; ++head) {
            std::byte* expanded = expand(self, s, head, length);
            attend_expanded(s, head, length, row_begin, row_end, expanded);
        }
        self.meet.wait();
    }

    // Latents of a run as rows of both products, in the shared scratch.
    std::byte* latent_rows(int64_t run) const {
        return owner_.shared_scratch() + run * aligned(run_rows_bytes());
    }
    void pack_latents(const plugin::worker& self, const cached_sequence& s, int64_t length,
                      int64_t run) const {
        std::byte* kernel_scratch = work_memory(self);
        auto* slots = reinterpret_cast<int32_t*>(kernel_scratch + kernel_bytes());
        auto* vectors = reinterpret_cast<float*>(slots + places_per_run);
        const int64_t first = run * places_per_run;
        const int64_t count = std::min(places_per_run, length - first);
        s.slots(first, count, slots);
        kernels::row_source latents{owner_.cache().part(state_number_, 0),
                                    float_type_of(state_.part_type[0]), latent_, slots};
        if (state_.part_type[0] == SLUICE_I8) {
            each_group(0, slots, [&](const cached_group& g) {
                choice_.attend.read(g.vectors, count, g.width, vectors + g.first, latent_);
            });
            latents = {vectors, kernels::float_type::float32, latent_, nullptr};
        }
        const auto layout = expand_key_.rows_layout(count);
        expand_key_.pack(layout, latents, 0, layout.tile_count, latent_rows(run), kernel_scratch);
    }

    // Keys and values of one head, packed run after run. Returns the first run's memory, behind
    // which the worker's is free.
    std::byte* expand(const plugin::worker& self, const cached_sequence& s, int64_t head,
                      int64_t length) const {
        std::byte* kernel_scratch = work_memory(self);
        auto* slots = reinterpret_cast<int32_t*>(kernel_scratch + kernel_bytes());
        auto* vectors = reinterpret_cast<float*>(slots + places_per_run);
        std::byte* runs = reinterpret_cast<std::byte*>(vectors) + vectors_bytes();
        for (int64_t first = 0; first < length; first += places_per_run) {
            const int64_t count = std::min(places_per_run, length - first);
            const int64_t number = first / places_per_run;
            std::byte* run = runs + number * aligned(expanded_.run_bytes());
            const auto multiply = [&](const product& by,
                                      const kernels::packed_matrix_view& weights) {
                by.multiply(weights, by.rows_layout(count), latent_rows(number), 0,
                            by.block_count(), vectors, by.weights().n, kernel_scratch);
            };
            multiply(expand_key_, up_key_.matrix(head));
            expanded_.pack_keys(float_vectors(vectors, nope_), 0, count, 0, nope_, run);
            s.slots(first, count, slots);
            each_group(1, slots, [&](const cached_group& g) {
                expanded_.pack_keys(g.vectors, 0, count, nope_ + g.first, g.width, run);
            });
            multiply(expand_value_, up_value_.matrix(head));
            expanded_.pack_values(float_vectors(vectors, value_width_), 0, count, count, 0,
                                  value_width_, run);
        }
        return runs;
    }
    static kernels::cached_vectors float_vectors(const float* data, int64_t width) {
        return {reinterpret_cast<const std::byte*>(data), kernels::cached_type::float32, width * 4,
                nullptr, nullptr};
    }

    // `runs` [runs of `length`], and free memory behind them.
    void attend_expanded(const cached_sequence& s, int64_t head, int64_t length, int64_t row_begin,
                         int64_t row_end, std::byte* runs) const {
        const int64_t runs_count = (length + places_per_run - 1) / places_per_run;
        auto* queries =
            reinterpret_cast<float*>(runs + runs_count * aligned(expanded_.run_bytes()));
        const int64_t width = nope_ + rope_;
        tile_attention tile = expanded_;
        for (int64_t first_row = row_begin; first_row < row_end; first_row += rows_per_tile) {
            const int64_t rows = std::min(rows_per_tile, row_end - first_row);
            for (int64_t m = 0; m < rows; ++m) {
                const int64_t at = (first_row + m) * heads_ + head;
                put_floats(choice_.rows, owner_.at(operation_.inputs[0]), at * nope_, nope_,
                           queries + m * width);
                put_floats(choice_.rows, owner_.at(operation_.inputs[1]), at * rope_, rope_,
                           queries + m * width + nope_);
            }
            tile.begin(reinterpret_cast<std::byte*>(queries) + aligned(rows_per_tile * width * 4),
                       {queries, kernels::float_type::float32, width, nullptr}, rows);
            const int64_t end = seen_of(first_row + rows - 1, s).end;
            for (int64_t first = 0; first < end; first += places_per_run) {
                const int64_t count = std::min(places_per_run, length - first);
                tile.attend(
                    runs + first / places_per_run * aligned(expanded_.run_bytes()), count, mask_,
                    [&](int64_t row) { return seen_of(first_row + row, s).within(first, count); });
            }
            for (int64_t m = 0; m < rows; ++m) {
                choice_.rows.scale(final_share(tile.seen(m), nullptr), value_width_, tile.sum(m));
                write_floats(choice_.rows, tile.sum(m), value_width_, out(),
                             ((first_row + m) * heads_ + head) * value_width_);
            }
        }
    }

    bound& owner_;
    const plugin::operation& operation_;
    const kernel_choice& choice_;
    sluice_mla_attention_attributes attributes_;
    const packed_weight& up_key_;   // [H, nope, latent]
    const packed_weight& up_value_; // [H, value, latent]
    uint32_t state_number_;
    const sluice_state& state_;
    int64_t rows_max_ = 0;
    int64_t heads_ = 0;
    int64_t nope_ = 0;
    int64_t rope_ = 0;
    int64_t latent_ = 0;
    int64_t value_width_ = 0;
    int64_t rows_per_job_ = 1;   // in the absorbed form
    int64_t rows_per_slice_ = 1; // likewise
    int64_t sequences_max_ = 0;
    int64_t jobs_max_ = 0;
    mask mask_;
    tile_attention expanded_;
    tile_attention absorbed_;
    product expand_key_;
    product expand_value_;
    product absorb_;  // by W_uk^T
    product release_; // by W_uv
    partial_rows partial_;
    work_counter counter_;
};

} // namespace

std::unique_ptr<step> make_mla_attention(bound& owner, const plugin::operation& operation) {
    return std::make_unique<mla_attention_step>(owner, operation);
}

} // namespace sluice::onednn
