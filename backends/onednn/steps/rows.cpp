// embed, rms_norm, rope, gated_activation, add, gather_rows, kv_write and slices of the last axis:
// row by row, shared by rows.
#include "activate.hpp"

namespace sluice::onednn {

namespace {

class row_step : public step {
  public:
    row_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation), rows_(owner.kernels().rows) {}

  protected:
    const plugin::tensor& in(size_t i) const { return owner_.at(operation_.inputs[i]); }
    const plugin::tensor& out(size_t i) const { return owner_.at(operation_.outputs[i]); }
    // Own scratch as `index`-th row of `count` floats.
    float* room(const plugin::worker& self, int64_t index, int64_t count) const {
        return reinterpret_cast<float*>(owner_.own_scratch(self)) + index * (count + 16);
    }
    static int64_t room_bytes(int64_t rows, int64_t count) { return rows * (count + 16) * 4; }

    bound& owner_;
    const plugin::operation& operation_;
    const kernels::row_kernels& rows_;
};

class embed_step final : public row_step {
  public:
    embed_step(bound& owner, const plugin::operation& operation)
        : row_step(owner, operation), weight_(owner.compiled().weight(operation.inputs[1])) {
        const float given = operation.as<sluice_embed_attributes>().scale;
        scale_ = given == 0.0f ? 1.0f : given;
    }
    scratch_size scratch() const override { return {0, room_bytes(1, weight_.layout.k_padded)}; }
    void run(const plugin::worker& self) override {
        const int64_t width = weight_.layout.k;
        float* row = room(self, 0, width);
        const auto range = self.share(in(0).element_count());
        for (int64_t t = range.begin; t < range.end; ++t) {
            const int32_t id = in(0).as<int32_t>()[t];
            if (id >= 0 && id < weight_.layout.n)
                kernels::unpack_row(weight_.matrix(0), id, row);
            else
                std::fill_n(row, width, 0.0f);
            if (scale_ != 1.0f) rows_.scale(scale_, width, row);
            write_floats(rows_, row, width, out(0), t * width);
        }
    }

  private:
    const packed_weight& weight_;
    float scale_;
};

class rms_norm_step final : public row_step {
  public:
    rms_norm_step(bound& owner, const plugin::operation& operation)
        : row_step(owner, operation), attributes_(operation.as<sluice_rms_norm_attributes>()),
          weight_(owner.compiled().weight(operation.inputs[1]).decoded->matrix(0)) {}
    scratch_size scratch() const override { return {0, room_bytes(4, in(0).width())}; }
    void run(const plugin::worker& self) override {
        const int64_t width = in(0).width();
        const int64_t group = attributes_.group_width == 0 ? width : attributes_.group_width;
        float* x_room = room(self, 0, width);
        float* addend_room = room(self, 1, width);
        float* sum = room(self, 2, width);
        float* y = room(self, 3, width);
        const auto range = self.share(in(0).row_count());
        for (int64_t row = range.begin; row < range.end; ++row) {
            const int64_t first = row * width;
            const float* u = read_floats(rows_, in(0), first, width, x_room);
            if (operation_.has_input(2)) {
                rows_.add(u, read_floats(rows_, in(2), first, width, addend_room), width, sum);
                u = sum;
            }
            if (operation_.has_output(1)) {
                write_floats(rows_, u, width, out(1), first);
                u = read_floats(rows_, out(1), first, width, sum);
            }
            for (int64_t g = 0; g < width; g += group)
                rows_.rms_norm(u + g, weight_, attributes_.weight_offset, attributes_.epsilon,
                               group, y + g);
            write_floats(rows_, y, width, out(0), first);
        }
    }

  private:
    sluice_rms_norm_attributes attributes_;
    const float* weight_;
};

class rope_step final : public row_step {
  public:
    rope_step(bound& owner, const plugin::operation& operation)
        : row_step(owner, operation), attributes_(operation.as<sluice_rope_attributes>()),
          table_(owner.rope(attributes_, operation.table)) {}
    scratch_size scratch() const override {
        return {0, room_bytes(2, in(0).width()) + room_bytes(2, table_.half)};
    }
    void run(const plugin::worker& self) override {
        const int64_t heads = in(0).shape[1];
        const int64_t width = in(0).shape[2];
        const int64_t turned = attributes_.dimension;
        float* x_room = room(self, 0, width);
        float* y = room(self, 1, width);
        const auto turn = attributes_.interleaved != 0 ? rows_.rope_interleaved : rows_.rope_halves;
        const auto range = self.share(in(0).shape[0]);
        for (int64_t t = range.begin; t < range.end; ++t) {
            const auto [cosine, sine] = angles(self, in(1).as<int32_t>()[t], width);
            for (int64_t h = 0; h < heads; ++h) {
                const int64_t first = (t * heads + h) * width;
                const float* x = read_floats(rows_, in(0), first, width, x_room);
                turn(x, cosine, sine, table_.half, y);
                std::copy(x + turned, x + width, y + turned);
                write_floats(rows_, y, width, out(0), first);
            }
        }
    }

  private:
    // Cosines and sines of a position: the table's, or computed where it does not reach.
    std::pair<const float*, const float*> angles(const plugin::worker& self, int32_t position,
                                                 int64_t width) const {
        const bool inside = position >= 0 && position < table_.position_count;
        const int64_t at = position * table_.half;
        if (inside && attributes_.inverse == 0)
            return {table_.cosine.as<float>() + at, table_.sine.as<float>() + at};
        float* cosine = room(self, 2, width);
        float* sine = cosine + table_.half;
        const double direction = attributes_.inverse != 0 ? -1.0 : 1.0;
        for (int64_t i = 0; i < table_.half; ++i) {
            const double angle = direction * position * table_.frequencies[static_cast<size_t>(i)];
            cosine[i] = static_cast<float>(std::cos(angle) * table_.magnitude);
            sine[i] = static_cast<float>(std::sin(angle) * table_.magnitude);
        }
        return {cosine, sine};
    }
    sluice_rope_attributes attributes_;
    const rope_table& table_;
};

class gated_activation_step final : public row_step {
  public:
    gated_activation_step(bound& owner, const plugin::operation& operation)
        : row_step(owner, operation), attributes_(operation.as<sluice_activation_attributes>()) {}
    scratch_size scratch() const override { return {0, room_bytes(3, out(0).width())}; }
    void run(const plugin::worker& self) override {
        const int64_t width = out(0).width();
        float* y = room(self, 2, width);
        const auto range = self.share(out(0).row_count());
        for (int64_t row = range.begin; row < range.end; ++row) {
            const float* gate = read_floats(rows_, in(0), row * width, width, room(self, 0, width));
            const float* up = read_floats(rows_, in(1), row * width, width, room(self, 1, width));
            gated_activate(rows_, attributes_.activation, attributes_.alpha, attributes_.clamp,
                           gate, up, width, y);
            write_floats(rows_, y, width, out(0), row * width);
        }
    }

  private:
    sluice_activation_attributes attributes_;
};

// z = x + y, all of one shape.
class add_step final : public row_step {
  public:
    using row_step::row_step;
    scratch_size scratch() const override { return {0, room_bytes(3, in(0).width())}; }
    void run(const plugin::worker& self) override {
        const int64_t width = in(0).width();
        const auto range = self.share(in(0).row_count());
        for (int64_t row = range.begin; row < range.end; ++row) {
            const int64_t first = row * width;
            const float* x = read_floats(rows_, in(0), first, width, room(self, 0, width));
            const float* y = read_floats(rows_, in(1), first, width, room(self, 1, width));
            float* z =
                out(0).type == SLUICE_F32 ? out(0).as<float>() + first : room(self, 2, width);
            rows_.add(x, y, width, z);
            write_floats(rows_, z, width, out(0), first);
        }
    }
};

class gather_rows_step final : public row_step {
  public:
    using row_step::row_step;
    void run(const plugin::worker& self) override {
        const int64_t wanted = in(1).element_count();
        if (wanted == 0) return;
        const int64_t rows = in(0).shape[0];
        const auto bytes =
            static_cast<int64_t>(plugin::bytes_of(out(0).type, out(0).element_count() / wanted));
        const auto range = self.share(wanted);
        for (int64_t m = range.begin; m < range.end; ++m) {
            const int64_t row = in(1).as<int32_t>()[m];
            std::byte* target = out(0).data + m * bytes;
            if (row >= 0 && row < rows)
                std::memcpy(target, in(0).data + row * bytes, static_cast<size_t>(bytes));
            else
                std::memset(target, 0, static_cast<size_t>(bytes));
        }
    }
};

// A slice of the last axis of elements of whole bytes.
class slice_step final : public row_step {
  public:
    using row_step::row_step;
    void run(const plugin::worker& self) override {
        const auto size = static_cast<int64_t>(plugin::element_bits(out(0).type) / 8);
        const int64_t begin = operation_.as<sluice_axis_attributes>().begin * size;
        const int64_t from_bytes = in(0).width() * size;
        const int64_t to_bytes = out(0).width() * size;
        const auto range = self.share(out(0).row_count());
        for (int64_t row = range.begin; row < range.end; ++row)
            std::memcpy(out(0).data + row * to_bytes, in(0).data + row * from_bytes + begin,
                        static_cast<size_t>(to_bytes));
    }
};

class kv_write_step final : public row_step {
  public:
    using row_step::row_step;
    void run(const plugin::worker& self) override {
        const uint32_t number = owner_.source().values[operation_.inputs[0]].state;
        const auto& state = owner_.source().states[number];
        const int64_t slots =
            static_cast<int64_t>(owner_.cache().block_count(state.group)) * state.tokens_per_block;
        const auto range = self.share(in(1).element_count());
        for (uint32_t part = 0; part < state.part_count; ++part) {
            std::byte* cached = owner_.cache().part(number, part);
            const int64_t width = state.part_width[part];
            const auto bytes = static_cast<int64_t>(plugin::host_cache::token_bytes(state, part));
            const auto& from = in(2 + part);
            for (int64_t t = range.begin; t < range.end; ++t) {
                const int64_t slot = in(1).as<int32_t>()[t];
                if (slot < 0 || slot >= slots) continue;
                std::byte* target = cached + slot * bytes;
                if (state.part_type[part] == SLUICE_I8)
                    write_whole(from, t * width, width, state.part_group[part], target,
                                reinterpret_cast<float*>(owner_.own_scratch(self)));
                else
                    write_part(from, t * width, width, state.part_type[part], target);
            }
        }
    }

    scratch_size scratch() const override {
        int64_t widest = 0;
        for (uint32_t i = 2; i < operation_.inputs.size(); ++i)
            widest = std::max(widest, in(i).element_count() / std::max<int64_t>(in(1).shape[0], 1));
        return {0, aligned(widest * 4)};
    }

  private:
    // Codes, and behind them the scales of their groups.
    void write_whole(const plugin::tensor& from, int64_t begin, int64_t width, int64_t group,
                     std::byte* target, float* room) const {
        const float* x = read_floats(rows_, from, begin, width, room);
        auto* codes = reinterpret_cast<int8_t*>(target);
        for (int64_t first = 0; first < width; first += group) {
            const float scale = owner_.kernels().attend.quantize(x + first, group, codes + first);
            std::memcpy(target + width + first / group * 4, &scale, sizeof scale);
        }
    }
    void write_part(const plugin::tensor& from, int64_t begin, int64_t width,
                    sluice_element_type type, std::byte* target) const {
        const auto size = static_cast<int64_t>(plugin::element_bits(type) / 8);
        if (from.type == type)
            std::memcpy(target, from.data + begin * size, static_cast<size_t>(width * size));
        else if (type == SLUICE_F32)
            rows_.widen(from.as<uint16_t>() + begin, width, reinterpret_cast<float*>(target));
        else
            rows_.narrow(from.as<float>() + begin, width, reinterpret_cast<uint16_t*>(target));
    }
};

bool same_shape(const plugin::value& x, const plugin::value& y) {
    if (x.rank != y.rank) return false;
    for (uint32_t axis = 0; axis < x.rank; ++axis)
        if (x.shape[axis].extent != y.shape[axis].extent
            || x.shape[axis].factor != y.shape[axis].factor
            || x.shape[axis].offset != y.shape[axis].offset)
            return false;
    return true;
}

bool all_fast(const plugin::operation& operation, const value_reader& values,
              std::initializer_list<size_t> inputs) {
    for (const size_t i : inputs)
        if (operation.has_input(i) && !is_fast_type(values(operation.inputs[i]).type)) return false;
    for (const uint32_t number : operation.outputs)
        if (number != SLUICE_VALUE_NONE && !is_fast_type(values(number).type)) return false;
    return true;
}

bool claims_kv_write(const plugin::operation& operation, const value_reader& values,
                     const state_reader& states) {
    const auto state = states(values(operation.inputs[0]).state);
    for (uint32_t part = 0; part < state.part_count; ++part)
        if (!is_fast_type(values(operation.inputs[2 + part]).type)
            || !(is_fast_type(state.part_type[part]) || state.part_type[part] == SLUICE_I8))
            return false;
    return true;
}

bool claims_binary(const plugin::operation& operation, const value_reader& values) {
    return operation.as<sluice_binary_attributes>().function == SLUICE_BINARY_ADD
           && all_fast(operation, values, {0, 1}) && values(operation.inputs[0]).rank > 0
           && same_shape(values(operation.inputs[0]), values(operation.inputs[1]));
}

} // namespace

bool claims_rows(const plugin::operation& operation, const value_reader& values,
                 const state_reader& states, claimed& verdict) {
    verdict.kernel = std::string(plugin::operation_name(operation.kind)) + ", vectorised rows";
    switch (operation.kind) {
    case SLUICE_OP_EMBED:
        return (values(operation.inputs[1]).weight_role & SLUICE_ROLE_EMBEDDING) != 0
               && is_fast_type(values(operation.outputs[0]).type);
    case SLUICE_OP_RMS_NORM:
        return values(operation.inputs[1]).kind == SLUICE_VALUE_WEIGHT
               && all_fast(operation, values, {0, 2});
    case SLUICE_OP_ROPE:
        return all_fast(operation, values, {0});
    case SLUICE_OP_GATED_ACTIVATION: {
        const auto& a = operation.as<sluice_activation_attributes>();
        return a.gate_layout == SLUICE_GATE_SPLIT && knows_gated_activation(a.activation)
               && all_fast(operation, values, {0, 1});
    }
    case SLUICE_OP_BINARY:
        return claims_binary(operation, values);
    case SLUICE_OP_GATHER_ROWS:
        return values(operation.inputs[0]).kind != SLUICE_VALUE_WEIGHT;
    case SLUICE_OP_SLICE: {
        const auto& from = values(operation.inputs[0]);
        return from.kind != SLUICE_VALUE_WEIGHT
               && operation.as<sluice_axis_attributes>().axis + 1 == from.rank;
    }
    case SLUICE_OP_KV_WRITE:
        return claims_kv_write(operation, values, states);
    default:
        return false;
    }
}

std::unique_ptr<step> make_rows(bound& owner, const plugin::operation& operation) {
    switch (operation.kind) {
    case SLUICE_OP_EMBED:
        return std::make_unique<embed_step>(owner, operation);
    case SLUICE_OP_RMS_NORM:
        return std::make_unique<rms_norm_step>(owner, operation);
    case SLUICE_OP_ROPE:
        return std::make_unique<rope_step>(owner, operation);
    case SLUICE_OP_GATED_ACTIVATION:
        return std::make_unique<gated_activation_step>(owner, operation);
    case SLUICE_OP_BINARY:
        return std::make_unique<add_step>(owner, operation);
    case SLUICE_OP_GATHER_ROWS:
        return std::make_unique<gather_rows_step>(owner, operation);
    case SLUICE_OP_SLICE:
        return std::make_unique<slice_step>(owner, operation);
    default:
        return std::make_unique<kv_write_step>(owner, operation);
    }
}

} // namespace sluice::onednn
