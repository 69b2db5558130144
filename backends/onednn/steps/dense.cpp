// linear and gated_mlp.
#include "activate.hpp"
#include "product.hpp"
#include "vector_operand.hpp"

namespace sluice::onednn {

namespace {

// y [M, N] = x [M, K] W^T + b
class linear_step final : public step {
  public:
    linear_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation),
          weight_(owner.compiled().weight(operation.inputs[1])),
          product_(owner.kernels(), owner.at(operation.inputs[0]).type, weight_.layout,
                   owner.at(operation.inputs[0]).row_count()),
          bias_(owner, operation, 2) {
        is_direct_ = owner.at(operation.outputs[0]).type == SLUICE_F32;
    }

    scratch_size scratch() const override {
        const int64_t rows = owner_.at(operation_.inputs[0]).row_count();
        return {aligned(product_.packed_bytes()),
                product_.kernel_scratch_bytes() + product_.lone_packed_bytes()
                    + rows * blocks_per_run * kernels::block_width * 4};
    }

    void begin() override { blocks_.reset(); }
    void run(const plugin::worker& self) override {
        bias_.read(self);
        const auto& x = owner_.at(operation_.inputs[0]);
        const auto& y = owner_.at(operation_.outputs[0]);
        const int64_t m_count = x.row_count();
        std::byte* kernel_scratch = owner_.own_scratch(self);
        const packing_place rows(self, product_, m_count, owner_.shared_scratch(),
                                 kernel_scratch + product_.kernel_scratch_bytes());
        rows.pack({x.data, float_type_of(x.type), x.width(), nullptr}, kernel_scratch);
        if (m_count == 0) return;
        share_blocks(self, m_count, product_.block_count(), blocks_,
                     [&](const work_run& run) { run_blocks(self, rows, run, y, m_count); });
    }

  private:
    void run_blocks(const plugin::worker& self, const packing_place& x, const work_run& run,
                    const plugin::tensor& y, int64_t m_count) const {
        const auto [first, last, next] = run;
        std::byte* kernel_scratch = owner_.own_scratch(self);
        const int64_t n_count = product_.weights().n;
        const int64_t n_first = first * kernels::block_width;
        const int64_t columns = product_.columns(first, last);
        float* room = reinterpret_cast<float*>(kernel_scratch + product_.kernel_scratch_bytes()
                                               + product_.lone_packed_bytes());
        float* target = is_direct_ ? y.as<float>() + n_first : room;
        const int64_t stride = is_direct_ ? n_count : blocks_per_run * kernels::block_width;
        product_.multiply(weight_.matrix(0), x.layout(), x.packed(), first, last, target, stride,
                          kernel_scratch, block_or_null(weight_.matrix(0), next));
        const auto& rows = owner_.kernels().rows;
        for (int64_t m = 0; m < m_count; ++m) {
            float* row = target + m * stride;
            if (bias_.values() != nullptr) rows.add(row, bias_.values() + n_first, columns, row);
            if (!is_direct_) rows.narrow(row, columns, y.as<uint16_t>() + m * n_count + n_first);
        }
    }

    bound& owner_;
    const plugin::operation& operation_;
    const packed_weight& weight_;
    product product_;
    vector_operand bias_;
    work_counter blocks_;
    bool is_direct_ = true;
};

// y [T, D] = (activation(x W_gate^T) * x W_up^T) W_down^T
class gated_mlp_step final : public step {
  public:
    gated_mlp_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation),
          attributes_(operation.as<sluice_activation_attributes>()),
          gate_(owner.compiled().weight(operation.inputs[1])),
          up_(owner.compiled().weight(operation.inputs[2])),
          down_(owner.compiled().weight(operation.inputs[3])) {
        const auto& x = owner.at(operation.inputs[0]);
        const int64_t rows = x.row_count();
        in_ = product(owner.kernels(), x.type, gate_.layout, up_.layout, rows);
        out_ = product(owner.kernels(), x.type, down_.layout, rows);
        inner_type_ = x.type;
        inner_bytes_ = aligned(rows * gate_.layout.n * (inner_type_ == SLUICE_BF16 ? 2 : 4));
        x_bytes_ = aligned(in_.packed_bytes());
        kernel_bytes_ = std::max(in_.kernel_scratch_bytes(), out_.kernel_scratch_bytes());
        lone_bytes_ = std::max(in_.lone_packed_bytes(), out_.lone_packed_bytes());
    }

    scratch_size scratch() const override {
        const int64_t rows = owner_.at(operation_.inputs[0]).row_count();
        const int64_t run = rows * blocks_per_run * kernels::block_width * 4;
        return {x_bytes_ + inner_bytes_ + out_.packed_bytes(),
                kernel_bytes_ + lone_bytes_ + 2 * run};
    }

    void begin() override {
        in_blocks_.reset();
        out_blocks_.reset();
    }
    void run(const plugin::worker& self) override {
        const auto& x = owner_.at(operation_.inputs[0]);
        const int64_t m_count = x.row_count();
        std::byte* kernel_scratch = owner_.own_scratch(self);
        const packing_place rows(self, in_, m_count, owner_.shared_scratch(),
                                 kernel_scratch + kernel_bytes_);
        rows.pack({x.data, float_type_of(x.type), x.width(), nullptr}, kernel_scratch);
        if (m_count != 0) {
            share_blocks(self, m_count, in_.block_count(), in_blocks_,
                         [&](const work_run& run) { run_inner(self, rows, run, m_count); });
        }
        self.meet.wait();
        run_outer(self, m_count);
    }

  private:
    std::byte* inner() const { return owner_.shared_scratch() + x_bytes_; }

    float* run_room(const plugin::worker& self) const {
        return reinterpret_cast<float*>(owner_.own_scratch(self) + kernel_bytes_ + lone_bytes_);
    }

    void run_inner(const plugin::worker& self, const packing_place& x, const work_run& run,
                   int64_t m_count) const {
        const auto [first, last, next] = run;
        constexpr int64_t stride = blocks_per_run * kernels::block_width;
        float* gate = run_room(self);
        float* up = gate + m_count * stride;
        std::byte* kernel_scratch = owner_.own_scratch(self);
        in_.multiply(gate_.matrix(0), x.layout(), x.packed(), first, last, gate, stride,
                     kernel_scratch, up_.matrix(0).block(first));
        in_.multiply(up_.matrix(0), x.layout(), x.packed(), first, last, up, stride, kernel_scratch,
                     block_or_null(gate_.matrix(0), next));
        const auto& rows = owner_.kernels().rows;
        const int64_t columns = in_.columns(first, last);
        plugin::tensor h;
        h.data = inner();
        h.type = inner_type_;
        for (int64_t m = 0; m < m_count; ++m) {
            float* row = gate + m * stride;
            gated_activate(rows, attributes_.activation, attributes_.alpha, attributes_.clamp, row,
                           up + m * stride, columns, row);
            write_floats(rows, row, columns, h, m * gate_.layout.n + first * kernels::block_width);
        }
    }

    void run_outer(const plugin::worker& self, int64_t m_count) {
        const auto& y = owner_.at(operation_.outputs[0]);
        std::byte* kernel_scratch = owner_.own_scratch(self);
        const packing_place h(self, out_, m_count, inner() + inner_bytes_,
                              kernel_scratch + kernel_bytes_);
        h.pack({inner(), float_type_of(inner_type_), gate_.layout.n, nullptr}, kernel_scratch);
        if (m_count == 0) return;
        constexpr int64_t stride = blocks_per_run * kernels::block_width;
        const auto& rows = owner_.kernels().rows;
        const auto run = [&](const work_run& blocks) {
            const auto [first, last, next] = blocks;
            float* room = run_room(self);
            out_.multiply(down_.matrix(0), h.layout(), h.packed(), first, last, room, stride,
                          kernel_scratch, block_or_null(down_.matrix(0), next));
            for (int64_t m = 0; m < m_count; ++m)
                write_floats(rows, room + m * stride, out_.columns(first, last), y,
                             m * down_.layout.n + first * kernels::block_width);
        };
        share_blocks(self, m_count, out_.block_count(), out_blocks_, run);
    }

    bound& owner_;
    const plugin::operation& operation_;
    sluice_activation_attributes attributes_;
    const packed_weight& gate_;
    const packed_weight& up_;
    const packed_weight& down_;
    product in_;
    product out_;
    work_counter in_blocks_;
    work_counter out_blocks_;
    sluice_element_type inner_type_ = SLUICE_F32;
    int64_t inner_bytes_ = 0;
    int64_t x_bytes_ = 0;
    int64_t kernel_bytes_ = 0; // of a worker's scratch, in this order: for the kernels, for lone
    int64_t lone_bytes_ = 0;   // rows, for runs of columns
};

} // namespace

bool claims_dense(const plugin::operation& operation, const value_reader& values,
                  claimed& verdict) {
    if (operation.kind == SLUICE_OP_LINEAR) {
        verdict.kernel = "linear, blocks of 32 columns";
        verdict.multiplies = values(operation.inputs[0]).type == SLUICE_BF16;
        return is_fast_type(values(operation.inputs[0]).type)
               && is_fast_type(values(operation.outputs[0]).type);
    }
    if (operation.kind != SLUICE_OP_GATED_MLP) return false;
    verdict.kernel = "gated_mlp, gate and up in one pass";
    verdict.multiplies = values(operation.inputs[0]).type == SLUICE_BF16;
    const auto& a = operation.as<sluice_activation_attributes>();
    if (a.gate_layout != SLUICE_GATE_SPLIT)
        plugin::fail(SLUICE_UNSUPPORTED, "gated_mlp takes gate and up as two weights");
    if (!knows_gated_activation(a.activation))
        plugin::fail(SLUICE_UNSUPPORTED, "activation ", a.activation, " is not known here");
    return is_fast_type(values(operation.inputs[0]).type)
           && is_fast_type(values(operation.outputs[0]).type);
}

std::unique_ptr<step> make_dense(bound& owner, const plugin::operation& operation) {
    if (operation.kind == SLUICE_OP_LINEAR) return std::make_unique<linear_step>(owner, operation);
    return std::make_unique<gated_mlp_step>(owner, operation);
}

} // namespace sluice::onednn
