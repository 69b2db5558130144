// Groups of operations in one launch, as schedule.hpp finds them.
#include "attention.hpp"
#include "experts.hpp"
#include "operands.hpp"

#include "kernels/mla_input.hpp"
#include "kernels/rows.hpp"

namespace sluice::cuda {

namespace {

head_source head_source_of(const bound& owner, uint32_t number) {
    const tensor_view view = owner.view(number);
    return {view.data, view.type, view.shape[1]};
}

head_norm head_norm_of(const bound& owner, const plugin::operation* norm) {
    if (norm == nullptr) return {};
    const auto& attributes = norm->as<sluice_rms_norm_attributes>();
    const tensor_view weight = owner.view(norm->inputs[1]);
    return {weight.data, weight.type, attributes.epsilon, attributes.weight_offset};
}

std::unique_ptr<step> make_turned_attention(bound& owner, const turned_attention& found) {
    const auto& attributes = found.q_rope->as<sluice_rope_attributes>();
    const auto table =
        owner.context().tables->share(attributes, found.q_rope->table, owner.context_max());
    const uint32_t state_value = found.write->inputs[0];
    const uint32_t state_number = value_of(owner, state_value).state;
    const sluice_state& state = owner.state(state_value);
    const tensor_view q_out = owner.view(found.q_rope->outputs[0]);
    qk_norm_rope_write_call call;
    call.q = head_source_of(owner, found.q);
    call.k = head_source_of(owner, found.k);
    call.v = head_source_of(owner, found.v);
    call.q_norm = head_norm_of(owner, found.q_norm);
    call.k_norm = head_norm_of(owner, found.k_norm);
    call.rope = table->view(attributes.interleaved != 0, attributes.inverse != 0);
    call.position = data_of<const int32_t>(owner, found.q_rope->inputs[1]);
    call.slot = data_of<const int32_t>(owner, found.write->inputs[1]);
    call.slots = INT64_MAX;
    call.rows = static_cast<int32_t>(q_out.shape[0]);
    call.query_heads = static_cast<int32_t>(q_out.shape[1]);
    call.width = static_cast<int32_t>(q_out.shape[2]);
    call.kv_heads = static_cast<int32_t>(state.part_width[0]) / call.width;
    call.value_width = static_cast<int32_t>(state.part_width[1]) / call.kv_heads;
    call.q_out = q_out.data;
    call.q_out_type = q_out.type;
    call.key_cache = owner.cache().part(state_number, 0);
    call.key_type = state.part_type[0];
    call.value_cache = owner.cache().part(state_number, 1);
    call.value_type = state.part_type[1];
    // Of few rows what comes before are products of this backend's own.
    call.programmatic = call.rows <= few_rows && may_start_early(owner);
    return make_attention(owner, *found.attention, {call, table});
}

// Steps one after the other.
class sequential_step final : public step {
  public:
    void add(std::unique_ptr<step> part) { parts_.push_back(std::move(part)); }
    uint64_t scratch_bytes() const override {
        uint64_t most = 0;
        for (const auto& part : parts_) most = std::max(most, part->scratch_bytes());
        return most;
    }
    void launch(cudaStream_t stream) override {
        for (const auto& part : parts_) part->launch(stream);
    }

  private:
    std::vector<std::unique_ptr<step>> parts_;
};

std::unique_ptr<step> make_mla_input(bound& owner, const std::vector<uint32_t>& group,
                                     const mla_input& found) {
    const auto& attributes = found.q_rope->as<sluice_rope_attributes>();
    const auto table =
        owner.context().tables->share(attributes, found.q_rope->table, owner.context_max());
    const uint32_t state_value = found.write->inputs[0];
    const uint32_t state_number = value_of(owner, state_value).state;
    const sluice_state& state = owner.state(state_value);
    const tensor_view q = owner.view(found.q);
    const tensor_view kv = owner.view(found.kv);
    const tensor_view q_nope = owner.view(found.q_nope->outputs[0]);
    const tensor_view q_pe = owner.view(found.q_rope->outputs[0]);
    mla_input_call call;
    call.q = q.data;
    call.q_type = q.type;
    call.kv = kv.data;
    call.kv_type = kv.type;
    call.norm = head_norm_of(owner, found.latent_norm);
    call.normed_type = value_of(owner, found.latent_norm->outputs[0]).type;
    call.turned_type = value_of(owner, found.k_rope->outputs[0]).type;
    call.turns = table->view(attributes.interleaved != 0, attributes.inverse != 0);
    call.position = data_of<const int32_t>(owner, found.q_rope->inputs[1]);
    call.slot = data_of<const int32_t>(owner, found.write->inputs[1]);
    call.slots = INT64_MAX;
    call.rows = static_cast<int32_t>(q_nope.shape[0]);
    call.heads = static_cast<int32_t>(q_nope.shape[1]);
    call.nope = static_cast<int32_t>(q_nope.shape[2]);
    call.rope = static_cast<int32_t>(q_pe.shape[2]);
    call.latent = static_cast<int32_t>(state.part_width[0]);
    call.q_nope = q_nope.data;
    call.q_pe = q_pe.data;
    call.q_pe_type = q_pe.type;
    call.latents = owner.cache().part(state_number, 0);
    call.latent_type = state.part_type[0];
    call.rope_keys = owner.cache().part(state_number, 1);
    call.rope_key_type = state.part_type[1];
    if (!fits_mla_input(call)) {
        auto parts = std::make_unique<sequential_step>();
        for (const uint32_t member : group)
            parts->add(make_step(owner, owner.source().operations[member]));
        return parts;
    }
    // Of few rows what comes before are products of this backend's own.
    call.programmatic = call.rows <= few_rows && may_start_early(owner);
    return launching([call, table](cudaStream_t stream) { launch_mla_input(call, stream); });
}

std::unique_ptr<step> make_head_input(const bound& owner, const head_input& found) {
    rms_norm_call call =
        norm_call_of(owner, *found.norm, found.stream->inputs[0], found.addend->inputs[0]);
    call.source_row = data_of<const int32_t>(owner, found.stream->inputs[1]);
    call.source_rows = owner.view(found.stream->inputs[0]).shape[0];
    return launching([call](cudaStream_t stream) {
        launch_rms_norm(call, stream);
        check(cudaGetLastError(), "launching the input of the head");
    });
}

few_call normed_call_of(const bound& owner, const normed_product& found) {
    few_call few = few_call_of(owner, linear_call(owner, *found.linears.front()));
    few.norm = few_norm_of(owner, *found.norm);
    return few;
}

// A norm inside of the products that read it where the rows are few, and the routing where that is
// the router's; what does not fit there runs after it, one after the other.
class normed_product_step final : public step {
  public:
    normed_product_step(bound& owner, const normed_product& found)
        : owner_(owner), few_(normed_call_of(owner, found)) {
        few_.programmatic = may_start_early(owner);
        few_.clusters = owner.card().is_hopper();
        if (found.route != nullptr) {
            route_ = route_call_of(owner, *found.route);
            ticket_ = device_memory(owner.card(), sizeof(int32_t), "the ticket of a router");
            check(cudaMemset(ticket_.as(), 0, sizeof(int32_t)), "making a step");
        }
        fits_ = runs_in_one_launch(owner, found);
        if (!fits_) rest_.add(make_step(owner, *found.norm));
        for (const auto* linear : found.linears)
            if (!fits_ || (linear != found.linears.front() && !takes_along(*linear)))
                rest_.add(make_step(owner, *linear));
        if (!fits_ && found.route != nullptr) rest_.add(make_step(owner, *found.route));
        if (fits_ && !route_) few_.warps = choose_few_warps(owner, few_);
    }

    uint64_t scratch_bytes() const override { return rest_.scratch_bytes(); }

    void launch(cudaStream_t stream) override {
        if (fits_) {
            if (route_)
                launch_router_few(few_, *route_, ticket_.as<int32_t>(), stream);
            else
                launch_product_few(few_, stream);
            check(cudaGetLastError(), "multiplying normed rows by a weight");
        }
        rest_.launch(stream);
    }

  private:
    // Whether the product has become part of the launch.
    bool takes_along(const plugin::operation& linear) {
        if (few_.more_count == few_parts_more) return false;
        const product_call product = linear_call(owner_, linear);
        few_call wider = few_;
        wider.more[wider.more_count++] = {product.weight, nullptr, product.y, product.y_type};
        if (!fits_product_few(wider)) return false;
        few_ = wider;
        return true;
    }

    const bound& owner_;
    few_call few_; // the first product, and in `more` those that go along
    std::optional<route_call> route_;
    device_memory ticket_;
    bool fits_ = false;
    sequential_step rest_; // what does not go along
};

} // namespace

few_norm few_norm_of(const bound& owner, const plugin::operation& norm) {
    const auto& attributes = norm.as<sluice_rms_norm_attributes>();
    const tensor_view residual = owner.view(norm.inputs[0]);
    const tensor_view addend = owner.optional_view(norm.input(2));
    const tensor_view sum = owner.optional_view(norm.output(1));
    few_norm result;
    result.residual = residual.data;
    result.residual_type = residual.type;
    result.addend = addend.data;
    result.addend_type = addend.type;
    result.weight = static_cast<const float*>(owner.view(norm.inputs[1]).data);
    result.epsilon = attributes.epsilon;
    result.weight_offset = attributes.weight_offset;
    result.sum = sum.data;
    result.sum_type = sum.type;
    result.normed = owner.view(norm.outputs[0]).data;
    return result;
}

bool runs_in_one_launch(const bound& owner, const normed_product& found) {
    const few_call few = normed_call_of(owner, found);
    if (few.product.places > few_norm_rows) return false;
    return found.route == nullptr ? fits_product_few(few)
                                  : fits_router_few(few, route_call_of(owner, *found.route));
}

std::unique_ptr<step> make_fused_step(bound& owner, const std::vector<uint32_t>& group,
                                      const fused_group& fused) {
    if (const auto* found = std::get_if<turned_attention>(&fused))
        return make_turned_attention(owner, *found);
    if (const auto* found = std::get_if<mla_input>(&fused))
        return make_mla_input(owner, group, *found);
    if (const auto* found = std::get_if<head_input>(&fused)) return make_head_input(owner, *found);
    if (const auto* found = std::get_if<normed_product>(&fused))
        return std::make_unique<normed_product_step>(owner, *found);
    if (const auto* found = std::get_if<shared_experts>(&fused))
        return make_shared_experts(owner, *found);
    plugin::fail(SLUICE_INTERNAL, "a group of ", group.size(), " operations has no step");
}

} // namespace sluice::cuda
