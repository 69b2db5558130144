// attention: grouped-query attention over the paged cache. A decoding sequence streams its keys and
// values once; longer runs of queries pack them for the matrix kernels.
#include "attend.hpp"
#include "vector_operand.hpp"

namespace sluice::onednn {

namespace {

constexpr int64_t query_rows_max = 64; // of one unit, all heads of the group together

class attention_step final : public step {
  public:
    attention_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation), rows_(owner.kernels().rows),
          attributes_(operation.as<sluice_attention_attributes>()),
          state_number_(owner.source().values[operation.inputs[1]].state),
          state_(owner.source().states[state_number_]), sinks_(owner, operation, 6) {
        const auto& q = owner.at(operation.inputs[0]);
        heads_ = q.shape[1];
        key_width_ = q.shape[2];
        value_width_ = owner.at(operation.outputs[0]).shape[2];
        group_ = heads_ / attributes_.kv_heads;
        mask_ = {attributes_.scale, attributes_.softcap, attributes_.window};
        queries_per_unit_ = std::max<int64_t>(query_rows_max / group_, 1);
        head_ = packed_head(owner.kernels().exact, key_width_, value_width_);
        const int64_t rows = q.shape[0];
        units_.reserve(static_cast<size_t>(
            (rows / queries_per_unit_ + owner.at(operation.inputs[4]).shape[0] + 1)
            * attributes_.kv_heads));
    }

    scratch_size scratch() const override {
        const int64_t rows = std::max(queries_per_unit_ * group_, group_);
        return {0, aligned(rows * 4) + aligned((key_width_ + value_width_) * 2 * 4)
                       + head_.scratch_bytes(owner_.context_max(), rows)};
    }

    void planned() override {
        units_.clear();
        const auto starts = owner_.query_start();
        for (size_t s = 0; s + 1 < starts.size(); ++s)
            for (int64_t first = starts[s]; first < starts[s + 1]; first += queries_per_unit_)
                for (int64_t h = 0; h < attributes_.kv_heads; ++h)
                    units_.push_back({static_cast<int64_t>(s), h, first,
                                      std::min<int64_t>(first + queries_per_unit_, starts[s + 1])});
    }

    void run(const plugin::worker& self) override {
        sinks_.read(self);
        for (int64_t i = counter_.take(); i < static_cast<int64_t>(units_.size());
             i = counter_.take()) {
            const auto& u = units_[static_cast<size_t>(i)];
            if (u.row_end - u.row_begin == 1)
                run_single(self, u);
            else
                run_many(self, u);
        }
        clear_padding_rows(self);
        self.meet.wait();
        if (self.index == 0) counter_.reset();
    }

  private:
    struct unit {
        int64_t sequence;
        int64_t kv_head;
        int64_t row_begin;
        int64_t row_end;
    };

    cached_sequence sequence(int64_t number) const {
        const auto& table = owner_.at(operation_.inputs[5]);
        return {table.as<int32_t>() + number * table.shape[1], state_.tokens_per_block,
                owner_.at(operation_.inputs[4]).as<int32_t>()[number]};
    }
    // NULL where there is none.
    const float* sink_of(int64_t head) const {
        return sinks_.values() == nullptr ? nullptr : sinks_.values() + head;
    }
    int64_t position(int64_t row) const {
        return owner_.at(operation_.inputs[2]).as<int32_t>()[row];
    }
    // One past the last place that a row sees.
    int64_t end_of(int64_t row, const cached_sequence& s) const {
        return std::min(position(row) + 1, s.length);
    }
    plugin::tensor cached(uint32_t part) const {
        plugin::tensor t;
        t.data = owner_.cache().part(state_number_, part);
        t.type = state_.part_type[part];
        return t;
    }

    // One query row a head: dot products along the cached vectors.
    void run_single(const plugin::worker& self, const unit& u) const {
        const auto s = sequence(u.sequence);
        const int64_t end = end_of(u.row_begin, s);
        const int64_t begin = std::min(mask_.begin(position(u.row_begin)), end);
        auto* room = reinterpret_cast<float*>(owner_.own_scratch(self));
        float* query = room;
        float* sum = room + key_width_ + 16;
        float* scores = sum + value_width_ + 16;
        const auto keys = cached(0);
        const auto values = cached(1);
        for (int64_t g = 0; g < group_; ++g) {
            const int64_t head = u.kv_head * group_ + g;
            const auto& q = owner_.at(operation_.inputs[0]);
            const float* row = read_floats(rows_, q, (u.row_begin * heads_ + head) * key_width_,
                                           key_width_, query);
            for (int64_t j = begin; j < end; ++j)
                scores[j] =
                    dot(row, keys, (s.slot(j) * attributes_.kv_heads + u.kv_head) * key_width_);
            weigh(rows_, mask_, scores, begin, end, end, sink_of(head));
            std::fill_n(sum, value_width_, 0.0f);
            for (int64_t j = begin; j < end; ++j)
                add(scores[j], values,
                    (s.slot(j) * attributes_.kv_heads + u.kv_head) * value_width_, sum);
            write_floats(rows_, sum, value_width_, owner_.at(operation_.outputs[0]),
                         (u.row_begin * heads_ + head) * value_width_);
        }
    }

    float dot(const float* row, const plugin::tensor& keys, int64_t at) const {
        return keys.type == SLUICE_F32
                   ? rows_.dot(row, keys.as<float>() + at, key_width_)
                   : rows_.dot_bfloat16(row, keys.as<uint16_t>() + at, key_width_);
    }
    void add(float factor, const plugin::tensor& values, int64_t at, float* sum) const {
        if (values.type == SLUICE_F32)
            rows_.add_scaled(factor, values.as<float>() + at, value_width_, sum);
        else
            rows_.add_scaled_bfloat16(factor, values.as<uint16_t>() + at, value_width_, sum);
    }

    void run_many(const plugin::worker& self, const unit& u) const {
        const auto s = sequence(u.sequence);
        const int64_t length = end_of(u.row_end - 1, s);
        const int64_t count = (u.row_end - u.row_begin) * group_;
        if (length <= 0) return clear(u.row_begin, u.row_end, u.kv_head);
        std::byte* scratch = owner_.own_scratch(self);
        auto* index = reinterpret_cast<int32_t*>(scratch);
        scratch += aligned(queries_per_unit_ * group_ * 4);
        auto* vector = reinterpret_cast<float*>(scratch);
        scratch += aligned((key_width_ + value_width_) * 2 * 4);
        packed_head head = head_;
        head.begin(scratch, length, count);
        pack_cached(u, s, length, vector, head);
        for (int64_t m = 0; m < count; ++m)
            index[m] = static_cast<int32_t>((u.row_begin + m / group_) * heads_ + u.kv_head * group_
                                            + m % group_);
        const auto& q = owner_.at(operation_.inputs[0]);
        head.score({q.data, float_type_of(q.type), key_width_, index}, count);
        for (int64_t m = 0; m < count; ++m) {
            const int64_t row = u.row_begin + m / group_;
            const int64_t end = end_of(row, s);
            weigh(rows_, mask_, head.scores(m), std::min(mask_.begin(position(row)), end), end,
                  length, sink_of(u.kv_head * group_ + m % group_));
        }
        const float* output = head.combine(count);
        for (int64_t m = 0; m < count; ++m)
            write_floats(rows_, output + m * value_width_, value_width_,
                         owner_.at(operation_.outputs[0]), index[m] * value_width_);
    }

    void pack_cached(const unit& u, const cached_sequence& s, int64_t length, float* vector,
                     const packed_head& head) const {
        const auto keys = cached(0);
        const auto values = cached(1);
        // Places before every row's window are multiplied too, so they are packed as well.
        for (int64_t j = 0; j < length; ++j) {
            const int64_t at = s.slot(j) * attributes_.kv_heads + u.kv_head;
            head.put_key(j, 0, read_floats(rows_, keys, at * key_width_, key_width_, vector),
                         key_width_);
            head.put_value(j, read_floats(rows_, values, at * value_width_, value_width_, vector));
        }
    }

    void clear(int64_t row_begin, int64_t row_end, int64_t kv_head) const {
        const auto& o = owner_.at(operation_.outputs[0]);
        const auto size = static_cast<int64_t>(plugin::element_bits(o.type) / 8);
        for (int64_t row = row_begin; row < row_end; ++row)
            std::memset(o.data + (row * heads_ + kv_head * group_) * value_width_ * size, 0,
                        static_cast<size_t>(group_ * value_width_ * size));
    }

    // Rows that belong to no sequence lie behind the last one's.
    void clear_padding_rows(const plugin::worker& self) const {
        const auto starts = owner_.query_start();
        const int64_t last = starts.empty() ? 0 : starts.back();
        const int64_t rows = owner_.at(operation_.outputs[0]).shape[0];
        const auto range = self.share(std::max<int64_t>(rows - last, 0));
        for (int64_t h = 0; h < attributes_.kv_heads; ++h)
            clear(last + range.begin, last + range.end, h);
    }

    bound& owner_;
    const plugin::operation& operation_;
    const kernels::row_kernels& rows_;
    sluice_attention_attributes attributes_;
    uint32_t state_number_;
    const sluice_state& state_;
    vector_operand sinks_;
    int64_t heads_ = 0;
    int64_t key_width_ = 0;
    int64_t value_width_ = 0;
    int64_t group_ = 1;
    int64_t queries_per_unit_ = 1;
    mask mask_;
    packed_head head_;
    std::vector<unit> units_;
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
                            : "attention, streamed for one row, packed for many";
    return true;
}

std::unique_ptr<step> make_attention(bound& owner, const plugin::operation& operation) {
    if (operation.kind == SLUICE_OP_MLA_ATTENTION) return make_mla_attention(owner, operation);
    return std::make_unique<attention_step>(owner, operation);
}

} // namespace sluice::onednn
