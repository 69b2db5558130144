// Embeddings, norms, rotary positions, activations, the paged cache, and rows combined by experts'
// weights.
#include "../rope_tables.hpp"
#include "operands.hpp"

#include "kernels/kv_cache.hpp"
#include "kernels/rope.hpp"
#include "kernels/rows.hpp"

namespace sluice::cuda {

namespace {

using step_owner = std::unique_ptr<step>;

step_owner make_embed(const bound& owner, const plugin::operation& operation) {
    const float given = operation.as<sluice_embed_attributes>().scale;
    const tensor_view x = owner.view(operation.outputs[0]);
    embed_call call;
    call.ids = data_of<const int32_t>(owner, operation.inputs[0]);
    call.rows = count_of(owner, operation.inputs[0]);
    call.weight = matrices_of(owner.weight(operation.inputs[1]));
    call.scale = given == 0.0f ? 1.0f : given;
    call.x = x.data;
    call.x_type = x.type;
    return launching([call](cudaStream_t stream) { launch_embed(call, stream); });
}

step_owner make_rms_norm(const bound& owner, const plugin::operation& operation) {
    const auto call = norm_call_of(owner, operation, operation.inputs[0], operation.input(2));
    return launching([call](cudaStream_t stream) { launch_rms_norm(call, stream); });
}

step_owner make_layer_norm(const bound& owner, const plugin::operation& operation) {
    const tensor_view x = owner.view(operation.inputs[0]);
    const tensor_view weight = owner.view(operation.inputs[1]);
    const tensor_view bias = owner.optional_view(operation.input(2));
    const tensor_view y = owner.view(operation.outputs[0]);
    layer_norm_call call;
    call.x = x.data;
    call.x_type = x.type;
    call.weight = weight.data;
    call.weight_type = weight.type;
    call.bias = bias.data;
    call.bias_type = bias.type;
    call.y = y.data;
    call.y_type = y.type;
    call.width = size_of(owner, operation.inputs[0], -1);
    call.rows = count_of(owner, operation.inputs[0]) / call.width;
    call.epsilon = operation.as<sluice_layer_norm_attributes>().epsilon;
    return launching([call](cudaStream_t stream) { launch_layer_norm(call, stream); });
}

step_owner make_rope(const bound& owner, const plugin::operation& operation) {
    const auto& attributes = operation.as<sluice_rope_attributes>();
    const auto table =
        owner.context().tables->share(attributes, operation.table, owner.context_max());
    const tensor_view x = owner.view(operation.inputs[0]);
    const tensor_view y = owner.view(operation.outputs[0]);
    rope_call call;
    call.x = x.data;
    call.x_type = x.type;
    call.position = data_of<const int32_t>(owner, operation.inputs[1]);
    call.rope = table->view(attributes.interleaved != 0, attributes.inverse != 0);
    call.y = y.data;
    call.y_type = y.type;
    call.rows = size_of(owner, operation.inputs[0], 0);
    call.heads = size_of(owner, operation.inputs[0], 1);
    call.width = size_of(owner, operation.inputs[0], 2);
    return launching([call, table](cudaStream_t stream) { launch_rope(call, stream); });
}

step_owner make_activation(const bound& owner, const plugin::operation& operation) {
    const tensor_view x = owner.view(operation.inputs[0]);
    const tensor_view y = owner.view(operation.outputs[0]);
    activation_call call;
    call.x = x.data;
    call.x_type = x.type;
    call.y = y.data;
    call.y_type = y.type;
    call.count = count_of(owner, operation.outputs[0]);
    call.activation = operation.as<sluice_activation_attributes>().activation;
    return launching([call](cudaStream_t stream) { launch_activation(call, stream); });
}

step_owner make_gated_activation(const bound& owner, const plugin::operation& operation) {
    const auto& attributes = operation.as<sluice_activation_attributes>();
    const tensor_view gate = owner.view(operation.inputs[0]);
    const tensor_view up = owner.optional_view(operation.input(1));
    const tensor_view y = owner.view(operation.outputs[0]);
    gated_activation_call call;
    call.gate = gate.data;
    call.gate_type = gate.type;
    call.up = up.data;
    call.up_type = up.type;
    call.y = y.data;
    call.y_type = y.type;
    call.width = size_of(owner, operation.outputs[0], -1);
    call.rows = count_of(owner, operation.outputs[0]) / call.width;
    call.activation = attributes.activation;
    call.gate_layout = attributes.gate_layout;
    call.alpha = attributes.alpha;
    call.clamp = attributes.clamp;
    return launching([call](cudaStream_t stream) { launch_gated_activation(call, stream); });
}

// Places that the cache has for tokens. Block tables and slots name no others.
int64_t slot_count(const bound&, const sluice_state&) { return INT64_MAX; }

step_owner make_kv_write(const bound& owner, const plugin::operation& operation) {
    const uint32_t number = value_of(owner, operation.inputs[0]).state;
    const sluice_state& state = owner.state(operation.inputs[0]);
    kv_write_call call;
    call.slot = data_of<const int32_t>(owner, operation.inputs[1]);
    call.rows = count_of(owner, operation.inputs[1]);
    call.slots = slot_count(owner, state);
    call.part_count = static_cast<int32_t>(state.part_count);
    for (uint32_t i = 0; i < state.part_count; ++i) {
        const tensor_view x = owner.view(operation.inputs[2 + i]);
        call.part[i] = {x.data, x.type, owner.cache().part(number, i), state.part_type[i],
                        state.part_width[i]};
    }
    return launching([call](cudaStream_t stream) { launch_kv_write(call, stream); });
}

step_owner make_kv_gather(const bound& owner, const plugin::operation& operation) {
    const uint32_t number = value_of(owner, operation.inputs[0]).state;
    const sluice_state& state = owner.state(operation.inputs[0]);
    const uint32_t part = operation.as<sluice_kv_gather_attributes>().part;
    const tensor_view x = owner.view(operation.outputs[0]);
    kv_gather_call call;
    call.block_table = data_of<const int32_t>(owner, operation.inputs[1]);
    call.sequences = size_of(owner, operation.inputs[1], 0);
    call.columns_bound = size_of(owner, operation.inputs[1], 1);
    call.columns = present_axis(owner, operation.inputs[1], 1);
    call.present = owner.present_extents();
    call.tokens_per_block = state.tokens_per_block;
    call.cached = owner.cache().part(number, part);
    call.cached_type = state.part_type[part];
    call.slots = slot_count(owner, state);
    call.width = state.part_width[part];
    call.x = x.data;
    call.x_type = x.type;
    return launching([call](cudaStream_t stream) { launch_kv_gather(call, stream); });
}

step_owner make_combine_rows(const bound& owner, const plugin::operation& operation) {
    const tensor_view y = owner.view(operation.inputs[0]);
    const tensor_view o = owner.view(operation.outputs[0]);
    combine_rows_call call;
    call.y = y.data;
    call.y_type = y.type;
    call.places = size_of(owner, operation.inputs[0], 0);
    call.place = data_of<const int32_t>(owner, operation.inputs[1]);
    call.weight = data_of<const float>(owner, operation.input(2));
    call.o = o.data;
    call.o_type = o.type;
    call.rows = size_of(owner, operation.inputs[1], 0);
    call.choices = size_of(owner, operation.inputs[1], 1);
    call.width = size_of(owner, operation.inputs[0], 1);
    return launching([call](cudaStream_t stream) { launch_combine_rows(call, stream); });
}

void require_embedding(const value_reader& values, uint32_t number) {
    const plugin::value weight = values(number);
    constexpr uint32_t roles = SLUICE_ROLE_EMBEDDING | SLUICE_ROLE_TENSOR;
    if (weight.kind != SLUICE_VALUE_WEIGHT || (weight.weight_role & roles) == 0)
        plugin::fail(SLUICE_UNSUPPORTED, "embed reads rows of '", weight.name,
                     "', which must be a weight with the role EMBEDDING");
}

} // namespace

std::string claim_rows(const plugin::operation& operation, const value_reader& values) {
    const auto in = [&](size_t i) { return operation.input(i); };
    const auto out = [&](size_t i) { return operation.output(i); };
    switch (operation.kind) {
    case SLUICE_OP_EMBED:
        require_embedding(values, in(1));
        require_floats(values, {out(0)});
        break;
    case SLUICE_OP_RMS_NORM:
    case SLUICE_OP_LAYER_NORM:
        values(in(0)).fixed(-1);
        require_floats(values, {in(0), in(1), in(2), out(0), out(1)});
        break;
    case SLUICE_OP_ROPE:
        values(in(0)).fixed(2);
        require_floats(values, {in(0), out(0)});
        break;
    case SLUICE_OP_GATED_ACTIVATION:
        values(out(0)).fixed(-1);
        require_floats(values, {in(0), in(1), out(0)});
        break;
    case SLUICE_OP_ACTIVATION:
        require_floats(values, {in(0), out(0)});
        break;
    case SLUICE_OP_KV_WRITE:
        for (size_t i = 2; i < operation.inputs.size(); ++i) require_floats(values, {in(i)});
        break;
    case SLUICE_OP_KV_GATHER:
        require_floats(values, {out(0)});
        break;
    case SLUICE_OP_COMBINE_ROWS:
        require_floats(values, {in(0), out(0)});
        break;
    default:
        return {};
    }
    return std::string(plugin::operation_name(operation.kind)) + ", rows";
}

std::unique_ptr<step> make_rows(bound& owner, const plugin::operation& operation) {
    switch (operation.kind) {
    case SLUICE_OP_EMBED:
        return make_embed(owner, operation);
    case SLUICE_OP_RMS_NORM:
        return make_rms_norm(owner, operation);
    case SLUICE_OP_LAYER_NORM:
        return make_layer_norm(owner, operation);
    case SLUICE_OP_ROPE:
        return make_rope(owner, operation);
    case SLUICE_OP_ACTIVATION:
        return make_activation(owner, operation);
    case SLUICE_OP_GATED_ACTIVATION:
        return make_gated_activation(owner, operation);
    case SLUICE_OP_KV_WRITE:
        return make_kv_write(owner, operation);
    case SLUICE_OP_KV_GATHER:
        return make_kv_gather(owner, operation);
    case SLUICE_OP_COMBINE_ROWS:
        return make_combine_rows(owner, operation);
    default:
        plugin::fail(SLUICE_INTERNAL, plugin::operation_name(operation.kind),
                     " is not an operation on rows");
    }
}

} // namespace sluice::cuda
