// Routing, experts and gated layers: route in one kernel, products from the three forms of
// kernels/product.hpp.
#include "experts.hpp"

#include "../kernels/route.hpp"

namespace sluice::cuda {

namespace {

const float* floats(const bound& owner, uint32_t number) {
    return static_cast<const float*>(owner.optional_view(number).data);
}
const int32_t* integers(const bound& owner, uint32_t number) {
    return static_cast<const int32_t*>(owner.optional_view(number).data);
}

// ---- route ----

class route_step final : public step {
  public:
    route_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), call_(route_call_of(owner, operation)) {}

    uint64_t scratch_bytes() const override {
        return route_scratch_bytes(call_.routing, call_.rows);
    }

    void launch(cudaStream_t stream) override {
        route_call call = call_;
        if (scratch_bytes() > 0) call.kept = reinterpret_cast<float*>(owner_.scratch());
        launch_route(call, stream);
        check(cudaGetLastError(), "routing");
    }

  private:
    bound& owner_;
    route_call call_;
};

} // namespace

// ---- Gated layers ----

gated_mlp_step::gated_mlp_step(bound& owner, const plugin::operation& operation) : owner_(owner) {
    const tensor_view x = owner.view(operation.inputs[0]);
    const tensor_view y = owner.view(operation.outputs[0]);
    const auto& attributes = operation.as<sluice_activation_attributes>();
    in_.x = x.data;
    in_.x_type = x.type;
    in_.places = static_cast<int32_t>(x.shape[0]);
    in_.weight = owner.weight(operation.inputs[1]).view;
    if (operation.has_input(2)) in_.up = owner.weight(operation.inputs[2]).view;
    in_.gate = {true, attributes.activation, attributes.gate_layout, attributes.alpha,
                attributes.clamp};
    in_.y_type = x.type;
    out_.x_type = x.type;
    out_.places = in_.places;
    out_.weight = owner.weight(operation.inputs[3]).view;
    out_.y = y.data;
    out_.y_type = y.type;
}

void gated_mlp_step::choose() {
    in_choice_ = choose_product(owner_, in_);
    out_choice_ = choose_product(owner_, out_);
}

void gated_mlp_step::place(scratch_pieces& pieces) {
    in_.y = pieces.take_elements(in_.y_type, in_.places * out_.weight.columns);
    out_.x = in_.y;
}

uint64_t gated_mlp_step::scratch_bytes() const {
    scratch_pieces pieces;
    gated_mlp_step(*this).place(pieces);
    return pieces.used();
}

void gated_mlp_step::launch(cudaStream_t stream) {
    scratch_pieces pieces(owner_.scratch());
    place(pieces);
    launch_products(stream);
}

void gated_mlp_step::launch_products(cudaStream_t stream) const {
    multiply(owner_, in_, in_choice_, false, stream);
    multiply(owner_, out_, out_choice_, true, stream);
}

// ---- Experts ----

moe_ffn_step::moe_ffn_step(bound& owner, const plugin::operation& operation,
                           const plugin::operation* sum, uint32_t addend)
    : owner_(owner) {
    const auto& attributes = operation.as<sluice_moe_ffn_attributes>();
    const tensor_view x = owner.view(operation.inputs[0]);
    const tensor_view index = owner.view(operation.inputs[1]);
    const tensor_view y = owner.view(sum != nullptr ? sum->outputs[0] : operation.outputs[0]);
    const tensor_view added = owner.optional_view(addend);
    const auto* weight = floats(owner, operation.inputs[2]);
    const bool weighs_input = attributes.weight_on_input != 0;
    total_ = index.shape[0] * index.shape[1];

    in_.x = x.data;
    in_.x_type = x.type;
    in_.places = static_cast<int32_t>(total_);
    in_.weight = owner.weight(operation.inputs[4]).view;
    if (operation.has_input(5)) in_.up = owner.weight(operation.inputs[5]).view;
    in_.bias = floats(owner, operation.input(7));
    in_.up_bias = floats(owner, operation.input(8));
    in_.gate = {true, attributes.activation, attributes.gate_layout, attributes.alpha,
                attributes.clamp};
    in_.y_type = x.type;
    out_.x_type = x.type;
    out_.places = in_.places;
    out_.weight = owner.weight(operation.inputs[6]).view;
    out_.bias = floats(owner, operation.input(9));
    // Half as many bytes for outputs that are only read once more.
    const bool has_identity = attributes.zero_expert == SLUICE_ZERO_EXPERT_IDENTITY;
    out_.y_type = is_half_type(x.type) && !has_identity ? x.type : SLUICE_F32;

    sort_.index = static_cast<const int32_t*>(index.data);
    if (operation.has_input(3)) {
        const tensor_view map = owner.view(operation.inputs[3]);
        sort_.map = static_cast<const int32_t*>(map.data);
        sort_.map_size = static_cast<int32_t>(map.shape[0]);
    }
    sort_.total = in_.places;
    sort_.choice_count = static_cast<int32_t>(index.shape[1]);
    sort_.expert_count = in_.weight.matrices;
    sort_.weight = weighs_input ? weight : nullptr;

    combine_.weight = weighs_input ? nullptr : weight;
    combine_.y_type = out_.y_type;
    combine_.places = total_;
    combine_.rows = index.shape[0];
    combine_.choices = sort_.choice_count;
    combine_.width = out_.weight.rows;
    combine_.addend = added.data;
    combine_.addend_type = added.type;
    combine_.o = y.data;
    combine_.o_type = y.type;
    if (has_identity && sort_.map == nullptr) {
        combine_.identity_from = sort_.expert_count;
        combine_.index = sort_.index;
        combine_.identity_weight = weight;
        combine_.x = x.data;
        combine_.x_type = x.type;
    }
    is_few_ =
        total_ <= few_choices && fits_product_few(few_in()) && fits_product_few_combine(few_out());
}

void moe_ffn_step::choose() {
    if (is_few_) {
        few_in_warps_ = choose_few_warps(owner_, few_in());
        few_out_parts_ = choose_few_combine_parts(owner_, few_out());
        return;
    }
    in_.input_scale = sort_.weight;
    in_choice_ = choose_product(owner_, in_, row_order::gathered, sort_.choice_count);
    out_choice_ = choose_product(owner_, out_, row_order::sorted, sort_.choice_count);
}

uint64_t moe_ffn_step::scratch_bytes() const {
    scratch_pieces pieces;
    moe_ffn_step(*this).place(pieces);
    return pieces.used();
}

void moe_ffn_step::launch(cudaStream_t stream) {
    scratch_pieces pieces(owner_.scratch());
    place(pieces);
    if (is_few_) {
        few_call in = few_in();
        few_combine_call out = few_out();
        in.warps = few_in_warps_;
        out.parts = few_out_parts_;
        launch_few(in, out, stream);
        return;
    }
    launch_products(stream);
    launch_sum(stream);
}

void moe_ffn_step::launch_products(cudaStream_t stream) const {
    launch_expert_sort(sort_, stream);
    multiply(owner_, in_, in_choice_, true, stream);
    multiply(owner_, out_, out_choice_, true, stream);
}

void moe_ffn_step::launch_sum(cudaStream_t stream) const {
    launch_combine_rows(combine_, stream);
    check(cudaGetLastError(), "summing the experts' outputs");
}

few_call moe_ffn_step::few_in() const {
    few_call few = few_call_of(owner_, in_);
    few.product.row = nullptr;
    few.product.offset = nullptr;
    few.product.input_scale = sort_.weight;
    few.index = sort_.index;
    few.choice_count = sort_.choice_count;
    few.map = sort_.map;
    few.map_size = sort_.map_size;
    return few;
}
few_combine_call moe_ffn_step::few_out() const {
    few_combine_call few;
    few.x = in_.y;
    few.x_type = in_.y_type;
    few.index = sort_.index;
    few.weight = combine_.weight;
    few.rows = static_cast<int32_t>(combine_.rows);
    few.choice_count = sort_.choice_count;
    few.map = sort_.map;
    few.map_size = sort_.map_size;
    few.matrix = out_.weight;
    few.bias = out_.bias;
    few.identity_from = combine_.identity_from;
    few.identity_weight = combine_.identity_weight;
    few.identity_x = combine_.x;
    few.identity_type = combine_.x_type;
    few.addend = combine_.addend;
    few.addend_type = combine_.addend_type;
    few.y = combine_.o;
    few.y_type = combine_.o_type;
    few.programmatic = overlaps_kernels(owner_);
    return few;
}

void launch_few(const few_call& in, const few_combine_call& out, cudaStream_t stream) {
    launch_product_few(in, stream);
    check(cudaGetLastError(), "multiplying by the experts' first weights");
    launch_product_few_combine(out, stream);
    check(cudaGetLastError(), "multiplying by the experts' second weights");
}

void moe_ffn_step::place(scratch_pieces& pieces) {
    if (is_few_) {
        in_.y = pieces.take_elements(in_.y_type, total_ * out_.weight.columns);
        return;
    }
    sort_.offset = pieces.take<int32_t>(sort_.expert_count + 1);
    sort_.row = pieces.take<int32_t>(total_);
    sort_.place = pieces.take<int32_t>(total_);
    sort_.sorted_weight = sort_.weight != nullptr ? pieces.take<float>(total_) : nullptr;
    in_.offset = sort_.offset;
    in_.row = sort_.row;
    in_.input_scale = sort_.sorted_weight;
    in_.y = pieces.take_elements(in_.y_type, total_ * out_.weight.columns);
    out_.offset = sort_.offset;
    out_.x = in_.y;
    out_.y = pieces.take_elements(out_.y_type, total_ * out_.weight.rows);
    combine_.place = sort_.place;
    combine_.y = out_.y;
}

namespace {

// ---- Claims ----

void require_weights(const plugin::operation& operation, const value_reader& values,
                     std::initializer_list<size_t> inputs) {
    for (const size_t i : inputs)
        if (operation.has_input(i) && values(operation.inputs[i]).kind != SLUICE_VALUE_WEIGHT)
            plugin::fail(SLUICE_UNSUPPORTED, "operand ", i, " must be a weight");
}
// Vectors are read as float32: weights have it, other values must be of it.
void require_float_vectors(const plugin::operation& operation, const value_reader& values,
                           std::initializer_list<size_t> inputs) {
    for (const size_t i : inputs) {
        if (!operation.has_input(i)) continue;
        const auto v = values(operation.inputs[i]);
        if (v.kind != SLUICE_VALUE_WEIGHT && v.type != SLUICE_F32)
            plugin::fail(SLUICE_UNSUPPORTED, "operand ", i, " must be a weight or float32");
    }
}

void require_gating(uint32_t activation, uint32_t gate_layout, bool has_up) {
    if (activation > SLUICE_ACTIVATION_SWIGLU_OAI)
        plugin::fail(SLUICE_UNSUPPORTED, "activation ", activation, " is not known here");
    if (gate_layout > SLUICE_GATE_INTERLEAVED)
        plugin::fail(SLUICE_UNSUPPORTED, "gate layout ", gate_layout, " is not known here");
    if (has_up != (gate_layout == SLUICE_GATE_SPLIT))
        plugin::fail(SLUICE_INVALID, "an up weight goes with gate layout SPLIT, and with it alone");
}

std::string claim_route(const plugin::operation& operation, const value_reader& values) {
    const auto& spec = operation.as<sluice_routing_specification>();
    if (spec.score > SLUICE_SCORE_IDENTITY || spec.score_stage > SLUICE_SCORE_AFTER_CHOICE
        || spec.group_score > SLUICE_GROUP_SCORE_TOPK_SUM || spec.mask_value > SLUICE_MASK_ZERO
        || spec.weight_source > SLUICE_WEIGHT_FROM_CHOICE
        || spec.renormalize > SLUICE_RENORMALIZE_CLAMP
        || spec.scale_condition > SLUICE_SCALE_NOT_RENORMALIZED
        || spec.capacity_policy > SLUICE_CAPACITY_REROUTE)
        plugin::fail(SLUICE_UNSUPPORTED, "the routing specification uses a choice that this "
                                         "backend does not know");
    if (spec.expert_count == 0 || spec.expert_count > 4096 || spec.choice_count == 0
        || spec.choice_count > 64 || spec.choice_count > spec.expert_count
        || (spec.group_count > 1
            && (spec.expert_count % spec.group_count != 0
                || spec.group_choice_count > spec.group_count)))
        plugin::fail(SLUICE_INVALID, "a routing specification of ", spec.choice_count, " of ",
                     spec.expert_count, " experts in ", spec.group_count, " groups");
    if (values(operation.inputs[0]).type != SLUICE_F32)
        plugin::fail(SLUICE_UNSUPPORTED, "logits must be float32");
    require_float_vectors(operation, values, {1, 2});
    if (operation.has_input(5)) {
        const auto table = values(operation.inputs[5]);
        if (table.kind == SLUICE_VALUE_WEIGHT || table.type != SLUICE_I32)
            plugin::fail(SLUICE_UNSUPPORTED, "the hash table must be an input of 32-bit numbers");
        if (!operation.has_input(4))
            plugin::fail(SLUICE_INVALID, "a hash table needs the token ids");
    }
    return spec.capacity_factor > 0 ? "route, then capacity in one block" : "route, a warp a row";
}

void require_types(const plugin::operation& operation, const value_reader& values) {
    if (!is_float_type(values(operation.inputs[0]).type)
        || !is_float_type(values(operation.outputs[0]).type))
        plugin::fail(SLUICE_UNSUPPORTED, "rows must be float32, float16 or bfloat16");
}

std::string claim_gated_mlp(const plugin::operation& operation, const value_reader& values) {
    const auto& attributes = operation.as<sluice_activation_attributes>();
    require_types(operation, values);
    require_weights(operation, values, {1, 2, 3});
    require_gating(attributes.activation, attributes.gate_layout, operation.has_input(2));
    return "gated_mlp, two products";
}

std::string claim_moe_ffn(const plugin::operation& operation, const value_reader& values) {
    const auto& attributes = operation.as<sluice_moe_ffn_attributes>();
    require_types(operation, values);
    require_weights(operation, values, {4, 5, 6});
    require_float_vectors(operation, values, {7, 8, 9});
    require_gating(attributes.activation, attributes.gate_layout, operation.has_input(5));
    if (attributes.zero_expert > SLUICE_ZERO_EXPERT_ZERO)
        plugin::fail(SLUICE_UNSUPPORTED, "zero-computation experts of kind ",
                     attributes.zero_expert, " are not known here");
    return "moe_ffn, rows sorted by expert";
}

} // namespace

route_call route_call_of(const bound& owner, const plugin::operation& operation) {
    const tensor_view logits = owner.view(operation.inputs[0]);
    route_call call;
    call.routing = operation.as<sluice_routing_specification>();
    call.logits = static_cast<const float*>(logits.data);
    call.choice_bias = floats(owner, operation.input(1));
    call.per_expert_scale = floats(owner, operation.input(2));
    call.position = integers(owner, operation.input(3));
    if (operation.has_input(5)) {
        call.token_ids = integers(owner, operation.input(4));
        call.table = integers(owner, operation.input(5));
        call.table_rows = owner.view(operation.inputs[5]).shape[0];
    }
    call.rows = static_cast<int32_t>(logits.shape[0]);
    call.index = static_cast<int32_t*>(owner.view(operation.outputs[0]).data);
    call.weight = static_cast<float*>(owner.view(operation.outputs[1]).data);
    call.count = static_cast<int32_t*>(owner.optional_view(operation.output(2)).data);
    call.dropped = static_cast<int32_t*>(owner.optional_view(operation.output(3)).data);
    return call;
}

std::string claim_experts(const plugin::operation& operation, const value_reader& values) {
    switch (operation.kind) {
    case SLUICE_OP_ROUTE:
        return claim_route(operation, values);
    case SLUICE_OP_GATED_MLP:
        return claim_gated_mlp(operation, values);
    case SLUICE_OP_MOE_FFN:
        return claim_moe_ffn(operation, values);
    default:
        return {};
    }
}

template <typename Step>
static std::unique_ptr<step> chosen(std::unique_ptr<Step> made) {
    made->choose();
    return made;
}

std::unique_ptr<step> make_experts(bound& owner, const plugin::operation& operation) {
    switch (operation.kind) {
    case SLUICE_OP_ROUTE:
        return std::make_unique<route_step>(owner, operation);
    case SLUICE_OP_GATED_MLP:
        return chosen(std::make_unique<gated_mlp_step>(owner, operation));
    case SLUICE_OP_MOE_FFN:
        return chosen(std::make_unique<moe_ffn_step>(owner, operation));
    default:
        return nullptr;
    }
}

} // namespace sluice::cuda
