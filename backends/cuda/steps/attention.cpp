// attention and mla_attention over the paged cache.
#include "attention.hpp"
#include "multiply.hpp"

#include "kernels/attention.hpp"
#include "kernels/mla_attention.hpp"

#include <algorithm>
#include <bit>

namespace sluice::cuda {

namespace {

int32_t small(int64_t size) { return static_cast<int32_t>(size); }

// `first`: the operand `position`; the others follow.
attended_rows rows_of(const bound& owner, const plugin::operation& operation, size_t first,
                      const sluice_state& state) {
    const tensor_view position = owner.view(operation.inputs[first]);
    const tensor_view table = owner.view(operation.inputs[first + 3]);
    attended_rows rows;
    rows.position = static_cast<const int32_t*>(position.data);
    rows.sequence_of_row =
        static_cast<const int32_t*>(owner.view(operation.inputs[first + 1]).data);
    rows.kv_length = static_cast<const int32_t*>(owner.view(operation.inputs[first + 2]).data);
    rows.block_table = static_cast<const int32_t*>(table.data);
    rows.query_start = owner.query_start();
    rows.rows = small(position.shape[0]);
    rows.sequences = small(table.shape[0]);
    rows.block_columns = small(table.shape[1]);
    rows.tokens_per_block = small(state.tokens_per_block);
    if (std::has_single_bit(state.tokens_per_block))
        rows.block_shift = std::countr_zero(state.tokens_per_block);
    return rows;
}

// Whether the operands from `first` on are the batch's own inputs, so that the rows of a sequence
// follow each other as query_start says.
bool is_in_batch_order(const bound& owner, const plugin::operation& operation, size_t first) {
    const uint32_t expected[] = {SLUICE_INPUT_POSITION, SLUICE_INPUT_SEQUENCE_OF_ROW,
                                 SLUICE_INPUT_KV_LENGTH, SLUICE_INPUT_BLOCK_TABLE};
    for (size_t i = 0; i < std::size(expected); ++i) {
        const auto& v = owner.source().values[operation.inputs[first + i]];
        if (v.kind != SLUICE_VALUE_INPUT || v.input != expected[i]) return false;
    }
    return true;
}

// Counters of splits that have ended; kernels set them back to zero.
device_memory zeroed_counters(const device& card, uint64_t count) {
    if (count == 0) return {};
    device_memory counters(card, count * sizeof(int32_t), "the counters of attention");
    check(cudaMemsetAsync(counters.as<void>(), 0, count * sizeof(int32_t), card.setup_stream()),
          "clearing the counters of attention");
    check(cudaStreamSynchronize(card.setup_stream()), "clearing the counters of attention");
    return counters;
}

class attention_step final : public step {
  public:
    attention_step(bound& owner, const plugin::operation& operation,
                   std::optional<attention_head_input> input = std::nullopt)
        : owner_(owner), input_(std::move(input)) {
        const auto& attributes = operation.as<sluice_attention_attributes>();
        const uint32_t state_number = owner.source().values[operation.inputs[1]].state;
        const sluice_state& state = owner.source().states[state_number];
        const tensor_view q = owner.view(operation.inputs[0]);
        const tensor_view o = owner.view(operation.outputs[0]);
        const tensor_view sinks = owner.optional_view(operation.input(6));
        call_.rows = rows_of(owner, operation, 2, state);
        // A window longer than any context is none.
        call_.rows.window = small(std::min<int64_t>(attributes.window, INT32_MAX));
        call_.q = q.data;
        call_.q_type = q.type;
        call_.keys = owner.cache().part(state_number, 0);
        call_.key_type = state.part_type[0];
        call_.values = owner.cache().part(state_number, 1);
        call_.value_type = state.part_type[1];
        call_.sinks = sinks.data;
        call_.sinks_type = sinks.type;
        call_.o = o.data;
        call_.o_type = o.type;
        call_.heads = small(q.shape[1]);
        call_.kv_heads = small(attributes.kv_heads);
        call_.key_width = small(q.shape[2]);
        call_.value_width = small(o.shape[2]);
        call_.scale = attributes.scale;
        call_.softcap = attributes.softcap;
        uses_matrix_units_ = is_in_batch_order(owner, operation, 2) && fits_attention_matrix(call_);
        if (!uses_matrix_units_) {
            if (call_.key_width + call_.value_width > plain_widths_max)
                plugin::fail(SLUICE_UNSUPPORTED, "operation '", operation.name, "': heads of ",
                             call_.key_width, " and ", call_.value_width, " elements are too wide");
            return;
        }
        takes_input_ = input_ && fits_attention_input(call_, input_->call);
        const bool follows_input = input_ && !takes_input_;
        call_.programmatic = follows_input ? overlaps_kernels(owner) : may_start_early(owner);
        plan_ = plan_attention_decode(call_, owner.context_max(),
                                      owner.card().properties().multiprocessor_count);
        uses_hopper_ = owner.card().is_hopper() && fits_attention_prefill_sm90(call_);
        if (uses_hopper_)
            prefill_plan_ = plan_attention_prefill_sm90(
                call_, owner.context_max(), owner.card().properties().multiprocessor_count);
        // Those of decoding come first.
        counters_ = zeroed_counters(owner.card(), plan_.counters + prefill_plan_.counters);
    }

    uint64_t scratch_bytes() const override {
        return std::max(plan_.partial_floats, prefill_plan_.partial_floats) * sizeof(float);
    }

    void launch(cudaStream_t stream) override {
        auto* partial = reinterpret_cast<float*>(owner_.scratch());
        auto* counters = counters_.as<int32_t>();
        if (takes_input_)
            return launch_attention_decode_input(call_, plan_, input_->call, partial, counters,
                                                 stream);
        if (input_) {
            launch_qk_norm_rope_write(input_->call, stream);
            check(cudaGetLastError(), "launching the input of attention");
        }
        if (!uses_matrix_units_) return launch_attention_plain(call_, stream);
        launch_attention_decode(call_, plan_, partial, counters, stream);
        if (plan_.takes_all_rows) return;
        if (uses_hopper_)
            launch_attention_prefill_sm90(call_, plan_.rows, prefill_plan_, partial,
                                          counters + plan_.counters,
                                          owner_.card().properties().multiprocessor_count, stream);
        else
            launch_attention_prefill(call_, plan_.rows, stream);
    }

  private:
    const bound& owner_;
    attention_call call_;
    std::optional<attention_head_input> input_;
    bool takes_input_ = false; // in the same launch, not in one before
    bool uses_matrix_units_ = false;
    bool uses_hopper_ = false; // Hopper's own, for many rows
    attention_decode_plan plan_;
    attention_prefill_plan prefill_plan_;
    device_memory counters_;
};

// The matrices as they are kept, or as float32 where only those are.
weight_view matrices_of(const device_weight& weight) {
    if (weight.view.data != nullptr) return weight.view;
    weight_view view;
    view.data = weight.values.as<float>();
    view.storage = weight_storage::float32;
    view.matrices = small(weight.matrix_count);
    view.rows = weight.row_count;
    view.columns = weight.column_count;
    return view;
}

class mla_attention_step final : public step {
  public:
    mla_attention_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), form_(operation.as<sluice_mla_attention_attributes>().form) {
        const uint32_t state_number = owner.source().values[operation.inputs[2]].state;
        const sluice_state& state = owner.source().states[state_number];
        const tensor_view q_nope = owner.view(operation.inputs[0]);
        const tensor_view q_pe = owner.view(operation.inputs[1]);
        const tensor_view o = owner.view(operation.outputs[0]);
        call_.rows = rows_of(owner, operation, 5, state);
        call_.q_nope = q_nope.data;
        call_.q_nope_type = q_nope.type;
        call_.q_pe = q_pe.data;
        call_.q_pe_type = q_pe.type;
        call_.latents = owner.cache().part(state_number, 0);
        call_.latent_type = state.part_type[0];
        call_.rope_keys = owner.cache().part(state_number, 1);
        call_.rope_key_type = state.part_type[1];
        call_.key_up = matrices_of(owner.weight(operation.inputs[3]));
        call_.value_up = matrices_of(owner.weight(operation.inputs[4]));
        call_.o = o.data;
        call_.o_type = o.type;
        call_.heads = small(q_nope.shape[1]);
        call_.nope = small(q_nope.shape[2]);
        call_.rope = small(q_pe.shape[2]);
        call_.latent = small(state.part_width[0]);
        call_.value_width = small(o.shape[2]);
        call_.scale = operation.as<sluice_mla_attention_attributes>().scale;
        uses_matrix_units_ = form_ != SLUICE_MLA_FORM_EXPANDED
                             && is_in_batch_order(owner, operation, 5)
                             && fits_mla_attention_matrix(call_);
        if (!uses_matrix_units_) {
            if (2 * call_.nope + call_.rope + 2 * call_.latent + call_.value_width
                > mla_plain_widths_max)
                plugin::fail(SLUICE_UNSUPPORTED, "operation '", operation.name, "': latents of ",
                             call_.latent, " elements are too wide");
            return;
        }
        plan_ = plan_mla_attention(call_, owner.context_max(),
                                   owner.card().properties().multiprocessor_count);
        call_.programmatic = plan_.decode.takes_all_rows && may_start_early(owner);
        if (form_ == SLUICE_MLA_FORM_ANY && owner.card().is_hopper()
            && !plan_.decode.takes_all_rows)
            expanded_ = plan_mla_expanded(call_, owner.context_max(),
                                          owner.card().properties().multiprocessor_count);
        counters_ = zeroed_counters(owner.card(), expanded_.attention.counters);
    }

    uint64_t scratch_bytes() const override {
        return uses_matrix_units_ ? expanded_offset() + expanded_.scratch_bytes : 0;
    }

    void launch(cudaStream_t stream) override {
        if (!uses_matrix_units_)
            return launch_mla_attention_plain(call_, form_ == SLUICE_MLA_FORM_EXPANDED, stream);
        std::byte* scratch = owner_.scratch();
        std::byte* expanded = scratch + expanded_offset();
        const bool expands = expanded_.places > 0;
        const int multiprocessors = owner_.card().properties().multiprocessor_count;
        auto* counters = counters_.as<int32_t>();
        mla_attention_call call = call_;
        if (expands) {
            launch_mla_gather(call_, expanded_, expanded, multiprocessors, stream);
            call.expanded = expanded_rows_of(expanded_, expanded);
        }
        launch_mla_attention_matrix(call, plan_, scratch,
                                    reinterpret_cast<float*>(scratch + partial_offset()), stream);
        if (expands)
            launch_mla_attention_expanded(call_, expanded_, expanded, counters, multiprocessors,
                                          stream);
    }

  private:
    // The latents' rows come first, then what splits leave, then what the expanded form needs.
    uint64_t partial_offset() const { return (plan_.latent_rows_bytes + 255) / 256 * 256; }
    uint64_t expanded_offset() const {
        const uint64_t bytes = plan_.decode.partial_floats * sizeof(float);
        return partial_offset() + (bytes + 255) / 256 * 256;
    }

    const bound& owner_;
    uint32_t form_;
    mla_attention_call call_;
    bool uses_matrix_units_ = false;
    mla_attention_plan plan_;
    mla_expanded_plan expanded_;
    device_memory counters_;
};

} // namespace

std::string claim_attention(const plugin::operation& operation, const value_reader& values) {
    if (operation.kind != SLUICE_OP_ATTENTION && operation.kind != SLUICE_OP_MLA_ATTENTION)
        return {};
    const bool is_mla = operation.kind == SLUICE_OP_MLA_ATTENTION;
    for (const uint32_t number :
         {operation.inputs[0], operation.inputs[is_mla ? 1 : 0], operation.outputs[0]})
        if (!is_float_type(values(number).type))
            plugin::fail(SLUICE_UNSUPPORTED, "activations must be float32, bfloat16 or float16");
    if (!is_half_type(values(operation.inputs[0]).type))
        return is_mla ? "mla_attention, plain" : "attention, plain";
    return is_mla ? "mla_attention, absorbed; on Hopper expanded for many rows"
                  : "attention, split for one row, tiled for many";
}

std::unique_ptr<step> make_attention(bound& owner, const plugin::operation& operation,
                                     attention_head_input input) {
    return std::make_unique<attention_step>(owner, operation, std::move(input));
}

std::unique_ptr<step> make_attention(bound& owner, const plugin::operation& operation) {
    if (operation.kind == SLUICE_OP_MLA_ATTENTION)
        return std::make_unique<mla_attention_step>(owner, operation);
    return std::make_unique<attention_step>(owner, operation);
}

} // namespace sluice::cuda
