// mla_attention: absorbed for few query rows (they read the latent cache as it is), expanded for
// many (keys and values of each head are computed once and packed).
#include "attend.hpp"

namespace sluice::onednn {

namespace {

// Up to so many rows of a sequence the absorbed form does less work.
constexpr int64_t absorbed_rows_max = 16;
constexpr int64_t query_rows_per_tile = 64;

class mla_attention_step final : public step {
  public:
    mla_attention_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation), rows_(owner.kernels().rows),
          attributes_(operation.as<sluice_mla_attention_attributes>()),
          up_key_(owner.compiled().weight(operation.inputs[3])),
          up_value_(owner.compiled().weight(operation.inputs[4])),
          state_number_(owner.source().values[operation.inputs[2]].state),
          state_(owner.source().states[state_number_]) {
        const auto& q_nope = owner.at(operation.inputs[0]);
        heads_ = q_nope.shape[1];
        nope_ = q_nope.shape[2];
        rope_ = owner.at(operation.inputs[1]).shape[2];
        latent_ = state_.part_width[0];
        value_width_ = owner.at(operation.outputs[0]).shape[2];
        mask_.scale = attributes_.scale;
        const auto& exact = owner.kernels().exact;
        head_ = packed_head(exact, nope_ + rope_, value_width_);
        const int64_t context = owner.context_max();
        expand_key_ = product(exact, up_key_.layout, context);
        expand_value_ = product(exact, up_value_.layout, context);
        absorb_ = product(exact, up_key_.transposed_layout, 1);
        release_ = product(exact, up_value_.layout, 1);
        units_.reserve(static_cast<size_t>(q_nope.shape[0] * heads_));
    }

    scratch_size scratch() const override {
        const int64_t context = owner_.context_max();
        const int64_t kernel = kernel_bytes();
        const int64_t expanded = aligned(context * 4) + latent_rows_bytes(context)
                                 + aligned(context * (nope_ + value_width_) * 4)
                                 + aligned(query_rows_per_tile * (nope_ + rope_) * 4)
                                 + head_.scratch_bytes(context, query_rows_per_tile);
        const int64_t absorbed = aligned((nope_ + rope_ + 2 * latent_ + value_width_ + 64) * 4)
                                 + aligned(context * 4) + aligned(absorb_.packed_bytes())
                                 + aligned(release_.packed_bytes());
        return {0, kernel + std::max(expanded, absorbed)};
    }

    void planned() override {
        units_.clear();
        const auto starts = owner_.query_start();
        for (size_t s = 0; s + 1 < starts.size(); ++s) {
            const int64_t count = starts[s + 1] - starts[s];
            const bool absorbed =
                attributes_.form == SLUICE_MLA_FORM_ABSORBED
                || (attributes_.form == SLUICE_MLA_FORM_ANY && count <= absorbed_rows_max);
            for (int64_t h = 0; h < heads_; ++h) {
                if (!absorbed && count > 0)
                    units_.push_back({static_cast<int64_t>(s), h, starts[s], starts[s + 1], false});
                for (int64_t row = starts[s]; absorbed && row < starts[s + 1]; ++row)
                    units_.push_back({static_cast<int64_t>(s), h, row, row + 1, true});
            }
        }
    }

    void run(const plugin::worker& self) override {
        for (int64_t i = counter_.take(); i < static_cast<int64_t>(units_.size());
             i = counter_.take()) {
            const auto& u = units_[static_cast<size_t>(i)];
            if (u.is_absorbed)
                run_absorbed(self, u);
            else
                run_expanded(self, u);
        }
        clear_padding_rows(self);
        self.meet.wait();
        if (self.index == 0) counter_.reset();
    }

  private:
    struct unit {
        int64_t sequence;
        int64_t head;
        int64_t row_begin;
        int64_t row_end;
        bool is_absorbed;
    };

    cached_sequence sequence(int64_t number) const {
        const auto& table = owner_.at(operation_.inputs[8]);
        return {table.as<int32_t>() + number * table.shape[1], state_.tokens_per_block,
                owner_.at(operation_.inputs[7]).as<int32_t>()[number]};
    }
    int64_t end_of(int64_t row, const cached_sequence& s) const {
        return std::min<int64_t>(owner_.at(operation_.inputs[5]).as<int32_t>()[row] + 1, s.length);
    }
    plugin::tensor cached(uint32_t part) const {
        plugin::tensor t;
        t.data = owner_.cache().part(state_number_, part);
        t.type = state_.part_type[part];
        return t;
    }
    int64_t kernel_bytes() const {
        return std::max({expand_key_.kernel_scratch_bytes(), expand_value_.kernel_scratch_bytes(),
                         absorb_.kernel_scratch_bytes(), release_.kernel_scratch_bytes()});
    }
    int64_t latent_rows_bytes(int64_t length) const {
        return std::max(expand_key_.packed_bytes(length), expand_value_.packed_bytes(length));
    }
    const plugin::tensor& out() const { return owner_.at(operation_.outputs[0]); }

    float dot(const float* row, const plugin::tensor& part, int64_t at, int64_t width) const {
        return part.type == SLUICE_F32 ? rows_.dot(row, part.as<float>() + at, width)
                                       : rows_.dot_bfloat16(row, part.as<uint16_t>() + at, width);
    }

    // One row of one head: q' = W_uk^T q_nope, scores over the latents, o = W_uv (sum of latents).
    void run_absorbed(const plugin::worker& self, const unit& u) const {
        const auto s = sequence(u.sequence);
        const int64_t end = end_of(u.row_begin, s);
        const int64_t at = u.row_begin * heads_ + u.head;
        std::byte* kernel_scratch = owner_.own_scratch(self);
        std::byte* packed = kernel_scratch + kernel_bytes();
        auto* room = reinterpret_cast<float*>(packed + aligned(absorb_.packed_bytes())
                                              + aligned(release_.packed_bytes()));
        float* absorbed = room;
        float* sum = absorbed + latent_ + 16;
        float* vector = sum + latent_ + 16;
        float* scores = vector + nope_ + rope_ + value_width_ + 32;
        const auto& q_nope = owner_.at(operation_.inputs[0]);
        multiply_row(absorb_, up_key_.transposed(u.head),
                     {q_nope.data + at * nope_ * element_bytes(q_nope), float_type_of(q_nope.type),
                      nope_, nullptr},
                     absorbed, packed, kernel_scratch);
        const float* q_pe =
            read_floats(rows_, owner_.at(operation_.inputs[1]), at * rope_, rope_, vector);
        const auto latents = cached(0);
        const auto keys = cached(1);
        for (int64_t j = 0; j < end; ++j)
            scores[j] = dot(absorbed, latents, s.slot(j) * latent_, latent_)
                        + dot(q_pe, keys, s.slot(j) * rope_, rope_);
        weigh(rows_, mask_, scores, 0, end, std::max<int64_t>(end, 0), nullptr);
        std::fill_n(sum, latent_, 0.0f);
        for (int64_t j = 0; j < end; ++j) add(scores[j], latents, s.slot(j) * latent_, sum);
        multiply_row(release_, up_value_.matrix(u.head),
                     {sum, kernels::float_type::float32, latent_, nullptr}, vector, packed,
                     kernel_scratch);
        write_floats(rows_, vector, value_width_, out(), at * value_width_);
    }

    void add(float factor, const plugin::tensor& latents, int64_t at, float* sum) const {
        if (latents.type == SLUICE_F32)
            rows_.add_scaled(factor, latents.as<float>() + at, latent_, sum);
        else
            rows_.add_scaled_bfloat16(factor, latents.as<uint16_t>() + at, latent_, sum);
    }
    static int64_t element_bytes(const plugin::tensor& t) {
        return static_cast<int64_t>(plugin::element_bits(t.type) / 8);
    }
    static void multiply_row(const product& p, const kernels::packed_matrix_view& weights,
                             const kernels::row_source& row, float* output, std::byte* packed,
                             std::byte* kernel_scratch) {
        const auto layout = p.rows_layout(1);
        p.pack(layout, row, 0, layout.tile_count, packed, kernel_scratch);
        p.multiply(weights, layout, packed, 0, p.block_count(), output, p.weights().n,
                   kernel_scratch);
    }

    // All rows of a sequence for one head.
    void run_expanded(const plugin::worker& self, const unit& u) const {
        const auto s = sequence(u.sequence);
        const int64_t length = end_of(u.row_end - 1, s);
        if (length <= 0) return clear(u.row_begin, u.row_end, u.head);
        std::byte* kernel_scratch = owner_.own_scratch(self);
        std::byte* scratch = kernel_scratch + kernel_bytes();
        auto* slots = reinterpret_cast<int32_t*>(scratch);
        scratch += aligned(length * 4);
        std::byte* latent_rows = scratch;
        scratch += latent_rows_bytes(length);
        auto* expanded = reinterpret_cast<float*>(scratch);
        scratch += aligned(length * (nope_ + value_width_) * 4);
        auto* queries = reinterpret_cast<float*>(scratch);
        scratch += aligned(query_rows_per_tile * (nope_ + rope_) * 4);
        for (int64_t j = 0; j < length; ++j) slots[j] = static_cast<int32_t>(s.slot(j));
        packed_head head = head_;
        head.begin(scratch, length, query_rows_per_tile);
        expand(u.head, length, slots, latent_rows, expanded, queries, kernel_scratch, head);
        for (int64_t row = u.row_begin; row < u.row_end; row += query_rows_per_tile)
            attend(u.head, row, std::min(row + query_rows_per_tile, u.row_end), s, queries, head);
    }

    // Keys and values of one head from the latents, into `head`. expanded: [length, nope + value]
    void expand(int64_t number, int64_t length, const int32_t* slots, std::byte* latent_rows,
                float* expanded, float* vector, std::byte* kernel_scratch,
                const packed_head& head) const {
        const auto latents = cached(0);
        const kernels::row_source source{latents.data, float_type_of(latents.type), latent_, slots};
        float* keys = expanded;
        float* values = expanded + length * nope_;
        const auto key_rows = expand_key_.rows_layout(length);
        expand_key_.pack(key_rows, source, 0, key_rows.tile_count, latent_rows, kernel_scratch);
        expand_key_.multiply(up_key_.matrix(number), key_rows, latent_rows, 0,
                             expand_key_.block_count(), keys, nope_, kernel_scratch);
        const auto value_rows = expand_value_.rows_layout(length);
        expand_value_.pack(value_rows, source, 0, value_rows.tile_count, latent_rows,
                           kernel_scratch);
        expand_value_.multiply(up_value_.matrix(number), value_rows, latent_rows, 0,
                               expand_value_.block_count(), values, value_width_, kernel_scratch);
        const auto shared_keys = cached(1);
        for (int64_t j = 0; j < length; ++j) {
            head.put_key(j, 0, keys + j * nope_, nope_);
            head.put_key(j, nope_, read_floats(rows_, shared_keys, slots[j] * rope_, rope_, vector),
                         rope_);
            head.put_value(j, values + j * value_width_);
        }
    }

    void attend(int64_t number, int64_t row_begin, int64_t row_end, const cached_sequence& s,
                float* queries, const packed_head& head) const {
        const int64_t width = nope_ + rope_;
        const int64_t count = row_end - row_begin;
        for (int64_t m = 0; m < count; ++m) {
            const int64_t at = (row_begin + m) * heads_ + number;
            float* query = queries + m * width;
            put_floats(owner_.at(operation_.inputs[0]), at * nope_, nope_, query);
            put_floats(owner_.at(operation_.inputs[1]), at * rope_, rope_, query + nope_);
        }
        head.score({queries, kernels::float_type::float32, width, nullptr}, count);
        for (int64_t m = 0; m < count; ++m)
            weigh(rows_, mask_, head.scores(m), 0, std::max<int64_t>(end_of(row_begin + m, s), 0),
                  head.length(), nullptr);
        const float* output = head.combine(count);
        for (int64_t m = 0; m < count; ++m)
            write_floats(rows_, output + m * value_width_, value_width_, out(),
                         ((row_begin + m) * heads_ + number) * value_width_);
    }

    void put_floats(const plugin::tensor& from, int64_t begin, int64_t count, float* to) const {
        const float* read = read_floats(rows_, from, begin, count, to);
        if (read != to) std::copy_n(read, count, to);
    }

    void clear(int64_t row_begin, int64_t row_end, int64_t head) const {
        const int64_t size = element_bytes(out());
        for (int64_t row = row_begin; row < row_end; ++row)
            std::memset(out().data + (row * heads_ + head) * value_width_ * size, 0,
                        static_cast<size_t>(value_width_ * size));
    }

    // Rows that belong to no sequence lie behind the last one's.
    void clear_padding_rows(const plugin::worker& self) const {
        const auto starts = owner_.query_start();
        const int64_t last = starts.empty() ? 0 : starts.back();
        const auto range = self.share(std::max<int64_t>(out().shape[0] - last, 0));
        for (int64_t h = 0; h < heads_; ++h) clear(last + range.begin, last + range.end, h);
    }

    bound& owner_;
    const plugin::operation& operation_;
    const kernels::row_kernels& rows_;
    sluice_mla_attention_attributes attributes_;
    const packed_weight& up_key_;   // [H, nope, latent]
    const packed_weight& up_value_; // [H, value, latent]
    uint32_t state_number_;
    const sluice_state& state_;
    int64_t heads_ = 0;
    int64_t nope_ = 0;
    int64_t rope_ = 0;
    int64_t latent_ = 0;
    int64_t value_width_ = 0;
    mask mask_;
    packed_head head_;
    product expand_key_;
    product expand_value_;
    product absorb_;  // by W_uk^T
    product release_; // by W_uv
    std::vector<unit> units_;
    work_counter counter_;
};

} // namespace

std::unique_ptr<step> make_mla_attention(bound& owner, const plugin::operation& operation) {
    return std::make_unique<mla_attention_step>(owner, operation);
}

} // namespace sluice::onednn
