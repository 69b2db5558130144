// moe_ffn and grouped_linear: rows are sorted by expert, and each expert multiplies all of its rows
// at once.
#include "activate.hpp"
#include "product.hpp"
#include "vector_operand.hpp"

namespace sluice::onednn {

namespace {

constexpr int64_t blocks_per_unit = 4;    // what a free worker takes: 128 columns of one expert
constexpr int64_t combined_columns = 512; // what a worker adds up of one row at once

// Rows sorted by expert, and the packed rows of each expert one after another.
class expert_rows {
  public:
    expert_rows(int64_t expert_count, int64_t rows_max)
        : offset_(static_cast<size_t>(expert_count + 1)),
          active_(static_cast<size_t>(expert_count)), row_(static_cast<size_t>(rows_max)) {}

    int64_t expert_count() const { return static_cast<int64_t>(offset_.size()) - 1; }
    int64_t active_count() const { return active_count_; }
    int64_t expert(int64_t active) const { return active_[static_cast<size_t>(active)]; }
    int64_t first(int64_t expert) const { return offset_[static_cast<size_t>(expert)]; }
    int64_t count(int64_t expert) const { return first(expert + 1) - first(expert); }
    int64_t total() const { return offset_.back(); }
    const int32_t* rows(int64_t expert) const { return row_.data() + first(expert); }

    // Sorts choices [rows, choices] by (mapped) expert; place [rows, choices] gets the sorted
    // place.
    void sort(const plugin::tensor& index, const plugin::tensor* map, int32_t* place) {
        const int64_t choices = index.shape[1];
        const int64_t total = index.element_count();
        std::fill(offset_.begin(), offset_.end(), 0);
        const auto local = [&](int64_t i) -> int64_t {
            int64_t e = index.as<int32_t>()[i];
            if (map != nullptr && e >= 0) e = e < map->shape[0] ? map->as<int32_t>()[e] : -1;
            return e < expert_count() ? e : -1;
        };
        for (int64_t i = 0; i < total; ++i)
            if (const int64_t e = local(i); e >= 0) ++offset_[static_cast<size_t>(e + 1)];
        find_active();
        for (size_t e = 1; e < offset_.size(); ++e) offset_[e] += offset_[e - 1];
        // offset_[e] is moved along while placing, and put back.
        for (int64_t i = 0; i < total; ++i) {
            const int64_t e = local(i);
            place[i] = -1;
            if (e < 0) continue;
            const int64_t at = offset_[static_cast<size_t>(e)]++;
            place[i] = static_cast<int32_t>(at);
            row_[static_cast<size_t>(at)] = static_cast<int32_t>(i / choices);
        }
        for (size_t e = offset_.size() - 1; e > 0; --e) offset_[e] = offset_[e - 1];
        offset_[0] = 0;
    }

    // Takes the groups as they are given: offset [experts + 1].
    void take(const int32_t* offset) {
        for (size_t e = 1; e < offset_.size(); ++e) offset_[e] = offset[e] - offset[e - 1];
        offset_[0] = 0;
        find_active();
        for (size_t e = 1; e < offset_.size(); ++e) offset_[e] += offset_[e - 1];
        for (size_t p = 0; p < row_.size(); ++p) row_[p] = static_cast<int32_t>(p);
    }

    // The tiles of all active experts, numbered through: the first of each, and behind the last.
    using tile_numbers = std::vector<int64_t>; // [experts + 1]
    // Writes the first active_count() + 1 numbers.
    void number_tiles(const product& p, tile_numbers& first) const {
        int64_t tiles = 0;
        for (int64_t a = 0; a < active_count_; ++a) {
            first[static_cast<size_t>(a)] = tiles;
            tiles += p.rows_layout(count(expert(a))).tile_count;
        }
        first[static_cast<size_t>(active_count_)] = tiles;
    }

    // Calls `pack(expert, begin, end)` with tiles of that expert, for the worker's share of all.
    template <typename Function>
    void share_tiles(const plugin::worker& self, const tile_numbers& first, Function&& pack) const {
        const auto range = self.share(first[static_cast<size_t>(active_count_)]);
        for (int64_t a = 0; a < active_count_; ++a) {
            const int64_t first_tile = first[static_cast<size_t>(a)];
            const int64_t from = std::max(range.begin, first_tile);
            const int64_t to = std::min(range.end, first[static_cast<size_t>(a + 1)]);
            if (from < to) pack(expert(a), from - first_tile, to - first_tile);
        }
    }

    // Packs the worker's share. `gathers`: row r of an expert is rows(expert)[r] of data, otherwise
    // place first(expert) + r.
    void pack(const plugin::worker& self, const tile_numbers& first_tile, const product& p,
              const std::byte* data, sluice_element_type type, bool gathers, std::byte* packed,
              std::byte* kernel_scratch) const {
        const int64_t width = p.weights().k;
        const auto size = static_cast<int64_t>(plugin::element_bits(type) / 8);
        share_tiles(self, first_tile, [&](int64_t e, int64_t begin, int64_t end) {
            const std::byte* rows_data = gathers ? data : data + first(e) * width * size;
            p.pack(p.rows_layout(count(e)),
                   {rows_data, float_type_of(type), width, gathers ? rows(e) : nullptr}, begin, end,
                   packed + packed_offset(p, e), kernel_scratch);
        });
    }
    // Likewise from rows that are quantized, by their number in the data.
    void gather(const plugin::worker& self, const tile_numbers& first_tile, const product& p,
                const uint32_t* quantized, std::byte* packed) const {
        share_tiles(self, first_tile, [&](int64_t e, int64_t begin, int64_t end) {
            p.gather(p.rows_layout(count(e)), quantized, rows(e), begin, end,
                     packed + packed_offset(p, e));
        });
    }
    int64_t packed_offset(const product& p, int64_t expert) const {
        // Each expert begins at a multiple of 64 bytes, which the slack of 64 an expert allows.
        return aligned(first(expert) * p.rows_layout(1).row_bytes()) + expert * 64;
    }
    static int64_t packed_bytes(const product& p, int64_t rows_max, int64_t experts) {
        return aligned(rows_max * p.rows_layout(1).row_bytes() + experts * 64)
               + aligned(p.slack_bytes());
    }

  private:
    void find_active() {
        active_count_ = 0;
        for (size_t e = 1; e < offset_.size(); ++e) {
            if (offset_[e] > 0)
                active_[static_cast<size_t>(active_count_++)] = static_cast<int64_t>(e) - 1;
        }
    }

    std::vector<int64_t> offset_; // [experts + 1]
    std::vector<int64_t> active_; // experts that have rows
    std::vector<int32_t> row_;    // by sorted place
    int64_t active_count_ = 0;
};

class moe_ffn_step final : public step {
  public:
    moe_ffn_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation),
          attributes_(operation.as<sluice_moe_ffn_attributes>()),
          gate_(owner.compiled().weight(operation.inputs[4])),
          up_(operation.has_input(5) ? &owner.compiled().weight(operation.inputs[5]) : nullptr),
          down_(owner.compiled().weight(operation.inputs[6])),
          sorted_(gate_.matrix_count, owner.at(operation.inputs[1]).element_count()) {
        const auto& x = owner.at(operation.inputs[0]);
        type_ = x.type;
        rows_max_ = x.shape[0];
        places_max_ = owner.at(operation.inputs[1]).element_count();
        in_ = up_ == nullptr
                  ? product(owner.kernels(), type_, gate_.layout, rows_max_)
                  : product(owner.kernels(), type_, gate_.layout, up_->layout, rows_max_);
        out_ = product(owner.kernels(), type_, down_.layout, rows_max_);
        inner_ = down_.layout.k;
        for (size_t i = 0; i < 3; ++i) biases_[i] = vector_operand(owner, operation, 7 + i);
        in_tiles_.resize(static_cast<size_t>(sorted_.expert_count() + 1));
        out_tiles_ = in_tiles_;
        kernel_bytes_ = std::max(in_.kernel_scratch_bytes(), out_.kernel_scratch_bytes());
        if (in_.quantizes()) quantized_bytes_ = aligned(rows_max_ * in_.row_words() * 4);
    }

    scratch_size scratch() const override {
        const int64_t run = rows_max_ * blocks_per_unit * kernels::block_width * 4;
        return {inner_at() + aligned(places_max_ * inner_ * 4) + inner_packed_bytes()
                    + aligned(places_max_ * down_.layout.n * 4),
                // Of a worker: three runs of inner columns, or a part of a combined row.
                kernel_bytes_ + std::max(3 * run, aligned(combined_columns * 4))};
    }

    void run(const plugin::worker& self) override {
        for (const auto& bias : biases_) bias.read(self);
        const auto& x = owner_.at(operation_.inputs[0]);
        if (self.index == 0) {
            sorted_.sort(owner_.at(operation_.inputs[1]),
                         operation_.has_input(3) ? &owner_.at(operation_.inputs[3]) : nullptr,
                         places());
            sorted_.number_tiles(in_, in_tiles_);
            sorted_.number_tiles(out_, out_tiles_);
            inner_units_.reset();
            outer_units_.reset();
        }
        if (in_.quantizes()) {
            const auto rows = self.share(x.shape[0]);
            in_.quantize({x.data, float_type_of(type_), x.width(), nullptr}, rows.begin, rows.end,
                         quantized_x());
        }
        self.meet.wait();
        std::byte* kernel_scratch = owner_.own_scratch(self);
        if (in_.quantizes())
            sorted_.gather(self, in_tiles_, in_, quantized_x(), packed_x());
        else
            sorted_.pack(self, in_tiles_, in_, x.data, type_, true, packed_x(), kernel_scratch);
        self.meet.wait();
        take_runs(inner_units_, part_count(in_), 1, [&](const work_run& run) {
            run_inner(self, part_at(in_, run.first), part_at(in_, run.next));
        });
        self.meet.wait();
        sorted_.pack(self, out_tiles_, out_, inner(), type_, false, packed_inner(), kernel_scratch);
        self.meet.wait();
        take_runs(outer_units_, part_count(out_), 1, [&](const work_run& run) {
            run_outer(self, part_at(out_, run.first), part_at(out_, run.next));
        });
        self.meet.wait();
        combine(self);
    }

  private:
    // Blocks of one expert that a free worker takes.
    struct part {
        int64_t expert = 0;
        int64_t first = 0;
        int64_t last = 0; // 0: there is none
    };
    static int64_t parts_each(const product& p) {
        return (p.block_count() + blocks_per_unit - 1) / blocks_per_unit;
    }
    int64_t part_count(const product& p) const { return sorted_.active_count() * parts_each(p); }
    part part_at(const product& p, int64_t number) const {
        if (number == work_run::none) return {};
        const int64_t first = number % parts_each(p) * blocks_per_unit;
        return {sorted_.expert(number / parts_each(p)), first,
                std::min(first + blocks_per_unit, p.block_count())};
    }
    static const std::byte* begin_of(const packed_weight& weight, const part& of) {
        return of.last == 0 ? nullptr : weight.matrix(of.expert).block(of.first);
    }
    // Shared scratch: places, quantized rows of x, its packed rows, inner rows, packed inner rows,
    // outer rows.
    int32_t* places() const { return reinterpret_cast<int32_t*>(owner_.shared_scratch()); }
    uint32_t* quantized_x() const {
        return reinterpret_cast<uint32_t*>(owner_.shared_scratch() + aligned(places_max_ * 4));
    }
    std::byte* packed_x() const {
        return owner_.shared_scratch() + aligned(places_max_ * 4) + quantized_bytes_;
    }
    int64_t inner_at() const {
        return aligned(places_max_ * 4) + quantized_bytes_
               + expert_rows::packed_bytes(in_, places_max_, sorted_.expert_count());
    }
    std::byte* inner() const { return owner_.shared_scratch() + inner_at(); }
    int64_t inner_packed_bytes() const {
        return expert_rows::packed_bytes(out_, places_max_, sorted_.expert_count());
    }
    std::byte* packed_inner() const { return inner() + aligned(places_max_ * inner_ * 4); }
    float* outer() const { return reinterpret_cast<float*>(packed_inner() + inner_packed_bytes()); }
    float* run_room(const plugin::worker& self) const {
        return reinterpret_cast<float*>(owner_.own_scratch(self) + kernel_bytes_);
    }

    // NULL where there is none.
    const float* bias_of(size_t which, int64_t offset) const {
        const float* values = biases_[which].values();
        return values == nullptr ? nullptr : values + offset;
    }

    // Some columns of activation(gate) * up for the rows of one expert.
    void run_inner(const plugin::worker& self, const part& run, const part& next) const {
        constexpr int64_t stride = blocks_per_unit * kernels::block_width;
        const auto [expert, first, last] = run;
        const int64_t count = sorted_.count(expert);
        const auto layout = in_.rows_layout(count);
        const std::byte* packed = packed_x() + sorted_.packed_offset(in_, expert);
        std::byte* kernel_scratch = owner_.own_scratch(self);
        float* gate = run_room(self);
        float* up = gate + count * stride;
        const std::byte* gate_next = begin_of(gate_, next);
        in_.multiply(gate_.matrix(expert), layout, packed, first, last, gate, stride,
                     kernel_scratch, up_ != nullptr ? begin_of(*up_, run) : gate_next);
        if (up_ != nullptr)
            in_.multiply(up_->matrix(expert), layout, packed, first, last, up, stride,
                         kernel_scratch, gate_next);
        const int64_t columns = in_.columns(first, last);
        const int64_t n_first = first * kernels::block_width;
        const auto& rows = owner_.kernels().rows;
        plugin::tensor h;
        h.data = inner();
        h.type = type_;
        const float* gate_bias = bias_of(0, expert * gate_.layout.n + n_first);
        const float* up_bias = bias_of(1, expert * gate_.layout.n + n_first);
        for (int64_t m = 0; m < count; ++m) {
            float* g = gate + m * stride;
            float* u = up + m * stride;
            if (gate_bias != nullptr) rows.add(g, gate_bias, columns, g);
            if (up_bias != nullptr) rows.add(u, up_bias, columns, u);
            const int64_t row = (sorted_.first(expert) + m) * inner_;
            if (up_ != nullptr) {
                activate(g, u, columns, g);
                write_floats(rows, g, columns, h, row + n_first);
            } else {
                for (int64_t i = 0; i < columns / 2; ++i) {
                    u[i] = g[2 * i];
                    u[columns / 2 + i] = g[2 * i + 1];
                }
                activate(u, u + columns / 2, columns / 2, g);
                write_floats(rows, g, columns / 2, h, row + n_first / 2);
            }
        }
    }

    void activate(const float* gate, const float* up, int64_t count, float* y) const {
        gated_activate(owner_.kernels().rows, attributes_.activation, attributes_.alpha,
                       attributes_.clamp, gate, up, count, y);
    }

    void run_outer(const plugin::worker& self, const part& run, const part& next) const {
        const auto [expert, first, last] = run;
        const int64_t count = sorted_.count(expert);
        const int64_t width = down_.layout.n;
        float* target = outer() + sorted_.first(expert) * width + first * kernels::block_width;
        out_.multiply(down_.matrix(expert), out_.rows_layout(count),
                      packed_inner() + sorted_.packed_offset(out_, expert), first, last, target,
                      width, owner_.own_scratch(self), begin_of(down_, next));
        const float* bias = bias_of(2, expert * width + first * kernels::block_width);
        if (bias == nullptr) return;
        for (int64_t m = 0; m < count; ++m)
            owner_.kernels().rows.add(target + m * width, bias, out_.columns(first, last),
                                      target + m * width);
    }

    void combine(const plugin::worker& self) const {
        const auto& index = owner_.at(operation_.inputs[1]);
        const auto* weight = owner_.at(operation_.inputs[2]).as<float>();
        const auto& y = owner_.at(operation_.outputs[0]);
        const auto& rows = owner_.kernels().rows;
        const int64_t choices = index.shape[1];
        const int64_t width = down_.layout.n;
        // Parts of rows, so that one row is the work of all.
        const int64_t parts = (width + combined_columns - 1) / combined_columns;
        const auto range = self.share(index.shape[0] * parts);
        float* room = run_room(self);
        for (int64_t unit = range.begin; unit < range.end; ++unit) {
            const int64_t t = unit / parts;
            const int64_t first = unit % parts * combined_columns;
            const int64_t columns = std::min(combined_columns, width - first);
            float* sum = y.type == SLUICE_F32 ? y.as<float>() + t * width + first : room;
            std::fill_n(sum, columns, 0.0f);
            for (int64_t j = 0; j < choices; ++j) {
                const int32_t place = places()[t * choices + j];
                if (place >= 0)
                    rows.add_scaled(weight[t * choices + j], outer() + place * width + first,
                                    columns, sum);
            }
            write_floats(rows, sum, columns, y, t * width + first);
        }
    }

    bound& owner_;
    const plugin::operation& operation_;
    sluice_moe_ffn_attributes attributes_;
    const packed_weight& gate_;
    const packed_weight* up_;
    const packed_weight& down_;
    expert_rows sorted_;
    product in_;
    product out_;
    sluice_element_type type_ = SLUICE_F32;
    int64_t rows_max_ = 0;
    int64_t places_max_ = 0;
    int64_t inner_ = 0;
    vector_operand biases_[3]; // of gate, up and down
    expert_rows::tile_numbers in_tiles_;
    expert_rows::tile_numbers out_tiles_;
    int64_t kernel_bytes_ = 0;    // at the begin of a worker's scratch
    int64_t quantized_bytes_ = 0; // of the rows of x
    work_counter inner_units_;
    work_counter outer_units_;
};

// y[p] = W[expert of p] x[p] + b
class grouped_linear_step final : public step {
  public:
    grouped_linear_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation),
          weight_(owner.compiled().weight(operation.inputs[2])),
          groups_(weight_.matrix_count, owner.at(operation.inputs[0]).shape[0]),
          bias_(owner, operation, 3) {
        const auto& x = owner.at(operation.inputs[0]);
        product_ = product(owner.kernels(), x.type, weight_.layout, x.shape[0]);
        places_max_ = x.shape[0];
        tiles_.resize(static_cast<size_t>(groups_.expert_count() + 1));
    }

    scratch_size scratch() const override {
        return {expert_rows::packed_bytes(product_, places_max_, weight_.matrix_count),
                product_.kernel_scratch_bytes()
                    + places_max_ * blocks_per_unit * kernels::block_width * 4};
    }

    void run(const plugin::worker& self) override {
        bias_.read(self);
        const auto& x = owner_.at(operation_.inputs[0]);
        if (self.index == 0) {
            groups_.take(owner_.at(operation_.inputs[1]).as<int32_t>());
            groups_.number_tiles(product_, tiles_);
            units_.reset();
        }
        self.meet.wait();
        groups_.pack(self, tiles_, product_, x.data, x.type, false, owner_.shared_scratch(),
                     owner_.own_scratch(self));
        self.meet.wait();
        const int64_t runs = (product_.block_count() + blocks_per_unit - 1) / blocks_per_unit;
        for (int64_t u = units_.take(); u < groups_.active_count() * runs; u = units_.take())
            run_unit(self, groups_.expert(u / runs), u % runs);
        clear_rest(self, x.shape[0]);
    }

  private:
    void run_unit(const plugin::worker& self, int64_t expert, int64_t unit) const {
        constexpr int64_t stride = blocks_per_unit * kernels::block_width;
        const int64_t first = unit * blocks_per_unit;
        const int64_t last = std::min(first + blocks_per_unit, product_.block_count());
        const int64_t n_first = first * kernels::block_width;
        const int64_t columns = product_.columns(first, last);
        std::byte* kernel_scratch = owner_.own_scratch(self);
        float* room = reinterpret_cast<float*>(kernel_scratch + product_.kernel_scratch_bytes());
        const int64_t count = groups_.count(expert);
        product_.multiply(weight_.matrix(expert), product_.rows_layout(count),
                          owner_.shared_scratch() + groups_.packed_offset(product_, expert), first,
                          last, room, stride, kernel_scratch);
        const auto& rows = owner_.kernels().rows;
        const auto& y = owner_.at(operation_.outputs[0]);
        for (int64_t m = 0; m < count; ++m) {
            float* row = room + m * stride;
            if (bias_.values() != nullptr)
                rows.add(row, bias_.values() + expert * weight_.layout.n + n_first, columns, row);
            write_floats(rows, row, columns, y,
                         (groups_.first(expert) + m) * weight_.layout.n + n_first);
        }
    }

    void clear_rest(const plugin::worker& self, int64_t places) const {
        const auto& y = owner_.at(operation_.outputs[0]);
        const auto bytes = static_cast<int64_t>(plugin::bytes_of(y.type, weight_.layout.n));
        const auto range = self.share(places - groups_.total());
        if (range.begin < range.end)
            std::memset(y.data + (groups_.total() + range.begin) * bytes, 0,
                        static_cast<size_t>((range.end - range.begin) * bytes));
    }

    bound& owner_;
    const plugin::operation& operation_;
    const packed_weight& weight_;
    expert_rows groups_;
    vector_operand bias_;
    product product_;
    int64_t places_max_ = 0;
    expert_rows::tile_numbers tiles_;
    work_counter units_;
};

bool claims_route(const plugin::operation& operation, const value_reader& values) {
    const auto& spec = operation.as<sluice_routing_specification>();
    if (spec.group_count > 256)
        plugin::fail(SLUICE_UNSUPPORTED, "at most 256 groups of experts, found ", spec.group_count);
    if (spec.score > SLUICE_SCORE_IDENTITY || spec.score_stage > SLUICE_SCORE_AFTER_CHOICE
        || spec.group_score > SLUICE_GROUP_SCORE_TOPK_SUM || spec.mask_value > SLUICE_MASK_ZERO
        || spec.weight_source > SLUICE_WEIGHT_FROM_CHOICE
        || spec.renormalize > SLUICE_RENORMALIZE_CLAMP
        || spec.capacity_policy > SLUICE_CAPACITY_REROUTE)
        plugin::fail(SLUICE_UNSUPPORTED, "the routing specification uses a choice that this "
                                         "backend does not know");
    if (spec.expert_count == 0 || spec.choice_count == 0 || spec.choice_count > spec.expert_count
        || (spec.group_count > 1 && spec.expert_count % spec.group_count != 0))
        plugin::fail(SLUICE_INVALID, "a routing specification of ", spec.choice_count, " of ",
                     spec.expert_count, " experts in ", spec.group_count, " groups");
    return values(operation.inputs[0]).type == SLUICE_F32
           && (!operation.has_input(5) || values(operation.inputs[5]).kind != SLUICE_VALUE_WEIGHT);
}

bool claims_moe_ffn(const plugin::operation& operation, const value_reader& values) {
    const auto& a = operation.as<sluice_moe_ffn_attributes>();
    if (a.weight_on_input != 0)
        plugin::fail(SLUICE_UNSUPPORTED, "weights on the expert's input are left to primitives");
    if (a.zero_expert != SLUICE_ZERO_EXPERT_NONE)
        plugin::fail(SLUICE_UNSUPPORTED, "zero-computation experts are left to primitives");
    if (a.gate_layout == SLUICE_GATE_CONCAT)
        plugin::fail(SLUICE_UNSUPPORTED, "gate and up joined one after the other are left to "
                                         "primitives");
    if (!knows_gated_activation(a.activation))
        plugin::fail(SLUICE_UNSUPPORTED, "activation ", a.activation, " is not known here");
    return is_fast_type(values(operation.inputs[0]).type)
           && is_fast_type(values(operation.outputs[0]).type);
}

} // namespace

bool claims_experts(const plugin::operation& operation, const value_reader& values,
                    claimed& verdict) {
    switch (operation.kind) {
    case SLUICE_OP_ROUTE:
        verdict.kernel = "route, in one pass";
        return claims_route(operation, values);
    case SLUICE_OP_MOE_FFN:
        verdict.kernel = "moe_ffn, rows grouped by expert";
        verdict.multiplies = values(operation.inputs[0]).type == SLUICE_BF16;
        return claims_moe_ffn(operation, values);
    case SLUICE_OP_GROUPED_LINEAR:
        verdict.kernel = "grouped_linear, blocks of 32 columns";
        verdict.multiplies = values(operation.inputs[0]).type == SLUICE_BF16;
        return is_fast_type(values(operation.inputs[0]).type)
               && is_fast_type(values(operation.outputs[0]).type);
    default:
        return false;
    }
}

std::unique_ptr<step> make_moe_ffn(bound& owner, const plugin::operation& operation) {
    if (operation.kind == SLUICE_OP_GROUPED_LINEAR)
        return std::make_unique<grouped_linear_step>(owner, operation);
    return std::make_unique<moe_ffn_step>(owner, operation);
}

} // namespace sluice::onednn
